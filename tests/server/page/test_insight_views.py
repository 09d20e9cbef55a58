"""Tests of the views "Probabilities" and "How it works": the page shows the numbers of the model."""

import json
import math
import urllib.request

import numpy as np
import pytest
from pages import PROMPT, continue_text, get_text, set_text, wait_until

from gpt2 import sample
from gpt2.request import Sampling

HTML = "<img src=x onerror=alert(1)> <b>bold</b> &amp; \"'"


def post(address, path, **body):
    request = urllib.request.Request(
        f"{address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def show_probabilities(page, token_count):
    page.click("#to-probabilities")
    wait_until(page, f"document.querySelectorAll('#tokens [data-index]').length === {token_count}")


def show_introspection(page):
    page.click("#to-introspection")
    wait_until(page, "!document.getElementById('introspection-cards').hidden")


def test_each_token_has_the_shade_of_its_probability_and_shows_its_rank(page, address):
    scores = post(address, "insight/scores", prompt=PROMPT)["tokens"]
    show_probabilities(page, len(scores))
    shades = page.evaluate("[...document.querySelectorAll('#tokens [data-index]')].map(b => b.dataset.shade)")
    bounds = [0.5, 0.1, 0.01, 0.001]
    expected = [str(sum(math.exp(token["logprob"]) < bound for bound in bounds)) for token in scores[1:]]
    assert shades == ["none", *expected] and len(set(shades)) > 2
    for index, token in enumerate(scores[1:], start=1):
        page.hover(f"#tokens [data-index='{index}']")
        assert f"Rank {token['rank']} of 1,024" in page.inner_text("#detail-text")
        assert page.locator("#alternatives li").count() == len(token["likeliest"])
    assert page.inner_text("#legend").splitlines()[-1] == "not scored"


def test_arrow_keys_move_between_tokens(page, address):
    show_probabilities(page, len(post(address, "insight/scores", prompt=PROMPT)["tokens"]))
    page.focus("#tokens [data-index='0']")
    assert "no probability" in page.inner_text("#detail-text")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "Token 3: ↵" in page.inner_text("#detail-heading")
    assert page.locator("#tokens [tabindex='0']").count() == 1


def test_selecting_an_alternative_branches_and_a_next_token_is_appended(page, address):
    scores = post(address, "insight/scores", prompt=PROMPT)
    show_probabilities(page, len(scores["tokens"]))
    index = len(scores["tokens"]) - 2
    before = "".join(token["text"] for token in scores["tokens"][:index])
    page.hover(f"#tokens [data-index='{index}']")
    alternatives = scores["tokens"][index]["likeliest"]
    choice = next(i for i, token in enumerate(alternatives) if token["text"])
    page.locator("#alternatives button").nth(choice).click()
    branched = before + alternatives[choice]["text"]
    assert get_text(page) == branched
    wait_until(page, f"document.querySelectorAll('#tokens [data-index]').length === {index + 1}")
    upcoming = post(address, "insight/next", prompt=branched, top=1)["likeliest"][0]
    page.locator("#next-tokens button").first.click()
    assert get_text(page) == branched + upcoming["text"]
    page.click("#probabilities-undo")
    page.click("#probabilities-undo")
    assert get_text(page) == PROMPT
    page.click("#to-write")
    wait_until(page, "document.querySelectorAll('#branch-list .upcoming').length > 0")  # redo can restore the tokens


def test_text_can_be_continued_in_the_probabilities_view(page, address):
    show_probabilities(page, len(post(address, "insight/scores", prompt=PROMPT)["tokens"]))
    page.click("#probabilities-continue")
    wait_until(page, f"document.querySelectorAll('#tokens [data-index]').length > {len(PROMPT) // 2}")
    wait_until(page, f"document.getElementById('textarea').value.length > {len(PROMPT)}")
    assert get_text(page).startswith(PROMPT)


@pytest.mark.parametrize("text", ["grün 😀 fin", "tab\tand  two\n\n\nlines ", HTML, "'d " * 200])
def test_token_spans_cover_the_text(open_page, address, text):
    page = open_page(text=text)
    tokens = post(address, "insight/scores", prompt=text)["tokens"]
    show_probabilities(page, len(tokens))
    spans = page.evaluate(
        "async ([text, tokens]) => (await import('/token_spans.js')).tokenSpans(text, tokens)", [text, tokens]
    )
    units = text.encode("utf-16-le")
    assert "".join(units[2 * a : 2 * b].decode("utf-16-le") for a, b in spans) == text[spans[0][0] :]
    assert all(b == c for (_, b), (c, _) in zip(spans, spans[1:]))
    if len(tokens) == 256:
        assert "256 tokens" in page.inner_text("#probabilities-note") or "last 256" in page.inner_text(
            "#probabilities-note"
        )


def test_only_the_end_of_a_very_long_text_is_scored(open_page):
    page = open_page(text="The night is dark. " * 60_000)
    page.click("#to-probabilities")
    wait_until(page, "document.getElementById('probabilities-note').textContent.includes('the last 25')")
    assert page.evaluate("document.getElementById('tokens').textContent.length") > 1_000_000
    page.click("#to-introspection")
    wait_until(page, "document.getElementById('introspection-note').textContent.includes('last 256 tokens')")


def test_tokens_of_a_vocabulary_that_normalizes_white_space_are_found_in_the_text(page):
    """SentencePiece normalizes white space, so its tokens differ from the text."""
    text = "Davor.  Das  blaue\tPferd \nlief  "
    token_texts = ["Das", " blaue", " P", "ferd", "\n", "lief"]
    spans = page.evaluate(
        "async ([text, tokens]) => (await import('/token_spans.js')).tokenSpans(text, tokens)",
        [text, [{"text": token_text} for token_text in token_texts]],
    )
    assert [text[a:b].strip() for a, b in spans] == ["Das", "blaue", "P", "ferd", "", "lief"]


def test_html_in_the_text_is_shown_as_text(open_page):
    page = open_page(text=f"{HTML}\n")
    event = {"choices": [{"index": 0, "text": HTML, "finish_reason": "length"}]}
    page.route("**/v1/completions", lambda route: route.fulfill(
        content_type="text/event-stream", body=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"))  # fmt: skip
    assert continue_text(page) == HTML
    assert page.inner_text("#suggestion-text") == HTML
    page.press("#textarea", "Enter")
    page.press("#textarea", "Alt+Enter")
    wait_until(page, "document.querySelector('#choices span')?.textContent !== ''")
    assert page.inner_text("#choices span >> nth=0") == HTML
    show_probabilities(page, page.evaluate("document.querySelectorAll('#tokens [data-index]').length") or 0)
    wait_until(page, "document.querySelectorAll('#tokens [data-index]').length > 0")
    show_introspection(page)
    assert page.locator("main img, main b, #drafts b").count() == 0


def test_every_layer_is_shown(open_page, address):
    page = open_page()
    layers = post(address, "insight/layers", prompt=PROMPT)
    show_introspection(page)
    assert page.locator("#chips button").count() == len(layers["tokens"])
    ids = page.locator("#chips small").all_text_contents()
    assert ids == [str(token["id"]) for token in layers["tokens"]]
    assert page.locator("#lens tbody tr").count() == 6
    upcoming = post(address, "insight/next", prompt=PROMPT, top=3)["likeliest"]
    last = page.locator("#lens tbody tr").last.locator("code").all_text_contents()
    assert last == [token["piece"].replace(" ", "·").replace("\n", "↵") for token in upcoming]
    page.locator("#chips button").nth(3).click()
    assert page.locator("#chips [aria-pressed='true']").count() == 1
    assert page.locator("#strengths > span").count() == 4
    assert "wirklich" not in page.inner_text("#lens-caption")
    assert "the actual next token is" in page.inner_text("#lens-caption")


def test_attention_weights_of_each_row_add_up_to_one(page, address):
    """This holds for each head and for the average of the heads."""
    layers = post(address, "insight/layers", prompt=PROMPT)
    sums = page.evaluate(
        """async ({ attention, tokens, n_head }) => {
          const { AttentionWeights } = await import('/base64.js');
          const sums = [];
          for (const text of attention) {
            const weights = new AttentionWeights(text, tokens.length);
            if (weights.headCount !== n_head) return weights.headCount;
            for (let head = -1; head < n_head; head += 1)
              for (let from = 0; from < tokens.length; from += 1) {
                let sum = 0;
                for (let to = 0; to <= from; to += 1) sum += weights.get(head, from, to);
                sums.push(sum);
              }
          }
          return sums;
        }""",
        layers,
    )
    np.testing.assert_allclose(sums, 1, atol=1e-3)
    show_introspection(page)
    before = page.evaluate("document.getElementById('matrix').toDataURL()")
    page.select_option("#layer", index=3)
    page.select_option("#head", index=3)
    assert page.evaluate("document.getElementById('matrix').toDataURL()") != before
    assert "layer 4, head 3" in page.get_attribute("#matrix", "aria-label")


def test_sliders_reshape_the_distribution(page):
    show_introspection(page)
    page.fill("#sampling-sliders-top_k", "5")
    assert page.inner_text("#sampling-caption") == "5 of 1,024 tokens can be drawn."
    page.fill("#sampling-sliders-temperature", "0")
    assert "most likely" in page.inner_text("#sampling-caption")
    assert page.locator("#sampling-bars .share").first.inner_text() == "100 %"
    page.click("#to-write")
    assert page.input_value("#sliders-top_k") == "5"  # both views share the setting


@pytest.mark.parametrize("settings", [(1, 0, 1), (0.5, 7, 1), (1.7, 0, 0.6), (0.8, 50, 0.9), (0, 5, 0.5), (2, 3, 0.05)])
def test_filtered_probabilities_match_the_sampler(page, settings):
    temperature, top_k, top_p = settings
    logits = np.sort(np.random.default_rng(3).normal(0, 3, 1000).astype(np.float32))[::-1]
    parameters = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    probabilities = page.evaluate(
        """async ([logits, parameters]) => {
          const { filterProbabilities } = await import('/distribution.js');
          return [...filterProbabilities(Float32Array.from(logits), parameters)];
        }""",
        [logits.tolist(), parameters],
    )
    if not temperature:
        assert probabilities == [1]
        return
    candidates = sample.filter_candidates(logits, Sampling(temperature, top_k, top_p))
    shares = np.exp(candidates.logits.astype(np.float64))
    np.testing.assert_allclose(probabilities, np.sort(shares / shares.sum())[::-1], atol=1e-5)


def test_empty_text_shows_a_note(page):
    set_text(page, "")
    page.click("#to-introspection")
    assert page.inner_text("#introspection-note") == "There is no text yet."
    page.click("#to-probabilities")
    wait_until(page, "document.getElementById('probabilities-note').textContent === 'There is no text yet.'")
    assert page.locator("#next-tokens button").count() == 10


@pytest.mark.parametrize("view", ["probabilities", "introspection"])
def test_cancelled_request_does_not_disturb_a_newer_one_for_the_same_text(open_page, address, view):
    """The list of models arrives late, so a second request starts while the first is still pending."""
    page = open_page("about:blank", text=None)
    model_routes = []
    insight_routes = []
    page.route("**/v1/models", lambda route: model_routes.append(route))
    page.route("**/insight/*", lambda route: route.continue_() if insight_routes else insight_routes.append(route))
    page.goto(address)
    set_text(page, PROMPT)
    page.click(f"#to-{view}")
    while not (model_routes and insight_routes):
        page.wait_for_timeout(10)
    model_routes[0].continue_()
    selector = {"probabilities": "#next-tokens button", "introspection": "#chips button"}[view]
    wait_until(page, f"document.querySelectorAll('{selector}').length >= 9")
    assert page.inner_text(f"#{view}-note") == ""


def test_tokens_listed_for_an_older_text_are_not_appended(open_page, address):
    page = open_page()
    scores = post(address, "insight/scores", prompt=PROMPT)
    show_probabilities(page, len(scores["tokens"]))
    held_routes = []
    page.route("**/insight/*", lambda route: held_routes.append(route))
    for _ in range(2):
        page.locator("#next-tokens button").first.click()
    page.hover("#tokens [data-index='3']")
    page.locator("#tokens [data-index='3']").click()
    assert get_text(page) == PROMPT + scores["next"][0]["text"] and len(held_routes) == 1
    held_routes[0].continue_()
    wait_until(page, f"document.querySelectorAll('#tokens [data-index]').length === {len(scores['tokens']) + 1}")


def is_in_view(container, selector):
    """Return an expression: whether an element is visible within its scrolling container."""
    return f"""((container) => {{
      const [outer, inner] = [container, container.querySelector({json.dumps(selector)})].map((element) =>
        element.getBoundingClientRect());
      return outer.height > 0 && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
    }})(document.getElementById('{container}'))"""


def wait_for_selected_tokens(page):
    """Wait until both lists of tokens in "How it works" show the selected token."""
    wait_until(page, is_in_view("chips", "[aria-pressed='true']"), 5)
    wait_until(page, is_in_view("strengths", "[aria-current]"), 5)


def test_selected_token_of_a_long_text_is_in_view(open_page):
    """After the first view, each way to select a token, a resize, a change of the view and one of the language."""
    page = open_page(text="The night is dark and the day is long. " * 60)
    show_introspection(page)
    assert page.locator("#chips button").count() == 256
    assert page.get_attribute("#chips [aria-pressed='true']", "data-index") == "255"
    wait_for_selected_tokens(page)
    for index in (0, 255, 128, 7):
        page.evaluate(f"document.querySelectorAll('#chips button')[{index}].click()")
        wait_for_selected_tokens(page)
    for key in ("End", "ArrowLeft", "Home", "ArrowRight"):
        page.press("#chips [aria-pressed='true']", key)
        wait_for_selected_tokens(page)
    for share in (0, 0.99, 0.5):
        height = page.evaluate("document.getElementById('matrix').clientHeight")
        page.locator("#matrix").click(position={"x": 9, "y": share * height}, force=True)
        wait_for_selected_tokens(page)
    page.set_viewport_size({"width": 420, "height": 700})
    wait_for_selected_tokens(page)
    page.set_viewport_size({"width": 1280, "height": 860})
    wait_for_selected_tokens(page)
    page.click("#to-write")
    show_introspection(page)
    wait_for_selected_tokens(page)
    page.select_option("#language", "de")
    wait_for_selected_tokens(page)


def test_row_of_the_selected_token_is_marked_in_a_large_matrix(page):
    """The page shows the image of 256 tokens at a third of its size, so a thin frame would disappear."""
    set_text(page, "The night is dark and the day is long. " * 60)
    show_introspection(page)
    marked_rows = """((canvas) => {
      const { data } = canvas.getContext('2d').getImageData(5, 0, 1, canvas.height);
      let rows = 0;
      for (let y = 0; y < canvas.height; y += 1) rows += data[4 * y] > 150 && data[4 * y + 1] < 100;
      return rows / (canvas.height / canvas.clientHeight);
    })(document.getElementById('matrix'))"""
    for index in (0, 128, 255):
        page.evaluate(f"document.querySelectorAll('#chips button')[{index}].click()")
        wait_until(page, f"{marked_rows} > 1.5", 5)


def test_end_of_a_long_text_or_its_selected_token_is_in_view(open_page):
    page = open_page(text="The night is dark and the day is long. " * 60)
    page.click("#to-probabilities")
    wait_until(page, "document.querySelectorAll('#tokens [data-index]').length >= 250")
    last = "[data-index]:last-of-type"
    wait_until(page, is_in_view("tokens", last), 5)
    page.locator("#next-tokens button").first.click()
    wait_until(page, "document.getElementById('probabilities-note').textContent.includes('last')")
    wait_until(page, is_in_view("tokens", last), 5)
    page.press("#tokens [tabindex='0']", "Home")
    page.set_viewport_size({"width": 700, "height": 500})
    wait_until(page, is_in_view("tokens", ".selected"), 5)
    page.click("#to-write")
    page.click("#to-probabilities")
    wait_until(page, is_in_view("tokens", ".selected"), 5)
    page.press("#tokens [data-index='0']", "End")
    page.set_viewport_size({"width": 1280, "height": 860})
    wait_until(page, is_in_view("tokens", ".selected"), 5)
