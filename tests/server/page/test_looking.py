"""To look and to understand: what the page shows is what the model says."""

import json
import math
import urllib.request

import numpy as np
import pytest
from pages import PROMPT, go_on, text_of, until, write

from gpt2 import sample
from gpt2.request import Sampling

HTML = "<img src=x onerror=alert(1)> <b>bold</b> &amp; \"'"


def ask(address, path, **body):
    request = urllib.request.Request(
        f"{address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def look(page, tokens):
    page.click("#to-look")
    until(page, f"document.querySelectorAll('#tokens [data-at]').length === {tokens}")


def understand(page):
    page.click("#to-inside")
    until(page, "!document.getElementById('inside-cards').hidden")


def test_each_token_is_coloured_by_its_probability_and_shows_its_rank(page, address):
    scores = ask(address, "insight/scores", prompt=PROMPT)["tokens"]
    look(page, len(scores))
    shades = page.evaluate("[...document.querySelectorAll('#tokens [data-at]')].map(b => b.dataset.shade)")
    bounds = [0.5, 0.1, 0.01, 0.001]
    expected = [str(sum(math.exp(one["logprob"]) < bound for bound in bounds)) for one in scores[1:]]
    assert shades == ["none", *expected] and len(set(shades)) > 2
    for at, one in enumerate(scores[1:], start=1):
        page.hover(f"#tokens [data-at='{at}']")
        assert f"Rank {one['rank']} of 1,024" in page.inner_text("#detail-said")
        assert page.locator("#alternatives li").count() == len(one["likeliest"])
    assert page.inner_text("#legend").splitlines()[-1] == "not scored"


def test_tokens_are_walked_by_arrow_keys(page, address):
    look(page, len(ask(address, "insight/scores", prompt=PROMPT)["tokens"]))
    page.focus("#tokens [data-at='0']")
    assert "no probability" in page.inner_text("#detail-said")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "Token 3: ↵" in page.inner_text("#detail-heading")
    assert page.locator("#tokens [tabindex='0']").count() == 1


def test_an_alternative_branches_and_a_next_token_is_taken(page, address):
    scores = ask(address, "insight/scores", prompt=PROMPT)
    look(page, len(scores["tokens"]))
    at = len(scores["tokens"]) - 2
    before = "".join(one["text"] for one in scores["tokens"][:at])
    page.hover(f"#tokens [data-at='{at}']")
    other = next(i for i, one in enumerate(scores["tokens"][at]["likeliest"]) if one["text"])
    page.locator("#alternatives button").nth(other).click()
    branched = before + scores["tokens"][at]["likeliest"][other]["text"]
    assert text_of(page) == branched
    until(page, f"document.querySelectorAll('#tokens [data-at]').length === {at + 1}")
    upcoming = ask(address, "insight/next", prompt=branched, top=1)["likeliest"][0]
    page.locator("#next button").first.click()
    assert text_of(page) == branched + upcoming["text"]
    page.click("#look-undo")
    page.click("#look-undo")
    assert text_of(page) == PROMPT
    page.click("#to-write")
    until(page, "document.querySelectorAll('#branch-list .ahead').length > 0")  # what was taken is there still


def test_it_goes_on_where_one_looks(page, address):
    look(page, len(ask(address, "insight/scores", prompt=PROMPT)["tokens"]))
    page.click("#look-continue")
    until(page, f"document.querySelectorAll('#tokens [data-at]').length > {len(PROMPT) // 2}")
    until(page, f"document.getElementById('textarea').value.length > {len(PROMPT)}")
    assert text_of(page).startswith(PROMPT)


@pytest.mark.parametrize("text", ["grün 😀 fin", "tab\tand  two\n\n\nlines ", HTML, "'d " * 200])
def test_the_tokens_are_the_text(opened, address, text):
    page = opened(text=text)
    tokens = ask(address, "insight/scores", prompt=text)["tokens"]
    look(page, len(tokens))
    places = page.evaluate(
        "async ([text, tokens]) => (await import('/token_spans.js')).places(text, tokens)", [text, tokens]
    )
    units = text.encode("utf-16-le")
    assert "".join(units[2 * a : 2 * b].decode("utf-16-le") for a, b in places) == text[places[0][0] :]
    assert all(b == c for (_, b), (c, _) in zip(places, places[1:]))
    if len(tokens) == 256:
        assert "256 tokens" in page.inner_text("#look-note") or "last 256" in page.inner_text("#look-note")


def test_of_a_text_larger_than_a_request_the_end_is_looked_at(opened):
    page = opened(text="The night is dark. " * 60_000)
    page.click("#to-look")
    until(page, "document.getElementById('look-note').textContent.includes('the last 25')")
    assert page.evaluate("document.getElementById('tokens').textContent.length") > 1_000_000
    page.click("#to-inside")
    until(page, "document.getElementById('inside-note').textContent.includes('last 256 tokens')")


def test_tokens_of_a_vocabulary_that_tidies_white_space_are_found_in_the_text(page):
    """As SentencePiece does: what it says is not what was written."""
    text, said = "Davor.  Das  blaue\tPferd \nlief  ", ["Das", " blaue", " P", "ferd", "\n", "lief"]
    places = page.evaluate(
        "async ([text, said]) => (await import('/token_spans.js')).places(text, said.map((text) => ({ text })))",
        [text, said],
    )
    assert [text[a:b].strip() for a, b in places] == ["Das", "blaue", "P", "ferd", "", "lief"]


def test_text_that_is_html_is_shown_as_text(opened):
    page = opened(text=f"{HTML}\n")
    event = {"choices": [{"index": 0, "text": HTML, "finish_reason": "length"}]}
    page.route("**/v1/completions", lambda route: route.fulfill(
        content_type="text/event-stream", body=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"))  # fmt: skip
    assert go_on(page) == HTML
    assert page.inner_text("#suggested") == HTML
    page.press("#textarea", "Enter")
    page.press("#textarea", "Alt+Enter")
    until(page, "document.querySelector('#choices span')?.textContent !== ''")
    assert page.inner_text("#choices span >> nth=0") == HTML
    look(page, page.evaluate("document.querySelectorAll('#tokens [data-at]').length") or 0)
    until(page, "document.querySelectorAll('#tokens [data-at]').length > 0")
    understand(page)
    assert page.locator("main img, main b, #drafts b").count() == 0


def test_every_layer_is_shown(opened, address):
    page = opened()
    inside = ask(address, "insight/layers", prompt=PROMPT)
    understand(page)
    assert page.locator("#chips button").count() == len(inside["tokens"])
    ids = page.locator("#chips small").all_text_contents()
    assert ids == [str(token["id"]) for token in inside["tokens"]]
    assert page.locator("#lens tbody tr").count() == 6
    upcoming = ask(address, "insight/next", prompt=PROMPT, top=3)["likeliest"]
    last = page.locator("#lens tbody tr").last.locator("code").all_text_contents()
    assert last == [one["piece"].replace(" ", "·").replace("\n", "↵") for one in upcoming]
    page.locator("#chips button").nth(3).click()
    assert page.locator("#chips [aria-pressed='true']").count() == 1
    assert page.locator("#strengths > span").count() == 4
    assert "wirklich" not in page.inner_text("#lens-said")
    assert "the actual next token is" in page.inner_text("#lens-said")


def test_attention_is_what_the_heads_do(page, address):
    """Rows of the picture's numbers add up to one, for each head and for their average."""
    inside = ask(address, "insight/layers", prompt=PROMPT)
    sums = page.evaluate(
        """async ({ attention, tokens, n_head }) => {
          const { Attention } = await import('/base64.js');
          const sums = [];
          for (const text of attention) {
            const one = new Attention(text, tokens.length);
            if (one.heads !== n_head) return one.heads;
            for (let head = -1; head < n_head; head += 1)
              for (let from = 0; from < tokens.length; from += 1) {
                let sum = 0;
                for (let to = 0; to <= from; to += 1) sum += one.at(head, from, to);
                sums.push(sum);
              }
          }
          return sums;
        }""",
        inside,
    )
    np.testing.assert_allclose(sums, 1, atol=1e-3)
    understand(page)
    before = page.evaluate("document.getElementById('matrix').toDataURL()")
    page.select_option("#layer", index=3)
    page.select_option("#head", index=3)
    assert page.evaluate("document.getElementById('matrix').toDataURL()") != before
    assert "layer 4, head 3" in page.get_attribute("#matrix", "aria-label")


def test_sliders_reshape_the_distribution(page):
    understand(page)
    page.fill("#shape-dials-top_k", "5")
    assert page.inner_text("#shape-said") == "5 of 1,024 tokens can be drawn."
    page.fill("#shape-dials-temperature", "0")
    assert "most likely" in page.inner_text("#shape-said")
    assert page.locator("#shape .share").first.inner_text() == "100 %"
    page.click("#to-write")
    assert page.input_value("#dials-top_k") == "5"  # one setting, in both places


@pytest.mark.parametrize("settings", [(1, 0, 1), (0.5, 7, 1), (1.7, 0, 0.6), (0.8, 50, 0.9), (0, 5, 0.5), (2, 3, 0.05)])
def test_shaping_is_the_samplers(page, settings):
    temperature, top_k, top_p = settings
    logits = np.sort(np.random.default_rng(3).normal(0, 3, 1000).astype(np.float32))[::-1]
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    found = page.evaluate(
        "async ([logits, how]) => [...(await import('/distribution.js')).shaped(Float32Array.from(logits), how)]",
        [logits.tolist(), given],
    )
    if not temperature:
        assert found == [1]
        return
    left = sample.filter_candidates(logits, Sampling(temperature, top_k, top_p))
    shares = np.exp(left.logits.astype(np.float64))
    np.testing.assert_allclose(found, np.sort(shares / shares.sum())[::-1], atol=1e-5)


def test_no_text_is_said_to_be_none(page):
    write(page, "")
    page.click("#to-inside")
    assert page.inner_text("#inside-note") == "There is no text yet."
    page.click("#to-look")
    until(page, "document.getElementById('look-note').textContent === 'There is no text yet.'")
    assert page.locator("#next button").count() == 10


@pytest.mark.parametrize("view", ["look", "inside"])
def test_a_question_given_up_for_the_same_text_leaves_its_successor_alone(opened, address, view):
    """Which models there are is known late: the text is asked about again while the first question is still out."""
    page = opened("about:blank", text=None)
    models, asked = [], []
    page.route("**/v1/models", lambda route: models.append(route))
    page.route("**/insight/*", lambda route: asked.append(route) if not asked else route.continue_())
    page.goto(address)
    write(page, PROMPT)
    page.click(f"#to-{view}")
    while not (models and asked):
        page.wait_for_timeout(10)
    models[0].continue_()
    shown = {"look": "#next button", "inside": "#chips button"}[view]
    until(page, f"document.querySelectorAll('{shown}').length >= 9")
    assert page.inner_text(f"#{view}-note") == ""


def test_what_was_offered_for_another_text_is_not_taken(opened, address):
    page = opened()
    scores = ask(address, "insight/scores", prompt=PROMPT)
    look(page, len(scores["tokens"]))
    held = []
    page.route("**/insight/*", lambda route: held.append(route))
    for _ in range(2):
        page.locator("#next button").first.click()
    page.hover("#tokens [data-at='3']")
    page.locator("#tokens [data-at='3']").click()
    assert text_of(page) == PROMPT + scores["next"][0]["text"] and len(held) == 1
    held[0].continue_()
    until(page, f"document.querySelectorAll('#tokens [data-at]').length === {len(scores['tokens']) + 1}")
