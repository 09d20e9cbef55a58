"""What computes a model, as the rest of the engine sees it: a cache, and one operation that extends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from gpt2.hparams import HParams

Rows = Sequence[int] | np.ndarray  # numbers of rows of the batch


class Backend(Protocol):
    """TensorFlow's functions (`tensorflow.py`), or the native library (`native/backend.py`).

    Shapes: N rows of the batch, T time, V vocabulary.
    """

    name: str  # for people
    device: str  # what it computes on, for people
    hparams: HParams
    slot_bytes: int  # of a cache, for one token of one row

    def new_cache(self, batch: int) -> Any:
        """Room for the keys and values of so many rows, for this backend's `extend` alone; see `cache.py`."""

    def extend(self, cache: Any, rows: Rows, tokens: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Feeds the first counts[n] of tokens [N, T] to row rows[n] of the batch, from its slot starts[n] on.

        Returns the logits of each row's last token [N, V] float32. No token sees the padding, which stands after it;
        no other row is written to. Raises ValueError for what would leave the cache.
        """
