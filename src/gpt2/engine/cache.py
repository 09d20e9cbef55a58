"""The keys and values of all tokens so far, one pair of arrays a layer, with room that grows in few steps.

Shapes: B batch, P cache slots, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpt2.engine.backend import Rows
from gpt2.hparams import HParams

SMALLEST, GROWTH = 128, 4  # slots, and by what they are multiplied when they are full


class Held(NamedTuple):
    """All that has to agree; replaced as one, so that Ctrl-C or a lack of memory in between leaves what was."""

    rows: np.ndarray  # which row of the batch is at each place [B]
    capacity: int  # P
    keys: list[Any]
    values: list[Any]
    seen: Any = None  # what a native library sees of it


class KeyValueCache:
    """Keys and values of each layer, for the rows of a batch, in whatever kind of array a backend has.

    width: P is a multiple of it.
    """

    def __init__(self, hparams: HParams, batch: int, width: int = 1) -> None:
        self.hparams, self.width = hparams, width
        rows, capacity = np.arange(batch), rounded(capacity_for(0, hparams.n_ctx), width)
        keys, values = ([self.zeros(shape) for _ in range(hparams.n_layer)] for shape in self.shapes(batch, capacity))
        self.held = self.holding(Held(rows, capacity, keys, values))

    @property
    def rows(self) -> np.ndarray:
        return self.held.rows

    @property
    def capacity(self) -> int:
        return self.held.capacity

    @property
    def keys(self) -> list[Any]:
        return self.held.keys

    @property
    def values(self) -> list[Any]:
        return self.held.values

    def shapes(self, batch: int, capacity: int) -> tuple[list[int], list[int]]:
        """Of the keys and of the values of a layer."""
        shape = [batch, self.hparams.n_head, capacity, self.hparams.head_size]
        return shape, shape

    def holding(self, held: Held) -> Held:
        """The same, with `seen` for these arrays."""
        return held

    def reserve(self, slots: int) -> None:
        """Makes room for so many slots.

        In few steps, because the memory of a smaller cache is seldom good for another; but in steps, because attention
        may read the whole capacity for every token.
        """
        old = self.capacity
        capacity = rounded(capacity_for(slots, self.hparams.n_ctx), self.width)
        if capacity > old:
            self._replace(lambda array: self.grown(array, capacity - old), capacity=capacity)

    def places(self, rows: Rows) -> np.ndarray:
        """Where these rows of the batch are kept. Raises ValueError for rows that are not."""
        places = np.searchsorted(self.rows, rows).astype(np.int32)
        if not np.array_equal(self.rows.take(places, mode="clip"), rows):
            raise ValueError("rows out of range")
        return places

    def retain(self, rows: Rows) -> None:
        """Forgets all but these rows of the batch."""
        places = self.places(rows)
        self._replace(lambda array: self.taken(array, places), rows=np.array(rows))

    def copy(self, sources: Rows, targets: Rows) -> None:
        """Gives each target row what its source row has."""
        froms, to = self.places(sources), self.places(targets)
        self._replace(lambda array: self.put(array, to, froms))

    def _replace(self, change: Callable[[Any], Any], **others: Any) -> None:
        keys, values = ([change(array) for array in arrays] for arrays in (self.keys, self.values))
        self.held = self.holding(self.held._replace(keys=keys, values=values, **others))

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


def capacity_for(slots: int, n_ctx: int) -> int:
    """How many slots a cache has that needs so many."""
    capacity = SMALLEST
    while capacity < min(slots, n_ctx):
        capacity *= GROWTH
    return min(capacity, n_ctx)


def slot_bytes(hparams: HParams, itemsize: int) -> int:
    """What the keys and values of one token take, in elements of this many bytes."""
    return 2 * hparams.n_layer * hparams.n_embd * itemsize


def rounded(n: int, multiple: int) -> int:
    """n, or the next number above it that is a multiple."""
    return -(-n // multiple) * multiple
