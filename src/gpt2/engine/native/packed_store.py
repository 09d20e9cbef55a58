"""Packed weights stored for the next process: one file per model, next to the compiled library.

    FORMAT, size and CRC32C of the header (8 bytes each), the header, the arrays

The header is JSON: for each weight its arrays' types, shapes, offsets and CRC32C.

A file is memory-mapped, so that processes share it. Its name is a hash of everything that its content depends on: the
weights' checksums (for formats without checksums, the identity of their file), the precision, and the library, whose
layout depends on the processor. A file is written completely or not at all, and every checksum is verified when it is
loaded. Files that other users can write are never used. If a file is damaged, the weights are packed again.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import mmap
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from gpt2 import files
from gpt2.engine.native import cache_folder
from gpt2.engine.native.cache_folder import NoLibraryError
from gpt2.engine.native.huge_pages import CHUNKS, is_in_huge_pages
from gpt2.engine.native.packing import PACKED_DTYPES, PackedMatrix, PackedWeights
from gpt2.formats.stored_tensor import read_into
from gpt2.formats.weights import Weights

SUFFIX = ".packed"
FORMAT = b"gpt2 packed 2\n"  # files of version 1 may hold NaN or infinity
HEADER_START = len(FORMAT) + 16
MIN_BYTES = 64 << 20  # smaller models are packed fast enough
MAX_TOTAL_BYTES = 10 << 30  # all files together
ALIGNMENT = 64
WRITE_BYTES = 16 << 20  # per write; the system may use huge pages for files of large writes


class PackedFileError(ValueError):
    """Damage in a file of packed weights."""


class PackedStore:
    """A store of packed weights, whose failures are ignored because weights can be packed again."""

    def __init__(self, library: ctypes.CDLL, notify: Callable[[str], None] = files.no_callback) -> None:
        """Create a store.

        Args:
            library: The library that packs.
            notify: Called with a line after weights have been stored.
        """
        self.notify = notify
        self.layout = Path(library._name).name  # contains a hash of the library's sources and of the processor

    def load_or_pack(self, weights: Weights, precision: str, pack: Callable[[], PackedWeights]) -> PackedWeights:
        """Return the stored packed weights; if there are none, pack and store them."""
        name = self.file_name(weights, precision)
        if name is None:
            return pack()
        with contextlib.suppress(OSError, NoLibraryError):
            for path in cache_folder.find_trusted_files(name):
                with contextlib.suppress(OSError, PackedFileError):
                    return read(path)
        packed = pack()
        with contextlib.suppress(OSError, NoLibraryError):
            folder = cache_folder.find_writable_folder()
            if folder and (size := write(folder / name, packed)):
                self.notify(f"packed weights are stored for the next start: {size / 1e6:,.0f} MB in {folder}")
        return packed

    def file_name(self, weights: Weights, precision: str) -> str | None:
        """Return the name of the file; None for small models, and for weights that cannot be identified."""
        size = sum(math.prod(weight.shape) for weight in weights.values()) * PACKED_DTYPES[precision].itemsize
        if size < MIN_BYTES or any(weight.identity is None for weight in weights.values()):
            return None
        identities = [(name, weight.shape, str(weight.layout), weight.identity) for name, weight in weights.items()]
        key = repr((self.layout, precision, sys.byteorder, identities))
        return hashlib.sha256(key.encode()).hexdigest()[:32] + SUFFIX


def write(path: Path, weights: PackedWeights) -> int:
    """Write packed weights, after removing old files if the space is not sufficient.

    Returns:
        The size of the file in bytes; 0 if there is not enough space for it.

    Raises:
        OSError: The file cannot be written.
    """
    entries: dict[str, list] = {}
    offset = 0
    for name, weight in weights.items():
        entries[name] = []
        for array in _arrays_of(weight):
            crc = google_crc32c.value(_bytes_of(array))
            entries[name].append([array.dtype.str, array.shape, offset, crc])
            offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    header = json.dumps(entries, separators=(",", ":")).encode("ascii")
    header += b" " * (-(HEADER_START + len(header)) % ALIGNMENT)
    if not _make_space(path.parent, HEADER_START + len(header) + offset):
        return 0
    with files.temporary_file(path, sync=False) as part, part.open("wb", buffering=0) as file:
        part.chmod(0o644)  # whatever the umask is
        numbers = b"".join(number.to_bytes(8, "little") for number in (len(header), google_crc32c.value(header)))
        content = [np.frombuffer(FORMAT + numbers + header, np.uint8)]
        _write_arrays(file, (array for weight in [*content, *weights.values()] for array in _arrays_of(weight)))
    return path.stat().st_size


def _make_space(folder: Path, size: int) -> bool:
    """Remove the least recently used files, and return whether there is enough space for a new one."""
    files.remove_abandoned(folder)
    oldest_first = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in oldest_first)
    while oldest_first and total + size > MAX_TOTAL_BYTES:
        total -= oldest_first[0].stat().st_size
        oldest_first.pop(0).unlink()
    return (
        total + size <= MAX_TOTAL_BYTES and shutil.disk_usage(folder).free > 2 * size
    )  # half of the free space stays free


def _write_arrays(file: Any, arrays: Iterator[np.ndarray]) -> None:
    """Write the arrays, each padded to ALIGNMENT, in pieces of WRITE_BYTES."""
    buffer = memoryview(bytearray(WRITE_BYTES))
    used = 0
    for array in arrays:
        data = _bytes_of(array).data
        padding = memoryview(bytes(-len(data) % ALIGNMENT))
        for part in (data, padding):
            while len(part):
                count = min(len(part), WRITE_BYTES - used)
                buffer[used : used + count] = part[:count]
                used += count
                part = part[count:]
                if used == WRITE_BYTES:
                    _write_whole(file, buffer)
                    used = 0
    _write_whole(file, buffer[:used])


def _write_whole(file: Any, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]


def read(path: Path) -> PackedWeights:
    """Return the weights in a file.

    If the system uses huge pages for the file, it is memory-mapped. Otherwise its arrays are copied to huge pages.

    Raises:
        PackedFileError: The file is damaged; it has been removed.
        OSError: The file cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            arrays, mapped = _map_arrays(file)
            if not is_in_huge_pages(mapped):
                arrays = _copy_arrays(file, arrays, mapped)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise PackedFileError(str(error)) from error
    with contextlib.suppress(OSError):
        os.utime(path)  # the files used last are retained
    return {name: PackedMatrix(*parts) if len(parts) == 2 else parts[0] for name, parts in arrays.items()}


def _map_arrays(file: Any) -> tuple[dict[str, list[np.ndarray]], mmap.mmap]:
    """Return the arrays by the weights' names, with verified checksums, and the mapped file.

    Raises:
        ValueError: The file is damaged. TypeError, KeyError and RecursionError mean the same.
    """
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    size = int.from_bytes(mapped[HEADER_START - 16 : HEADER_START - 8], "little")
    header_crc = int.from_bytes(mapped[HEADER_START - 8 : HEADER_START], "little")
    header = mapped[HEADER_START : HEADER_START + size]
    if mapped[: len(FORMAT)] != FORMAT or len(header) != size or google_crc32c.value(header) != header_crc:
        raise PackedFileError("its header is damaged")
    arrays: dict[str, list[np.ndarray]] = {}
    for name, entries in json.loads(header).items():
        arrays[name] = []
        for dtype, shape, offset, crc in entries:
            array = np.frombuffer(mapped, dtype, math.prod(shape), HEADER_START + size + offset).reshape(shape)
            if google_crc32c.value(_bytes_of(array)) != crc:
                raise PackedFileError(f"the checksum of {name} does not match")
            arrays[name].append(array)
    return arrays, mapped


def _copy_arrays(file: Any, arrays: dict[str, list[np.ndarray]], mapped: mmap.mmap) -> dict[str, list[np.ndarray]]:
    """Return copies of the arrays in huge pages; the mapped pages are freed first."""
    start = np.frombuffer(mapped, np.uint8).ctypes.data
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    copies: dict[str, list[np.ndarray]] = {}
    for name, originals in arrays.items():
        copies[name] = []
        for array in originals:
            copy = CHUNKS.zeros(array.shape, array.dtype)
            file.seek(array.ctypes.data - start)
            if read_into(file, copy) < copy.nbytes:
                raise PackedFileError("the file has become shorter")
            copies[name].append(copy)
    return copies


def _arrays_of(weight: np.ndarray | PackedMatrix) -> tuple[np.ndarray, ...]:
    return tuple(weight) if isinstance(weight, PackedMatrix) else (weight,)


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def list_files() -> list[Path]:
    """Return the files of packed weights."""
    with contextlib.suppress(OSError, NoLibraryError):
        folders = [folder for folder in cache_folder.cache_folders() if folder.exists()]
        return [path for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return []


def remove_files() -> None:
    """Remove all files of packed weights.

    Raises:
        OSError: A file cannot be removed.
    """
    for path in list_files():
        path.unlink(missing_ok=True)
