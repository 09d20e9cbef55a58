"""Log-probabilities equal those of the slow reference for any window, stride and text length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gpt2.engine import scoring
from gpt2.engine.backend import Backend, Logits, Segment
from gpt2.engine.kv_cache import BlockPool
from gpt2.engine.scoring import ScoreOptions, Span
from gpt2.errors import UsageError
from gpt2.evaluation.perplexity import ScoreTotals, TextCounts, text_metrics
from gpt2.evaluation.scores import Protocol, ScoredTokens, protocol_of, score, score_ids, windows
from gpt2.text_batch import Model

TEXT = "the cat sat on the mat\nand the dog\n\nsat on the log " * 9
CLOSE = {"atol": 1e-4, "rtol": 0}


def token_logprobs(model: Model, ids: Sequence[int], protocol: Protocol, part_length: int = 1000) -> list[Any]:
    """Score a text of ids in parts, check that the ids come back in order, and return their log-probabilities."""
    parts = [np.array(ids[start : start + part_length], np.int32) for start in range(0, len(ids), part_length)]
    logprobs: list[Any] = []
    returned_ids = []
    for scored in score_ids(model, [parts], protocol):
        returned_ids += scored.ids.tolist()
        logprobs += logprobs_or_none(scored)
    assert returned_ids == list(ids)
    return logprobs


def logprobs_or_none(scored: ScoredTokens) -> list[Any]:
    return [None] * len(scored.ids) if scored.tokens is None else scored.tokens.logprobs.tolist()


def assert_close(actual: Sequence[Any], expected: Sequence[Any]) -> None:
    """Check that the same tokens are unscored, and that the other log-probabilities are close."""
    assert [logprob is None for logprob in actual] == [logprob is None for logprob in expected]
    scored = [[logprob for logprob in logprobs if logprob is not None] for logprobs in (actual, expected)]
    np.testing.assert_allclose(*scored, **CLOSE)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("window, stride", [(32, 32), (32, 16), (32, 1), (7, 3), (1, 1)])
def test_every_protocol_and_length_on_all_backends(scorers, reference, window, stride, start):
    ids = scorers[0].encoder.encode(TEXT)
    for model in scorers:
        protocol = protocol_of(32, model.encoder, window, stride, start)
        for length in (0, 1, 2, window - 1, window, window + 1, window + stride, window + stride + 1, 75):
            assert_close(token_logprobs(model, ids[:length], protocol), reference.logprobs(ids[:length], protocol))


def test_part_lengths_do_not_matter(scorer):
    ids = scorer.encoder.encode(TEXT)
    protocol = Protocol(32, 5, scorer.encoder.end_of_text)
    whole = token_logprobs(scorer, ids, protocol)
    for part_length in (1, 4, 33, 1000):
        np.testing.assert_allclose(token_logprobs(scorer, ids, protocol, part_length), whole, **CLOSE)


def test_texts_are_scored_independently_and_in_order(scorer, reference):
    texts = ["the cat", "", "x", "the cat", TEXT]
    protocol = protocol_of(32, scorer.encoder, start=False)
    logprobs_of_text = {}
    for scored in score(scorer, texts, protocol):
        logprobs_of_text.setdefault(scored.text, []).extend(logprobs_or_none(scored))
    assert list(logprobs_of_text) == [0, 2, 3, 4]
    for index, logprobs in logprobs_of_text.items():
        assert_close(logprobs, reference.logprobs(scorer.encoder.encode(texts[index]), protocol))


def test_a_text_is_scored_while_it_is_read(scorer):
    """Of an endless text, only a little more is read than has been scored."""
    parts_read = itertools.count()

    def parts():
        for number in parts_read:
            yield "the cat sat " * 20
            assert number < 30

    first_windows = itertools.islice(score(scorer, [parts()], protocol_of(32, scorer.encoder)), 20)
    assert sum(len(scored.ids) for scored in first_windows) == 20 * 32
    assert next(parts_read) < 20


@pytest.mark.parametrize("step_ids, max_spans", [(3, 2), (128, 16)])
def test_spans_with_a_common_prefix_are_scored_as_if_alone(scorers, reference, monkeypatch, step_ids, max_spans):
    monkeypatch.setattr(scoring, "STEP_IDS", step_ids)
    monkeypatch.setattr(scoring, "MAX_ACTIVE_SPANS", max_spans)
    rng = np.random.default_rng(1)
    context = rng.integers(0, 250, 20)
    lengths = ((20, 5), (20, 5), (20, 1), (3, 20), (20, 13), (20, 13), (0, 2), (0, 33))  # shared, own
    rows = [np.concatenate([context[:shared], rng.integers(0, 250, own)]) for shared, own in lengths]
    all_spans = [Span(row.astype(np.int32), min(4, len(row) - 1)) for row in [*rows, rows[-1], rows[0]]]
    for model in scorers:
        all_scores = list(scoring.score_spans(model.backend, all_spans, ScoreOptions(ranks=True, top_logprobs=3)))
        assert len(all_scores) == len(all_spans)
        for span, scores in zip(all_spans, all_scores):
            for i in range(span.n_scored):
                position = len(span.ids) - span.n_scored + i
                token = span.ids[position]
                expected = reference.next_logprobs(span.ids[:position])
                np.testing.assert_allclose(scores.logprobs[i], expected[token], **CLOSE)
                assert scores.ranks[i] == 1 + np.count_nonzero(expected > expected[token])
                assert scores.top_ids[i].tolist() == np.argsort(-expected)[:3].tolist()
                np.testing.assert_allclose(scores.top_logprobs[i], np.sort(expected)[::-1][:3], **CLOSE)


class RecordingBackend:
    """A backend that records its cache pools and how many ids each call feeds."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.pools: list[BlockPool] = []
        self.fed: list[int] = []

    def new_pool(self) -> BlockPool:
        self.pools.append(self.backend.new_pool())
        return self.pools[-1]

    def extend(self, pool: BlockPool, segments: Sequence[Segment]) -> Logits:
        self.fed.append(sum(len(segment.ids) for segment in segments))
        return self.backend.extend(pool, segments)


def test_common_prefixes_are_fed_once(scorer):
    """Three questions with ten answers each; most ids belong to the questions."""
    backend = RecordingBackend(scorer.backend)
    rows = [
        [*range(number, number + 20), *range(9 * answer, 9 * answer + 5)]
        for number in (1, 50, 90)
        for answer in range(10)
    ]
    spans = [Span(np.array(row, np.int32), 5) for row in rows]
    assert len(list(scoring.score_spans(backend, spans))) == 30
    assert sum(backend.fed) == 3 * (24 + 9 * 5)


def test_short_spans_share_a_step_and_a_long_span_takes_several(scorer, monkeypatch):
    backend = RecordingBackend(scorer.backend)
    monkeypatch.setattr(scoring, "STEP_IDS", 16)
    spans = [
        Span(np.arange(start, start + size, dtype=np.int32), 1) for start, size in ((0, 33), (40, 6), (60, 6), (80, 6))
    ]
    list(scoring.score_spans(backend, spans))
    assert backend.fed == [16, 16, 15]


def test_blocks_are_released(scorer):
    """A long text uses no more blocks than a step needs, plus those of the previous span."""
    backend = RecordingBackend(scorer.backend)
    spans = [Span(np.arange(number, number + 30, dtype=np.int32), 29) for number in range(40)]
    assert len(list(scoring.score_spans(backend, spans))) == 40
    (pool,) = backend.pools
    assert len(pool.users) <= scoring.MAX_ACTIVE_SPANS + 1 and pool.n_used <= 1


def test_each_token_is_scored_once():
    for window, stride, length, start in itertools.product((1, 2, 5), (1, 2, 5), range(14), (None, 9)):
        if stride <= window:
            ids = np.arange(10, 10 + length)
            pairs = list(windows([ids[:3], ids[3:]], Protocol(window, stride, start)))
            assert [token for scored_ids, _ in pairs for token in scored_ids.tolist()] == ids.tolist()
            for scored_ids, span in pairs:
                if span is not None:
                    assert span.ids[-span.n_scored :].tolist() == scored_ids.tolist()
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
def test_protocols_that_do_not_fit_the_model(scorer, window, stride, message):
    with pytest.raises(UsageError, match=message):
        protocol_of(32, scorer.encoder, window, stride)
    with pytest.raises(UsageError, match="n_ctx, 32, not 64"):
        score(scorer, ["x"], Protocol(64, 64))


def test_a_protocol_describes_what_each_token_sees():
    description = str(Protocol(1024, 512, 50256))
    assert "windows of 1,024 tokens, stride 512: each token sees the 513 to 1,024 before it" in description
    assert description.endswith("each text after the end-of-text token")
    assert str(Protocol(32, 1)).endswith("its first token not scored")


def test_counts_do_not_depend_on_the_parts():
    text = "Zwei Wörter,\n drei\t\n\nund  mehr ☃"
    for length in range(1, len(text)):
        counts = TextCounts()
        parts = [text[start : start + length] for start in range(0, len(text), length)]
        assert "".join(counts.count(["", *parts])) == text
        assert counts == TextCounts(len(text.split()), 3, len(text), len(text.encode()))


def test_each_metric_divides_by_its_unit(scorer, reference):
    protocol = protocol_of(32, scorer.encoder, stride=16)
    counts, totals = TextCounts(), ScoreTotals()
    list(totals.accumulate(score(scorer, [counts.count([TEXT])], protocol)))
    nats = -sum(reference.logprobs(scorer.encoder.encode(TEXT), protocol))
    metrics = text_metrics(totals.nats, totals.tokens, counts)
    words = len(TEXT.split())
    lines = TEXT.count("\n")
    expected = [
        *(np.exp(nats / count) for count in (len(scorer.encoder.encode(TEXT)), words, words + lines)),
        *[nats / np.log(2) / len(TEXT)] * 2,
    ]
    np.testing.assert_allclose(list(metrics.values()), expected, rtol=1e-5)


def test_an_empty_text_has_no_perplexity():
    assert all(np.isnan(value) for value in text_metrics(0.0, 0, TextCounts()).values())
    assert text_metrics(1e9, 1, TextCounts())["perplexity"] == np.inf
