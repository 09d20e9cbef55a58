"""Packing of a model's weights into the layout that the native library reads.

Shapes: O outputs, I inputs; WIDTH and GROUP as in panels.h.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from gpt2.engine.native.calls import NOT_FINITE, library_int, raise_library_error
from gpt2.engine.native.huge_pages import CHUNKS
from gpt2.engine.native.threads import map_in_threads
from gpt2.engine.quantize import bfloat16_overflow
from gpt2.formats.weights import Layout, Weight, Weights
from gpt2.request import BFLOAT16, FLOAT32, INT8

GROUP_BYTES = 4  # bytes of neighboring inputs of one output, as in panels.h
MAX_PACKING_THREADS = 4  # each thread holds a weight in float32
# NumPy's types of packed weights, in the order of `gpt2_type` in gpt2.h.
PACKED_DTYPES: dict[str, np.dtype] = {
    FLOAT32: np.dtype(np.float32),
    BFLOAT16: np.dtype(np.uint16),
    INT8: np.dtype(np.uint8),
}


class PackedMatrix(NamedTuple):
    """A matrix in the native library's layout.

    Attributes:
        values: [O / WIDTH, I / GROUP, WIDTH, GROUP], see panels.h.
        scale: [O] float32, the factor of each output.
    """

    values: np.ndarray
    scale: np.ndarray


PackedWeights = dict[str, "np.ndarray | PackedMatrix"]


class WeightPacker:
    """A converter of weights that packs matrices and leaves all other weights unchanged."""

    def __init__(self, library: ctypes.CDLL, precision: str) -> None:
        """Create a packer.

        Args:
            library: The native library, whose processor determines the layout.
            precision: The packed weights' precision.
        """
        self.pack = library.gpt2_pack
        size = ctypes.c_long
        address = ctypes.c_void_p
        self.pack.argtypes = [ctypes.c_int, address, size, size, ctypes.c_int, size, address, address]
        self.pack.restype = ctypes.c_char_p
        self.width = library_int(library, "gpt2_width")  # WIDTH in vectors.h
        self.type = list(PACKED_DTYPES).index(precision)
        self.dtype = PACKED_DTYPES[precision]

    def pack_weight(self, weight: Weight) -> np.ndarray | PackedMatrix:
        """Return a weight in the library's layout."""
        return weight.array() if weight.layout is None else self.pack_matrix(weight)

    def pack_matrix(self, weight: Weight) -> PackedMatrix:
        """Return a packed matrix; if its rows are outputs, it is read piece by piece.

        Raises:
            GPT2Error: The weight is damaged, or holds a number that is not finite in the packed type.
        """
        rows_are_outputs = weight.layout is Layout.OUT_IN
        n_outputs, n_inputs = weight.shape if rows_are_outputs else weight.shape[::-1]
        group = GROUP_BYTES // self.dtype.itemsize
        shape = (-(-n_outputs // self.width), -(-n_inputs // group), self.width, group)
        values = CHUNKS.zeros(shape, self.dtype)
        scale: np.ndarray = np.ones(n_outputs, np.float32)
        first = 0
        # The library checks the numbers, because it reads each of them anyway.
        for piece in weight.unchecked_pieces() if rows_are_outputs else [weight.unchecked_array()]:
            piece = np.ascontiguousarray(piece)
            n_packed = len(piece) if rows_are_outputs else n_outputs
            is_in_out = weight.layout is Layout.IN_OUT
            addresses = values.ctypes.data, scale.ctypes.data
            error = self.pack(self.type, piece.ctypes.data, n_packed, n_inputs, is_in_out, first, *addresses)
            if error == NOT_FINITE:
                weight.check_finite(piece)
                raise bfloat16_overflow(weight, piece)
            if error:
                raise_library_error(error)
            first += n_packed
        return PackedMatrix(values, scale)


def pack_weights(library: ctypes.CDLL, weights: Weights, precision: str, threads: int) -> PackedWeights:
    """Return the name of each weight and the weight in the library's layout.

    Raises:
        GPT2Error: A weight is damaged.
        MemoryError: There is not enough memory.
    """
    packer = WeightPacker(library, precision)
    packed = map_in_threads(packer.pack_weight, weights.values(), min(MAX_PACKING_THREADS, threads))
    return dict(zip(weights, packed))
