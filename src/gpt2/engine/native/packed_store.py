"""Packed weights kept for the next process: one file a model, beside the compiled library.

    FORMAT, size and CRC32C of the header (8 bytes each), the header, the arrays

The header is JSON: of each weight its arrays' types, shapes, places and CRC32C.

A file is mapped, so that processes share what they read, and nothing is read twice. Its name is a hash of all that it
depends on: the weights' checksums (of formats that have none, which file it was), the precision, and the library that
packed them, whose layout is the processor's. It is there whole or not at all, every checksum is compared when it is
loaded, and what somebody else could have put there is not used; whatever goes wrong with it, weights are packed anew.
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
from gpt2.engine.native.cache_folder import NoLibrary
from gpt2.engine.native.huge_pages import CHUNKS, in_huge_pages
from gpt2.engine.native.packing import TYPES, Packed, Prepared
from gpt2.formats.stored_tensor import read_into
from gpt2.formats.weights import Weights

SUFFIX = ".packed"
FORMAT = b"gpt2 packed 1\n"
BEGIN = len(FORMAT) + 16  # of the header
LEAST = 64 << 20  # bytes: what is smaller is packed in no time
LIMIT = 10 << 30  # of all files together
ALIGNMENT = 64
AT_ONCE = 16 << 20  # bytes that are written: the system then keeps a file in huge pages, where it can


class Broken(ValueError):
    """Why a file is not used."""


class Store:
    """What a library has packed; `prepared` never fails because of it. notify: told where something new is kept."""

    def __init__(self, library: ctypes.CDLL, notify: Callable[[str], None] = files.no_callback) -> None:
        self.notify = notify
        self.layout = Path(library._name).name  # which has a hash of its sources and of the processor

    def prepared(self, weights: Weights, precision: str, make: Callable[[], Prepared]) -> Prepared:
        """The packed weights as they were kept or, where they are not, as `make` makes them."""
        name = self.name(weights, precision)
        if name is None:
            return make()
        with contextlib.suppress(OSError, NoLibrary):
            for path in cache_folder.trusted(name):
                with contextlib.suppress(OSError, Broken):
                    return read(path)
        made = make()
        with contextlib.suppress(OSError, NoLibrary):
            path = cache_folder.writable() / name
            if size := write(path, made):
                self.notify(f"packed weights are kept for the next start: {size / 1e6:,.0f} MB in {path.parent}")
        return made

    def name(self, weights: Weights, precision: str) -> str | None:
        """Of the file; None for weights that are not worth one, or of which it is not known which they are."""
        size = sum(math.prod(weight.shape) for weight in weights.values()) * TYPES[precision].itemsize
        if size < LEAST or any(weight.identity is None for weight in weights.values()):
            return None
        which = [(name, weight.shape, str(weight.layout), weight.identity) for name, weight in weights.items()]
        key = repr((self.layout, precision, sys.byteorder, which))
        return hashlib.sha256(key.encode()).hexdigest()[:32] + SUFFIX


def write(path: Path, weights: Prepared) -> int:
    """Makes room and writes them -> bytes; 0 if there is no room. Raises OSError."""
    header: dict[str, list] = {}
    at = 0
    for name, weight in weights.items():
        header[name] = []
        for array in _arrays(weight):
            crc = google_crc32c.value(_bytes(array))
            header[name].append([array.dtype.str, array.shape, at, crc])
            at += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    head += b" " * (-(BEGIN + len(head)) % ALIGNMENT)
    if not _has_room(path.parent, BEGIN + len(head) + at):
        return 0
    with files.temporary_file(path, sync=False) as part, part.open("wb", buffering=0) as file:
        part.chmod(0o644)  # whatever the umask is
        numbers = b"".join(number.to_bytes(8, "little") for number in (len(head), google_crc32c.value(head)))
        content = [np.frombuffer(FORMAT + numbers + head, np.uint8)]
        _write_all(file, (array for weight in [*content, *weights.values()] for array in _arrays(weight)))
    return path.stat().st_size


def _has_room(place: Path, size: int) -> bool:
    """Whether so many bytes may be written there, once files that have not been used for longest are removed."""
    files.remove_abandoned(place)
    oldest_first = sorted(place.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    there = sum(path.stat().st_size for path in oldest_first)
    while oldest_first and there + size > LIMIT:
        there -= oldest_first[0].stat().st_size
        oldest_first.pop(0).unlink()
    return there + size <= LIMIT and shutil.disk_usage(place).free > 2 * size  # a disk is not filled by this


def _write_all(file: Any, arrays: Iterator[np.ndarray]) -> None:
    """Each padded to ALIGNMENT, AT_ONCE at a time whatever the arrays' sizes."""
    waiting, used = memoryview(bytearray(AT_ONCE)), 0
    for array in arrays:
        data = _bytes(array).data
        padding = bytes(-len(data) % ALIGNMENT)
        for part in (data, memoryview(padding)):
            while len(part):
                count = min(len(part), AT_ONCE - used)
                waiting[used : used + count] = part[:count]
                used, part = used + count, part[count:]
                if used == AT_ONCE:
                    _write_whole(file, waiting)
                    used = 0
    _write_whole(file, waiting[:used])


def _write_whole(file: Any, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]


def read(path: Path) -> Prepared:
    """What a file holds: mapped where the system keeps it in huge pages, else in memory that has them. Raises Broken,
    after it has removed the file, and OSError."""
    try:
        with path.open("rb", buffering=0) as file:
            found, mapped = _mapped(file)
            if not in_huge_pages(mapped):
                found = _copied(file, found, mapped)
    except (Broken, ValueError, TypeError, KeyError, RecursionError) as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise Broken(str(error)) from error
    with contextlib.suppress(OSError):
        os.utime(path)  # used now
    return {name: Packed(*arrays) if len(arrays) == 2 else arrays[0] for name, arrays in found.items()}


def _mapped(file: Any) -> tuple[dict[str, list[np.ndarray]], mmap.mmap]:
    """The arrays by the weights' names, their checksums compared. Raises Broken, ValueError and others."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    size, head_crc = (int.from_bytes(mapped[at : at + 8], "little") for at in (BEGIN - 16, BEGIN - 8))
    head = mapped[BEGIN : BEGIN + size]
    if mapped[: len(FORMAT)] != FORMAT or len(head) != size or google_crc32c.value(head) != head_crc:
        raise Broken("it does not begin as such files do")
    found: dict[str, list[np.ndarray]] = {}
    for name, entries in json.loads(head).items():
        found[name] = []
        for dtype, shape, at, crc in entries:
            array = np.frombuffer(mapped, dtype, math.prod(shape), BEGIN + size + at).reshape(shape)
            if google_crc32c.value(_bytes(array)) != crc:
                raise Broken(f"{name} has another checksum than it should")
            found[name].append(array)
    return found, mapped


def _copied(file: Any, found: dict[str, list[np.ndarray]], mapped: mmap.mmap) -> dict[str, list[np.ndarray]]:
    """The same arrays, read into memory of huge pages; what was mapped does not count as memory beside them."""
    begin = np.frombuffer(mapped, np.uint8).ctypes.data
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    copied: dict[str, list[np.ndarray]] = {}
    for name, arrays in found.items():
        copied[name] = []
        for array in arrays:
            new = CHUNKS.zeros(array.shape, array.dtype)
            file.seek(array.ctypes.data - begin)
            if read_into(file, new) < new.nbytes:
                raise Broken("it has become shorter")
            copied[name].append(new)
    return copied


def _arrays(weight: np.ndarray | Packed) -> tuple[np.ndarray, ...]:
    return tuple(weight) if isinstance(weight, Packed) else (weight,)


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def kept() -> list[Path]:
    """The files that there are."""
    with contextlib.suppress(OSError, NoLibrary):
        return [path for place in cache_folder.folders() if place.exists() for path in sorted(place.glob(f"*{SUFFIX}"))]
    return []


def clear() -> None:
    """Removes them. Raises OSError."""
    for path in kept():
        path.unlink(missing_ok=True)
