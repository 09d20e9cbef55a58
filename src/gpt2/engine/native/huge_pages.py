"""Memory in huge pages, if the system has them, for weights and cache blocks.

A decode step reads all weights, and with small pages a tenth to a third of its time goes to address translation. Most
matrices in int8 are smaller than one huge page, and would not get one in separate memory. Weights therefore share large
chunks.
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

ALIGNMENT = 64  # bytes
HUGE_PAGE_BYTES = 2 << 20
CHUNK_BYTES = 64 << 20
HUGE_PAGES_FILE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SMAPS_FILE = Path("/proc/self/smaps")
# Python's default is shared memory. Many kernels do not put it into huge pages, and after a fork two processes would
# write to it.
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class ChunkAllocator:
    """An allocator of arrays in chunks; a chunk's memory is freed with the last of its arrays."""

    def __init__(self) -> None:
        """Create an allocator without chunks."""
        self.lock = threading.Lock()
        self.newest: Any = lambda: None  # a weak reference to the chunk that may have free memory
        self.used_bytes = 0  # of the newest chunk

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of zeros; new memory is already filled with them."""
        count = math.prod(shape)
        size = -(-count * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        with self.lock:
            chunk = self.newest()
            if chunk is None or self.used_bytes + size > len(chunk):
                chunk, self.used_bytes = allocate_chunk(max(size, CHUNK_BYTES))
                self.newest = weakref.ref(chunk)
            start = self.used_bytes
            self.used_bytes += size
        return np.frombuffer(chunk, dtype, count, start).reshape(shape)


def allocate_chunk(size: int) -> tuple[mmap.mmap, int]:
    """Allocate memory that is filled with zeros.

    Args:
        size: Bytes, counted from the start of the first huge page.

    Returns:
        The memory, and the offset in it at which a huge page starts.

    Raises:
        MemoryError: The system does not have enough memory.
    """
    try:
        chunk = mmap.mmap(-1, size + HUGE_PAGE_BYTES, flags=PRIVATE)
    except OSError as error:
        raise MemoryError(f"{size:,} bytes are not available") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            chunk.madvise(mmap.MADV_HUGEPAGE)
    return chunk, -np.frombuffer(chunk, np.uint8).ctypes.data % HUGE_PAGE_BYTES


def is_in_huge_pages(mapped: mmap.mmap) -> bool:
    """Return whether most of a mapped file, which has been read, is in huge pages.

    If the system never uses huge pages or does not report them, the result is True; only Linux reports them. Newer
    kernels, such as 6.16 with ext4, use huge pages for files that were written in large pieces.
    """
    try:
        if "[never]" in HUGE_PAGES_FILE.read_text(encoding="ascii"):
            return True
        regions = SMAPS_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    start = np.frombuffer(mapped, np.uint8).ctypes.data
    match = re.search(rf"^0*{start:x}-(?:.*\n(?![0-9a-f]+-))*?FilePmdMapped: +(\d+) kB", regions, re.MULTILINE)
    return match is not None and 2 * 1024 * int(match[1]) > len(mapped)


CHUNKS = ChunkAllocator()  # for all weights of a process
