"""Signals in every phase of a run: it saves, ends with the right status, and resumes as if never interrupted."""

import contextlib
import os
import pty
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from runs import (
    COMMAND,
    QUICK,
    after_update,
    assert_same_weights,
    interrupt_after,
    losses,
    records,
    weights,
)

from gpt2.cli import command as cli
from gpt2.formats.model_dir import open_model_dir
from gpt2.training import run as training_run
from gpt2.training import samples, signals, trainer
from gpt2.training.checkpoints import run_checkpoint
from gpt2.training.logs import training_log
from gpt2.training.logs.report import TrainingReport
from gpt2.training.settings.settings import TrainingSettings

FOLDER = Path("checkpoint/run1")
TIMEOUT = 120  # seconds


def saved_step():
    return int(open_model_dir(FOLDER).weights_path.name.removeprefix("model-"))


def signal_in_call(monkeypatch, owner, name, call_number, number=signal.SIGTERM):
    """Send the signal during call `call_number` of a method, counted from 1. Return the list of calls."""
    method, calls = getattr(owner, name), []

    def called(self, *arguments):
        calls.append(arguments)
        if len(calls) == call_number:
            os.kill(os.getpid(), number)
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, called)
    return calls


def test_sampling_stops_at_once(run, monkeypatch):
    calls = signal_in_call(monkeypatch, samples.Batch, "step", call_number=2)
    status, out, _ = run(stop_after=9, sample_every=3, sample_length=20)
    assert (status, len(calls), saved_step()) == (cli.EXIT_TERMINATED, 2, 3)
    assert "SAMPLE" not in out and not Path("samples/run1/samples-3").exists()


def test_validation_stops_at_once_and_is_repeated_later(run, monkeypatch):
    flags = {"stop_after": 5, "val_every": 2, "val_split": 0.3, "val_batch_size": 1, "val_batch_count": 3}
    with monkeypatch.context() as patch:
        # Call 4 is the first batch of the second validation.
        calls = signal_in_call(patch, trainer.Trainer, "loss", call_number=4)
        assert run(**flags)[0] == cli.EXIT_TERMINATED
    assert len(calls) == 4 and saved_step() == 2
    assert run(**flags)[0] == 0
    assert [record["step"] for record in records() if "validation_loss" in record] == [0, 2, 4]


def test_second_ctrl_c_reports_the_lost_updates(run, monkeypatch):
    monkeypatch.setattr(signals, "DUPLICATE_SIGNAL_SECONDS", 0)
    run(stop_after=2)
    with monkeypatch.context() as patch:
        patch.setattr(run_checkpoint, "save", lambda *_: signal.raise_signal(signal.SIGINT))
        status, _, err = interrupt_after(5, lambda: run(stop_after=9))
    assert status == cli.EXIT_INTERRUPTED and saved_step() == 2
    updates = "lose the 2 updates since the last save", "lost: the 3 updates since the last save"
    assert f"saving; press Ctrl-C again to {updates[0]}\n" in err and f"\n{updates[1]}\n" in err


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_that_arrive_twice_by_themselves_lose_nothing(run, number, status):
    """A closing terminal sends SIGHUP twice; a program that forwards Ctrl-C makes SIGINT arrive twice."""

    def twice():
        for _ in range(2):
            signal.raise_signal(number)

    assert after_update(3, twice, lambda: run(stop_after=9))[0] == status
    assert saved_step() == 3


def test_before_the_first_update_signals_have_their_usual_effect(run, monkeypatch):
    """There is nothing to save yet, and compiling can take longer than a supervisor waits."""
    terminated = []
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    try:
        interrupt_after(1, lambda: run(stop_after=2), signal.SIGTERM)
        assert terminated and saved_step() == 2
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("done", [0, 2])
def test_first_update_of_a_call_is_saved_once_it_is_recorded(run, monkeypatch, done):
    if done:
        run(stop_after=done)
    signal_in_call(monkeypatch, training_log.TrainingLog, "record_update", call_number=1, number=signal.SIGINT)
    assert run(stop_after=9)[0] == cli.EXIT_INTERRUPTED
    assert saved_step() == max(losses()) == done + 1


def test_run_whose_reader_is_gone_saves_and_ends(working_dir, tiny_dir):
    class ClosingReport(TrainingReport):
        def update(self, update):
            self.closed = update.step == 3

    with pytest.raises(BrokenPipeError):
        training_run.train(TrainingSettings("text.txt", str(tiny_dir), steps=9, sample_every=0), report=ClosingReport())
    assert saved_step() == 3


def train_command(model, **flags):
    arguments = {"model_name": model, **QUICK, **flags}
    return [sys.executable, str(COMMAND), "text.txt", *(f"--{name}={value}" for name, value in arguments.items())]


IN_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


def test_closed_terminal(working_dir, tiny_dir):
    """It sends SIGHUP, and later writes to it fail."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    command = [sys.executable, "-c", IN_A_TERMINAL, *train_command(tiny_dir, steps=100000)]
    with subprocess.Popen(command, start_new_session=True, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        try:
            end = time.monotonic() + TIMEOUT
            while not (FOLDER / "progress.jsonl").is_file() or len(records()) < 5:
                assert time.monotonic() < end and process.poll() is None
                with contextlib.suppress(BlockingIOError):
                    os.read(master, 4096)
                time.sleep(0.01)
            os.close(master)
            assert process.wait(TIMEOUT) == cli.EXIT_HUNG_UP
        finally:
            process.kill()
    assert saved_step() == max(losses()) and not (FOLDER / ".lock").exists()


BUSY = {"stop_after": 30, "val_every": 2, "sample_every": 3, "sample_length": 25, "save_every": 4, "val_split": 0.3}
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: 137}
LINES = ("Loading dataset", "Training", "Calculating", "Generating", "best", "Saving checkpoint/run1/model", "loss=")


def run_with_signal(command, number, moment):
    """Run the command and send it the signal. Return its status as a shell does.

    The moment is (text, number of output lines with that text, seconds after the last of them).
    """
    text, count, delay = moment
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            count -= text in line
            if not count:
                time.sleep(delay)
                process.send_signal(number)
                break
        _, err = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in err and "Exception" not in err, (number, moment, err)
    return 128 - process.returncode if process.returncode < 0 else process.returncode


def check_folder():
    """Check that no step is recorded twice or missing, and that the checkpoints can be read."""
    if (FOLDER / "progress.jsonl").is_file():
        steps = [record["step"] for record in records() if "loss" in record]
        assert steps == list(range(1, len(steps) + 1))
    if (FOLDER / "checkpoint").is_file():
        directory = open_model_dir(FOLDER)
        tiny.read(directory.weights_path, directory.hparams)
    if (FOLDER / "best" / "checkpoint").is_file():
        tiny.read_model(FOLDER / "best")


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("text", LINES)
def test_signals_at_random_moments_of_every_phase(run, tiny_dir, number, text):
    """Signals interrupt the run four times before it is completed."""
    assert run(run_name="whole", **BUSY)[0] == 0
    command = train_command(tiny_dir, **BUSY)
    for _ in range(4):
        moment = text, random.randint(1, 4), random.choice([0, random.uniform(0, 0.02), random.uniform(0, 0.5)])
        status = run_with_signal(command, number, moment)
        assert status in (0, ENDS[number]), moment
        check_folder()
        if number != signal.SIGKILL and status and (FOLDER / "checkpoint").is_file():
            assert len(losses()) == saved_step(), moment
    status, _, err = run(**BUSY)
    assert status == 0, err
    check_folder()
    assert losses() == pytest.approx(losses("whole"), abs=1e-4) and len(losses()) == 30
    assert_same_weights(weights(), weights("whole"), 1e-4)
    steps = [[record["step"] for record in records(name) if "validation_loss" in record] for name in ("run1", "whole")]
    assert sorted(set(steps[0])) == steps[0] and set(steps[1]) - set(steps[0]) <= {30}
    assert not [path for path in Path().rglob(".*") if path.name.endswith(".part") or path.name == ".lock"]
