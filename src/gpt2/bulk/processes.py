"""Several processes on one machine, each with the model and its share of the cores.

Plain processes rather than multiprocessing's, as in `data.workers`: those import the main module again.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Hashable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

from gpt2.bulk.rows import JobRow
from gpt2.bulk.workers import FinishedRow, WorkerConfig, served
from gpt2.errors import GPT2Error

START = "import sys; sys.path[:] = sys.argv[2:]; from gpt2.bulk.processes import work; work(int(sys.argv[1]))"
MOST_LOST = 3  # for each process, until the job is given up
AWHILE = 1.0  # seconds


class Process:
    """A worker, and what connects it with this process."""

    def __init__(self, plan: WorkerConfig) -> None:
        here, there = socket.socketpair()
        with there:
            number = there.fileno()
            command = [sys.executable, "-c", START, str(number), *sys.path]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[number])
        self.connection = Connection(here.detach())
        self.is_ready = False
        self.connection.send(plan)

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


class Processes:
    """The crew (`hands.Crew`) of so many processes. One that dies is started anew, unless too many do."""

    def __init__(self, plan: WorkerConfig, count: int) -> None:
        self.plan, self.left = plan, MOST_LOST * count
        self.processes: list[Process] = []
        self.count = count

    def __enter__(self) -> Processes:
        for _ in range(self.count):
            self.processes.append(Process(self.plan))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.end()

    def workers(self) -> list[Hashable]:
        return [process for process in self.processes if process.is_ready]

    def send(self, worker: Hashable, rows: Sequence[JobRow]) -> None:
        assert isinstance(worker, Process)
        with contextlib.suppress(OSError):  # it has died, which `wait` will find
            worker.connection.send(rows)

    def wait(self) -> Iterator[tuple[Hashable, Sequence[FinishedRow] | None]]:
        connections = {process.connection: process for process in self.processes}
        for connection in wait(list(connections), AWHILE):
            process = connections[connection]  # type: ignore[index]
            try:
                answer = process.connection.recv()
            except (EOFError, OSError):
                self._replace(process)
                yield process, None
                continue
            if isinstance(answer, GPT2Error):
                raise answer
            if process.is_ready:
                yield process, answer
            process.is_ready = True

    def _replace(self, process: Process) -> None:
        process.end()
        self.processes.remove(process)
        self.left -= 1
        if self.left < 0:
            raise GPT2Error(f"the processes that write end again and again, with status {process.process.returncode}")
        self.processes.append(Process(self.plan))


def work(number: int) -> None:
    """A worker's life: until nobody is at the other end of the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all in the terminal
    with contextlib.suppress(EOFError, OSError), Connection(number) as connection:
        plan = connection.recv()
        try:
            station = plan.station()
        except GPT2Error as error:
            connection.send(GPT2Error(str(error)))
            return
        connection.send(None)
        while True:
            connection.send(served(station, connection.recv()))
