"""Who writes the rows: this process, or workers that are given rows and asked again and again what has ended."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

from gpt2.bulk.batch_worker import AHEAD, BatchWorker, Finished, Text
from gpt2.bulk.rows import JobRow
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import find_model, load_vocabulary
from gpt2.generate import load_weights

PATIENCE = 0.5  # seconds, at least, from one exchange with a worker to the next, unless it runs out of rows
ATTEMPTS = 3  # so many workers may be lost with a row


class Rows(Protocol):
    """The rows that come next (`look_ahead.LookAhead`)."""

    def take(self, count: int) -> list[JobRow]: ...

    def give_back(self, rows: Iterable[JobRow]) -> None: ...


class Executor(Protocol):
    """Whoever writes."""

    @property
    def places(self) -> int:
        """How many texts are written at a time, by all together."""

    def exchange(self, rows: Rows) -> list[Finished]:
        """Takes rows, and waits until some have ended; none if there are none left. Raises GPT2Error."""


class InProcessExecutor:
    """This process alone."""

    def __init__(self, station: BatchWorker) -> None:
        self.station = station

    @property
    def places(self) -> int:
        return self.station.batch_size

    def exchange(self, rows: Rows) -> list[Finished]:
        return self.station.exchange(rows.take(self.station.wanted))


class WorkerConfig(NamedTuple):
    """What a worker needs to know: the model's folder or file, and how it is computed."""

    model: str
    precision: str
    threads: int | None
    batch_size: int

    def station(self) -> BatchWorker:
        """Loads the model. Raises GPT2Error."""
        directory: ModelDir = find_model(self.model)
        model = load_weights(directory, load_vocabulary(directory), self.precision, threads=self.threads)
        return BatchWorker(model, self.batch_size)


class FinishedRow(NamedTuple):
    """A row that a worker has finished: its number, and what `Finished` has."""

    number: int
    texts: Sequence[Text]
    error: str


def served(station: BatchWorker, rows: Sequence[JobRow]) -> list[FinishedRow]:
    """What a worker does when it is given rows."""
    return [FinishedRow(one.row.number, one.texts, one.error) for one in station.exchange(rows, PATIENCE)]


class WorkerGroup(Protocol):
    """Workers, wherever they are. Each is given rows, and then answers once."""

    def workers(self) -> Sequence[Hashable]:
        """Those whose models are loaded, by what they are known by."""

    def send(self, worker: Hashable, rows: Sequence[JobRow]) -> None: ...

    def wait(self) -> Iterable[tuple[Hashable, Sequence[FinishedRow] | None]]:
        """Waits until some have answered, are there or are lost, whose answer is None; or for a while.

        Raises GPT2Error if none are there and none will be.
        """


class WorkerExecutor:
    """A crew, each of whom writes batch_size texts at a time. The rows of one that is lost go to others."""

    def __init__(self, crew: WorkerGroup, batch_size: int) -> None:
        self.crew, self.batch_size = crew, batch_size
        self.given: dict[Hashable, dict[int, JobRow]] = {}  # what each worker has not finished
        self.busy: set[Hashable] = set()  # who has not answered yet
        self.losses: collections.Counter[int] = collections.Counter()  # of workers, with each row

    @property
    def places(self) -> int:
        return self.batch_size * len(self.crew.workers())

    def exchange(self, rows: Rows) -> list[Finished]:
        while True:
            finished = self._give(rows)
            if finished or (not self.busy and self.crew.workers()):
                return finished
            for worker, answers in self.crew.wait():
                finished += self._lose(worker, rows) if answers is None else self._hear(worker, answers)
            if finished:
                return finished

    def _give(self, rows: Rows) -> list[Finished]:
        """Rows to whoever has answered; those that cannot be written have ended."""
        ended = []
        for worker in self.crew.workers():
            if worker in self.busy:
                continue
            own = self.given.setdefault(worker, {})
            taken = rows.take(AHEAD * self.batch_size - len(own))
            ended += [Finished(row, error=row.error) for row in taken if row.error]
            new = [row for row in taken if not row.error]
            own.update((row.number, row) for row in new)
            if own:
                self.busy.add(worker)
                self.crew.send(worker, new)
        return ended

    def _hear(self, worker: Hashable, answers: Sequence[FinishedRow]) -> list[Finished]:
        self.busy.discard(worker)
        return [Finished(self.given[worker].pop(number), texts, error) for number, texts, error in answers]

    def _lose(self, worker: Hashable, rows: Rows) -> list[Finished]:
        """Gives back the rows that a worker had; one that was lost too often has ended."""
        self.busy.discard(worker)
        given = self.given.pop(worker, {})
        self.losses.update(given.keys())
        rows.give_back(row for number, row in given.items() if self.losses[number] < ATTEMPTS)
        error = f"{ATTEMPTS} workers were lost that wrote it, perhaps for want of memory"
        return [Finished(row, error=error) for number, row in given.items() if self.losses[number] >= ATTEMPTS]
