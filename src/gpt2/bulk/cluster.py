"""Workers on a Ray cluster, one per machine; machines may join and leave while the job runs."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gpt2
from gpt2.bulk.rows import JobRow
from gpt2.bulk.workers import RowResult, WorkerConfig, process_rows
from gpt2.devices import available_cores
from gpt2.errors import GPT2Error
from gpt2.installation import install_command

LOCAL_ADDRESS = "local"
REQUIREMENTS = "-r requirements-ray.txt"
PACKAGE_DIR = Path(gpt2.__file__).parent
CONNECT_SECONDS = 10.0
RECEIVE_SECONDS = 1.0
NODE_CHECK_SECONDS = 5.0  # between two looks for new machines
MAX_SECONDS_WITHOUT_MACHINE = 120.0
MAX_FAILED_STARTS = 3  # consecutive workers that may die before their models are loaded


class ClusterWorker:
    """A Ray actor: the worker on one machine of the cluster."""

    def __init__(self, config: WorkerConfig) -> None:
        """Store the configuration; `load` loads the model."""
        self.config = config

    def load(self) -> None:
        """Load the model.

        Raises:
            GPT2Error: The model cannot be loaded. The message names the machine.
        """
        try:
            self.worker = self.config.load_worker()
        except GPT2Error as error:
            raise GPT2Error(f"on the machine {socket.gethostname()}: {error}") from error

    def process(self, rows: Sequence[JobRow]) -> list[RowResult]:
        """Pass rows to the worker, and return the results of the rows that finish first."""
        return process_rows(self.worker, rows)


def import_ray() -> Any:
    """Return the module `ray`.

    Raises:
        GPT2Error: Ray is not installed. The message gives the command that installs it.
    """
    try:
        import ray
    except ImportError:
        raise GPT2Error(f"a cluster needs Ray; type: {install_command(REQUIREMENTS, 'ray')}") from None
    return ray


class RayCluster:
    """A `WorkerGroup` with one worker on each machine of a Ray cluster; each worker has all cores of its machine.

    Attributes:
        actors: The workers, by the ids of their machines.
        loading: The pending calls of `ClusterWorker.load`, with the ids of their machines.
        processing: The pending calls of `ClusterWorker.process`, with the ids of their machines.
        ready: The ids of the machines whose workers have loaded their models.
    """

    def __init__(self, config: WorkerConfig, address: str) -> None:
        """Prepare a group; a `with` block connects it to the cluster.

        Args:
            config: The configuration of each worker. If it has no number of threads, each worker uses all cores.
            address: A cluster's address, as `ray.init` accepts it, or LOCAL_ADDRESS for a new one on this machine.

        Raises:
            GPT2Error: Ray is not installed.
        """
        self.config = config
        self.address = address
        self.ray = import_ray()
        self.actors: dict[str, Any] = {}
        self.loading: dict[Any, str] = {}
        self.processing: dict[Any, str] = {}
        self.ready: list[str] = []
        self.checked_at = -MAX_SECONDS_WITHOUT_MACHINE
        self.machine_seen_at = -MAX_SECONDS_WITHOUT_MACHINE
        self.n_failed_starts = 0  # since the last successful one

    def __enter__(self) -> RayCluster:
        """Connect to the cluster, and start a worker on each of its machines.

        Raises:
            GPT2Error: There is no cluster at the address.
        """
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        settings["runtime_env"] = {"py_modules": [str(PACKAGE_DIR)]}  # all machines run this version of the code
        try:
            if self.address == LOCAL_ADDRESS:
                self.ray.init(num_cpus=available_cores(), include_dashboard=False, **settings)
            else:
                self._check_address()
                self.ray.init(self.address, **settings)
        except (OSError, ValueError, RuntimeError) as error:
            raise GPT2Error(f"there is no cluster at {self.address}: {str(error).splitlines()[0]}") from error
        self.machine_seen_at = time.monotonic()
        self._check_nodes()
        return self

    def _check_address(self) -> None:
        """Raise OSError at once if nothing listens at the address; Ray would retry for minutes."""
        host, colon, port = self.address.rpartition(":")
        if colon and port.isdecimal() and "/" not in host:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()

    def __exit__(self, *_: object) -> None:
        """Stop the workers and disconnect from the cluster."""
        self.ray.shutdown()

    def ready_workers(self) -> list[Hashable]:
        """Return the ids of the machines whose workers have loaded their models."""
        return list(self.ready)

    def send(self, worker: Hashable, rows: Sequence[JobRow]) -> None:
        """Send rows to the worker of a machine."""
        assert isinstance(worker, str)
        self.processing[self.actors[worker].process.remote(rows)] = worker

    def receive(self) -> Iterator[tuple[Hashable, Sequence[RowResult] | None]]:
        """Yield the results of workers that answer within a second, and None for each that is lost.

        Raises:
            GPT2Error: A worker has failed, workers die before they are ready, or the cluster has lost all machines.
        """
        self._check_nodes()
        pending = [*self.loading, *self.processing]
        if not pending:
            time.sleep(RECEIVE_SECONDS)
            return
        done, _ = self.ray.wait(pending, num_returns=len(pending), timeout=0)
        if not done:
            done, _ = self.ray.wait(pending, num_returns=1, timeout=RECEIVE_SECONDS)
        for call in done:
            yield from self._receive_from(call)

    def _receive_from(self, call: Any) -> Iterator[tuple[Hashable, Sequence[RowResult] | None]]:
        """Yield the items of `receive` for one call that has ended; nothing if the call has loaded a model."""
        is_load = call in self.loading
        machine = self.loading.pop(call) if is_load else self.processing.pop(call)
        try:
            results = self.ray.get(call)
        except self.ray.exceptions.RayTaskError as error:
            raise GPT2Error(str(error.cause)) from error
        except self.ray.exceptions.RayError as error:  # the worker or its machine has died
            del self.actors[machine]
            self._count_failed_start(is_load, error)
            if machine in self.ready:
                self.ready.remove(machine)
                yield machine, None
            return
        if is_load:
            self.n_failed_starts = 0
            self.ready.append(machine)
        else:
            yield machine, results

    def _count_failed_start(self, is_load: bool, error: Exception) -> None:
        """Raise GPT2Error if too many workers in a row have died while they loaded their models."""
        self.n_failed_starts += is_load
        if self.n_failed_starts > MAX_FAILED_STARTS:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise GPT2Error(f"the workers do not start: {lines[-1]}") from error

    def _check_nodes(self) -> None:
        """Start a worker on each new machine.

        Raises:
            GPT2Error: The cluster has had no machine for MAX_SECONDS_WITHOUT_MACHINE.
        """
        now = time.monotonic()
        if now < self.checked_at + NODE_CHECK_SECONDS:
            return
        self.checked_at = now
        with contextlib.suppress(ConnectionError):
            for node in self.ray.nodes():
                if node["Alive"] and node["Resources"].get("CPU") and node["NodeID"] not in self.actors:
                    self._start_worker(node["NodeID"], node["Resources"]["CPU"])
        if self.actors:
            self.machine_seen_at = now
        elif now > self.machine_seen_at + MAX_SECONDS_WITHOUT_MACHINE:
            raise GPT2Error(
                f"the cluster at {self.address} has had no machine with a core "
                f"for {MAX_SECONDS_WITHOUT_MACHINE:g} seconds"
            )

    def _start_worker(self, machine: str, n_cores: float) -> None:
        """Start a worker that reserves all cores of a machine."""
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(machine, soft=False)
        config = self.config if self.config.threads else self.config._replace(threads=max(1, int(n_cores)))
        actor_class = self.ray.remote(ClusterWorker).options(num_cpus=n_cores, scheduling_strategy=strategy)
        actor = actor_class.remote(config)
        self.actors[machine] = actor
        self.loading[actor.load.remote()] = machine
