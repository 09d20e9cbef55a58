"""Around the text: languages, colours, keys, a server that is away; who reads with other eyes, and on a phone."""

import contextlib

import pytest
from pages import PROMPT, go_on, server, settle, text_of, until, write

VIEWS = ("write", "look", "inside")


def show(page, view):
    page.click(f"#to-{view}")
    until(page, "document.getElementById('look').hidden || document.querySelectorAll('#next li').length > 0")
    until(page, "document.getElementById('inside').hidden || !document.getElementById('inside-cards').hidden")


def test_german_is_the_tutorials_page(opened):
    page = opened(text=None, locale="de-DE")
    assert page.title() == "GPT-2 Text-Autopilot" and page.get_attribute("html", "lang") == "de"
    assert page.inner_text("h1") == "🦄 GPT-2 Schreib-Autopilot"
    assert "Nutze den Schreib-Autopiloten" in page.inner_text(".name")
    preset = "Er dachte, automatisches Schreiben wäre eine gute Idee weil"
    assert text_of(page) == preset
    assert page.evaluate("[document.activeElement.id, document.activeElement.selectionStart]") == [
        "textarea",
        len(preset),
    ]
    assert page.inner_text("#continue") == "automatisch vervollständigen (Tab)"
    page.click("#continue")
    until(page, "!document.getElementById('suggestion').hidden")
    settle(page)
    assert text_of(page).startswith(preset) and len(text_of(page)) > len(preset)
    page.select_option("#language", "en")
    assert page.inner_text("#continue") == "Continue (Tab)" and page.get_attribute("html", "lang") == "en"
    page.reload()
    assert page.inner_text("#to-look") == "Probabilities"


def test_both_languages_say_the_same_things(page):
    english, german = page.evaluate(
        """async () => [(await import('/texts.en.js')).ENGLISH, (await import('/texts.de.js')).GERMAN].map((words) =>
             Object.entries(words).map(
                 ([name, said]) => [name, `${said}`.match(/\\{\\w+\\}/g)?.sort().join() ?? '']))"""
    )
    assert english == german


def test_nothing_on_the_page_is_without_words(opened):
    for locale in ("en-US", "de-DE"):
        page = opened(locale=locale)
        for view in VIEWS:
            show(page, view)
            assert (
                page.evaluate("""[...document.querySelectorAll('[data-say]')].filter((e) =>
                e.textContent === e.dataset.say || !e.textContent).map((e) => e.dataset.say)""")
                == []
            )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_switch(opened, scheme):
    page = opened(color_scheme=scheme)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    by_system = page.evaluate(background)
    page.select_option("#theme", scheme)
    assert page.evaluate(background) == by_system
    page.select_option("#theme", "dark" if scheme == "light" else "light")
    assert page.evaluate(background) != by_system


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(color_scheme=scheme)
    go_on(page)
    for view in (*VIEWS, "help"):
        if view == "help":
            page.click("#help")
        else:
            show(page, view)
        if view == "look":
            page.focus("#tokens [data-at='3']")
        found = axe.Axe().run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], view


def test_a_phone_needs_no_scrolling_sideways(opened):
    page = opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, locale="de-DE")
    assert page.get_attribute("#settings", "open") is None  # the text comes first
    page.locator("#continue").tap()
    until(page, "!document.getElementById('suggestion').hidden")
    settle(page)
    page.locator("#keep").tap()
    assert len(text_of(page)) > len(PROMPT)
    for view in VIEWS:
        show(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, view


def test_all_of_it_by_keyboard(opened):
    """Tab alone comes through every view and back to its beginning; nothing keeps it but the text area."""
    page = opened()
    for view in VIEWS:
        show(page, view)
        page.focus(f"#to-{view}")
        seen = []
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
            if seen[-1] == "BODY":
                break
            if seen[-1] == "textarea":
                page.keyboard.press("Escape")
        assert seen[-1] == "BODY" and len(seen) > 4, seen


def test_a_server_that_is_down_and_comes_back(opened):
    with contextlib.ExitStack() as first:
        url, _ = first.enter_context(server())
        page = opened(url, settings={"temperature": 0})
        expected = go_on(page)
        page.press("#textarea", "Escape")
    page.press("#textarea", "Tab")
    until(page, "document.getElementById('notice').textContent.startsWith('The server is not responding')")
    assert text_of(page) == PROMPT
    with server(port=int(url.rpartition(":")[2])):
        until(page, "!document.getElementById('suggestion').hidden")  # it was asked again by itself
        settle(page)
        assert text_of(page) == PROMPT + expected
        until(page, "document.getElementById('notice').textContent === ''")


def test_typing_while_the_server_is_away_loses_nothing(opened):
    with server() as (url, process):
        page = opened(url)
        process.kill()
        process.wait()
        page.press("#textarea", "Tab")
        until(page, "document.getElementById('notice').textContent !== ''")
        page.keyboard.type(" and cold")
        page.wait_for_timeout(600)
        assert text_of(page) == PROMPT + " and cold"
    with server(port=int(url.rpartition(":")[2])):
        until(page, "document.getElementById('notice').textContent === ''", 20)
        assert text_of(page) == PROMPT + " and cold"  # nobody waits for it any more
        page.reload()
        assert text_of(page) == PROMPT + " and cold"


def test_a_stream_that_breaks_off_leaves_what_has_come(opened):
    with server() as (url, process):
        page = opened(url, settings={"length": 200})
        page.press("#textarea", "Tab")
        until(page, f"document.getElementById('textarea').value.length > {len(PROMPT) + 5}")
        process.kill()
        settle(page)
        assert text_of(page).startswith(PROMPT) and len(text_of(page)) > len(PROMPT) + 5


def test_a_busy_server_is_asked_again(page):
    answers = []

    def busy(route):
        answers.append(route)
        if len(answers) > 2:
            return route.continue_()
        body = '{"error": {"message": "wait", "code": "too_many_requests"}}'
        route.fulfill(status=429, headers={"Retry-After": "1"}, content_type="application/json", body=body)

    page.route("**/v1/completions", busy)
    assert go_on(page) and len(answers) == 3


def test_what_is_refused_is_said(page):
    body = '{"error": {"message": "<i>no</i> such thing", "code": null}}'
    page.route("**/v1/completions", lambda route: route.fulfill(status=400, content_type="application/json", body=body))
    page.press("#textarea", "Tab")
    until(page, "document.getElementById('notice').textContent === '<i>no</i> such thing'")
    assert text_of(page) == PROMPT


def test_the_key_is_asked_for_and_kept_for_the_tab(opened):
    with server("--api_key", "s3cret") as (url, _):
        page = opened(url, text=None)
        page.wait_for_selector("#key-dialog[open]")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('key-wrong').textContent !== ''")
        page.fill("#key", "s3cret")
        page.keyboard.press("Enter")
        until(page, "!document.getElementById('key-dialog').open")
        write(page, PROMPT)
        assert go_on(page)
        assert "s3cret" not in page.evaluate("JSON.stringify(localStorage)")
        page.reload()
        until(page, "document.getElementById('model').options.length === 1")
        assert not page.locator("#key-dialog[open]").count()


def test_the_policy_allows_no_inline_script(page, address):
    headers = page.request.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert page.evaluate("document.querySelectorAll('script:not([src]), style, [style], [onclick]').length") == 0
    assert page.evaluate("performance.getEntriesByType('resource').every((e) => e.name.startsWith(location.origin))")
