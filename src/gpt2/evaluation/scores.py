"""Log-probabilities of all tokens of texts of any length, computed in windows.

>>> model = load("124M")
>>> scores = score(model, [text], Protocol(window=1024, stride=512))
>>> sum(scored.tokens.logprobs.sum() for scored in scores)

Shapes: S scored ids.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from gpt2.engine.scoring import LOGPROBS_ONLY, ScoreOptions, Span, SpanScores, score_spans
from gpt2.errors import GPT2Error, UsageError
from gpt2.request import require_integer
from gpt2.text.vocabulary import Vocabulary
from gpt2.text_batch import Model


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The windows in which the tokens of a text are scored.

    The first window feeds the first `window` tokens and scores the token after each of them. Every other window scores
    the next `stride` tokens and feeds the `window` tokens before the last of them. Therefore each token is scored once.
    After the first window, each token is scored with at least window - stride + 1 tokens before it. The last window has
    the same length and scores the remaining tokens. With a stride of `window`, these are the rolling windows of
    EleutherAI's lm-evaluation-harness.

    Attributes:
        window: The number of tokens that a window feeds.
        stride: The number of tokens that each window after the first one scores.
        start: The id before each text, the context of its first token. If it is None, first tokens are not scored.
    """

    window: int
    stride: int
    start: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for a window or stride that is out of range."""
        require_integer("window", self.window, 1)
        if require_integer("stride", self.stride, 1) > self.window:
            raise UsageError(f"stride must be at most the window, {self.window}, or tokens would be skipped")

    def __str__(self) -> str:
        """Return the protocol in one sentence, as reports print it."""
        min_context = self.window - self.stride + 1
        context = f"{min_context:,} to {self.window:,}" if min_context < self.window else f"{min_context:,}"
        first = "after the end-of-text token" if self.start is not None else "its first token not scored"
        return (
            f"windows of {self.window:,} tokens, stride {self.stride:,}: each token sees the {context} before it,"
            f" in the first window all before it; each text {first}"
        )


def protocol_of(
    n_ctx: int, vocabulary: Vocabulary, window: int | None = None, stride: int | None = None, start: bool = True
) -> Protocol:
    """Return a protocol that fits a model.

    Args:
        n_ctx: The model's maximum window in tokens.
        vocabulary: The model's vocabulary.
        window: The number of tokens that a window feeds; None for n_ctx.
        stride: The number of tokens that each window after the first one scores; None for the window.
        start: Whether the end-of-text token precedes each text. It is ignored if the vocabulary has none.

    Raises:
        UsageError: The window or stride does not fit the model.
    """
    window = n_ctx if window is None else window
    if require_integer("window", window, 1) > n_ctx:
        raise UsageError(f"window must be at most the model's n_ctx, {n_ctx}, not {window}")
    return Protocol(window, window if stride is None else stride, _end_of_text(vocabulary) if start else None)


def _end_of_text(vocabulary: Vocabulary) -> int | None:
    try:
        return vocabulary.end_of_text
    except GPT2Error:  # the vocabulary does not have one
        return None


class ScoredTokens(NamedTuple):
    """Consecutive tokens of a text with their scores.

    Attributes:
        text: The index of the text among the texts.
        ids: The ids [S].
        tokens: Their scores; None for an unscored first token.
    """

    text: int
    ids: np.ndarray
    tokens: SpanScores | None


def score(
    model: Model, texts: Iterable[str | Iterable[str]], protocol: Protocol, options: ScoreOptions = LOGPROBS_ONLY
) -> Iterator[ScoredTokens]:
    """Score all tokens of all texts, in their order.

    Args:
        model: The model.
        texts: The texts, each as a string or as parts. Each part is encoded separately, so a part must end at the end
            of a token, as `data.documents` ensures.
        protocol: The windows in which tokens are scored.
        options: The scores to compute in addition to log-probabilities.

    Yields:
        The tokens and scores of one window, or an unscored first token.

    Raises:
        UsageError: The window exceeds the model's.
        MemoryError: There is not enough memory for a window.
    """
    return score_ids(model, (_encode_parts(model.encoder, text) for text in texts), protocol, options)


def _encode_parts(vocabulary: Vocabulary, text: str | Iterable[str]) -> Iterator[np.ndarray]:
    parts = [text] if isinstance(text, str) else text
    return (np.array(vocabulary.encode(part), np.int32) for part in parts)


def score_ids(
    model: Model, texts: Iterable[Iterable[np.ndarray]], protocol: Protocol, options: ScoreOptions = LOGPROBS_ONLY
) -> Iterator[ScoredTokens]:
    """Score all tokens of all texts, in their order; see `score`.

    Args:
        model: The model.
        texts: The ids of each text, in parts [T] of any length.
        protocol: The windows in which tokens are scored.
        options: The scores to compute in addition to log-probabilities.

    Yields:
        The tokens and scores of one window, or an unscored first token.

    Raises:
        UsageError: The window exceeds the model's.
    """
    if protocol.window > model.hparams.n_ctx:
        raise UsageError(f"window must be at most the model's n_ctx, {model.hparams.n_ctx}, not {protocol.window}")
    pending: deque[tuple[ScoredTokens, bool]] = deque()  # (tokens, True if they are scored)

    def spans() -> Iterator[Span]:
        for text, parts in enumerate(texts):
            for ids, span in windows(parts, protocol):
                pending.append((ScoredTokens(text, ids, None), span is not None))
                if span is not None:
                    yield span

    def scored_tokens() -> Iterator[ScoredTokens]:
        for scores in score_spans(model.backend, spans(), options):
            while not pending[0][1]:
                yield pending.popleft()[0]
            yield pending.popleft()[0]._replace(tokens=scores)
        yield from (unscored for unscored, _ in pending)

    return scored_tokens()


def windows(parts: Iterable[np.ndarray], protocol: Protocol) -> Iterator[tuple[np.ndarray, Span | None]]:
    """Split a text into the windows of a protocol; at most one part and one window are in memory.

    >>> [(ids.tolist(), span.ids.tolist()) for ids, span in windows([np.arange(1, 6)], Protocol(3, 2, start=0))]
    [([1, 2, 3], [0, 1, 2, 3]), ([4, 5], [2, 3, 4, 5])]

    Args:
        parts: The ids of the text, in parts of any length.
        protocol: The windows in which tokens are scored.

    Yields:
        The ids that a window scores, and the span that scores them. The span of an unscored first token is None.
    """
    buffer = np.array([] if protocol.start is None else [protocol.start], np.int32)
    done = len(buffer)  # number of ids in the buffer that are the start or have been yielded
    size = protocol.window  # number of ids that the next span scores
    for part in chain(parts, [None]):
        buffer = buffer if part is None else np.concatenate([buffer, part])
        if not done and len(buffer):
            yield buffer[:1], None
            done = 1
        while done < len(buffer) and (part is None or done + size <= len(buffer)):
            end = min(done + size, len(buffer))
            yield buffer[done:end], Span(buffer[max(0, end - 1 - protocol.window) : end], end - done)
            done = end
            size = protocol.stride
        dropped = max(0, done - protocol.window)
        buffer = buffer[dropped:]
        done -= dropped
