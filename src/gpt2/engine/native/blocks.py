"""The native backend's cache: blocks of memory, into which the library writes itself (forward.h says how)."""

from __future__ import annotations

import ctypes

import numpy as np

from gpt2.engine.blocks import Blocks
from gpt2.engine.native.memory import region


class CCache(ctypes.Structure):
    """`Cache` in library.cc."""

    _fields_ = [("n_blocks", ctypes.c_long), ("blocks", ctypes.c_void_p)]


class NativeBlocks(Blocks):
    def __init__(self, block_bytes: int) -> None:
        super().__init__(block_bytes)
        self.memory: dict[int, np.ndarray] = {}  # of a block's number
        self.addresses: np.ndarray = np.zeros(0, np.uint64)

    def seen(self) -> tuple[CCache, np.ndarray]:
        """What the library sees of it, and an array that it points to."""
        addresses = self.addresses
        return CCache(len(addresses), addresses.ctypes.data), addresses

    def spare(self) -> int:
        return len(self.memory) - self.used

    def provide(self, number: int) -> None:
        if number not in self.memory:
            memory = region(self.block_bytes)
            addresses = np.zeros(max(len(self.addresses), 2 * number + 1), np.uint64)
            addresses[: len(self.addresses)] = self.addresses
            addresses[number] = memory.ctypes.data
            self.memory[number], self.addresses = memory, addresses

    def discard(self, number: int) -> None:
        addresses = self.addresses.copy()
        addresses[number] = 0
        self.addresses = addresses
        del self.memory[number]

    def copy(self, source: int, target: int) -> None:
        self.memory[target][:] = self.memory[source]
