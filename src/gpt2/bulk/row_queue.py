"""The rows that come next, the longest of some hundred first, so that no long one is left to run alone at the end."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from gpt2.bulk.rows import JobRow

ROWS = 1024  # that are held, at least
PER_PLACE = 4  # and so many for each place where one is written
WINDOWS = 4  # times as many may lie between the first row that has not ended and the last that has begun


class Ended:
    """Which rows have ended: all below a number, and some above it, of which there are never more than a window."""

    def __init__(self) -> None:
        self.below = 0
        self.above: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number < self.below or number in self.above

    def __len__(self) -> int:
        return self.below + len(self.above)

    def add(self, first: int, count: int = 1) -> None:
        if first == self.below:
            self.below += count
        else:
            self.above.update(range(first, first + count))
        while self.below in self.above:
            self.above.remove(self.below)
            self.below += 1


class RowQueue:
    """Rows that have not ended, the longest of those that are held first.

    What is held, and how far the output of one row may lie behind that of another, is bounded, however many rows there
    are.
    """

    def __init__(self, rows: Iterable[JobRow], ended: Ended) -> None:
        self.rows: Iterator[JobRow] = iter(rows)
        self.ended = ended
        self.most = ROWS
        self.held: list[tuple[float, int, JobRow]] = []
        self.next: JobRow | None = None
        self.is_read = False

    def take(self, count: int) -> list[JobRow]:
        """So many rows, or fewer: none while all that may begin have."""
        self.fill()
        return [heapq.heappop(self.held)[2] for _ in range(min(count, len(self.held)))]

    def give_back(self, rows: Iterable[JobRow]) -> None:
        """They were begun, and lost."""
        for row in rows:
            heapq.heappush(self.held, (-row.cost, row.number, row))

    def serve(self, places: int) -> None:
        """Holds enough for so many texts that are written at a time."""
        self.most = max(ROWS, PER_PLACE * places)

    def fill(self) -> None:
        """Reads as many rows as are held."""
        while not self.is_read and len(self.held) < self.most:
            if self.next is None:
                self.next = next(self.rows, None)
                self.is_read = self.next is None
            if self.next is None or self.next.number >= self.ended.below + WINDOWS * self.most:
                return
            if self.next.number not in self.ended:
                self.give_back([self.next])
            self.next = None
