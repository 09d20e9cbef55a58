"""The queue of a job's rows: the longest of about a thousand comes first, so that no long row runs alone at the end."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from gpt2.bulk.rows import JobRow

MIN_QUEUED_ROWS = 1024
QUEUED_ROWS_PER_TEXT = 4  # for each text that is generated at the same time
MAX_LEAD = 4  # a row is read only if it is at most this many queue lengths after the first unfinished row


class RowNumberSet:
    """A set of row numbers that takes little memory if almost all numbers below its largest belong to it.

    Attributes:
        below: All numbers below this one belong to the set.
        above: The other numbers of the set.
    """

    def __init__(self) -> None:
        """Create an empty set."""
        self.below = 0
        self.above: set[int] = set()

    def __contains__(self, number: int) -> bool:
        """Return whether the number belongs to the set."""
        return number < self.below or number in self.above

    def __len__(self) -> int:
        """Return the number of members of the set."""
        return self.below + len(self.above)

    def add(self, first: int, count: int = 1) -> None:
        """Add `count` numbers, from `first` on."""
        if first == self.below:
            self.below += count
        else:
            self.above.update(range(first, first + count))
        while self.below in self.above:
            self.above.remove(self.below)
            self.below += 1


class RowQueue:
    """The unfinished rows of a job, the longest read row first.

    However many rows the job has, the number of rows in memory is bounded, and so is the distance between the first
    unfinished row and any row that has been started.
    """

    def __init__(self, rows: Iterable[JobRow], finished_numbers: RowNumberSet) -> None:
        """Create a queue that has not read any row.

        Args:
            rows: All rows of the job, in the order of the input.
            finished_numbers: The numbers of the finished rows, which are skipped. The output adds to them.
        """
        self.rows: Iterator[JobRow] = iter(rows)
        self.finished_numbers = finished_numbers
        self.max_queued = MIN_QUEUED_ROWS
        self.heap: list[tuple[float, int, JobRow]] = []
        self.next_row: JobRow | None = None
        self.is_exhausted = False

    def take(self, count: int) -> list[JobRow]:
        """Remove and return up to `count` rows; none while all rows that may be started have been taken."""
        self.fill()
        return [heapq.heappop(self.heap)[2] for _ in range(min(count, len(self.heap)))]

    def give_back(self, rows: Iterable[JobRow]) -> None:
        """Put back rows that were taken but not finished."""
        for row in rows:
            heapq.heappush(self.heap, (-row.cost, row.number, row))

    def set_capacity(self, n_texts: int) -> None:
        """Make the queue long enough for `n_texts` texts that are generated at the same time."""
        self.max_queued = max(MIN_QUEUED_ROWS, QUEUED_ROWS_PER_TEXT * n_texts)

    def fill(self) -> None:
        """Read rows until the queue has its full length, or the next row is too far ahead."""
        while not self.is_exhausted and len(self.heap) < self.max_queued:
            if self.next_row is None:
                self.next_row = next(self.rows, None)
                self.is_exhausted = self.next_row is None
            if (
                self.next_row is None
                or self.next_row.number >= self.finished_numbers.below + MAX_LEAD * self.max_queued
            ):
                return
            if self.next_row.number not in self.finished_numbers:
                self.give_back([self.next_row])
            self.next_row = None
