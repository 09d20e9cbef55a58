"""Worker processes on one machine, each with the model and its share of the cores.

They are plain child processes, as in `data.workers`: multiprocessing would import the main module again.
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
from gpt2.bulk.workers import RowResult, WorkerConfig, process_rows
from gpt2.errors import GPT2Error
from gpt2.package_conflict import WITHOUT_WARNING

WORKER_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from gpt2.bulk.processes import run_worker; run_worker(int(sys.argv[1]))"
)
MAX_RESTARTS_PER_PROCESS = 3
RECEIVE_SECONDS = 1.0


class WorkerProcess:
    """A child process that runs a worker, and the connection to it.

    Attributes:
        process: The process.
        connection: Sends the configuration and rows, and receives results.
        is_ready: Whether the worker has loaded its model.
    """

    def __init__(self, config: WorkerConfig) -> None:
        """Start the process."""
        parent_socket, child_socket = socket.socketpair()
        with child_socket:
            descriptor = child_socket.fileno()
            command = [sys.executable, *WITHOUT_WARNING, "-c", WORKER_PROGRAM, str(descriptor), *sys.path]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[descriptor])
        self.connection = Connection(parent_socket.detach())
        self.is_ready = False
        with contextlib.suppress(OSError):  # `receive` reports a dead process
            self.connection.send(config)

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class ProcessGroup:
    """A `WorkerGroup` of child processes, which run within a `with` block. A process that dies is replaced."""

    def __init__(self, config: WorkerConfig, n_processes: int) -> None:
        """Prepare a group; the block starts its processes.

        Args:
            config: The configuration of each worker.
            n_processes: Number of processes.
        """
        self.config = config
        self.n_processes = n_processes
        self.restarts_left = MAX_RESTARTS_PER_PROCESS * n_processes
        self.processes: list[WorkerProcess] = []

    def __enter__(self) -> ProcessGroup:
        """Start the processes."""
        for _ in range(self.n_processes):
            self.processes.append(WorkerProcess(self.config))
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes."""
        for process in self.processes:
            process.kill()

    def ready_workers(self) -> list[Hashable]:
        """Return the processes that have loaded their models."""
        return [process for process in self.processes if process.is_ready]

    def send(self, worker: Hashable, rows: Sequence[JobRow]) -> None:
        """Send rows to a process."""
        assert isinstance(worker, WorkerProcess)
        with contextlib.suppress(OSError):  # `receive` reports a dead process
            worker.connection.send(rows)

    def receive(self) -> Iterator[tuple[Hashable, Sequence[RowResult] | None]]:
        """Yield the results of processes that answer within a second, and None for each that has died.

        Raises:
            GPT2Error: A worker cannot load its model, or processes die again and again.
        """
        connections = {process.connection: process for process in self.processes}
        for connection in wait(list(connections), RECEIVE_SECONDS):
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

    def _replace(self, process: WorkerProcess) -> None:
        """Start another process instead of one that has died."""
        process.kill()
        self.processes.remove(process)
        self.restarts_left -= 1
        if self.restarts_left < 0:
            raise GPT2Error(f"worker processes end again and again, with status {process.process.returncode}")
        self.processes.append(WorkerProcess(self.config))


def run_worker(descriptor: int) -> None:
    """Run a worker in a child process until the parent closes the connection.

    Args:
        descriptor: The file descriptor of the socket that connects the process to its parent.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes of the terminal; the parent ends this one
    with contextlib.suppress(EOFError, OSError), Connection(descriptor) as connection:
        config = connection.recv()
        try:
            worker = config.load_worker()
        except GPT2Error as error:
            connection.send(GPT2Error(str(error)))
            return
        connection.send(None)
        while True:
            connection.send(process_rows(worker, connection.recv()))
