"""Tests of the page as a whole: languages, themes, accessibility, phones, connection errors and the API key."""

import contextlib

import pytest
from pages import PROMPT, continue_text, get_text, run_server, set_text, wait_for_stream_end, wait_until

VIEWS = ("write", "probabilities", "introspection")


def show_view(page, view):
    page.click(f"#to-{view}")
    wait_until(
        page,
        "document.getElementById('probabilities').hidden || document.querySelectorAll('#next-tokens li').length > 0",
    )
    wait_until(
        page,
        "document.getElementById('introspection').hidden || !document.getElementById('introspection-cards').hidden",
    )


def test_german_page_matches_the_tutorial(open_page):
    page = open_page(text=None, locale="de-DE")
    assert page.title() == "GPT-2 Text-Autopilot" and page.get_attribute("html", "lang") == "de"
    assert page.inner_text("h1") == "🦄 GPT-2 Schreib-Autopilot"
    assert "Nutze den Schreib-Autopiloten" in page.inner_text(".title")
    preset = "Er dachte, automatisches Schreiben wäre eine gute Idee weil"
    assert get_text(page) == preset
    assert page.evaluate("[document.activeElement.id, document.activeElement.selectionStart]") == [
        "textarea",
        len(preset),
    ]
    assert page.inner_text("#continue") == "automatisch vervollständigen (Tab)"
    page.click("#continue")
    wait_until(page, "!document.getElementById('suggestion').hidden")
    wait_for_stream_end(page)
    assert get_text(page).startswith(preset) and len(get_text(page)) > len(preset)
    page.select_option("#language", "en")
    assert page.inner_text("#continue") == "Continue (Tab)" and page.get_attribute("html", "lang") == "en"
    page.reload()
    assert page.inner_text("#to-probabilities") == "Probabilities"


def test_both_languages_have_the_same_texts_and_placeholders(page):
    english, german = page.evaluate(
        """async () => [(await import('/texts.en.js')).ENGLISH, (await import('/texts.de.js')).GERMAN].map((texts) =>
             Object.entries(texts).map(
                 ([name, text]) => [name, `${text}`.match(/\\{\\w+\\}/g)?.sort().join() ?? '']))"""
    )
    assert english == german


def test_every_element_has_its_text(open_page):
    for locale in ("en-US", "de-DE"):
        page = open_page(locale=locale)
        for view in VIEWS:
            show_view(page, view)
            assert (
                page.evaluate("""[...document.querySelectorAll('[data-text]')].filter((e) =>
                e.textContent === e.dataset.text || !e.textContent).map((e) => e.dataset.text)""")
                == []
            )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_follow_the_system_and_the_theme_menu(open_page, scheme):
    page = open_page(color_scheme=scheme)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    system_color = page.evaluate(background)
    page.select_option("#theme", scheme)
    assert page.evaluate(background) == system_color
    page.select_option("#theme", "dark" if scheme == "light" else "light")
    assert page.evaluate(background) != system_color


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violations(open_page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(color_scheme=scheme)
    continue_text(page)
    for view in (*VIEWS, "help"):
        if view == "help":
            page.click("#help")
        else:
            show_view(page, view)
        if view == "probabilities":
            page.focus("#tokens [data-index='3']")
        violations = axe.Axe().run(page).response["violations"]
        serious = [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
        assert serious == [], view


def test_phone_layout_does_not_scroll_sideways(open_page):
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, locale="de-DE")
    assert page.get_attribute("#settings", "open") is None  # a phone shows the text first
    page.locator("#continue").tap()
    wait_until(page, "!document.getElementById('suggestion').hidden")
    wait_for_stream_end(page)
    page.locator("#accept").tap()
    assert len(get_text(page)) > len(PROMPT)
    for view in VIEWS:
        show_view(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, view


def test_everything_is_reachable_by_keyboard(open_page):
    """Tab moves through every view and back to the start. Only the text area needs Escape first."""
    page = open_page()
    for view in VIEWS:
        show_view(page, view)
        page.focus(f"#to-{view}")
        focused = []
        for _ in range(60):
            page.keyboard.press("Tab")
            focused.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
            if focused[-1] == "BODY":
                break
            if focused[-1] == "textarea":
                page.keyboard.press("Escape")
        assert focused[-1] == "BODY" and len(focused) > 4, focused


def test_request_is_retried_when_the_server_is_back(open_page):
    with contextlib.ExitStack() as first_server:
        url, _ = first_server.enter_context(run_server())
        page = open_page(url, settings={"temperature": 0})
        expected = continue_text(page)
        page.press("#textarea", "Escape")
    page.press("#textarea", "Tab")
    wait_until(page, "document.getElementById('notice').textContent.startsWith('The server is not responding')")
    assert get_text(page) == PROMPT
    with run_server(port=int(url.rpartition(":")[2])):
        wait_until(page, "!document.getElementById('suggestion').hidden")  # the page retried by itself
        wait_for_stream_end(page)
        assert get_text(page) == PROMPT + expected
        wait_until(page, "document.getElementById('notice').textContent === ''")


def test_typing_while_the_server_is_down_loses_nothing(open_page):
    with run_server() as (url, process):
        page = open_page(url)
        process.kill()
        process.wait()
        page.press("#textarea", "Tab")
        wait_until(page, "document.getElementById('notice').textContent !== ''")
        page.keyboard.type(" and cold")
        page.wait_for_timeout(600)
        assert get_text(page) == PROMPT + " and cold"
    with run_server(port=int(url.rpartition(":")[2])):
        wait_until(page, "document.getElementById('notice').textContent === ''", 20)
        assert get_text(page) == PROMPT + " and cold"  # the request was cancelled
        page.reload()
        assert get_text(page) == PROMPT + " and cold"


def test_broken_stream_keeps_the_received_text(open_page):
    with run_server() as (url, process):
        page = open_page(url, settings={"length": 200})
        page.press("#textarea", "Tab")
        wait_until(page, f"document.getElementById('textarea').value.length > {len(PROMPT) + 5}")
        process.kill()
        wait_for_stream_end(page)
        assert get_text(page).startswith(PROMPT) and len(get_text(page)) > len(PROMPT) + 5


def test_request_to_a_busy_server_is_retried(page):
    routes = []

    def busy(route):
        routes.append(route)
        if len(routes) > 2:
            return route.continue_()
        body = '{"error": {"message": "wait", "code": "too_many_requests"}}'
        route.fulfill(status=429, headers={"Retry-After": "1"}, content_type="application/json", body=body)

    page.route("**/v1/completions", busy)
    assert continue_text(page) and len(routes) == 3


def test_error_message_of_the_server_is_shown(page):
    body = '{"error": {"message": "<i>no</i> such thing", "code": null}}'
    page.route("**/v1/completions", lambda route: route.fulfill(status=400, content_type="application/json", body=body))
    page.press("#textarea", "Tab")
    wait_until(page, "document.getElementById('notice').textContent === '<i>no</i> such thing'")
    assert get_text(page) == PROMPT


def test_api_key_is_requested_and_stored_for_the_tab(open_page):
    with run_server("--api_key", "s3cret") as (url, _):
        page = open_page(url, text=None)
        page.wait_for_selector("#key-dialog[open]")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        wait_until(page, "document.getElementById('key-wrong').textContent !== ''")
        page.fill("#key", "s3cret")
        page.keyboard.press("Enter")
        wait_until(page, "!document.getElementById('key-dialog').open")
        set_text(page, PROMPT)
        assert continue_text(page)
        assert "s3cret" not in page.evaluate("JSON.stringify(localStorage)")
        page.reload()
        wait_until(page, "document.getElementById('model').options.length === 1")
        assert not page.locator("#key-dialog[open]").count()


def test_security_policy_forbids_inline_scripts(page, address):
    headers = page.request.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert page.evaluate("document.querySelectorAll('script:not([src]), style, [style], [onclick]').length") == 0
    assert page.evaluate("performance.getEntriesByType('resource').every((e) => e.name.startsWith(location.origin))")
