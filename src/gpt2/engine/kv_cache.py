"""The keys and values of all tokens so far, in blocks of slots that rows take, share and give back.

A row owns the blocks that hold it, takes more when it grows and gives them back when it leaves, so that nobody's keys
and values ever move (as in vLLM's PagedAttention, Kwon et al. 2023). Rows that begin alike share the blocks of their
beginning, which are not written to any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from gpt2 import devices

SLOTS = 128  # of a block: one token each
SHARE = 0.5  # of the memory that is left, for a cache: what is computed on the way needs some too
SPARE = 64 << 20  # bytes of blocks that nobody uses and that are kept for whoever comes next, or as many as are used


def blocks_for(slots: int) -> int:
    """How many blocks have so many slots."""
    return -(-slots // SLOTS)


class Blocks:
    """Who uses which block; backends say what a block is.

    A count of users is all that there is to know of a block, so that whatever is interrupted leaves nothing half done.
    Threads may share it.
    """

    def __init__(self, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.users: list[int] = []  # of each block
        self.lock = threading.RLock()

    @property
    def used(self) -> int:
        return len(self.users) - self.users.count(0)

    def room(self) -> int:
        """How many blocks more there is memory for."""
        return int(SHARE * devices.available_memory() / self.block_bytes) + self.spare()

    def take(self) -> int:
        """The number of a block of nobody's, whose first user the caller is. Raises MemoryError."""
        with self.lock:
            number = self._vacant(with_memory=True)
            self.provide(number)
            self.users[number] = 1
            return number

    def prepare(self, count: int, slots: int) -> None:
        """Memory for so many slots more, unless so many blocks have some and no user. Raises MemoryError.

        To touch memory for the first time takes long, as long as a step for a block or two, and rows that began
        together need theirs in the same step: so they are made ready while the rest of another is filled.
        """
        with self.lock:
            if self.spare() < count:
                self.provide(self._vacant(with_memory=False), slots * self.block_bytes // SLOTS)

    def _vacant(self, with_memory: bool) -> int:
        """The number of a block that nobody uses; such a one, if there is one."""
        vacant = [number for number, users in enumerate(self.users) if not users]
        found = next((number for number in vacant if self.has_memory(number) == with_memory), None)
        if found is None and not (vacant and with_memory):
            self.users.append(0)
            return len(self.users) - 1
        return vacant[0] if found is None else found

    def share(self, numbers: Iterable[int]) -> None:
        """One user more of each."""
        with self.lock:
            for number in numbers:
                self.users[number] += 1

    def give_back(self, numbers: Iterable[int]) -> None:
        """One user less of each. Of the blocks that then have none, memory is kept for some.

        Rows that come and go take and leave as many blocks all the time. On a machine that is busy with others, or is
        itself a part of one, new memory comes slower than a step fills it, so that under a load none is given away.
        """
        with self.lock:
            for number in numbers:
                self.users[number] -= 1
            for number in self._spare()[max(SPARE // self.block_bytes, self.used) :]:
                self.discard(number)

    def copied(self, number: int) -> int:
        """A new block with what is in that one. Raises MemoryError."""
        with self.lock:
            new = self.take()
            try:
                self.copy(number, new)
            except BaseException:
                self.give_back([new])
                raise
            return new

    def spare(self) -> int:
        """How many blocks have memory and no user."""
        return len(self._spare())

    def _spare(self) -> list[int]:
        return [number for number, users in enumerate(self.users) if not users and self.has_memory(number)]

    def has_memory(self, number: int) -> bool:
        raise NotImplementedError

    def provide(self, number: int, most: int | None = None) -> None:
        """Memory for this block, unless it has some. most: bytes that are touched now, of all that have to be."""
        raise NotImplementedError

    def discard(self, number: int) -> None:
        """The memory of this block is given back, if that can be."""
        raise NotImplementedError

    def copy(self, source: int, target: int) -> None:
        raise NotImplementedError
