"""The protocol of a backend: a pool of cache blocks, and one operation that extends sequences by some ids.

Shapes: W positions that need logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gpt2.engine.kv_cache import BlockPool
from gpt2.errors import GPT2Error
from gpt2.formats.weights import NOT_FINITE_ADVICE
from gpt2.hparams import HParams
from gpt2.sample import RandomNumbers


class Segment(NamedTuple):
    """The ids by which one call extends a sequence: the newest id, a whole prompt, or a chunk of one.

    Attributes:
        blocks: The numbers of the sequence's blocks, with enough slots for the new ids.
        start: The position of the first new id; the slots before it have been computed.
        ids: The new ids, at least one.
        n_logits: Number of last ids that get logits.
    """

    blocks: Sequence[int]
    start: int
    ids: Sequence[int] | np.ndarray
    n_logits: int = 1


class Logits(NamedTuple):
    """The logits of the positions that need them, in the order of their segments.

    Attributes:
        values: [W, V] float32.
        log_totals: [W] float32, the logarithm of the sum of the exponentials. A value minus this is a log-probability.
    """

    values: np.ndarray
    log_totals: np.ndarray


def checked_logits(values: np.ndarray, log_totals: np.ndarray) -> Logits:
    """Return computed logits after checking that they are numbers.

    Backends reject weights with NaN or infinity when they load them. Finite weights can still be so large that
    the computation overflows.

    Args:
        values: `Logits.values`.
        log_totals: `Logits.log_totals`.

    Raises:
        GPT2Error: A total is NaN or infinite.
    """
    if not np.isfinite(log_totals).all():
        raise GPT2Error(
            f"the model's logits are NaN or infinite, because its weights are too large; {NOT_FINITE_ADVICE}"
        )
    return Logits(values, log_totals)


class RandomWordsRequest(NamedTuple):
    """A request for the random words of a new token.

    Attributes:
        numbers: The random numbers of the token's sample.
        token: The number of the new token, from 0.
        ids: The ids [N] that need a word each; None for the whole vocabulary.
    """

    numbers: RandomNumbers
    token: int
    ids: np.ndarray | None


class Backend(Protocol):
    """A model's computation: TensorFlow's functions (`tensorflow.py`), or the native library (`native/backend.py`).

    Attributes:
        name: The name of the backend, as users see it.
        device: The device that computes, as users see it.
        hparams: The model's sizes.
    """

    name: str
    device: str
    hparams: HParams

    def new_pool(self) -> BlockPool:
        """Return an empty cache for this backend's `extend`."""

    def extend(self, pool: BlockPool, segments: Sequence[Segment]) -> Logits:
        """Compute the segments, and write their keys and values into their slots only.

        Each id attends to the slots before its segment's `start`, and to the segment's ids up to itself.

        Args:
            pool: A pool from this backend's `new_pool`.
            segments: The segments to compute.

        Returns:
            The logits of the last `n_logits` ids of each segment.

        Raises:
            ValueError: A segment exceeds its blocks, the window or the vocabulary; no segment counts as computed.
            MemoryError: There is not enough memory; no segment counts as computed.
            GPT2Error: The logits are NaN or infinite, because the model's weights are too large.
        """

    def random_words(self, requests: Sequence[RandomWordsRequest]) -> list[np.ndarray]:
        """Return the words of `RandomNumbers.words` for each request, [N] uint32."""
