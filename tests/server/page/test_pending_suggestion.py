"""Tests of a pending suggestion or pending options: each action that requests more text keeps them."""

import json

from pages import PROMPT, continue_text, get_selection, get_text, set_text, wait_for_stream_end, wait_until

WILD = {"temperature": 1.5, "top_k": 0}
ACTIONS = ["Tab", "Control+Enter", "#continue", "#finish-sentence"]


def act(page, action):
    """Press a key in the text area, or click the button with this id."""
    if action.startswith("#"):
        page.click(action)
    else:
        page.press("#textarea", action)


def show_options(page):
    page.press("#textarea", "Alt+Enter")
    wait_until(page, "document.getElementById('notice').textContent.includes('Three options are ready')")
    return page.locator("#choices span").all_text_contents()


def answer_with(page, *texts):
    """Answer all further completions with these texts, one for each request."""
    remaining = list(texts)

    def answer(route):
        choice = {"index": 0, "text": remaining.pop(0), "finish_reason": "length"}
        body = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
        route.fulfill(content_type="text/event-stream", body=body)

    page.unroute_all()
    page.route("**/v1/completions", answer)


def test_continuing_keeps_the_suggestion_and_escape_discards_only_the_new_one(page):
    for action in ACTIONS:
        set_text(page, PROMPT)
        answer_with(page, " and cold", " tonight.")
        assert continue_text(page) == " and cold"
        act(page, action)
        wait_until(page, f"document.getElementById('textarea').value === {json.dumps(PROMPT + ' and cold tonight.')}")
        wait_for_stream_end(page)
        assert get_selection(page)[:2] == [len(PROMPT + " and cold"), len(PROMPT + " and cold tonight.")], action
        page.press("#textarea", "Escape")
        assert get_text(page) == PROMPT + " and cold", action
        page.press("#textarea", "Control+z")
        assert get_text(page) == PROMPT, action


def test_options_follow_the_kept_suggestion(page):
    for action in ("Alt+Enter", "#show-three"):
        set_text(page, PROMPT)
        kept = PROMPT + continue_text(page)
        act(page, action)
        wait_until(page, "document.getElementById('notice').textContent.includes('Three options are ready')")
        assert get_text(page) == kept, action
        page.press("#textarea", "1")
        assert get_text(page).startswith(kept) and get_text(page) != kept, action


def test_continuing_during_a_stream_keeps_the_received_text(open_page):
    page = open_page(settings={"length": 200})
    for action in ACTIONS:
        set_text(page, PROMPT)
        page.press("#textarea", "Tab")
        wait_until(page, f"document.getElementById('textarea').value.length > {len(PROMPT) + 3}")
        received = get_text(page)
        act(page, action)
        wait_until(page, f"document.getElementById('textarea').value.length > {len(received) + 3}")
        page.press("#textarea", "Escape")
        assert get_text(page).startswith(received), action


def test_a_selection_is_replaced_once(page):
    """The suggestion that replaced a selection is kept as well."""
    answer_with(page, " bright", " again")
    page.evaluate("document.getElementById('textarea').setSelectionRange(20, 24)")
    continue_text(page)
    continue_text(page)
    assert get_text(page) == PROMPT[:20] + "bright again"


def test_trying_again_replaces_the_suggestion_and_keeps_it_as_a_branch(page):
    page.press("#textarea", "Alt+r")  # there is no suggestion yet
    for action in ("Alt+r", "#try-again"):
        set_text(page, PROMPT + action)
        answer_with(page, " and cold", " and wet")
        continue_text(page)
        act(page, action)
        wait_until(page, "document.getElementById('textarea').value.endsWith(' and wet')")
        wait_for_stream_end(page)
        page.press("#textarea", "Alt+ArrowUp")
        assert get_text(page) == f"{PROMPT}{action} and cold"
        page.press("#textarea", "Alt+ArrowDown")
        assert get_text(page) == f"{PROMPT}{action} and wet"


def test_options_stay_until_the_user_chooses_or_requests_others(open_page):
    page = open_page(settings=WILD)
    options = show_options(page)
    for action in [*ACTIONS, "Alt+Enter", "#show-three"]:
        act(page, action)
        wait_until(page, "document.getElementById('notice').textContent.includes('or Esc to discard')")
        assert page.locator("#choices span").all_text_contents() == options and get_text(page) == PROMPT, action
    for action in ("Alt+r", "#choices-again"):
        act(page, action)
        wait_until(page, "document.getElementById('notice').textContent.includes('Three options are ready')")
        assert page.locator("#choices span").all_text_contents() != options, action
    page.press("#textarea", "2")
    wait_until(page, "document.querySelectorAll('#branch-list .alternative').length === 8")
    page.press("#textarea", "Alt+Enter")
    page.click("#choices-discard")
    assert page.is_hidden("#choices") and page.is_hidden("#choice-actions")


def test_a_held_key_requests_one_continuation(page):
    bodies = []
    page.on("request", lambda request: bodies.append(request) if request.method == "POST" else None)
    page.focus("#textarea")
    for _ in range(5):
        page.keyboard.down("Tab")
    page.keyboard.up("Tab")
    wait_until(page, "!document.getElementById('suggestion').hidden")
    wait_for_stream_end(page)
    assert len(bodies) == 1


def test_options_close_when_another_text_is_shown(open_page):
    page = open_page(settings=WILD)
    for action in ("#undo", "#redo", "#new-draft"):
        show_options(page)
        act(page, action)
        text = get_text(page)
        assert page.is_hidden("#choices"), action
        page.press("#textarea", "1")
        assert len(get_text(page)) == len(text) + 1, action
        page.press("#textarea", "Control+z")


def test_typing_while_options_arrive_does_not_change_the_text_that_they_follow(page):
    page.press("#textarea", "Alt+Enter")
    wait_until(page, "document.querySelector('#choices span')?.textContent !== ''")
    page.keyboard.type("er")
    page.press("#textarea", "Alt+ArrowUp")
    assert get_text(page).startswith(PROMPT) and not get_text(page).startswith(PROMPT + "er")
    assert not get_text(page).endswith("er")


def test_received_text_stays_in_its_draft_when_the_user_leaves(open_page):
    page = open_page(settings={"length": 200})
    for leave in ("reload", "#new-draft", "#to-probabilities"):
        set_text(page, PROMPT)
        page.press("#textarea", "Tab")
        wait_until(page, f"document.getElementById('textarea').value.length > {len(PROMPT) + 3}")
        received = get_text(page)
        if leave != "reload":
            page.click(leave)
        page.reload()
        if leave == "#new-draft":
            page.select_option("#drafts", index=1)
        assert get_text(page).startswith(received), leave
