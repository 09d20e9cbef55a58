"""Windows of a long row of ids, which select the tokens of each training update.

The windows of update n depend only on (seed, n), so that a resumed run does not need to store a position in its data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gpt2.data.token_file import Ids
from gpt2.errors import GPT2Error

# The purposes of an update's random numbers; each purpose has a separate stream.
POSITION_NUMBERS = 0
NOISE_NUMBERS = 1
SAMPLE_NUMBERS = 2


class Split(NamedTuple):
    """Ids to train on and ids to validate on, each [tokens]; the latter may be empty."""

    train: Ids
    validation: Ids


def hold_out(ids: Ids, share: float) -> Split:
    """Split off this share of the ids, from the end, for validation."""
    n_train = len(ids) - int(len(ids) * share)
    return Split(ids[:n_train], ids[n_train:])


def check_length(ids: Ids, window: int, name: str) -> None:
    """Check that there are enough ids for one window.

    Args:
        ids: The ids [tokens].
        window: Tokens of a window.
        name: The name of the ids in the error message.

    Raises:
        GPT2Error: There are too few ids.
    """
    if len(ids) < window:
        raise GPT2Error(
            f"{name} has {len(ids)} tokens, but one window needs {window} (n_ctx and the token after it);"
            " give more text, or train a model with a smaller n_ctx"
        )


def random_windows(ids: Ids, window: int, count: int, seed: int, step: int) -> np.ndarray:
    """Return the windows of update `step`, [count, window] int32, at uniformly drawn positions."""
    starts = random_generator(seed, step, POSITION_NUMBERS).integers(len(ids) - window + 1, size=count)
    return np.stack([ids[start : start + window] for start in starts.tolist()]).astype(np.int32)


def add_noise(tokens: np.ndarray, share: float, n_vocab: int, seed: int, step: int) -> np.ndarray:
    """Return the tokens with this share replaced by random ones; for the model's inputs, not for its targets."""
    rng = random_generator(seed, step, NOISE_NUMBERS)
    return np.where(rng.random(tokens.shape) < share, rng.integers(n_vocab, size=tokens.shape), tokens).astype(np.int32)


def spread_windows(ids: Ids, window: int, batch_size: int, max_batches: int) -> Iterator[np.ndarray]:
    """Yield at most `max_batches` batches of evenly spread windows, [batch_size or fewer, window] int32.

    No token is a target in more than one window.
    """
    available = (len(ids) - 1) // (window - 1)
    count = min(available, batch_size * max_batches)
    starts = [(i * available // count) * (window - 1) for i in range(count)]
    for first in range(0, count, batch_size):
        yield np.stack([ids[start : start + window] for start in starts[first : first + batch_size]]).astype(np.int32)


def random_generator(seed: int, step: int, purpose: int) -> np.random.Generator:
    """Return the random generator of an update for one purpose, such as POSITION_NUMBERS."""
    return np.random.Generator(np.random.Philox(key=[seed, (purpose << 48) + step]))
