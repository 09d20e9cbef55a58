"""Executors of bulk jobs: they generate the rows in this process, or distribute them to a group of workers."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

from gpt2.bulk.batch_worker import TEXTS_PER_SLOT, BatchWorker, FinishedRow, GeneratedText
from gpt2.bulk.rows import JobRow
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import find_model, load_vocabulary
from gpt2.generate import load_weights

MIN_SECONDS_PER_EXCHANGE = 0.5  # a worker answers sooner only if it runs out of rows
MAX_LOST_WORKERS_PER_ROW = 3


class RowSupply(Protocol):
    """The rows that come next, see `row_queue.RowQueue`."""

    def take(self, count: int) -> list[JobRow]:
        """Remove and return up to `count` rows."""

    def give_back(self, rows: Iterable[JobRow]) -> None:
        """Return rows that were taken but not finished."""


class Executor(Protocol):
    """The interface of a generator of the texts of rows."""

    @property
    def capacity(self) -> int:
        """The number of texts that all workers together generate at the same time."""

    def next_finished(self, rows: RowSupply) -> list[FinishedRow]:
        """Take rows, wait until some have finished, and return those; none if no rows are left.

        Raises:
            GPT2Error: No worker can continue.
        """


class InProcessExecutor:
    """An executor that generates in this process."""

    def __init__(self, worker: BatchWorker) -> None:
        """Use a worker that has its model."""
        self.worker = worker

    @property
    def capacity(self) -> int:
        """The number of texts that are generated at the same time."""
        return self.worker.batch_size

    def next_finished(self, rows: RowSupply) -> list[FinishedRow]:
        """Give the worker as many rows as it has slots for, and return the rows that finish first."""
        return self.worker.process(rows.take(self.worker.free_slots))


class WorkerConfig(NamedTuple):
    """The configuration of a worker.

    Attributes:
        model: The path of the model's folder or file.
        precision: The weights' precision in memory.
        threads: Number of threads; None for one per core.
        batch_size: Number of texts that are generated at the same time.
    """

    model: str
    precision: str
    threads: int | None
    batch_size: int

    def load_worker(self) -> BatchWorker:
        """Load the model and return a worker that has it.

        Raises:
            GPT2Error: The model is missing or damaged.
        """
        directory: ModelDir = find_model(self.model)
        model = load_weights(directory, load_vocabulary(directory), self.precision, threads=self.threads)
        return BatchWorker(model, self.batch_size)


class RowResult(NamedTuple):
    """The result of a worker of a group for a row: a `FinishedRow` with only the number of its row."""

    number: int
    texts: Sequence[GeneratedText]
    error: str


def process_rows(worker: BatchWorker, rows: Sequence[JobRow]) -> list[RowResult]:
    """Pass rows to the worker of another process or machine, and return the results that it sends back."""
    finished = worker.process(rows, MIN_SECONDS_PER_EXCHANGE)
    return [RowResult(each.row.number, each.texts, each.error) for each in finished]


class WorkerGroup(Protocol):
    """Workers in other processes or on other machines. A worker answers once each time that it is sent rows."""

    def ready_workers(self) -> Sequence[Hashable]:
        """Return the keys of the workers that have loaded their models."""

    def send(self, worker: Hashable, rows: Sequence[JobRow]) -> None:
        """Send rows, or no further rows, to a worker that has answered."""

    def receive(self) -> Iterable[tuple[Hashable, Sequence[RowResult] | None]]:
        """Wait until workers answer, become ready or are lost, or for about a second.

        Returns:
            Pairs of a worker and its results; None instead of the results of a lost worker.

        Raises:
            GPT2Error: There are no workers and there will not be any.
        """


class WorkerExecutor:
    """An executor that distributes rows to the workers of a group. The rows of a lost worker go to others.

    Attributes:
        group: The workers.
        batch_size: Number of texts that each worker generates at the same time.
        assigned: For each worker, the rows that it has not finished, by their numbers.
        busy: The workers that have been sent rows and have not answered yet.
        losses: Number of workers that have been lost with each row, by the rows' numbers.
    """

    def __init__(self, group: WorkerGroup, batch_size: int) -> None:
        """Start without rows."""
        self.group = group
        self.batch_size = batch_size
        self.assigned: dict[Hashable, dict[int, JobRow]] = {}
        self.busy: set[Hashable] = set()
        self.losses: collections.Counter[int] = collections.Counter()

    @property
    def capacity(self) -> int:
        """The number of texts that all ready workers generate at the same time."""
        return self.batch_size * len(self.group.ready_workers())

    def next_finished(self, rows: RowSupply) -> list[FinishedRow]:
        """Send rows to the workers and return the first finished rows; none if no rows are left.

        Raises:
            GPT2Error: There are no workers and there will not be any.
        """
        while True:
            finished = self._distribute(rows)
            if finished or (not self.busy and self.group.ready_workers()):
                return finished
            for worker, results in self.group.receive():
                finished += self._lose(worker, rows) if results is None else self._finish(worker, results)
            if finished:
                return finished

    def _distribute(self, rows: RowSupply) -> list[FinishedRow]:
        """Send rows to each idle worker, and return the rows that have errors."""
        finished = []
        for worker in self.group.ready_workers():
            if worker in self.busy:
                continue
            assigned = self.assigned.setdefault(worker, {})
            taken = rows.take(TEXTS_PER_SLOT * self.batch_size - len(assigned))
            finished += [FinishedRow(row, error=row.error) for row in taken if row.error]
            new_rows = [row for row in taken if not row.error]
            assigned.update((row.number, row) for row in new_rows)
            if assigned:
                self.busy.add(worker)
                # The id stays here: it may be any value, and not every value can be sent.
                self.group.send(worker, [dataclasses.replace(row, id=None) for row in new_rows])
        return finished

    def _finish(self, worker: Hashable, results: Sequence[RowResult]) -> list[FinishedRow]:
        """Return the finished rows of a worker that has answered."""
        self.busy.discard(worker)
        return [FinishedRow(self.assigned[worker].pop(number), texts, error) for number, texts, error in results]

    def _lose(self, worker: Hashable, rows: RowSupply) -> list[FinishedRow]:
        """Give back the rows of a lost worker, and return the rows that have been lost too often."""
        self.busy.discard(worker)
        lost = self.assigned.pop(worker, {})
        self.losses.update(lost.keys())
        rows.give_back(row for number, row in lost.items() if self.losses[number] < MAX_LOST_WORKERS_PER_ROW)
        error = (
            f"{MAX_LOST_WORKERS_PER_ROW} workers were lost while they generated it; they may have run out of memory: "
            "lower batch_size or the length"
        )
        return [
            FinishedRow(row, error=error)
            for number, row in lost.items()
            if self.losses[number] >= MAX_LOST_WORKERS_PER_ROW
        ]
