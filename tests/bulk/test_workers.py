"""Rows that several workers write: the same rows, whoever writes them and whoever is lost on the way."""

import os
import random
import signal
import time

import pytest
from bulk_jobs import content, ragged, run, write_rows

from gpt2.bulk import processes, workers
from gpt2.bulk.batch_worker import GeneratedText
from gpt2.bulk.row_queue import RowNumberSet, RowQueue
from gpt2.bulk.rows import JobRow
from gpt2.bulk.workers import RowResult, WorkerExecutor
from gpt2.errors import GPT2Error
from gpt2.request import Request


class Crew:
    """Workers that answer in any order with some of what they have, and die now and then."""

    def __init__(self, rng, count, deadly=()):
        self.rng, self.deadly = rng, deadly
        self.alive = list(range(count))
        self.next = count
        self.has = {worker: [] for worker in self.alive}
        self.asked = []

    def ready_workers(self):
        return self.alive

    def send(self, worker, rows):
        assert worker in self.alive and worker not in self.asked
        self.has[worker] += rows
        self.asked.append(worker)

    def receive(self):
        assert self.asked, "nothing to wait for"
        worker = self.asked.pop(self.rng.randrange(len(self.asked)))
        rows = self.has[worker]
        if self.rng.random() < 0.05 or any(row.number in self.deadly for row in rows):
            self.alive[self.alive.index(worker)] = self.next
            self.has[self.next] = []
            self.next += 1
            return [(worker, None)]
        self.rng.shuffle(rows)
        done, self.has[worker] = rows[:3], rows[3:]
        texts = {row.number: GeneratedText(f"text {row.number}", "length", 1, 1) for row in done}
        return [(worker, [RowResult(number, [text], "") for number, text in texts.items()])]


def exchanged(crew, rows, batch_size=4):
    ended, found = RowNumberSet(), []
    many, ahead = WorkerExecutor(crew, batch_size), RowQueue(rows, ended)
    while finished := many.next_finished(ahead):
        found += finished
        for one in finished:
            ended.add(one.row.number)
    return found


def of(count):
    return [JobRow(number, number, (Request("the", number % 7),)) for number in range(count)]


@pytest.mark.parametrize("seed", range(8))
def test_each_row_once_whoever_is_lost(seed, monkeypatch):
    monkeypatch.setattr(workers, "MAX_LOST_WORKERS_PER_ROW", 1000)
    found = exchanged(Crew(random.Random(seed), 3), of(500))
    assert sorted(one.row.number for one in found) == list(range(500))
    assert all(one.texts[0].text == f"text {one.row.number}" for one in found)


def test_a_row_that_kills_whoever_has_it_has_an_error(monkeypatch):
    rows = [*of(100), JobRow(100, 100, error="it was nothing")]
    found = exchanged(Crew(random.Random(1), 2, deadly=[60]), rows)
    errors = {one.row.number: one.error for one in found if one.error}
    assert sorted(one.row.number for one in found) == list(range(101))
    assert errors[100] == "it was nothing" and "3 workers were lost" in errors[60]


@pytest.fixture
def place(native, tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", ragged(80))
    return tmp_path


def flags(tiny_dir):
    return ["--seed=1", f"--model_name={tiny_dir}", "--batch_size=4", "--threads=1"]


def expected(place, tiny_dir):
    assert run("in.jsonl", "whole.jsonl", *flags(tiny_dir)) == 0
    return content(place / "whole.jsonl")


def test_two_processes_one_of_which_dies(place, tiny_dir, monkeypatch):
    """Killed as the system does it that has no memory left, while it writes."""
    killed = []
    send = processes.ProcessGroup.send

    def killing(self, worker, rows):
        send(self, worker, rows)
        if len(killed) < 1:
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)

    monkeypatch.setattr(processes.ProcessGroup, "send", killing)
    assert run("in.jsonl", "out.jsonl", *flags(tiny_dir), "--processes=2") == 0
    assert killed and content(place / "out.jsonl") == expected(place, tiny_dir)


def test_a_worker_that_cannot_load_says_why(place, tiny_dir):
    plan = workers.WorkerConfig(str(place / "no model"), "float32", 1, 4)
    with processes.ProcessGroup(plan, 1) as crew, pytest.raises(GPT2Error, match="no model"):
        exchanged(crew, of(3))


def test_workers_that_die_again_and_again_end_the_job(tiny_dir, monkeypatch):
    monkeypatch.setattr(processes, "WORKER_PROGRAM", "raise SystemExit(7)")
    plan = workers.WorkerConfig(str(tiny_dir), "float32", 1, 4)
    with processes.ProcessGroup(plan, 1) as crew, pytest.raises(GPT2Error, match="end again and again, with status 7"):
        exchanged(crew, of(3))


def test_nothing_is_left_of_processes(place, tiny_dir):
    plan = workers.WorkerConfig(str(tiny_dir), "float32", 1, 4)
    with processes.ProcessGroup(plan, 2) as crew:
        found = exchanged(crew, of(20))
        pids = [process.process.pid for process in crew.processes]
    assert len(found) == 20
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.fixture
def cluster():
    """Two machines of one core each, that are processes of this one."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = found.add_node(num_cpus=1)
    found.wait_for_nodes()
    yield found, second
    ray.shutdown()
    found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_one_of_whose_machines_is_lost(place, tiny_dir, cluster, monkeypatch):
    from gpt2.bulk import cluster as clusters

    both, second = cluster
    write_rows(place / "in.jsonl", ragged(600))
    heard, send = set(), clusters.RayCluster.send

    def losing(self, worker, rows):
        send(self, worker, rows)
        heard.add(worker)
        if len(heard) == 2 and second in both.worker_nodes:
            time.sleep(0.2)
            both.remove_node(second, allow_graceful=False)

    monkeypatch.setattr(clusters.RayCluster, "send", losing)
    assert run("in.jsonl", "out.jsonl", *flags(tiny_dir), f"--ray={both.address}") == 0
    assert len(heard) == 2 and second not in both.worker_nodes
    assert content(place / "out.jsonl") == expected(place, tiny_dir)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_machine_that_joins_later_takes_its_share(place, tiny_dir, cluster, monkeypatch):
    from gpt2.bulk import cluster as clusters

    both, second = cluster
    both.remove_node(second)
    monkeypatch.setattr(clusters, "NODE_CHECK_SECONDS", 0.2)
    write_rows(place / "in.jsonl", ragged(3000))
    heard, send = set(), clusters.RayCluster.send

    def joining(self, worker, rows):
        send(self, worker, rows)
        if not heard:
            both.add_node(num_cpus=1)
        heard.add(worker)

    monkeypatch.setattr(clusters.RayCluster, "send", joining)
    assert run("in.jsonl", "out.jsonl", *flags(tiny_dir), f"--ray={both.address}") == 0
    assert len(heard) == 2
    assert content(place / "out.jsonl") == expected(place, tiny_dir)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_cluster_there(place, tiny_dir, capsys):
    pytest.importorskip("ray")
    assert run("in.jsonl", "out.jsonl", *flags(tiny_dir), "--ray=127.0.0.1:1") == 1
    assert "there is no cluster at 127.0.0.1:1" in capsys.readouterr().err
