"""Windows of a long row of ids: which tokens an update sees.

What update n sees follows from (seed, n) alone, so that a resumed run needs no position in its data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gpt2.data.token_file import Ids
from gpt2.errors import GPT2Error

PLACES, NOISE, SAMPLES = 0, 1, 2  # what the random numbers of an update are for


class Split(NamedTuple):
    """Ids to train on and ids to validate on, each 1-D; the latter may be empty."""

    train: Ids
    validation: Ids


def hold_out(ids: Ids, share: float) -> Split:
    """Splits the end off, for validation."""
    at = len(ids) - int(len(ids) * share)
    return Split(ids[:at], ids[at:])


def check(ids: Ids, window: int, what: str) -> None:
    """Raises GPT2Error if there are fewer ids than one window has."""
    if len(ids) < window:
        raise GPT2Error(
            f"{what} has {len(ids)} tokens, but one window is {window} (n_ctx and the token after it);"
            " give more text, or train a model of a smaller n_ctx"
        )


def batch(ids: Ids, window: int, count: int, seed: int, step: int) -> np.ndarray:
    """The windows of update `step`, [count, window] int32, at places drawn uniformly."""
    starts = random(seed, step, PLACES).integers(len(ids) - window + 1, size=count)
    return np.stack([ids[start : start + window] for start in starts.tolist()]).astype(np.int32)


def noisy(tokens: np.ndarray, share: float, n_vocab: int, seed: int, step: int) -> np.ndarray:
    """The tokens with this share of them replaced by random ones: what the model reads, not what it is to predict."""
    rng = random(seed, step, NOISE)
    return np.where(rng.random(tokens.shape) < share, rng.integers(n_vocab, size=tokens.shape), tokens).astype(np.int32)


def spread(ids: Ids, window: int, batch_size: int, batches: int) -> Iterator[np.ndarray]:
    """At most so many batches [<= batch_size, window] of windows spread evenly, each target in one only."""
    there = (len(ids) - 1) // (window - 1)
    count = min(there, batch_size * batches)
    starts = [(i * there // count) * (window - 1) for i in range(count)]
    for at in range(0, count, batch_size):
        yield np.stack([ids[s : s + window] for s in starts[at : at + batch_size]]).astype(np.int32)


def random(seed: int, step: int, purpose: int) -> np.random.Generator:
    """The random numbers of an update for one purpose."""
    return np.random.Generator(np.random.Philox(key=[seed, (purpose << 48) + step]))
