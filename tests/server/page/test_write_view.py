"""Tests of the view "Write": suggestions, undo, branches, drafts and settings."""

import json
import re
import time
import urllib.request

from pages import PROMPT, continue_text, get_selection, get_text, set_text, wait_for_stream_end, wait_until

LONG = {"length": 200}
WILD = {"temperature": 1.5, "top_k": 0}
GREEDY = {"temperature": 0}


def record_requests(page, path="/v1/completions"):
    """Return a list that collects the bodies of all further requests."""
    bodies = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if request.url.endswith(path) else None)
    return bodies


def test_tab_streams_a_continuation_as_selected_text(open_page):
    page = open_page(settings=LONG)
    page.evaluate("""() => {
      window.lengths = [];
      const real = HTMLTextAreaElement.prototype.setRangeText;
      HTMLTextAreaElement.prototype.setRangeText = function (text, ...rest) {
        window.lengths.push(text.length);
        return real.call(this, text, ...rest);
      };
    }""")
    new = continue_text(page)
    start, end, text = get_selection(page)
    assert (start, end, text) == (len(PROMPT), len(PROMPT + new), PROMPT + new) and new
    lengths = page.evaluate("window.lengths")
    assert len(set(lengths)) > 1 and lengths == sorted(lengths)  # on a fast machine there may be only two updates


def test_finished_suggestion_is_announced_to_screen_readers(page):
    new = continue_text(page)
    assert page.text_content("#announcement") == f"Suggestion: {new}"
    assert page.get_attribute("#announcement", "role") == "status"


def test_arrow_key_or_enter_accepts_the_suggestion(page):
    new = continue_text(page)
    page.press("#textarea", "ArrowRight")
    assert get_selection(page) == [len(PROMPT + new)] * 2 + [PROMPT + new]
    page.keyboard.type("!")
    assert get_text(page) == PROMPT + new + "!"
    more = continue_text(page)
    page.press("#textarea", "Enter")
    whole = PROMPT + new + "!" + more
    assert get_selection(page) == [len(whole)] * 2 + [whole]
    page.press("#textarea", "Enter")
    assert get_text(page) == whole + "\n"


def test_typing_overwrites_the_suggestion(page):
    continue_text(page)
    page.keyboard.type(", and")
    assert get_text(page) == PROMPT + ", and"
    page.press("#textarea", "Control+z")
    assert get_text(page) == PROMPT + ", "  # one undo step is one word
    page.press("#textarea", "Control+z")
    assert get_text(page) == PROMPT


def test_text_of_an_input_method_overwrites_the_suggestion_in_one_step(page):
    """Phones and input methods for Chinese, Japanese and Korean compose text in this way."""
    continue_text(page)
    keyboard = page.context.new_cdp_session(page)
    for text in ("に", "にほ"):
        keyboard.send("Input.imeSetComposition", {"text": text, "selectionStart": 0, "selectionEnd": len(text)})
    keyboard.send("Input.insertText", {"text": "日本"})
    assert get_text(page) == PROMPT + "日本"
    page.press("#textarea", "Control+z")
    assert get_text(page) == PROMPT
    page.press("#textarea", "Control+y")
    assert get_text(page) == PROMPT + "日本"


def test_escape_discards_the_suggestion_and_then_tab_leaves(page):
    new = continue_text(page)
    page.press("#textarea", "Escape")
    assert get_selection(page) == [len(PROMPT)] * 2 + [PROMPT]
    page.press("#textarea", "Control+y")
    assert get_text(page) == PROMPT + new  # redo restores the suggestion
    page.press("#textarea", "Escape")
    page.press("#textarea", "Tab")
    assert page.evaluate("document.activeElement.id") == "continue"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "redo" or page.evaluate("document.activeElement.id") == "undo"
    assert get_text(page) == PROMPT + new


def test_text_after_the_cursor_stays_and_is_not_sent(page):
    set_text(page, "The night is dark. THE END")
    for _ in " THE END":
        page.press("#textarea", "ArrowLeft")
    bodies = record_requests(page)
    new = continue_text(page)
    assert get_text(page) == f"The night is dark.{new} THE END"
    assert [body["prompt"] for body in bodies] == ["The night is dark."]
    page.press("#textarea", "Escape")
    assert get_selection(page) == [18, 18, "The night is dark. THE END"]


def test_suggestion_replaces_the_selection_and_escape_restores_it(page):
    set_text(page, "The night is dark")
    for _ in "dark":
        page.press("#textarea", "Shift+ArrowLeft")
    bodies = record_requests(page)
    new = continue_text(page)
    assert get_text(page) == f"The night is {new}" and bodies[0]["prompt"] == "The night is"
    page.press("#textarea", "Escape")
    assert get_selection(page) == [13, 17, "The night is dark"]


def test_typed_space_is_neither_sent_nor_duplicated(page):
    """GPT-2's tokens include the space before a word, so a continuation without a leading space is retried."""
    set_text(page, "The night ")
    bodies = record_requests(page)
    completions = ["-fall", "s", " is dark"]

    def answer(route):
        event = json.dumps({"choices": [{"index": 0, "text": completions.pop(0), "finish_reason": "length"}]})
        route.fulfill(content_type="text/event-stream", body=f"data: {event}\n\ndata: [DONE]\n\n")

    page.route("**/v1/completions", answer)
    assert continue_text(page) == "is dark" and get_text(page) == "The night is dark"
    assert [body["prompt"] for body in bodies] == ["The night"] * 3


def test_control_enter_finishes_the_sentence(page):
    endings = []
    for _ in range(4):
        new = continue_text(page, "Control+Enter")
        endings.append(re.search(r"[.!?…][\"'”’»“)\]]*$", new))
        assert not re.search(r"[^\W\d]{4}[.!?]+\s", new), new  # shorter words may be abbreviations
        page.press("#textarea", "Enter")
    assert sum(map(bool, endings)) >= 2  # about 1 in 30 does not end within 150 tokens


def test_sentence_end(page):
    cases = {
        " dark. And": 6, " dark": -1, " dark.": -1, ' he said "No!" and': 14, " z. B. so. Ja": 10, " 3.5 and. So": 9,
        " Mr. Fox ran. He": 13, " Am 3. Mai kam er. So": 18, " wait... what": 8, " 夜は暗い。朝": 6,
    }  # fmt: skip
    module = "const { sentenceEnd } = await import('/sentence.js');"
    find = f"async cases => {{ {module} return cases.map(c => sentenceEnd('x', c)); }}"
    assert page.evaluate(find, list(cases)) == list(cases.values())
    last = (
        "async () => { const { sentenceEnd } = await import('/sentence.js'); return sentenceEnd('x', ' dark.', true); }"
    )
    assert page.evaluate(last) == 6


def count_running_texts(address):
    metrics = urllib.request.urlopen(f"{address}/metrics").read().decode()
    return float(re.search(r"gpt2_texts_writing\{.*\} (\S+)", metrics)[1])


def test_typing_cancels_a_stream_and_the_server_stops(open_page, address):
    page = open_page(settings=LONG)
    page.press("#textarea", "Tab")
    wait_until(page, f"document.getElementById('textarea').value.length > {len(PROMPT) + 3}")
    page.keyboard.type("xyz")
    assert get_text(page) == PROMPT + "xyz"
    page.wait_for_timeout(300)
    assert get_text(page) == PROMPT + "xyz"
    deadline = time.monotonic() + 5
    while count_running_texts(address) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not count_running_texts(address)


def test_moving_the_cursor_while_streaming_keeps_the_received_text(open_page):
    page = open_page(settings=LONG)
    page.press("#textarea", "Tab")
    wait_until(page, f"document.getElementById('textarea').value.length > {len(PROMPT) + 3}")
    page.evaluate("document.getElementById('textarea').setSelectionRange(2, 2)")
    wait_for_stream_end(page)
    start, end, text = get_selection(page)
    assert (start, end) == (2, 2) and text.startswith(PROMPT) and len(text) > len(PROMPT)
    page.keyboard.type("-")
    assert get_text(page) == text[:2] + "-" + text[2:]


def test_choosing_one_of_three_options_keeps_the_others_reachable(open_page):
    page = open_page(settings=WILD)
    page.press("#textarea", "Alt+Enter")
    wait_until(page, "document.getElementById('notice').textContent.includes('1 to 3')")
    assert get_text(page) == PROMPT
    page.press("#textarea", "2")
    chosen = get_text(page)
    assert chosen.startswith(PROMPT) and len(chosen) > len(PROMPT) and page.is_hidden("#choices")
    wait_until(page, "document.querySelectorAll('#branch-list .alternative').length === 2")  # drawn in the next frame
    page.locator("#branch-list .alternative button").first.click()
    other = get_text(page)
    assert other.startswith(PROMPT) and other != chosen
    page.focus("#textarea")
    seen = set()
    for _ in range(3):
        page.press("#textarea", "Alt+ArrowDown")
        seen.add(get_text(page))
    assert len(seen) == 3 and {chosen, other} <= seen


def test_typing_closes_the_options(page):
    page.press("#textarea", "Alt+Enter")
    page.keyboard.type("4")
    assert get_text(page) == PROMPT + "4"
    wait_until(page, "document.getElementById('choices').hidden")


def test_undo_and_redo_cover_everything(open_page):
    page = open_page(settings=GREEDY)
    states = [get_text(page)]
    continue_text(page)
    page.press("#textarea", "Enter")
    states.append(get_text(page))
    page.keyboard.type("Now")
    states.append(get_text(page))
    page.press("#textarea", "Backspace")
    page.press("#textarea", "Backspace")
    states.append(get_text(page))
    page.press("#textarea", "Alt+Enter")
    wait_until(page, "document.getElementById('notice').textContent.includes('1 to 3')")
    page.press("#textarea", "1")
    states.append(get_text(page))
    for state in states[-2::-1]:
        page.press("#textarea", "Control+z")
        assert get_text(page) == state
    for state in states[1:]:
        page.click("#redo")
        assert get_text(page) == state


def test_undo_of_the_browser_uses_the_tree(page):
    """The browser's own menu triggers undo without a key event."""
    page.keyboard.type("er")
    page.evaluate("document.execCommand('undo')")
    assert get_text(page) == PROMPT
    new = continue_text(page)
    page.press("#textarea", "Enter")
    page.keyboard.type("!")
    page.evaluate("document.execCommand('undo')")
    assert get_text(page) == PROMPT + new
    page.press("#textarea", "Control+y")
    assert get_text(page) == PROMPT + new + "!"


def test_draft_survives_a_reload_and_can_be_exported_and_imported(open_page, tmp_path):
    page = open_page(settings=WILD)
    continue_text(page)
    continue_text(page, "Alt+r")
    text = get_text(page)
    page.click("#files summary")
    for button, extension in (("#export-text", "txt"), ("#export-json", "json")):
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(tmp_path / f"draft.{extension}")
    assert (tmp_path / "draft.txt").read_text(encoding="utf-8") == text
    assert json.loads((tmp_path / "draft.json").read_text(encoding="utf-8"))["format"] == "gpt-2-draft"
    page.reload()
    assert get_text(page) == text
    page.click("#new-draft")
    assert get_text(page) == ""
    assert page.locator("#drafts option").count() == 2
    page.set_input_files("#import-file", tmp_path / "draft.json")
    wait_until(page, "document.getElementById('textarea').value !== ''")
    assert get_text(page) == text and page.locator("#drafts option").count() == 3
    page.press("#textarea", "Alt+ArrowUp")
    assert get_text(page) != text and get_text(page).startswith(PROMPT)
    (tmp_path / "other.json").write_text('{"format": "gpt-2-draft", "nodes": [{}, {"parent": 5}]}', encoding="utf-8")
    page.set_input_files("#import-file", tmp_path / "other.json")
    wait_until(page, "document.getElementById('notice').textContent.includes('other.json')")


def test_draft_changed_in_two_tabs_becomes_two_drafts(open_page):
    page = open_page()
    page.wait_for_timeout(600)
    other = page.context.new_page()
    other.goto(page.url)
    other.click("#textarea")  # a click does not change the draft
    other.press("#textarea", "ArrowLeft")
    other.wait_for_timeout(600)
    assert other.locator("#drafts option").count() == page.locator("#drafts option").count() == 1
    set_text(other, "from the other tab")
    other.wait_for_timeout(600)
    set_text(page, "from the first tab")
    wait_until(page, "document.getElementById('notice').textContent.includes('another tab')")
    titles = page.locator("#drafts option").all_text_contents()
    assert {"from the other tab", "from the first tab"} <= set(titles)


def test_settings_are_sent_and_stored(page):
    for name, value in (("temperature", "0"), ("length", "7"), ("top_k", "9"), ("top_p", "0.5")):
        page.fill(f"#sliders-{name}", value)
    bodies = record_requests(page)
    first = continue_text(page)
    assert continue_text(page, "Alt+r") == first  # greedy
    page.reload()
    assert page.input_value("#sliders-length") == "7"
    continue_text(page)
    parameters = {name: bodies[-1][name] for name in ("temperature", "max_tokens", "top_k", "top_p")}
    assert parameters == {"temperature": 0, "max_tokens": 7, "top_k": 9, "top_p": 0.5}
    page.click("#reset")
    assert page.input_value("#sliders-length") == "20"


def test_text_continues_after_a_pause_if_enabled(open_page):
    page = open_page(settings={"pause": 0.5})
    page.keyboard.type(", and")
    wait_until(page, "!document.getElementById('suggestion').hidden")
    wait_for_stream_end(page)
    start, end, text = get_selection(page)
    assert text[:start] == PROMPT + ", and" and end > start


def test_text_longer_than_the_context_can_be_continued(page):
    set_text(page, "The night is dark, and the day is long. " * 40)
    bodies = record_requests(page)
    continue_text(page)
    ids = bodies[0]["prompt"]
    assert isinstance(ids, list) and 100 < len(ids) <= 256 - 20
    page.press("#textarea", "Enter")
    continue_text(page)  # the window starts at the same position
    assert bodies[1]["prompt"][: len(ids)] == ids or len(bodies[1]["prompt"]) <= len(ids)


def test_tree_keeps_every_state(page):
    """After random changes and moves, and after a round trip through JSON, each node still has its text."""
    assert (
        page.evaluate("""async () => {
      const { Tree, difference } = await import('/tree.js');
      let seed = 7;
      const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
      const tree = new Tree();
      const texts = [''];
      for (let i = 0; i < 400; i += 1) {
        if (random(3) === 0) tree.goTo(random(tree.nodes.length));
        if (tree.text !== texts[tree.current]) return `walked to ${tree.current}`;
        const at = random(tree.text.length + 1);
        const end = Math.min(tree.text.length, at + random(4));
        const next = tree.text.slice(0, at) + 'aab😀\\n'.slice(random(3), random(7)) + tree.text.slice(end);
        const change = difference(tree.text, next, at);
        if (!change.removed && !change.inserted) continue;
        tree.goTo(tree.add(change, 'typed'));
        if (tree.text !== next) return `change ${i}`;
        texts[tree.current] = next;
      }
      const again = Tree.from(JSON.parse(JSON.stringify(tree.stored)));
      if (again.text !== tree.text || again.current !== tree.current) return 'stored';
      while (again.undo() !== null) if (again.text !== texts[again.current]) return 'undo';
      while (again.canRedo) if (again.redo() === null || again.text !== texts[again.current]) return 'redo';
      return '';
    }""")
        == ""
    )
