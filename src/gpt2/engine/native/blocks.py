"""The native backend's cache: blocks of memory, into which the library writes itself (cache.h says how)."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from gpt2.engine.kv_cache import BlockPool
from gpt2.engine.native.huge_pages import CHUNK, chunk

IN_CHUNK = 32  # blocks of a small model, which are not to take the addresses of a large one


class CCache(ctypes.Structure):
    """`gpt2_cache` in gpt2.h."""

    _fields_ = [("n_blocks", ctypes.c_long), ("blocks", ctypes.c_void_p)]


class NativeBlockPool(BlockPool):
    """Side by side in chunks of huge pages; the pages of a block that nobody needs go back to the system."""

    def __init__(self, block_bytes: int) -> None:
        super().__init__(block_bytes)
        self.stride = -(-block_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.in_chunk = min(IN_CHUNK, max(1, CHUNK // self.stride))  # blocks
        self.chunks: list[tuple[mmap.mmap, int]] = []  # and where the first block begins
        self.touched: dict[int, int] = {}  # bytes of a block, from its beginning on
        self.addresses: np.ndarray = np.zeros(0, np.uint64)  # of the blocks that have memory, else 0

    def seen(self) -> tuple[CCache, np.ndarray]:
        """What the library sees of it, and an array that it points to."""
        addresses = self.addresses
        return CCache(len(addresses), addresses.ctypes.data), addresses

    def has_memory(self, number: int) -> bool:
        return number < len(self.addresses) and bool(self.addresses[number])

    def provide_memory(self, number: int, most: int | None = None) -> None:
        if self.has_memory(number):
            return
        while len(self.chunks) * self.in_chunk <= number:
            self.chunks.append(chunk(self.in_chunk * self.stride))
        memory, begin = self._memory(number), self.touched.get(number, 0)
        end = self.block_bytes if most is None else begin + -(-most // mmap.PAGESIZE) * mmap.PAGESIZE
        memory[begin : end : mmap.PAGESIZE] = 0
        self.touched[number] = end
        if end >= self.block_bytes:
            self._set_address(number, memory.ctypes.data)

    def discard_memory(self, number: int) -> None:
        self._set_address(number, 0)
        del self.touched[number]
        memory, start = self.chunks[number // self.in_chunk]
        if hasattr(mmap, "MADV_DONTNEED"):
            memory.madvise(mmap.MADV_DONTNEED, start + number % self.in_chunk * self.stride, self.stride)

    def copy_memory(self, source: int, target: int) -> None:
        self._memory(target)[:] = self._memory(source)

    def _memory(self, number: int) -> np.ndarray:
        memory, start = self.chunks[number // self.in_chunk]
        return np.frombuffer(memory, np.uint8, self.block_bytes, start + number % self.in_chunk * self.stride)

    def _set_address(self, number: int, address: int) -> None:
        addresses = np.zeros(max(len(self.addresses), len(self.chunks) * self.in_chunk), np.uint64)
        addresses[: len(self.addresses)] = self.addresses
        addresses[number] = address
        self.addresses = addresses
