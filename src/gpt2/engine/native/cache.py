"""The native backend's cache: NumPy arrays, into which the library writes itself.

The keys of a head are a packed matrix [D, P] (kernels.h), its values one [P, D]: panels of all slots, so that room for
more slots is put after each panel, as if it were a head.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2.engine.cache import Held, KeyValueCache, rounded
from gpt2.hparams import HParams

WORD = 4  # bytes of a group, as in kernels.h
POINTERS = ctypes.POINTER(ctypes.c_void_p)


def pointers(arrays: Sequence[np.ndarray]) -> Any:
    """Their addresses, as C wants them; whoever uses them must keep the arrays."""
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


class CCache(ctypes.Structure):
    """`Cache` in library.cc."""

    _fields_ = [("rows", ctypes.c_long), ("capacity", ctypes.c_long), ("keys", POINTERS), ("values", POINTERS)]


class ArrayCache(KeyValueCache):
    """width: columns of a panel."""

    def __init__(self, hparams: HParams, batch: int, dtype: np.dtype, width: int) -> None:
        self.dtype = dtype
        super().__init__(hparams, batch, width)

    def shapes(self, batch: int, capacity: int) -> tuple[list[int], list[int]]:
        heads, size = self.hparams.n_head, self.hparams.head_size
        panels = rounded(size, self.width) // self.width
        keys = [batch, heads, capacity, rounded(size, WORD // self.dtype.itemsize)]
        return keys, [batch, heads * panels, capacity, self.width]

    def holding(self, held: Held) -> Held:
        return held._replace(seen=CCache(len(held.rows), held.capacity, pointers(held.keys), pointers(held.values)))

    def zeros(self, shape: list[int]) -> np.ndarray:
        return np.zeros(shape, self.dtype)

    def grown(self, array: np.ndarray, more: int) -> np.ndarray:
        batch, heads, slots, size = array.shape
        larger = np.zeros([batch, heads, slots + more, size], array.dtype)
        larger[:, :, :slots] = array
        return larger

    def taken(self, array: np.ndarray, places: np.ndarray) -> np.ndarray:
        return array[places]

    def put(self, array: np.ndarray, to: np.ndarray, froms: np.ndarray) -> np.ndarray:
        array[to] = array[froms]
        return array
