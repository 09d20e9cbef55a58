"""Tensors as a file of weights stores them, converted to float32 a few rows at a time.

A storage is a run of numbers of one type in a file. A tensor selects numbers of a storage by offset, shape and
strides. What a file claims about either is compared with the file's size before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpt2 import files
from gpt2.errors import DamagedFileError, GPT2Error

PIECE_BYTES = 1 << 24  # read from a file in one piece
MAX_DIMENSIONS = 16
BFLOAT16 = "bfloat16"  # not a NumPy type: the upper half of a float32
FLOATS = ("float64", "float32", "float16", BFLOAT16)
NON_FLOATS = ("int64", "int32", "int16", "int8", "uint8", "bool")  # may be stored alongside weights, but are not read
ITEM_SIZE = {name: 2 if name == BFLOAT16 else np.dtype(name).itemsize for name in (*FLOATS, *NON_FLOATS)}  # bytes


@dataclasses.dataclass
class Storage:
    """A run of numbers of one type in a file.

    Attributes:
        path: The file.
        name: The storage's name for error messages.
        dtype: One of FLOATS or NON_FLOATS.
        count: How many numbers it holds.
        start: The index of its first byte in the file.
        big_endian: Whether its numbers are big-endian.
        crc: The CRC-32 of all its bytes; None if the file has none.
    """

    path: Path
    name: str
    dtype: str
    count: int
    start: int = 0
    big_endian: bool = False
    crc: int | None = None

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.count * ITEM_SIZE[self.dtype]


class StoredTensor(NamedTuple):
    """A tensor in a file, read on request.

    Attributes:
        storage: The numbers that it selects from.
        offset: The index of its first number in the storage.
        shape: Its shape.
        strides: The distance between neighbors in each dimension, in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Type of its numbers in the file."""
        return self.storage.dtype

    @property
    def identity(self) -> str:
        """Identifies its numbers until the file changes (see `formats.weights.Weight`)."""
        return f"{files.file_fingerprint(self.storage.path)} {self!r}"

    @property
    def is_contiguous(self) -> bool:
        """Whether its numbers follow one another in the file."""
        dimensions = zip(self.shape, self.strides, contiguous_strides(self.shape))
        return all(size == 1 or stride == expected for size, stride, expected in dimensions)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield its rows in order as float32 arrays [n, columns]; columns is the last dimension.

        A contiguous tensor is read in pieces of about PIECE_BYTES, any other in one piece.

        Raises:
            GPT2Error: Its numbers are not floating-point.
            UnreadableFileError: The file cannot be read.
            DamagedFileError: The file is cut off, or the checksum differs; the latter shows only after the last piece.
        """
        if self.dtype not in FLOATS:
            raise GPT2Error(
                f"{self.storage.path}: {self.storage.name} is {self.dtype}, but weights must be floating-point"
            )
        if 0 in self.shape:
            return
        columns = self.shape[-1] if self.shape else 1
        rows = math.prod(self.shape[:-1])
        piece_rows = rows_per_piece(columns, ITEM_SIZE[self.dtype])
        if self.is_contiguous:
            counts = [min(piece_rows, rows - start) * columns for start in range(0, rows, piece_rows)]
            yield from (piece.reshape(-1, columns) for piece in self._read_runs(self.offset, counts))
            return
        span = next(self._read_runs(self.offset, [self._span()]))
        byte_strides = [stride * span.itemsize for stride in self.strides]
        array = np.lib.stride_tricks.as_strided(span, self.shape, byte_strides, writeable=False).reshape(-1, columns)
        yield from (array[start : start + piece_rows] for start in range(0, rows, piece_rows))

    def _span(self) -> int:
        """Return the distance from its first to its last number, both included; 0 if it is empty."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))

    def _read_runs(self, first: int, counts: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield consecutive numbers of the storage as float32 vectors, and check the checksum after the last.

        Args:
            first: Index of the first number in the storage.
            counts: Length of each vector.
        """
        storage, path = self.storage, self.storage.path
        crc = 0
        with files.reporting_read_errors(path), path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < storage.start + storage.size:
                raise DamagedFileError(path, f"it ends before the end of {storage.name}")
            file.seek(storage.start + first * ITEM_SIZE[storage.dtype])
            for count in counts:
                numbers = np.empty(count, _numpy_type(storage))
                if read_into(file, numbers) < numbers.nbytes:
                    raise DamagedFileError(path, f"it became shorter while {storage.name} was read")
                if storage.crc is not None:
                    crc = zlib.crc32(numbers.view(np.uint8), crc)  # type: ignore[arg-type]
                yield _to_float32(numbers, storage.dtype)
        if storage.crc not in (None, crc) and sum(counts) == storage.count:
            raise DamagedFileError(path, f"the checksum of {storage.name} does not match")


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in numbers, of a tensor of this shape whose numbers follow one another."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def rows_per_piece(columns: int, item_size: int) -> int:
    """Return how many rows make a piece of about PIECE_BYTES, at least one.

    Args:
        columns: Numbers in a row.
        item_size: Bytes of a number.
    """
    return max(1, PIECE_BYTES // max(1, columns * item_size))


def checked_tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> StoredTensor:
    """Return a tensor after checking that it lies within its storage and has no more numbers than the storage.

    Raises:
        DamagedFileError: Shape, strides or offset are impossible.
    """
    tensor, path = StoredTensor(storage, offset, shape, strides), storage.path
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS or min((offset, *shape, *strides)) < 0:
        raise DamagedFileError(path, f"a tensor of {storage.name} has an impossible shape")
    if math.prod(shape) > storage.count or offset + tensor._span() > storage.count:
        raise DamagedFileError(path, f"a tensor of {storage.name} is larger than its {storage.count} numbers")
    return tensor


def read_into(file: RawIOBase, array: np.ndarray) -> int:
    """Fill a contiguous array from a file, with as many read calls as that takes.

    Returns:
        The number of bytes read; fewer than the array has if the file ended.
    """
    view = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    n_read = 0
    while n_read < len(view) and (more := file.readinto(view[n_read:])):
        n_read += more
    return n_read


def _numpy_type(storage: Storage) -> np.dtype:
    name = "uint16" if storage.dtype == BFLOAT16 else storage.dtype
    return np.dtype(name).newbyteorder(">" if storage.big_endian else "<")


def _to_float32(numbers: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == BFLOAT16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond the range of float32 becomes infinite, as in PyTorch
        return numbers.astype(np.float32, copy=False)
