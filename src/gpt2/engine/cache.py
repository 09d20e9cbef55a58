"""The keys and values of all tokens so far, one pair of arrays a layer, with room that grows in few steps.

Shapes: B batch, P cache slots, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpt2.engine.backend import Rows
from gpt2.hparams import HParams

SMALLEST, GROWTH = 128, 4  # slots, and by what they are multiplied when they are full


class KeyValueCache:
    """Keys and values of each layer, for the rows of a batch, in whatever kind of array a backend has.

    width: P is a multiple of it.
    """

    def __init__(self, hparams: HParams, batch: int, width: int = 1) -> None:
        self.rows: np.ndarray = np.arange(batch)  # which row of the batch is at each place
        self.n_ctx, self.width = hparams.n_ctx, width
        self.capacity = rounded(min(SMALLEST, hparams.n_ctx), width)
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
            self.capacity = rounded(min(GROWTH * self.capacity, self.n_ctx), self.width)
        if self.capacity > old:
            self._replace(lambda array: self.grown(array, self.capacity - old))

    def places(self, rows: Rows) -> np.ndarray:
        """Where these rows of the batch are kept."""
        return np.searchsorted(self.rows, rows).astype(np.int32)

    def retain(self, rows: Rows) -> None:
        """Forgets all but these rows of the batch."""
        places = self.places(rows)
        self._replace(lambda array: self.taken(array, places))
        self.rows = np.array(rows)

    def copy(self, sources: Rows, targets: Rows) -> None:
        """Gives each target row what its source row has."""
        froms, to = self.places(sources), self.places(targets)
        self._replace(lambda array: self.put(array, to, froms))

    def _replace(self, change: Callable[[Any], Any]) -> None:
        """One by one, so that only one is there twice."""
        for arrays in (self.keys, self.values):
            for i, array in enumerate(arrays):
                arrays[i] = change(array)

    def zeros(self, shape: list[int]) -> Any:
        raise NotImplementedError

    def grown(self, array: Any, more: int) -> Any:
        """With so many more slots."""
        raise NotImplementedError

    def taken(self, array: Any, places: np.ndarray) -> Any:
        """The rows at these places."""
        raise NotImplementedError

    def put(self, array: Any, to: np.ndarray, froms: np.ndarray) -> Any:
        """With the rows at `froms` at the places `to` too."""
        raise NotImplementedError


def rounded(n: int, multiple: int) -> int:
    """n, or the next number above it that is a multiple."""
    return -(-n // multiple) * multiple
