"""Log-probabilities of all tokens of texts of any length, in windows, and exactly what each token sees.

>>> model = load("124M")
>>> told = score(model, [text], Protocol(window=1024, stride=512))
>>> sum(scored.tokens.logprobs.sum() for scored in told)

Shapes: T ids of a window, S of them scored.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from gpt2.engine.scoring import LOGPROBS, ScoreOptions, Span, SpanScores, score_spans
from gpt2.errors import GPT2Error, UsageError
from gpt2.generate import Model
from gpt2.request import require_integer
from gpt2.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What each token of a text sees.

    The first window feeds the first `window` tokens, and scores what follows each of them. Every other one scores the
    next `stride` tokens, and feeds the `window` tokens that end short of the last of them. So each token is scored
    once, and after the first window given at least window - stride + 1 tokens. The last window is as long as the
    others, and scores what is left (as the rolling windows of EleutherAI's lm-evaluation-harness, which has a stride of
    `window`).

    start: the id before each text, given which its first token is scored; None leaves the first token unscored.
    """

    window: int
    stride: int
    start: int | None = None

    def __post_init__(self) -> None:
        require_integer("window", self.window, 1)
        if require_integer("stride", self.stride, 1) > self.window:
            raise UsageError(f"stride must be at most the window, {self.window}, or tokens would be left out")

    def __str__(self) -> str:
        least = self.window - self.stride + 1
        sees = f"{least:,} to {self.window:,}" if least < self.window else f"{least:,}"
        first = "after the end-of-text token" if self.start is not None else "its first token not scored"
        return (
            f"windows of {self.window:,} tokens, stride {self.stride:,}: each token sees the {sees} before it, those of"
            f" the first window all before them; each text {first}"
        )


def protocol_of(
    n_ctx: int, vocabulary: Vocabulary, window: int | None = None, stride: int | None = None, start: bool = True
) -> Protocol:
    """One for a model. window: n_ctx if None. stride: the window if None. start: whether the end-of-text token
    stands before each text, if the vocabulary has one.

    Raises UsageError for what does not fit the model.
    """
    window = n_ctx if window is None else window
    if require_integer("window", window, 1) > n_ctx:
        raise UsageError(f"window must be at most the model's n_ctx, {n_ctx}, not {window}")
    return Protocol(window, window if stride is None else stride, _end_of_text(vocabulary) if start else None)


def _end_of_text(vocabulary: Vocabulary) -> int | None:
    try:
        return vocabulary.end_of_text
    except GPT2Error:  # there is none
        return None


class ScoredTokens(NamedTuple):
    """Some tokens of a text, in their order."""

    text: int  # its place among the texts
    ids: np.ndarray  # [S]
    tokens: SpanScores | None  # None of a first token that is not scored


def score(
    model: Model, texts: Iterable[str | Iterable[str]], protocol: Protocol, asked: ScoreOptions = LOGPROBS
) -> Iterator[ScoredTokens]:
    """All tokens of all texts, in their order; a text is a string, or the parts of one that has any length.

    The parts are encoded each for itself, so they must be cut where the vocabulary's tokens end, as `data.documents`
    does. Raises MemoryError where there is none for a window, UsageError for a window that the model has not.
    """
    return score_ids(model, (encoded(model.encoder, text) for text in texts), protocol, asked)


def encoded(vocabulary: Vocabulary, text: str | Iterable[str]) -> Iterator[np.ndarray]:
    return (np.array(vocabulary.encode(part), np.int32) for part in ([text] if isinstance(text, str) else text))


def score_ids(
    model: Model, texts: Iterable[Iterable[np.ndarray]], protocol: Protocol, asked: ScoreOptions = LOGPROBS
) -> Iterator[ScoredTokens]:
    """The same for texts that are ids, in parts of any length."""
    if protocol.window > model.hparams.n_ctx:
        raise UsageError(f"window must be at most the model's n_ctx, {model.hparams.n_ctx}, not {protocol.window}")
    drawn: deque[tuple[ScoredTokens, bool]] = deque()  # what is on its way, and whether scores come for it

    def spans() -> Iterator[Span]:
        for number, parts in enumerate(texts):
            for ids, span in windows(parts, protocol):
                drawn.append((ScoredTokens(number, ids, None), span is not None))
                if span is not None:
                    yield span

    def told() -> Iterator[ScoredTokens]:
        for found in score_spans(model.backend, spans(), asked):
            while not drawn[0][1]:
                yield drawn.popleft()[0]
            yield drawn.popleft()[0]._replace(tokens=found)
        yield from (unscored for unscored, _ in drawn)

    return told()


def windows(parts: Iterable[np.ndarray], protocol: Protocol) -> Iterator[tuple[np.ndarray, Span | None]]:
    """The ids of a text, in parts of any length -> those that are scored together, and the span that scores them; None
    for a first token that is not scored. Of the text as much is held as a part and a window have.

    >>> [(ids.tolist(), span.ids.tolist()) for ids, span in windows([np.arange(1, 6)], Protocol(3, 2, start=0))]
    [([1, 2, 3], [0, 1, 2, 3]), ([4, 5], [2, 3, 4, 5])]
    """
    held = np.array([] if protocol.start is None else [protocol.start], np.int32)
    told, size = len(held), protocol.window  # how many of the held ids are done, and how many the next span scores
    for part in chain(parts, [None]):
        held = held if part is None else np.concatenate([held, part])
        if not told and len(held):
            yield held[:1], None
            told = 1
        while told < len(held) and (part is None or told + size <= len(held)):
            end = min(told + size, len(held))
            yield held[told:end], Span(held[max(0, end - 1 - protocol.window) : end], end - told)
            told, size = end, protocol.stride
        dropped = max(0, told - protocol.window)
        held, told = held[dropped:], told - dropped
