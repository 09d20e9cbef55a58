"""The keys and values of all tokens so far, one pair of tensors a layer, with room that grows in few steps.

Shapes: B batch, P cache slots, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2.hparams import HParams

SMALLEST_CACHE, CACHE_GROWTH = 128, 4  # slots, and by what they are multiplied when they are full

Rows = Sequence[int] | np.ndarray  # numbers of rows of the batch


class KeyValueCache:
    """Keys and values of each layer, for the rows of a batch, as TensorFlow's tensors [B, H, P, D].

    width: P is a multiple of it.
    """

    def __init__(self, hparams: HParams, batch: int, dtype: Any = tf.float32, width: int = 1) -> None:
        self.rows: np.ndarray = np.arange(batch)  # which row of the batch is at each place
        self.n_ctx, self.dtype, self.width = hparams.n_ctx, dtype, width
        self.capacity = rounded(min(SMALLEST_CACHE, hparams.n_ctx), width)
        keys, values = self.shapes(hparams)
        self.keys: list[Any] = [keys] * hparams.n_layer
        self.values: list[Any] = [values] * hparams.n_layer
        self._replace(self.zeros)

    def shapes(self, hparams: HParams) -> tuple[list[int], list[int]]:
        """Of the keys and of the values of a layer."""
        shape = [len(self.rows), hparams.n_head, self.capacity, hparams.head_size]
        return shape, shape

    def reserve(self, slots: int) -> None:
        """Makes room for so many slots.

        In few steps, because the memory of a smaller cache is seldom good for another; but in steps, because attention
        may read the whole capacity for every token.
        """
        old = self.capacity
        while self.capacity < slots:
            self.capacity = rounded(min(CACHE_GROWTH * self.capacity, self.n_ctx), self.width)
        if self.capacity > old:
            self._replace(lambda tensor: self.grown(tensor, self.capacity - old))

    def places(self, rows: Rows) -> np.ndarray:
        """Where these rows of the batch are kept."""
        return np.searchsorted(self.rows, rows).astype(np.int32)

    def keep(self, rows: Rows) -> None:
        """Forgets all but these rows of the batch."""
        places = self.places(rows)
        self._replace(lambda tensor: self.taken(tensor, places))
        self.rows = np.array(rows)

    def copy(self, sources: Rows, targets: Rows) -> None:
        """Gives each target row what its source row has."""
        froms, to = self.places(sources), self.places(targets)
        self._replace(lambda tensor: self.put(tensor, to, froms))

    def _replace(self, change: Callable[[Any], Any]) -> None:
        """One by one, so that only one is there twice."""
        for tensors in (self.keys, self.values):
            for i, tensor in enumerate(tensors):
                tensors[i] = change(tensor)

    def zeros(self, shape: list[int]) -> Any:
        return tf.zeros(shape, self.dtype)

    def grown(self, tensor: Any, more: int) -> Any:
        """With so many more slots."""
        return tf.pad(tensor, [[0, 0], [0, 0], [0, more], [0, 0]])

    def taken(self, tensor: Any, places: np.ndarray) -> Any:
        """The rows at these places."""
        return tf.gather(tensor, places)

    def put(self, tensor: Any, to: np.ndarray, froms: np.ndarray) -> Any:
        """With the rows at `froms` at the places `to` too."""
        return tf.raw_ops.InplaceUpdate(x=tensor, i=to, v=tf.gather(tensor, froms))


def rounded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
