"""Memory in huge pages where the system has them: for weights, side by side in chunks, and for blocks of a cache.

A decode step reads all weights, and with small pages a tenth to a third of its time goes to finding them. Most matrices
in int8 are smaller than one huge page, so that each in memory of its own would get none.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import re
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT, HUGE_PAGE, CHUNK = 64, 2 << 20, 64 << 20  # bytes
# Shared memory, which is what Python asks for by default, gets no huge pages from many a kernel; and when a process
# forks, both would put weights into the same room.
HUGE_PAGES, SMAPS = Path("/sys/kernel/mm/transparent_hugepage/enabled"), Path("/proc/self/smaps")
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Chunks:
    """Arrays of any shape; a chunk's memory is given back with the last of its arrays."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.newest: Any = lambda: None  # a weak reference to the chunk in which there may be room
        self.used = 0  # bytes of it

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """What has been nobody's before is all zeros: the system sees to it."""
        count = math.prod(shape)
        size = -(-count * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        with self.lock:
            chunk = self.newest()
            if chunk is None or self.used + size > len(chunk):
                chunk = self._new_chunk(max(size, CHUNK))
            start, self.used = self.used, self.used + size
        return np.frombuffer(chunk, dtype, count, start).reshape(shape)

    def _new_chunk(self, size: int) -> mmap.mmap:
        new, self.used = chunk(size)
        self.newest = weakref.ref(new)
        return new


def chunk(size: int) -> tuple[mmap.mmap, int]:
    """Memory for so many bytes, all zeros, and where in it a huge page begins. Raises MemoryError."""
    try:
        new = mmap.mmap(-1, size + HUGE_PAGE, flags=PRIVATE)
    except OSError as error:
        raise MemoryError(f"{size:,} bytes cannot be had") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            new.madvise(mmap.MADV_HUGEPAGE)
    return new, -np.frombuffer(new, np.uint8).ctypes.data % HUGE_PAGE


def in_huge_pages(mapped: mmap.mmap) -> bool:
    """Whether most of a mapped file, which has been read, is in huge pages; True too where memory would not be so.

    Linux alone says it; newer kernels (6.16 with ext4, for one) keep files so that were written in large pieces.
    """
    try:
        if "[never]" in HUGE_PAGES.read_text(encoding="ascii"):
            return True
        regions = SMAPS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    begin = np.frombuffer(mapped, np.uint8).ctypes.data
    found = re.search(rf"^0*{begin:x}-(?:.*\n(?![0-9a-f]+-))*?FilePmdMapped: +(\d+) kB", regions, re.MULTILINE)
    return found is not None and 2 * 1024 * int(found[1]) > len(mapped)


CHUNKS = Chunks()
