"""Rows that several workers generate: the output is the same, even if workers are lost."""

import os
import random
import signal
import time

import pytest
from bulk_jobs import content, ragged, run, write_rows

from gpt2 import child_processes
from gpt2.bulk import processes, workers
from gpt2.bulk.batch_worker import GeneratedText
from gpt2.bulk.row_queue import RowNumberSet, RowQueue
from gpt2.bulk.rows import JobRow
from gpt2.bulk.workers import RowResult, WorkerExecutor
from gpt2.errors import GPT2Error
from gpt2.request import Request


class FakeGroup:
    """A group whose workers answer in random order, finish up to 3 rows an answer, and sometimes die."""

    def __init__(self, rng, count, deadly=()):
        self.rng = rng
        self.deadly = deadly
        self.alive = list(range(count))
        self.next = count
        self.assigned = {worker: [] for worker in self.alive}
        self.busy = []

    def ready_workers(self):
        return self.alive

    def send(self, worker, rows):
        assert worker in self.alive and worker not in self.busy
        self.assigned[worker] += rows
        self.busy.append(worker)

    def receive(self):
        assert self.busy, "nothing to wait for"
        worker = self.busy.pop(self.rng.randrange(len(self.busy)))
        rows = self.assigned[worker]
        if self.rng.random() < 0.05 or any(row.number in self.deadly for row in rows):
            self.alive[self.alive.index(worker)] = self.next
            self.assigned[self.next] = []
            self.next += 1
            return [(worker, None)]
        self.rng.shuffle(rows)
        done, self.assigned[worker] = rows[:3], rows[3:]
        texts = {row.number: GeneratedText(f"text {row.number}", "length", 1, 1) for row in done}
        return [(worker, [RowResult(number, [text], "") for number, text in texts.items()])]


def process_all(group, rows, batch_size=4):
    finished_numbers = RowNumberSet()
    executor = WorkerExecutor(group, batch_size)
    queue = RowQueue(rows, finished_numbers)
    results = []
    while finished := executor.next_finished(queue):
        results += finished
        for each in finished:
            finished_numbers.add(each.row.number)
    return results


def make_rows(count):
    return [JobRow(number, number, (Request("the", number % 7),)) for number in range(count)]


@pytest.mark.parametrize("seed", range(8))
def test_each_row_finishes_once_when_workers_are_lost(seed, monkeypatch):
    monkeypatch.setattr(workers, "MAX_LOST_WORKERS_PER_ROW", 1000)
    finished = process_all(FakeGroup(random.Random(seed), 3), make_rows(500))
    assert sorted(each.row.number for each in finished) == list(range(500))
    assert all(each.texts[0].text == f"text {each.row.number}" for each in finished)


def test_a_row_that_kills_its_workers_has_an_error(monkeypatch):
    rows = [*make_rows(100), JobRow(100, 100, error="it was nothing")]
    finished = process_all(FakeGroup(random.Random(1), 2, deadly=[60]), rows)
    errors = {each.row.number: each.error for each in finished if each.error}
    assert sorted(each.row.number for each in finished) == list(range(101))
    assert errors[100] == "it was nothing" and "3 workers were lost" in errors[60]


@pytest.fixture
def job_dir(native, tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", ragged(80))
    return tmp_path


def flags(tiny_dir):
    return ["--seed=1", f"--model_name={tiny_dir}", "--batch_size=4", "--threads=1"]


def expected(job_dir, tiny_dir):
    assert run("in.jsonl", "whole.jsonl", *flags(tiny_dir)) == 0
    return content(job_dir / "whole.jsonl")


def test_one_of_two_processes_dies(job_dir, tiny_dir, monkeypatch):
    """Kill a worker while it generates, as a system without free memory does."""
    killed = []
    send = processes.ProcessGroup.send

    def killing(self, worker, rows):
        send(self, worker, rows)
        if len(killed) < 1:
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)

    monkeypatch.setattr(processes.ProcessGroup, "send", killing)
    assert run("in.jsonl", "out.jsonl", *flags(tiny_dir), "--processes=2") == 0
    assert killed and content(job_dir / "out.jsonl") == expected(job_dir, tiny_dir)


def test_a_worker_that_cannot_load_says_why(job_dir, tiny_dir):
    config = workers.WorkerConfig(str(job_dir / "no model"), "float32", 1, 4)
    with processes.ProcessGroup(config, 1) as group, pytest.raises(GPT2Error, match="no model"):
        process_all(group, make_rows(3))


def test_workers_that_die_again_and_again_end_the_job(tiny_dir, monkeypatch):
    monkeypatch.setattr(child_processes, "CHILD_PROGRAM", "raise SystemExit(7)")
    config = workers.WorkerConfig(str(tiny_dir), "float32", 1, 4)
    with (
        processes.ProcessGroup(config, 1) as group,
        pytest.raises(GPT2Error, match="end again and again, with status 7"),
    ):
        process_all(group, make_rows(3))


def test_no_process_survives_its_group(job_dir, tiny_dir):
    config = workers.WorkerConfig(str(tiny_dir), "float32", 1, 4)
    with processes.ProcessGroup(config, 2) as group:
        finished = process_all(group, make_rows(20))
        pids = [child.process.pid for child in group.pool.children]
    assert len(finished) == 20
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.fixture
def cluster():
    """Yield a cluster of two simulated machines with one core each, and its second machine."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = ray_cluster.add_node(num_cpus=1)
    ray_cluster.wait_for_nodes()
    yield ray_cluster, second
    ray.shutdown()
    ray_cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_loses_a_machine(job_dir, tiny_dir, cluster, monkeypatch):
    from gpt2.bulk import cluster as clusters

    ray_cluster, second = cluster
    write_rows(job_dir / "in.jsonl", ragged(600))
    workers_sent = set()
    send = clusters.RayCluster.send

    def losing(self, worker, rows):
        send(self, worker, rows)
        workers_sent.add(worker)
        if len(workers_sent) == 2 and second in ray_cluster.worker_nodes:
            time.sleep(0.2)
            ray_cluster.remove_node(second, allow_graceful=False)

    monkeypatch.setattr(clusters.RayCluster, "send", losing)
    assert run("in.jsonl", "out.jsonl", *flags(tiny_dir), f"--ray={ray_cluster.address}") == 0
    assert len(workers_sent) == 2 and second not in ray_cluster.worker_nodes
    assert content(job_dir / "out.jsonl") == expected(job_dir, tiny_dir)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_machine_that_joins_later_takes_its_share(job_dir, tiny_dir, cluster, monkeypatch):
    from gpt2.bulk import cluster as clusters

    ray_cluster, second = cluster
    ray_cluster.remove_node(second)
    monkeypatch.setattr(clusters, "NODE_CHECK_SECONDS", 0.2)
    write_rows(job_dir / "in.jsonl", ragged(3000))
    workers_sent = set()
    send = clusters.RayCluster.send

    def joining(self, worker, rows):
        send(self, worker, rows)
        if not workers_sent:
            ray_cluster.add_node(num_cpus=1)
        workers_sent.add(worker)

    monkeypatch.setattr(clusters.RayCluster, "send", joining)
    assert run("in.jsonl", "out.jsonl", *flags(tiny_dir), f"--ray={ray_cluster.address}") == 0
    assert len(workers_sent) == 2
    assert content(job_dir / "out.jsonl") == expected(job_dir, tiny_dir)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_cluster_at_the_address(job_dir, tiny_dir, capsys):
    pytest.importorskip("ray")
    assert run("in.jsonl", "out.jsonl", *flags(tiny_dir), "--ray=127.0.0.1:1") == 1
    assert "there is no cluster at 127.0.0.1:1" in capsys.readouterr().err
