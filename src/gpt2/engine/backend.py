"""What computes a model, as the rest of the engine sees it: blocks of a cache, and one operation that extends rows.

Shapes: W positions that want logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gpt2.engine.kv_cache import Blocks
from gpt2.hparams import HParams
from gpt2.sample import RandomNumbers


class Piece(NamedTuple):
    """What is new of one row: a step's one id, a whole prompt, or a part of one.

    blocks: numbers of the blocks that hold the row, those of what is before and those for what is new.
    start: the position of the first id; what is before is in the blocks already.
    ids: that are fed, at least one. wanted: how many of the last ones want logits.
    """

    blocks: Sequence[int]
    start: int
    ids: Sequence[int] | np.ndarray
    wanted: int = 1


class Logits(NamedTuple):
    """What the wanted positions say of their next ids, in the order of the pieces."""

    values: np.ndarray  # [W, V] float32
    log_totals: np.ndarray  # [W] float32, log of the sum of their exponentials: a value less this is a log-probability


class RandomWordsRequest(NamedTuple):
    """Random words for a sample's new token with this number: for each of the ids [N], or for all if None."""

    numbers: RandomNumbers
    token: int
    ids: np.ndarray | None


class Backend(Protocol):
    """TensorFlow's functions (`tensorflow.py`), or the native library (`native/backend.py`)."""

    name: str  # for people
    device: str  # what it computes on, for people
    hparams: HParams

    def new_blocks(self) -> Blocks:
        """An empty cache, for this backend's `extend` alone."""

    def extend(self, blocks: Blocks, pieces: Sequence[Piece]) -> Logits:
        """Feeds each piece to its row, and writes its keys and values into the row's blocks, and into no other slot.

        What a piece's ids see are the slots before `start` and those of the piece up to themselves. Raises ValueError
        for what would leave the blocks or the window, MemoryError; then nothing counts as fed.
        """

    def random_words(self, wanted: Sequence[RandomWordsRequest]) -> list[np.ndarray]:
        """For each [N] uint32, those of `RandomNumbers.words`."""
