"""Several devices or machines train like one with a larger batch; a lost machine ends all with one line."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import mirrored
import numpy as np
import pytest
import tensorflow as tf

from gpt2.cli import command as cli
from gpt2.data import windows
from gpt2.errors import GPT2Error, UsageError
from gpt2.tensorflow_startup import START_NOTE
from gpt2.training import distribution, run, starting_point
from gpt2.training.settings.settings import TrainingSettings
from train import train

ROOT = Path(__file__).resolve().parents[2]
TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40
TIMEOUT = 120  # seconds
OTHERS_NOTES = f"worker 2 of 2 waits for the others\n{START_NOTE}"  # on stderr of each worker except the first
SETTINGS = [  # the low learning rate is for adafactor, which amplifies rounding errors of sums in another order
    {"optimizer": "adafactor", "weight_decay": 0.1, "accumulate_gradients": 2, "learning_rate": 0.001},
    {"optimizer": "sgd", "clip_norm": 0.5, "memory_saving_gradients": True, "learning_rate": 1.0},
]


@pytest.fixture
def working_dir(tmp_path, monkeypatch):
    """Enter a working directory that contains text.txt, without a TF_CONFIG."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(distribution.TF_CONFIG, raising=False)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def losses(name):
    lines = Path(f"checkpoint/{name}/progress.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines) if "loss" in record}


def arguments(model, **flags):
    common = {"dataset": "text.txt", "model_name": model, "learning_rate": 0.001, "sample_every": 0}
    return [f"--{name}={value}" for name, value in {**common, **flags}.items()]


def train_alone(model, **flags):
    """Train in this process and return the losses."""
    assert cli.main(train, arguments(model, run_name="one", batch_size=4, **flags)) == 0
    return losses("one")


def cpu_environment(**variables):
    """Return an environment without GPUs: two workers on one machine cannot share one."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **variables}


def config(addresses, index):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


@pytest.fixture
def two_workers(working_dir, tiny_dir):
    """Return start(flag=value, ...) -> two processes that train the run `two` together, on free ports."""
    processes = []
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()

    def start(**flags):
        command = [sys.executable, ROOT / "train.py"]
        command += arguments(tiny_dir, run_name="two", batch_size=2, **flags)
        pair = [
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=cpu_environment(TF_CONFIG=config(addresses, index)),
            )
            for index in range(2)
        ]
        processes.extend(pair)
        return pair

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_until(condition):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_two_workers_equal_one_with_a_doubled_batch_even_if_one_is_lost(two_workers, tiny_dir):
    flags = {"stop_after": 80, "save_every": 20, "seed": 1}
    chief, other = two_workers(**flags)
    wait_until(Path("checkpoint/two/checkpoint").is_file)
    other.kill()
    _, err = chief.communicate(timeout=TIMEOUT)
    assert chief.returncode == 1
    assert re.search(r"\nerror: .* lost .*; start all workers again to resume the run from checkpoint/two/model-", err)
    assert err.count("\n") == 5 and "Traceback" not in err

    chief, other = two_workers(**flags)
    (out, _), (others_out, others_err) = (process.communicate(timeout=TIMEOUT) for process in (chief, other))
    assert (chief.returncode, other.returncode) == (0, 0)
    assert "Loading checkpoint checkpoint/two/model-" in out and out.endswith("Saving checkpoint/two/model-80\n")
    assert (others_out, others_err.strip()) == ("", OTHERS_NOTES)
    assert losses("two") == pytest.approx(train_alone(tiny_dir, **flags), abs=1e-4)


def test_a_signal_to_one_worker_stops_all_after_the_same_update(two_workers, tiny_dir):
    """Until then they equal one worker with a doubled batch. All use the seed that the first worker drew."""
    chief, other = two_workers(stop_after=100000)
    progress = Path("checkpoint/two/progress.jsonl")
    wait_until(lambda: progress.is_file() and progress.read_text().count("\n") > 5)
    other.send_signal(signal.SIGTERM)
    (out, err), (others_out, others_err) = (process.communicate(timeout=TIMEOUT) for process in (chief, other))
    assert (chief.returncode, other.returncode) == (cli.EXIT_FAILURE, cli.EXIT_TERMINATED)
    step = max(losses("two"))
    assert out.endswith(f"interrupted\nSaving checkpoint/two/model-{step}\n")
    assert err.splitlines()[-1] == (
        f"error: another worker received a signal to stop after {step} updates; start all workers again to resume the"
        " run from there"
    )
    assert (others_out, others_err.strip()) == ("", OTHERS_NOTES)
    seed = json.loads(Path(f"checkpoint/two/training-{step}.json").read_text())["seed"]
    assert losses("two") == pytest.approx(train_alone(tiny_dir, stop_after=step, seed=seed), abs=1e-4)


def test_two_devices_equal_one_with_a_doubled_batch(working_dir, tiny_dir):
    found = subprocess.run(
        [sys.executable, mirrored.__file__, tiny_dir, json.dumps(SETTINGS)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=cpu_environment(PYTHONPATH=str(ROOT / "src")),
    )
    assert found.returncode == 0, found.stderr
    for settings, (two, one) in zip(SETTINGS, json.loads(found.stdout.splitlines()[-1])):
        assert two == pytest.approx(one, abs=1e-4), settings
        assert two[-1] < two[0] - 0.05, settings
    expected = train_alone(
        tiny_dir, stop_after=mirrored.UPDATES, val_every=mirrored.UPDATES, seed=1, learning_rate=0.01
    )
    assert losses("mirrored") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "message, worker",
    [
        (
            "Graph execution error:\n\nCollective ops is aborted by: failed to connect to all addresses\n"
            "Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling /x:",
            "the worker b:2 is lost (failed to connect to all addresses)",
        ),
        (
            2 * "Collective ops is aborted by: " + "Deadline Exceeded\n\nRPC: /x",
            "another worker is lost (Deadline Exceeded)",
        ),
        ("no connection to /job:worker/task:7\nmore", "another worker is lost (no connection to /job:worker/task:7)"),
    ],
)
def test_error_of_a_lost_worker_becomes_one_line(monkeypatch, tmp_path, message, worker):
    error = tf.errors.UnavailableError(None, None, message)
    with pytest.raises(tf.errors.UnavailableError), distribution.reporting_lost_workers(tmp_path):
        raise error
    monkeypatch.setenv(distribution.TF_CONFIG, config(["a:1", "b:2"], 0))
    with pytest.raises(GPT2Error) as caught, distribution.reporting_lost_workers(tmp_path):
        raise error
    assert str(caught.value).startswith(worker) and "start all workers again" in str(caught.value)
    with (
        pytest.raises(tf.errors.ResourceExhaustedError),
        distribution.reporting_lost_workers(tmp_path),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "no memory")


def test_workers_with_another_job_are_rejected(working_dir, tiny_dir, monkeypatch):
    monkeypatch.setattr(
        distribution, "broadcast_from_chief", lambda strategy, numbers: seen.setdefault("chief", numbers)
    )
    machine, seen = run.DeviceSetup("CPU", None), {}
    settings = TrainingSettings("text.txt", model_name=str(tiny_dir), threads=1)
    start, split = starting_point.find_starting_point(settings, working_dir), windows.Split(np.arange(100), np.zeros(0))
    run._check_same_job(settings, start, split, machine)
    run._check_same_job(TrainingSettings("moved.txt", model_name=str(tiny_dir), threads=2), start, split, machine)
    others = windows.Split(np.arange(100)[::-1], np.zeros(0))
    for flags, data in [({"batch_size": 2}, split), ({"optimizer": "sgd"}, split), ({}, others)]:
        with pytest.raises(GPT2Error, match="the first worker has other flags, another model or other data"):
            run._check_same_job(TrainingSettings("text.txt", model_name=str(tiny_dir), **flags), start, data, machine)


def test_several_workers_cannot_train_a_vocabulary(working_dir, monkeypatch):
    monkeypatch.setenv(distribution.TF_CONFIG, config(["a:1", "b:2"], 1))
    with pytest.raises(UsageError, match="give its folder as vocabulary"):
        starting_point.find_starting_point(TrainingSettings("text.txt", from_scratch=True), working_dir)
    assert not Path("checkpoint").exists()


def test_tf_config_names_the_workers(monkeypatch):
    monkeypatch.delenv(distribution.TF_CONFIG, raising=False)
    assert (distribution.worker_count(), distribution.worker_index(), distribution.is_chief()) == (1, 0, True)
    for index in range(2):
        monkeypatch.setenv(distribution.TF_CONFIG, config(["a:1", "b:2"], index))
        assert (distribution.worker_count(), distribution.worker_index(), distribution.is_chief()) == (
            2,
            index,
            index == 0,
        )
    monkeypatch.setenv(distribution.TF_CONFIG, config(["a:1"], 0))
    assert distribution.worker_count() == 1


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[1]",
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": "0"}}',
        '{"cluster": {"worker": ["a:1"], "chief": ["b:2"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "evaluator", "index": 0}}',
    ],
)
def test_invalid_tf_config_is_rejected(monkeypatch, value):
    monkeypatch.setenv(distribution.TF_CONFIG, value)
    with pytest.raises(UsageError, match="TF_CONFIG must be like"):
        distribution.worker_count()


def test_strategy_for_the_available_devices(monkeypatch):
    """The strategies are replaced by their names, because the test machine has no such devices."""
    distribute = types.SimpleNamespace(
        MirroredStrategy=lambda: "all GPUs",
        get_strategy=lambda: "one device",
        TPUStrategy=lambda resolver: f"the TPU {resolver}",
        cluster_resolver=types.SimpleNamespace(TPUClusterResolver=lambda: os.environ["TPU_NAME"]),
    )
    connected = []
    monkeypatch.setattr(tf, "distribute", distribute)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0", "GPU:1"])
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", connected.append)
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", connected.append)
    assert (
        distribution.create_strategy() == "all GPUs" and distribution.create_strategy(multi_gpu=False) == "one device"
    )
    monkeypatch.setenv("TPU_NAME", "local")
    assert distribution.create_strategy() == "the TPU local" and connected == ["local", "local"]
