"""Worker processes on one machine, each with the model and its share of the cores."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from gpt2.bulk.batch_worker import BatchWorker
from gpt2.bulk.rows import JobRow
from gpt2.bulk.workers import RowResult, WorkerConfig, process_rows
from gpt2.child_processes import ChildEndedError, ChildPool, ChildProcess
from gpt2.errors import GPT2Error

MAX_RESTARTS_PER_PROCESS = 3
RECEIVE_SECONDS = 1.0


class RowProcessor:
    """The function of a child process: it passes rows to a worker, which loads its model at the first call."""

    def __init__(self, config: WorkerConfig) -> None:
        """Store the configuration of the worker."""
        self.config = config
        self.worker: BatchWorker | None = None

    def __call__(self, rows: Sequence[JobRow]) -> list[RowResult]:
        """Return the results of the rows that finish first."""
        self.worker = self.worker or self.config.load_worker()
        return process_rows(self.worker, rows)


class ProcessGroup:
    """A `WorkerGroup` of child processes, which run within a `with` block. A process that dies is replaced.

    Attributes:
        calls: The pending calls, with their processes.
        ready: The processes that have loaded their models.
    """

    def __init__(self, config: WorkerConfig, n_processes: int) -> None:
        """Prepare a group; the block starts its processes.

        Args:
            config: The configuration of each worker.
            n_processes: Number of processes.
        """
        self.pool = ChildPool(RowProcessor(config), n_processes)
        self.n_processes = n_processes
        self.restarts_left = MAX_RESTARTS_PER_PROCESS * n_processes
        self.calls: dict[Future[Any], ChildProcess] = {}
        self.ready: list[ChildProcess] = []

    def __enter__(self) -> ProcessGroup:
        """Start the processes."""
        for _ in range(self.n_processes):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes."""
        self.pool.close()

    def _start(self) -> None:
        self.send(self.pool.start(), [])  # a call without rows loads the model

    def ready_workers(self) -> list[Hashable]:
        """Return the processes that have loaded their models."""
        return list(self.ready)

    def send(self, worker: Hashable, rows: Sequence[JobRow]) -> None:
        """Send rows to a process."""
        assert isinstance(worker, ChildProcess)
        self.calls[self.pool.submit(worker.call, rows)] = worker

    def receive(self) -> Iterator[tuple[Hashable, Sequence[RowResult] | None]]:
        """Yield the results of processes that answer within a second, and None for each that has died.

        Raises:
            GPT2Error: A worker cannot load its model, or processes die again and again.
        """
        for call in wait(self.calls, RECEIVE_SECONDS, FIRST_COMPLETED).done:
            process = self.calls.pop(call)
            try:
                results = call.result()
            except ChildEndedError as error:
                self._replace(process, error.status)
                yield process, None
                continue
            if process in self.ready:
                yield process, results
            else:
                self.ready.append(process)

    def _replace(self, process: ChildProcess, status: int) -> None:
        """Start another process instead of one that has died."""
        if process in self.ready:
            self.ready.remove(process)
        self.restarts_left -= 1
        if self.restarts_left < 0:
            raise GPT2Error(f"worker processes end again and again, with status {status}")
        self._start()
