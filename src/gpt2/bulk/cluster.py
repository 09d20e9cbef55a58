"""The same on Ray: a worker on each machine of a cluster; they come and go while the job runs."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gpt2
from gpt2.bulk.rows import JobRow
from gpt2.bulk.workers import FinishedRow, WorkerConfig, served
from gpt2.devices import available_cores
from gpt2.errors import GPT2Error

LOCAL = "local"
INSTALL = "pip install -r requirements-ray.txt"
PACKAGE = Path(gpt2.__file__).parent
KNOCK = 10.0  # seconds, until nobody is at an address
AWHILE = 1.0  # seconds
LOOK = 5.0  # seconds from one look which machines there are to the next
PATIENCE = 120.0  # seconds without a machine, until the job is given up
MOST_LOST = 3  # workers that die before their models are loaded, one after the other, until it is given up


class Worker:
    """What runs on a machine of the cluster."""

    def __init__(self, plan: WorkerConfig) -> None:
        self.plan = plan

    def load(self) -> None:
        """Raises GPT2Error, which says on which machine."""
        try:
            self.station = self.plan.station()
        except GPT2Error as error:
            raise GPT2Error(f"on the machine {socket.gethostname()}: {error}") from error

    def exchange(self, rows: Sequence[JobRow]) -> list[FinishedRow]:
        return served(self.station, rows)


def ray_package() -> Any:
    """Raises GPT2Error, saying what to type, where Ray is missing."""
    try:
        import ray
    except ImportError:
        raise GPT2Error(f"a cluster needs Ray; type: {INSTALL}") from None
    return ray


class Cluster:
    """The crew (`hands.Crew`) of a cluster: on each machine one worker, which has all of its cores.

    address: a cluster's, as `ray.init` takes it, or LOCAL for a new one on this machine alone. Raises GPT2Error if it
    is not there.
    """

    def __init__(self, plan: WorkerConfig, address: str) -> None:
        self.plan, self.address = plan, address
        self.ray = ray_package()
        self.actors: dict[str, Any] = {}  # by the ids of their machines
        self.loading: dict[Any, str] = {}  # what stands for an answer that is to come -> the machine
        self.asked: dict[Any, str] = {}
        self.ready: list[str] = []
        self.looked = self.seen = -PATIENCE
        self.lost = 0  # workers that have died while they were loading, since one did not

    def __enter__(self) -> Cluster:
        ray, settings = self.ray, {"log_to_driver": False, "logging_level": "ERROR"}
        settings["runtime_env"] = {"py_modules": [str(PACKAGE)]}  # whatever is installed there
        try:
            if self.address == LOCAL:
                ray.init(num_cpus=available_cores(), include_dashboard=False, **settings)
            else:
                self._knock()
                ray.init(self.address, **settings)
        except (OSError, ValueError, RuntimeError) as error:
            raise GPT2Error(f"there is no cluster at {self.address}: {str(error).splitlines()[0]}") from error
        self.seen = time.monotonic()
        self._look()
        return self

    def _knock(self) -> None:
        """Raises OSError at once where Ray would try for minutes: for an address to which nobody listens."""
        host, colon, port = self.address.rpartition(":")
        if colon and port.isdecimal() and "/" not in host:
            socket.create_connection((host, int(port)), timeout=KNOCK).close()

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()

    def workers(self) -> list[Hashable]:
        return list(self.ready)

    def send(self, worker: Hashable, rows: Sequence[JobRow]) -> None:
        assert isinstance(worker, str)
        self.asked[self.actors[worker].exchange.remote(rows)] = worker

    def wait(self) -> Iterator[tuple[Hashable, Sequence[FinishedRow] | None]]:
        self._look()
        pending = [*self.loading, *self.asked]
        if not pending:
            time.sleep(AWHILE)
            return
        done, _ = self.ray.wait(pending, num_returns=len(pending), timeout=0)
        if not done:
            done, _ = self.ray.wait(pending, num_returns=1, timeout=AWHILE)
        for answer in done:
            yield from self._hear(answer)

    def _hear(self, answer: Any) -> Iterator[tuple[Hashable, Sequence[FinishedRow] | None]]:
        is_new = answer in self.loading
        machine = self.loading.pop(answer) if is_new else self.asked.pop(answer)
        try:
            found = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError as error:
            raise GPT2Error(str(error.cause)) from error
        except self.ray.exceptions.RayError as error:  # it has died, or its machine has
            del self.actors[machine]
            self._count(is_new, error)
            if machine in self.ready:
                self.ready.remove(machine)
                yield machine, None
            return
        if is_new:
            self.lost = 0
            self.ready.append(machine)
        else:
            yield machine, found

    def _count(self, is_new: bool, error: Exception) -> None:
        """Raises GPT2Error if workers die again and again while they load."""
        self.lost += is_new
        if self.lost > MOST_LOST:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise GPT2Error(f"the workers do not start: {lines[-1]}") from error

    def _look(self) -> None:
        """Starts a worker on each machine that has none. Raises GPT2Error if there has been none for long."""
        now = time.monotonic()
        if now < self.looked + LOOK:
            return
        self.looked = now
        with contextlib.suppress(ConnectionError):
            for node in self.ray.nodes():
                if node["Alive"] and node["Resources"].get("CPU") and node["NodeID"] not in self.actors:
                    self._start(node["NodeID"], node["Resources"]["CPU"])
        if self.actors:
            self.seen = now
        elif now > self.seen + PATIENCE:
            raise GPT2Error(f"the cluster at {self.address} has had no machine with a core for {PATIENCE:g} seconds")

    def _start(self, machine: str, machine_cores: float) -> None:
        """A worker that has all cores of a machine."""
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(machine, soft=False)
        plan = self.plan if self.plan.threads else self.plan._replace(threads=max(1, int(machine_cores)))
        placed = self.ray.remote(Worker).options(num_cpus=machine_cores, scheduling_strategy=strategy)
        actor = self.actors[machine] = placed.remote(plan)
        self.loading[actor.load.remote()] = machine
