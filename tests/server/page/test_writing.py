"""To write: Tab and what comes after it, in the browser."""

import json
import re
import time
import urllib.request

from pages import PROMPT, go_on, selection, settle, text_of, until, write

LONG = {"length": 200}
WILD = {"temperature": 1.5, "top_k": 0}
GREEDY = {"temperature": 0}


def sent(page, path="/v1/completions"):
    """The bodies of requests from now on."""
    bodies = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if request.url.endswith(path) else None)
    return bodies


def test_tab_streams_a_continuation_in_as_selected_text(opened):
    page = opened(settings=LONG)
    page.evaluate("""() => {
      window.lengths = [];
      const real = HTMLTextAreaElement.prototype.setRangeText;
      HTMLTextAreaElement.prototype.setRangeText = function (text, ...rest) {
        window.lengths.push(text.length);
        return real.call(this, text, ...rest);
      };
    }""")
    new = go_on(page)
    start, end, text = selection(page)
    assert (start, end, text) == (len(PROMPT), len(PROMPT + new), PROMPT + new) and new
    lengths = page.evaluate("window.lengths")
    assert len(set(lengths)) > 1 and lengths == sorted(lengths)  # a fast machine tells twice in all


def test_a_suggestion_is_said_once_it_is_there(page):
    new = go_on(page)
    assert page.text_content("#said") == f"Suggestion: {new}"
    assert page.get_attribute("#said", "role") == "status"


def test_tab_again_writes_another_one_and_the_first_stays_a_branch(opened):
    page = opened(settings=WILD)
    first, second = go_on(page), go_on(page)
    assert first != second and text_of(page) == PROMPT + second
    page.press("#textarea", "Alt+ArrowUp")
    assert text_of(page) == PROMPT + first
    page.press("#textarea", "Alt+ArrowDown")
    assert text_of(page) == PROMPT + second


def test_an_arrow_key_or_enter_accepts(page):
    new = go_on(page)
    page.press("#textarea", "ArrowRight")
    assert selection(page) == [len(PROMPT + new)] * 2 + [PROMPT + new]
    page.keyboard.type("!")
    assert text_of(page) == PROMPT + new + "!"
    more = go_on(page)
    page.press("#textarea", "Enter")
    whole = PROMPT + new + "!" + more
    assert selection(page) == [len(whole)] * 2 + [whole]
    page.press("#textarea", "Enter")
    assert text_of(page) == whole + "\n"


def test_typing_overwrites(page):
    go_on(page)
    page.keyboard.type(", and")
    assert text_of(page) == PROMPT + ", and"
    page.press("#textarea", "Control+z")
    assert text_of(page) == PROMPT + ", "  # a step of undo is a word
    page.press("#textarea", "Control+z")
    assert text_of(page) == PROMPT


def test_a_composed_character_overwrites_as_one(page):
    """As input methods for Chinese, Japanese and Korean write, and phones."""
    go_on(page)
    keyboard = page.context.new_cdp_session(page)
    for text in ("に", "にほ"):
        keyboard.send("Input.imeSetComposition", {"text": text, "selectionStart": 0, "selectionEnd": len(text)})
    keyboard.send("Input.insertText", {"text": "日本"})
    assert text_of(page) == PROMPT + "日本"
    page.press("#textarea", "Control+z")
    assert text_of(page) == PROMPT
    page.press("#textarea", "Control+y")
    assert text_of(page) == PROMPT + "日本"


def test_escape_removes_and_then_tab_leaves(page):
    new = go_on(page)
    page.press("#textarea", "Escape")
    assert selection(page) == [len(PROMPT)] * 2 + [PROMPT]
    page.press("#textarea", "Control+y")
    assert text_of(page) == PROMPT + new  # it was not lost
    page.press("#textarea", "Escape")
    page.press("#textarea", "Tab")
    assert page.evaluate("document.activeElement.id") == "continue"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "redo" or page.evaluate("document.activeElement.id") == "undo"
    assert text_of(page) == PROMPT + new


def test_text_after_the_cursor_stays_and_is_not_sent(page):
    write(page, "The night is dark. THE END")
    for _ in " THE END":
        page.press("#textarea", "ArrowLeft")
    bodies = sent(page)
    new = go_on(page)
    assert text_of(page) == f"The night is dark.{new} THE END"
    assert [body["prompt"] for body in bodies] == ["The night is dark."]
    page.press("#textarea", "Escape")
    assert selection(page) == [18, 18, "The night is dark. THE END"]


def test_what_was_selected_gives_way_and_comes_back(page):
    write(page, "The night is dark")
    for _ in "dark":
        page.press("#textarea", "Shift+ArrowLeft")
    bodies = sent(page)
    new = go_on(page)
    assert text_of(page) == f"The night is {new}" and bodies[0]["prompt"] == "The night is"
    page.press("#textarea", "Escape")
    assert selection(page) == [13, 17, "The night is dark"]


def test_a_space_that_was_typed_already_is_neither_sent_nor_written_twice(page):
    """To GPT-2 spaces belong to the words that follow; a continuation that begins with none is asked for again."""
    write(page, "The night ")
    asked, said = sent(page), ["-fall", "s", " is dark"]

    def answer(route):
        event = json.dumps({"choices": [{"index": 0, "text": said.pop(0), "finish_reason": "length"}]})
        route.fulfill(content_type="text/event-stream", body=f"data: {event}\n\ndata: [DONE]\n\n")

    page.route("**/v1/completions", answer)
    assert go_on(page) == "is dark" and text_of(page) == "The night is dark"
    assert [body["prompt"] for body in asked] == ["The night"] * 3


def test_to_the_end_of_the_sentence(page):
    ended = []
    for _ in range(4):
        new = go_on(page, "Control+Enter")
        ended.append(re.search(r"[.!?…][\"'”’»“)\]]*$", new))
        assert not re.search(r"[^\W\d]{4}[.!?]+\s", new), new  # shorter ones may be titles
        page.press("#textarea", "Enter")
    assert sum(map(bool, ended)) >= 2  # one in 30 does not end in its 150 tokens


def test_where_a_sentence_ends(page):
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


def writing(address):
    metrics = urllib.request.urlopen(f"{address}/metrics").read().decode()
    return float(re.search(r"gpt2_texts_writing\{.*\} (\S+)", metrics)[1])


def test_typing_while_it_streams_cancels_and_the_server_stops(opened, address):
    page = opened(settings=LONG)
    page.press("#textarea", "Tab")
    until(page, f"document.getElementById('textarea').value.length > {len(PROMPT) + 3}")
    page.keyboard.type("xyz")
    assert text_of(page) == PROMPT + "xyz"
    page.wait_for_timeout(300)
    assert text_of(page) == PROMPT + "xyz"
    end = time.monotonic() + 5
    while writing(address) and time.monotonic() < end:
        time.sleep(0.05)
    assert not writing(address)


def test_a_click_elsewhere_while_it_streams_keeps_what_has_come(opened):
    page = opened(settings=LONG)
    page.press("#textarea", "Tab")
    until(page, f"document.getElementById('textarea').value.length > {len(PROMPT) + 3}")
    page.evaluate("document.getElementById('textarea').setSelectionRange(2, 2)")
    settle(page)
    start, end, text = selection(page)
    assert (start, end) == (2, 2) and text.startswith(PROMPT) and len(text) > len(PROMPT)
    page.keyboard.type("-")
    assert text_of(page) == text[:2] + "-" + text[2:]


def test_one_of_three_is_chosen_and_the_others_stay_reachable(opened):
    page = opened(settings=WILD)
    page.press("#textarea", "Alt+Enter")
    until(page, "document.getElementById('notice').textContent.includes('1 to 3')")
    assert text_of(page) == PROMPT
    page.press("#textarea", "2")
    chosen = text_of(page)
    assert chosen.startswith(PROMPT) and len(chosen) > len(PROMPT) and page.is_hidden("#choices")
    until(page, "document.querySelectorAll('#branch-list .beside').length === 2")  # it is drawn with the next frame
    page.locator("#branch-list .beside button").first.click()
    other = text_of(page)
    assert other.startswith(PROMPT) and other != chosen
    page.focus("#textarea")
    seen = set()
    for _ in range(3):
        page.press("#textarea", "Alt+ArrowDown")
        seen.add(text_of(page))
    assert len(seen) == 3 and {chosen, other} <= seen


def test_typing_puts_the_choices_away(page):
    page.press("#textarea", "Alt+Enter")
    page.keyboard.type("4")
    assert text_of(page) == PROMPT + "4"
    until(page, "document.getElementById('choices').hidden")


def test_undo_and_redo_over_everything(opened):
    page = opened(settings=GREEDY)
    states = [text_of(page)]
    go_on(page)
    page.press("#textarea", "Enter")
    states.append(text_of(page))
    page.keyboard.type("Now")
    states.append(text_of(page))
    page.press("#textarea", "Backspace")
    page.press("#textarea", "Backspace")
    states.append(text_of(page))
    page.press("#textarea", "Alt+Enter")
    until(page, "document.getElementById('notice').textContent.includes('1 to 3')")
    page.press("#textarea", "1")
    states.append(text_of(page))
    for state in states[-2::-1]:
        page.press("#textarea", "Control+z")
        assert text_of(page) == state
    for state in states[1:]:
        page.click("#redo")
        assert text_of(page) == state


def test_the_browsers_own_undo_is_the_trees(page):
    """From a menu that the page does not see, too."""
    page.keyboard.type("er")
    page.evaluate("document.execCommand('undo')")
    assert text_of(page) == PROMPT
    new = go_on(page)
    page.press("#textarea", "Enter")
    page.keyboard.type("!")
    page.evaluate("document.execCommand('undo')")
    assert text_of(page) == PROMPT + new
    page.press("#textarea", "Control+y")
    assert text_of(page) == PROMPT + new + "!"


def test_a_draft_outlives_the_page_and_travels_as_a_file(opened, tmp_path):
    page = opened(settings=WILD)
    go_on(page)
    go_on(page)
    text = text_of(page)
    page.click("#files summary")
    for button, ending in (("#export-text", "txt"), ("#export-json", "json")):
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(tmp_path / f"draft.{ending}")
    assert (tmp_path / "draft.txt").read_text(encoding="utf-8") == text
    assert json.loads((tmp_path / "draft.json").read_text(encoding="utf-8"))["format"] == "gpt-2-draft"
    page.reload()
    assert text_of(page) == text
    page.click("#new-draft")
    assert text_of(page) == ""
    assert page.locator("#drafts option").count() == 2
    page.set_input_files("#import-file", tmp_path / "draft.json")
    until(page, "document.getElementById('textarea').value !== ''")
    assert text_of(page) == text and page.locator("#drafts option").count() == 3
    page.press("#textarea", "Alt+ArrowUp")
    assert text_of(page) != text and text_of(page).startswith(PROMPT)
    (tmp_path / "other.json").write_text('{"format": "gpt-2-draft", "nodes": [{}, {"parent": 5}]}', encoding="utf-8")
    page.set_input_files("#import-file", tmp_path / "other.json")
    until(page, "document.getElementById('notice').textContent.includes('other.json')")


def test_a_draft_that_two_tabs_write_becomes_two(opened):
    page = opened()
    page.wait_for_timeout(600)
    other = page.context.new_page()
    other.goto(page.url)
    other.click("#textarea")  # which is no change
    other.press("#textarea", "ArrowLeft")
    other.wait_for_timeout(600)
    assert other.locator("#drafts option").count() == page.locator("#drafts option").count() == 1
    write(other, "from the other tab")
    other.wait_for_timeout(600)
    write(page, "from the first tab")
    until(page, "document.getElementById('notice').textContent.includes('another tab')")
    titles = page.locator("#drafts option").all_text_contents()
    assert {"from the other tab", "from the first tab"} <= set(titles)


def test_settings_are_sent_and_kept(page):
    for name, value in (("temperature", "0"), ("length", "7"), ("top_k", "9"), ("top_p", "0.5")):
        page.fill(f"#dials-{name}", value)
    bodies = sent(page)
    first = go_on(page)
    assert go_on(page) == first  # greedy
    page.reload()
    assert page.input_value("#dials-length") == "7"
    go_on(page)
    asked = {name: bodies[-1][name] for name in ("temperature", "max_tokens", "top_k", "top_p")}
    assert asked == {"temperature": 0, "max_tokens": 7, "top_k": 9, "top_p": 0.5}
    page.click("#defaults")
    assert page.input_value("#dials-length") == "20"


def test_on_a_pause_if_switched_on(opened):
    page = opened(settings={"pause": 0.5})
    page.keyboard.type(", and")
    until(page, "!document.getElementById('suggestion').hidden")
    settle(page)
    start, end, text = selection(page)
    assert text[:start] == PROMPT + ", and" and end > start


def test_a_text_beyond_the_context_goes_on(page):
    write(page, "The night is dark, and the day is long. " * 40)
    bodies = sent(page)
    go_on(page)
    ids = bodies[0]["prompt"]
    assert isinstance(ids, list) and 100 < len(ids) <= 256 - 20
    page.press("#textarea", "Enter")
    go_on(page)  # the window began where it began before
    assert bodies[1]["prompt"][: len(ids)] == ids or len(bodies[1]["prompt"]) <= len(ids)


def test_the_tree_keeps_every_state(page):
    """Random changes and walks: each node's text is the one that it had, also after storing."""
    assert (
        page.evaluate("""async () => {
      const { Tree, difference } = await import('/tree.js');
      let seed = 7;
      const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
      const tree = new Tree();
      const texts = [''];
      for (let i = 0; i < 400; i += 1) {
        if (random(3) === 0) tree.go(random(tree.nodes.length));
        if (tree.text !== texts[tree.current]) return `walked to ${tree.current}`;
        const at = random(tree.text.length + 1);
        const end = Math.min(tree.text.length, at + random(4));
        const next = tree.text.slice(0, at) + 'aab😀\\n'.slice(random(3), random(7)) + tree.text.slice(end);
        const change = difference(tree.text, next, at);
        if (!change.removed && !change.inserted) continue;
        tree.go(tree.add(change, 'typed'));
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
