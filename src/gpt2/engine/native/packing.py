"""A model's weights -> what the native library reads of them."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from gpt2.engine.native.calls import check, panel_width
from gpt2.engine.native.huge_pages import CHUNKS
from gpt2.engine.native.threads import in_threads
from gpt2.formats.weights import Layout, Weight, Weights
from gpt2.request import BFLOAT16, FLOAT32, INT8

WORD = 4  # bytes of a group, as in panels.h
READERS = 4  # threads, at most, that read and pack a weight each, of which there are so many in float32 meanwhile
# What a packed weight is to NumPy, in the order of `gpt2_type` in gpt2.h.
TYPES: dict[str, np.dtype] = {
    FLOAT32: np.dtype(np.float32),
    BFLOAT16: np.dtype(np.uint16),
    INT8: np.dtype(np.uint8),
}


class Packed(NamedTuple):
    """A matrix as the native library reads it."""

    values: np.ndarray  # [O / WIDTH, I / GROUP, WIDTH, GROUP] (panels.h)
    scale: np.ndarray  # [O] float32, by which each output is multiplied


class Packer:
    """What the native library keeps of weights: matrices packed, all else as it is."""

    def __init__(self, library: ctypes.CDLL, precision: str) -> None:
        self.pack, self.width = library.gpt2_pack, panel_width(library)
        size, address = ctypes.c_long, ctypes.c_void_p
        self.pack.argtypes = [ctypes.c_int, address, size, size, ctypes.c_int, size, address, address]
        self.pack.restype = ctypes.c_char_p
        self.type, self.dtype = list(TYPES).index(precision), TYPES[precision]

    def prepared(self, weight: Weight) -> np.ndarray | Packed:
        return weight.array() if weight.layout is None else self.packed(weight)

    def packed(self, weight: Weight) -> Packed:
        """A matrix, packed piece by piece where its outputs are rows."""
        outputs, depth = weight.shape if weight.layout is Layout.OUT_IN else weight.shape[::-1]
        group = WORD // self.dtype.itemsize
        width = self.width
        values = CHUNKS.zeros((-(-outputs // width), -(-depth // group), width, group), self.dtype)
        scale: np.ndarray = np.ones(outputs, np.float32)
        first = 0
        for piece in weight.pieces() if weight.layout is Layout.OUT_IN else [weight.array()]:
            piece, n = np.ascontiguousarray(piece), len(piece) if weight.layout is Layout.OUT_IN else outputs
            places = values.ctypes.data, scale.ctypes.data
            in_out = weight.layout is Layout.IN_OUT
            check(self.pack(self.type, piece.ctypes.data, n, depth, in_out, first, *places))
            first += n
        return Packed(values, scale)


Prepared = dict[str, "np.ndarray | Packed"]  # of the weights' names


def prepared(library: ctypes.CDLL, weights: Weights, precision: str, threads: int) -> Prepared:
    """Raises GPT2Error for weights that turn out to be damaged, MemoryError."""
    made = in_threads(Packer(library, precision).prepared, weights.values(), min(READERS, threads))
    return dict(zip(weights, made))
