"""The tensors of a GGUF file: the positions of their rows, and the conversion of the rows to float32.

The package gguf provides the tensor types and the conversion of quantized types.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.formats.gguf.header import GGUFFile, GGUFTensorInfo

PIECE_BYTES = 1 << 25  # size of a piece after its conversion to float32
FLOAT32_BYTES = 4


class GGUFTensor(NamedTuple):
    """The position and type of a tensor's rows.

    Attributes:
        shape: Its shape in NumPy's order.
        ggml_type: A value of the package's GGMLQuantizationType.
        offset: Index of its first byte in the file.
        row_bytes: Size of a row in the file.
    """

    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    row_bytes: int

    @property
    def n_rows(self) -> int:
        """Number of rows; a row is the last dimension."""
        return math.prod(self.shape[:-1])

    @property
    def end(self) -> int:
        """Index of the byte after its last byte."""
        return self.offset + self.n_rows * self.row_bytes


def locate_tensors(file: GGUFFile) -> dict[str, GGUFTensor]:
    """Return the tensors of a file by their names.

    Raises:
        UnreadableFileError: The file's size cannot be read.
        DamagedFileError: A tensor lies beyond the end of the file, overlaps another tensor, or has an impossible type
            or shape.
    """
    tensors = {name: _locate_tensor(file, name, info) for name, info in file.tensors.items()}
    ordered = sorted((tensor.offset, tensor.end, name) for name, tensor in tensors.items())
    for (_, end, name), (next_offset, _, next_name) in itertools.pairwise(ordered):
        if end > next_offset:
            raise file.damaged(f"{next_name} overlaps {name}")
    with files.reporting_read_errors(file.path):
        size = file.path.stat().st_size
    if ordered and ordered[-1][1] > size:
        raise file.damaged(f"it is cut off: it has {size} bytes, but {ordered[-1][2]} ends at {ordered[-1][1]}")
    return tensors


def _locate_tensor(file: GGUFFile, name: str, info: GGUFTensorInfo) -> GGUFTensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if not info.shape or not all(info.shape):
        raise file.damaged(f"{name} is empty")
    try:
        block_numbers, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(info.ggml_type)]
    except (ValueError, KeyError):
        raise file.damaged(f"{name} has the unknown type {info.ggml_type}") from None
    columns = info.shape[-1]
    if columns % block_numbers:
        raise file.damaged(f"{name} has rows of {columns} numbers, which is not a multiple of {block_numbers}")
    return GGUFTensor(*info, columns // block_numbers * block_bytes)


def read_pieces(file: GGUFFile, name: str, tensor: GGUFTensor, n_rows: int) -> Iterator[np.ndarray]:
    """Yield the first rows of a tensor in order as float32 arrays [n, columns] of about PIECE_BYTES.

    Args:
        file: The file.
        name: The tensor's name, for messages.
        tensor: The position and type of its rows.
        n_rows: The number of rows to read.

    Raises:
        UnreadableFileError: The file cannot be read.
        DamagedFileError: The file became shorter.
        GPT2Error: The package gguf cannot convert the tensor's type.
    """
    from gguf import GGMLQuantizationType, quants

    ggml_type = GGMLQuantizationType(tensor.ggml_type)
    for raw in read_raw(file, tensor, n_rows):
        try:
            with np.errstate(all="ignore"):
                piece = quants.dequantize(raw, ggml_type)
        except NotImplementedError:
            raise GPT2Error(f"{file.path}: {name} has the type {ggml_type.name}, which is not supported") from None
        yield piece


def read_raw(file: GGUFFile, tensor: GGUFTensor, n_rows: int) -> Iterator[np.ndarray]:
    """Yield the first rows of a tensor as the file stores them.

    Args:
        file: The file.
        tensor: The position and type of its rows.
        n_rows: The number of rows to read.

    Yields:
        uint8 arrays [n, row_bytes], with rows for about PIECE_BYTES of float32 numbers.

    Raises:
        UnreadableFileError: The file cannot be read.
        DamagedFileError: The file became shorter.
    """
    piece_rows = max(1, PIECE_BYTES // (FLOAT32_BYTES * tensor.shape[-1]))
    with files.reporting_read_errors(file.path), file.path.open("rb") as source:
        source.seek(tensor.offset)
        for start in range(0, n_rows, piece_rows):
            raw = np.empty((min(piece_rows, n_rows - start), tensor.row_bytes), np.uint8)
            if source.readinto(raw) < raw.nbytes:  # type: ignore[arg-type]
                raise file.damaged("it became shorter while it was read")
            yield raw
