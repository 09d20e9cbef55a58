"""Tests of a server that does not answer: each waiting state ends with an error line and recovers."""

import json

import pytest
from pages import PROMPT, get_text, set_text, wait_for_stream_end, wait_until

API = "**/{healthz,tokenize,insight/*,v1/*}"
VIEWS = {"probabilities": "#next-tokens button", "introspection": "#chips button"}
DOWN = {"en-US": "The server is not responding.", "de-DE": "Der Server antwortet nicht."}
PROXY_PAGE = "<html>Service Unavailable</html>"


def refuse(route):
    route.abort("connectionrefused")


def answer_as_proxy(route):
    route.fulfill(status=503, content_type="text/html", body=PROXY_PAGE)


def wait_for_text(page, element, start, timeout=5):
    wait_until(page, f"document.getElementById('{element}').textContent.startsWith({json.dumps(start)})", timeout)


@pytest.mark.parametrize("locale", DOWN)
@pytest.mark.parametrize("outage", [refuse, answer_as_proxy])
def test_views_say_that_the_server_is_down_and_recover(open_page, outage, locale):
    page = open_page(locale=locale)
    page.route(API, outage)
    for view in VIEWS:
        page.click(f"#to-{view}")
        wait_for_text(page, f"{view}-note", DOWN[locale])
        wait_for_text(page, "notice", DOWN[locale])
    page.unroute_all()
    for view, result in reversed(VIEWS.items()):
        page.click(f"#to-{view}")
        wait_until(page, f"document.querySelectorAll('{result}').length > 0")
        wait_for_text(page, f"{view}-note", "")


def test_notice_stays_until_the_server_is_back(page):
    """Other notices replace it for a moment, and closed options do not remove it."""
    page.route(API, refuse)
    for key in ("Tab", "Escape", "Alt+Enter", "Tab", "Escape", "Control+Enter"):
        page.press("#textarea", key)
        page.wait_for_timeout(100)
    wait_for_text(page, "notice", DOWN["en-US"])
    assert get_text(page) == PROMPT
    page.unroute_all()
    wait_until(page, "!document.getElementById('suggestion').hidden")
    wait_for_stream_end(page)
    assert get_text(page).startswith(PROMPT) and get_text(page) != PROMPT


def test_options_arrive_when_the_server_is_back(page):
    page.route(API, refuse)
    page.press("#textarea", "Alt+Enter")
    wait_for_text(page, "notice", DOWN["en-US"])
    page.unroute_all()
    wait_for_text(page, "notice", "Three options are ready", 20)


def test_list_of_models_is_loaded_when_the_server_is_back(open_page, address):
    page = open_page("about:blank", text=None)
    page.route(API, refuse)
    page.goto(address)
    wait_for_text(page, "notice", DOWN["en-US"])
    set_text(page, PROMPT)
    page.press("#textarea", "Tab")
    page.unroute_all()
    wait_until(page, "document.getElementById('model').options.length === 1")
    wait_until(page, "!document.getElementById('suggestion').hidden")


def test_models_of_another_server_replace_the_old_ones(page):
    page.route(API, refuse)
    page.press("#textarea", "Tab")
    wait_for_text(page, "notice", DOWN["en-US"])
    page.press("#textarea", "Escape")
    page.unroute_all()
    models = {"data": [{"id": name, "n_ctx": 64, "n_vocab": 100} for name in ("other", "third")]}
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    wait_until(page, "document.getElementById('model').options.length === 2")
    assert page.input_value("#model") == "other"


@pytest.mark.parametrize("view", VIEWS)
def test_hanging_server_counts_as_down(open_page, address, view):
    """The server accepts connections and never answers. The page does not wait forever."""
    page = open_page("about:blank", text=None)
    page.clock.install()
    page.goto(address)
    set_text(page, PROMPT)
    held_routes = []
    page.route(API, lambda route: held_routes.append(route))
    page.click(f"#to-{view}")
    for _ in range(20):
        page.clock.run_for(1000)
    wait_for_text(page, f"{view}-note", DOWN["en-US"])
    page.unroute_all()
    for _ in range(20):
        page.clock.run_for(1000)
        page.wait_for_timeout(20)
    wait_until(page, f"document.querySelectorAll('{VIEWS[view]}').length > 0")


def test_slow_answer_of_a_healthy_server_is_awaited(open_page, address):
    page = open_page("about:blank", text=None)
    page.clock.install()
    page.goto(address)
    set_text(page, PROMPT)
    held_routes = []
    page.route("**/insight/*", lambda route: held_routes.append(route))
    page.click("#to-introspection")
    for _ in range(60):
        page.clock.run_for(1000)
    wait_for_text(page, "introspection-note", "Computing")
    assert len(held_routes) == 1
    held_routes[0].continue_()
    wait_until(page, "document.querySelectorAll('#chips button').length > 0")


def answering(answer):
    """Return a route's handler that answers with the arguments of `fulfill`, or refuses the connection."""
    return lambda route: route.fulfill(**answer) if answer else refuse(route)


ERRORS = {
    "an error of the server": ({"status": 400, "json": {"error": {"message": "no such model"}}}, "no such model"),
    "an error without a message": ({"status": 500, "body": "oops"}, "The server answered with the error 500"),
    "an answer that is not JSON": ({"status": 200, "body": PROXY_PAGE}, "The page cannot read the server's answer"),
    "an answer that never arrives": (None, "The server did not answer this request"),
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_note_shows_each_error_and_the_view_recovers(page, view):
    page.click(f"#to-{view}")
    wait_until(page, f"document.querySelectorAll('{VIEWS[view]}').length > 0")
    for number, (answer, message) in enumerate(ERRORS.values()):
        page.route("**/insight/*", answering(answer))
        page.click("#to-write")
        set_text(page, f"{PROMPT} {number}")
        page.click(f"#to-{view}")
        wait_for_text(page, f"{view}-note", message, 20)
        page.unroute_all()
        page.click("#to-write")
        page.click(f"#to-{view}")
        wait_until(page, f"document.getElementById('{view}-note').textContent === ''", 20)


def test_error_of_the_options_is_shown(page):
    body = {"error": {"message": "no such model"}}
    page.route("**/v1/completions", lambda route: route.fulfill(status=404, json=body))
    page.press("#textarea", "Alt+Enter")
    wait_for_text(page, "notice", "no such model")
    assert page.is_hidden("#choices") and get_text(page) == PROMPT


@pytest.mark.parametrize("end", ["", "data: {", ": comment\n\n"])
def test_stream_that_ends_early_is_reported_and_its_text_is_kept(page, end):
    event = {"choices": [{"index": 0, "text": " and cold", "finish_reason": None}]}
    body = f": comment\n\ndata: {json.dumps(event)}\n\n{end}"
    page.route("**/v1/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.press("#textarea", "Tab")
    wait_for_text(page, "notice", "The connection to the server broke")
    wait_for_stream_end(page)
    assert get_text(page) == f"{PROMPT} and cold"
