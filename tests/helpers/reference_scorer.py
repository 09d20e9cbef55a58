"""The slow, obvious way to score: for each token, the whole context goes through the NumPy reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2.engine import reference
from gpt2.evaluation.scores import Protocol
from gpt2.hparams import HParams


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the log-probabilities of logits [V]."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


class ReferenceScorer:
    """A model's log-probabilities; results are cached by context."""

    def __init__(self, weights: Any, hparams: HParams) -> None:
        self.weights = weights
        self.hparams = hparams
        self.cache: dict[tuple[int, ...], np.ndarray] = {}

    def next_logprobs(self, context: Sequence[int]) -> np.ndarray:
        """Return the log-probabilities of all ids after a context [V]."""
        key = tuple(int(token) for token in context)
        if key not in self.cache:
            self.cache[key] = log_softmax(reference.logits(self.weights, self.hparams, key)[-1])
        return self.cache[key]

    def logprobs(self, ids: Sequence[int], protocol: Protocol) -> list[Any]:
        """Return the log-probability of each token of a text, as `Protocol` defines it; None if it is not scored."""
        start = [] if protocol.start is None else [protocol.start]
        fed = [*start, *ids]
        result: list[Any] = []
        for position in range(len(start), len(fed)):
            if position == 0:
                result.append(None)
                continue
            first = 0
            if position > protocol.window:
                window_number = (position - protocol.window - 1) // protocol.stride
                last = min(protocol.window + (window_number + 1) * protocol.stride, len(fed) - 1)
                first = last - protocol.window
            result.append(self.next_logprobs(fed[first:position])[fed[position]])
        return result

    def continuation_logprob(self, context: Sequence[int], ids: Sequence[int]) -> float:
        """Return the log-probability of ids after a context."""
        return sum(self.next_logprobs([*context, *ids[:count]])[token] for count, token in enumerate(ids))
