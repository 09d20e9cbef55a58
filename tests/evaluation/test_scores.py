"""Log-probabilities equal a direct computation from the slow reference, whatever window, stride and length."""

import itertools

import numpy as np
import pytest

from gpt2.engine import scoring
from gpt2.engine.scoring import ScoreOptions, Span
from gpt2.errors import UsageError
from gpt2.evaluation.perplexity import ScoreTotals, TextCounts, text_metrics
from gpt2.evaluation.scores import Protocol, protocol_of, score, score_ids, windows

TEXT = "the cat sat on the mat\nand the dog\n\nsat on the log " * 9
CLOSE = {"atol": 1e-4, "rtol": 0}


def told(model, ids, protocol, cut=1000):
    """All tokens' log-probabilities of one text of ids, in parts of so many; the ids must come back in their order."""
    parts = [np.array(ids[start : start + cut], np.int32) for start in range(0, len(ids), cut)]
    found, back = [], []
    for scored in score_ids(model, [parts], protocol):
        back += scored.ids.tolist()
        found += [None] * len(scored.ids) if scored.tokens is None else scored.tokens.logprobs.tolist()
    assert back == list(ids)
    return found


def assert_same(found, expected):
    assert [one is None for one in found] == [one is None for one in expected]
    np.testing.assert_allclose(*([one for one in some if one is not None] for some in (found, expected)), **CLOSE)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("window, stride", [(32, 32), (32, 16), (32, 1), (7, 3), (1, 1)])
def test_every_protocol_and_length_on_all_backends(scorers, slow, window, stride, start):
    ids = scorers[0].encoder.encode(TEXT)
    for model in scorers:
        protocol = protocol_of(32, model.encoder, window, stride, start)
        for length in (0, 1, 2, window - 1, window, window + 1, window + stride, window + stride + 1, 75):
            assert_same(told(model, ids[:length], protocol), slow.logprobs(ids[:length], protocol))


def test_where_a_text_is_cut_into_parts_does_not_matter(scorer):
    ids = scorer.encoder.encode(TEXT)
    protocol = Protocol(32, 5, scorer.encoder.end_of_text)
    whole = told(scorer, ids, protocol)
    for cut in (1, 4, 33, 1000):
        np.testing.assert_allclose(told(scorer, ids, protocol, cut), whole, **CLOSE)


def test_texts_are_scored_each_for_itself_and_in_their_order(scorer, slow):
    texts = ["the cat", "", "x", "the cat", TEXT]
    protocol = protocol_of(32, scorer.encoder, start=False)
    found = {}
    for scored in score(scorer, texts, protocol):
        found.setdefault(scored.text, []).extend(
            [None] * len(scored.ids) if scored.tokens is None else scored.tokens.logprobs.tolist()
        )
    assert list(found) == [0, 2, 3, 4]
    for number, logprobs in found.items():
        assert_same(logprobs, slow.logprobs(scorer.encoder.encode(texts[number]), protocol))


def test_a_text_is_scored_while_it_is_read(scorer):
    """One that never ends, of which little more is drawn than what has been told of."""
    drawn = itertools.count()

    def parts():
        for number in drawn:
            yield "the cat sat " * 20
            assert number < 30

    some = itertools.islice(score(scorer, [parts()], protocol_of(32, scorer.encoder)), 20)
    assert sum(len(scored.ids) for scored in some) == 20 * 32
    assert next(drawn) < 20


@pytest.mark.parametrize("at_once, spans", [(3, 2), (128, 16)])
def test_spans_that_begin_alike_are_scored_as_if_alone(scorers, slow, monkeypatch, at_once, spans):
    monkeypatch.setattr(scoring, "AT_ONCE", at_once)
    monkeypatch.setattr(scoring, "SPANS", spans)
    rng = np.random.default_rng(1)
    context = rng.integers(0, 250, 20)
    rows = [np.concatenate([context[:keep], rng.integers(0, 250, more)]) for keep, more in
            ((20, 5), (20, 5), (20, 1), (3, 20), (20, 13), (20, 13), (0, 2), (0, 33))]  # fmt: skip
    wanted = [Span(row.astype(np.int32), min(4, len(row) - 1)) for row in [*rows, rows[-1], rows[0]]]
    for model in scorers:
        found = list(scoring.score_spans(model.backend, wanted, ScoreOptions(ranks=True, likeliest=3)))
        assert len(found) == len(wanted)
        for span, got in zip(wanted, found):
            for place in range(span.scored):
                at = len(span.ids) - span.scored + place
                expected = slow.after(span.ids[:at])
                np.testing.assert_allclose(got.logprobs[place], expected[span.ids[at]], **CLOSE)
                assert got.ranks[place] == 1 + np.count_nonzero(expected > expected[span.ids[at]])
                assert got.likeliest[place].tolist() == np.argsort(-expected)[:3].tolist()
                np.testing.assert_allclose(got.likeliest_logprobs[place], np.sort(expected)[::-1][:3], **CLOSE)


class Watched:
    """A backend, the caches that were asked of it, and how many ids it was fed in each call."""

    def __init__(self, backend):
        self.backend, self.taken, self.fed = backend, [], []

    def new_blocks(self):
        self.taken.append(self.backend.new_blocks())
        return self.taken[-1]

    def extend(self, blocks, pieces):
        self.fed.append(sum(len(piece.ids) for piece in pieces))
        return self.backend.extend(blocks, pieces)


def test_what_spans_begin_with_alike_is_fed_once(scorer):
    """Ten answers to each of three questions, of which the longest part is the question."""
    watched = Watched(scorer.backend)
    rows = [
        [*range(number, number + 20), *range(9 * answer, 9 * answer + 5)]
        for number in (1, 50, 90)
        for answer in range(10)
    ]
    spans = [Span(np.array(row, np.int32), 5) for row in rows]
    assert len(list(scoring.score_spans(watched, spans))) == 30
    assert sum(watched.fed) == 3 * (24 + 9 * 5)


def test_short_spans_share_a_step_and_a_long_one_takes_several(scorer, monkeypatch):
    watched = Watched(scorer.backend)
    monkeypatch.setattr(scoring, "AT_ONCE", 16)
    spans = [
        Span(np.arange(start, start + size, dtype=np.int32), 1) for start, size in ((0, 33), (40, 6), (60, 6), (80, 6))
    ]
    list(scoring.score_spans(watched, spans))
    assert watched.fed == [16, 16, 15]


def test_blocks_are_given_back(scorer):
    """Of a long text no more are in use than a step has, and those of the span before."""
    watched = Watched(scorer.backend)
    spans = [Span(np.arange(number, number + 30, dtype=np.int32), 29) for number in range(40)]
    assert len(list(scoring.score_spans(watched, spans))) == 40
    (blocks,) = watched.taken
    assert len(blocks.users) <= scoring.SPANS + 1 and blocks.used <= 1


def test_each_token_is_scored_once():
    for window, stride, length, start in itertools.product((1, 2, 5), (1, 2, 5), range(14), (None, 9)):
        if stride <= window:
            ids = np.arange(10, 10 + length)
            pairs = list(windows([ids[:3], ids[3:]], Protocol(window, stride, start)))
            assert [one for new, _ in pairs for one in new.tolist()] == ids.tolist()
            for new, span in pairs:
                if span is not None:
                    assert span.ids[-span.scored :].tolist() == new.tolist()
                    assert len(span.ids) <= window + 1


@pytest.mark.parametrize(
    "window, stride, message",
    [
        (33, None, "window must be at most the model's n_ctx, 32, not 33"),
        (8, 9, "stride must be at most the window, 8"),
        (0, None, "window must be a whole number of at least 1"),
        (8, 0, "stride must be a whole number of at least 1"),
    ],
)
def test_protocols_that_leave_something_out(scorer, window, stride, message):
    with pytest.raises(UsageError, match=message):
        protocol_of(32, scorer.encoder, window, stride)
    with pytest.raises(UsageError, match="n_ctx, 32, not 64"):
        score(scorer, ["x"], Protocol(64, 64))


def test_a_protocol_says_what_each_token_sees():
    said = str(Protocol(1024, 512, 50256))
    assert "windows of 1,024 tokens, stride 512: each token sees the 513 to 1,024 before it" in said
    assert said.endswith("each text after the end-of-text token")
    assert str(Protocol(32, 1)).endswith("its first token not scored")


def test_words_lines_and_bytes_are_counted_whatever_the_parts():
    text = "Zwei Wörter,\n drei\t\n\nund  mehr ☃"
    for cut in range(1, len(text)):
        counts = TextCounts()
        parts = [text[start : start + cut] for start in range(0, len(text), cut)]
        assert "".join(counts.count(["", *parts])) == text
        assert counts == TextCounts(len(text.split()), 3, len(text), len(text.encode()))


def test_measures_divide_by_what_they_are_called_by(scorer, slow):
    protocol = protocol_of(32, scorer.encoder, stride=16)
    counts, totals = TextCounts(), ScoreTotals()
    list(totals.accumulate(score(scorer, [counts.count([TEXT])], protocol)))
    nats = -sum(slow.logprobs(scorer.encoder.encode(TEXT), protocol))
    found = text_metrics(totals.nats, totals.tokens, counts)
    words, lines, size = len(TEXT.split()), TEXT.count("\n"), len(TEXT)
    expected = [
        *(np.exp(nats / count) for count in (len(scorer.encoder.encode(TEXT)), words, words + lines)),
        *[nats / np.log(2) / size] * 2,
    ]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)


def test_nothing_has_no_perplexity():
    assert all(np.isnan(value) for value in text_metrics(0.0, 0, TextCounts()).values())
    assert text_metrics(1e9, 1, TextCounts())["perplexity"] == np.inf
