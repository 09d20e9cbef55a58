"""Tensors in weight files, converted to float32 a few rows at a time.

A storage is a sequence of numbers of one type in a file. A tensor selects numbers of a storage by offset, shape and
strides. The sizes of storages and tensors are compared with the file's size before memory is allocated.
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

PIECE_BYTES = 1 << 24  # size of a piece that is read at once
MAX_DIMENSIONS = 16
BFLOAT16 = "bfloat16"  # not a NumPy type: the upper half of a float32
FLOATS = ("float64", "float32", "float16", BFLOAT16)
NON_FLOATS = ("int64", "int32", "int16", "int8", "uint8", "bool")  # can be stored alongside weights, but are not read
ITEM_SIZE = {name: 2 if name == BFLOAT16 else np.dtype(name).itemsize for name in (*FLOATS, *NON_FLOATS)}  # bytes


@dataclasses.dataclass
class Storage:
    """A sequence of numbers of one type in a file.

    Attributes:
        path: The file.
        name: The storage's name for error messages.
        dtype: One of FLOATS or NON_FLOATS.
        count: The number of its elements.
        start: Index of its first byte in the file.
        big_endian: Whether its numbers are big-endian.
        crc: The CRC-32 of all its bytes; None if the file does not contain one.
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
        """The size in bytes."""
        return self.count * ITEM_SIZE[self.dtype]


class StoredTensor(NamedTuple):
    """A tensor in a file, read on request.

    Attributes:
        storage: The storage with its numbers.
        offset: Index of its first number in the storage.
        shape: Its shape.
        strides: The distance between neighbors in each dimension, counted in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """The type of its numbers in the file."""
        return self.storage.dtype

    @property
    def identity(self) -> str:
        """An identifier of its numbers, valid until the file changes (see `formats.weights.Weight`)."""
        return f"{files.file_fingerprint(self.storage.path)} {self!r}"

    @property
    def checksum(self) -> str | None:
        """A checksum of its numbers that the file contains (see `formats.weights.Weight`); None if there is none."""
        if self.storage.crc is None:
            return None
        return f"{self.dtype} {self.storage.count} crc32 {self.storage.crc:x} {self.offset} {self.shape} {self.strides}"

    @property
    def is_contiguous(self) -> bool:
        """Return whether its numbers are adjacent and in order in the file."""
        dimensions = zip(self.shape, self.strides, contiguous_strides(self.shape))
        return all(size == 1 or stride == expected for size, stride, expected in dimensions)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield its rows in order as float32 arrays [n, columns], where columns is the last dimension.

        A contiguous tensor is read in pieces of about PIECE_BYTES, and any other tensor in one piece.

        Raises:
            GPT2Error: Its numbers are not floating-point.
            UnreadableFileError: The file cannot be read.
            DamagedFileError: The file is cut off, or the checksum differs, which is detected after the last piece.
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
        """Return the number of elements from its first to its last, both included; 0 if it is empty."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))

    def _read_runs(self, first: int, counts: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield consecutive numbers of the storage as float32 vectors, and compare the checksum after the last.

        Args:
            first: Index of the first number in the storage.
            counts: Length of each vector.
        """
        storage = self.storage
        path = storage.path
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
    """Return the strides of a contiguous tensor of this shape, counted in numbers."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def rows_per_piece(columns: int, item_size: int) -> int:
    """Return the number of rows in a piece of about PIECE_BYTES, at least one.

    Args:
        columns: Numbers in a row.
        item_size: Bytes of a number.
    """
    return max(1, PIECE_BYTES // max(1, columns * item_size))


def checked_tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> StoredTensor:
    """Return a tensor after checking that it lies within its storage and has no more numbers than the storage.

    Args:
        storage: The storage with the tensor's numbers.
        offset: Index of the tensor's first number in the storage.
        shape: The tensor's shape.
        strides: The distance between neighbors in each dimension, counted in numbers.

    Raises:
        DamagedFileError: Shape, strides or offset are impossible.
    """
    tensor = StoredTensor(storage, offset, shape, strides)
    path = storage.path
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS or min((offset, *shape, *strides)) < 0:
        raise DamagedFileError(path, f"a tensor of {storage.name} has an impossible shape")
    if math.prod(shape) > storage.count or offset + tensor._span() > storage.count:
        raise DamagedFileError(path, f"a tensor of {storage.name} is larger than its {storage.count} numbers")
    return tensor


def read_into(file: RawIOBase, array: np.ndarray) -> int:
    """Fill a contiguous array from a file, with as many read calls as necessary.

    Args:
        file: An unbuffered file, positioned at the first byte to read.
        array: The array to fill.

    Returns:
        The number of bytes read. It is smaller than the array's size if the file ended.
    """
    view = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    n_read = 0
    while n_read < len(view) and (n_new := file.readinto(view[n_read:])):
        n_read += n_new
    return n_read


def _numpy_type(storage: Storage) -> np.dtype:
    name = "uint16" if storage.dtype == BFLOAT16 else storage.dtype
    return np.dtype(name).newbyteorder(">" if storage.big_endian else "<")


def _to_float32(numbers: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == BFLOAT16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # as in PyTorch, a float64 beyond the range of float32 becomes infinite
        return numbers.astype(np.float32, copy=False)
