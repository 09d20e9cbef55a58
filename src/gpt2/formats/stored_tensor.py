"""Numbers as they lie in a file of weights -> float32, a few rows at a time.

A storage is a run of numbers of one type in a file; a tensor says which of them it takes, in which order. What a file
claims of either is compared with its size before anything is allocated.
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

PIECE_BYTES = 1 << 24  # bytes of a file that are read at once
MAX_DIMENSIONS = 16
BFLOAT16 = "bfloat16"  # NumPy has none: the upper half of a float32
FLOATS = ("float64", "float32", "float16", BFLOAT16)
NON_FLOATS = (
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
)  # not read, but a file may hold such beside its weights
ITEM_SIZE = {name: 2 if name == BFLOAT16 else np.dtype(name).itemsize for name in (*FLOATS, *NON_FLOATS)}  # bytes


@dataclasses.dataclass
class Storage:
    """`count` numbers from byte `start` of a file on; crc: the CRC-32 of all their bytes, where the file has one."""

    path: Path
    name: str
    dtype: str
    count: int
    start: int = 0
    big_endian: bool = False
    crc: int | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * ITEM_SIZE[self.dtype]


class StoredTensor(NamedTuple):
    """Numbers of a storage, from the one at `offset` on, `strides` numbers apart in each dimension."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.storage.dtype

    @property
    def identity(self) -> str:
        """Names its numbers as long as its file stays what it is (`formats.weights.Weight`)."""
        return f"{files.file_fingerprint(self.storage.path)} {self!r}"

    @property
    def is_contiguous(self) -> bool:
        """Whether its numbers follow one another in the file."""
        return all(
            n == 1 or step == stride
            for n, step, stride in zip(self.shape, contiguous_strides(self.shape), self.strides)
        )

    def pieces(self) -> Iterator[np.ndarray]:
        """Its rows [n, columns] in order, float32, some at a time; columns is its last dimension.

        One whose numbers do not follow one another is read at once. Raises Unreadable; Damaged, perhaps after the last
        piece; GPT2Error for numbers that are no weights.
        """
        if self.dtype not in FLOATS:
            raise GPT2Error(f"{self.storage.path}: {self.storage.name} is {self.dtype}, and weights are floating-point")
        if 0 in self.shape:
            return
        columns = self.shape[-1] if self.shape else 1
        rows, at_once = math.prod(self.shape[:-1]), rows_per_piece(columns, ITEM_SIZE[self.dtype])
        if self.is_contiguous:
            size = [min(at_once, rows - start) * columns for start in range(0, rows, at_once)]
            yield from (piece.reshape(-1, columns) for piece in self._runs(self.offset, size))
            return
        whole = next(self._runs(self.offset, [self._span()]))
        apart = [stride * whole.itemsize for stride in self.strides]
        array = np.lib.stride_tricks.as_strided(whole, self.shape, apart, writeable=False).reshape(-1, columns)
        yield from (array[start : start + at_once] for start in range(0, rows, at_once))

    def _span(self) -> int:
        """How many numbers of the storage lie from its first to its last, 0 if it has none."""
        return 0 if 0 in self.shape else 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides))

    def _runs(self, first: int, counts: Sequence[int]) -> Iterator[np.ndarray]:
        """So many numbers at a time of the storage, from the one at `first` on; its checksum is compared after all."""
        storage, crc = self.storage, 0
        path = storage.path
        with files.reporting_read_errors(path), path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < storage.start + storage.size:
                raise DamagedFileError(path, f"it ends before the end of {storage.name}")
            file.seek(storage.start + first * ITEM_SIZE[storage.dtype])
            for count in counts:
                stored = np.empty(count, _stored_type(storage))
                if read_into(file, stored) < stored.nbytes:
                    raise DamagedFileError(path, f"it has become shorter while {storage.name} was read")
                if storage.crc is not None:
                    crc = zlib.crc32(stored.view(np.uint8), crc)  # type: ignore[arg-type]
                yield _float32(stored, storage.dtype)
        if storage.crc not in (None, crc) and sum(counts) == storage.count:
            raise DamagedFileError(path, f"{storage.name} has another checksum than it should")


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """How many numbers apart the entries of each dimension lie if all of them follow one another."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def rows_per_piece(columns: int, item_size: int) -> int:
    return max(1, PIECE_BYTES // max(1, columns * item_size))


def checked_tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> StoredTensor:
    """A tensor that lies within its storage and has no more numbers than it. Raises Damaged."""
    tensor, path = StoredTensor(storage, offset, shape, strides), storage.path
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS or min((offset, *shape, *strides)) < 0:
        raise DamagedFileError(path, f"a tensor of {storage.name} has a shape that cannot be")
    if math.prod(shape) > storage.count or offset + tensor._span() > storage.count:
        raise DamagedFileError(path, f"a tensor of {storage.name} is larger than its {storage.count} numbers")
    return tensor


def read_into(file: RawIOBase, array: np.ndarray) -> int:
    """Reads into all of a contiguous array, and returns how many bytes there were: one call may give fewer."""
    view, read = memoryview(array.reshape(-1).view(np.uint8)), 0  # type: ignore[arg-type]
    while read < len(view) and (more := file.readinto(view[read:])):
        read += more
    return read


def _stored_type(storage: Storage) -> np.dtype:
    name = "uint16" if storage.dtype == BFLOAT16 else storage.dtype
    return np.dtype(name).newbyteorder(">" if storage.big_endian else "<")


def _float32(stored: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == BFLOAT16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, as it is in PyTorch
        return stored.astype(np.float32, copy=False)
