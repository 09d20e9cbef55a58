"""Two runs in one folder: the second gets an error that names the first, and changes nothing."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import after_update

from gpt2 import generate
from gpt2.errors import GPT2Error
from gpt2.training.checkpoints import run_lock
from gpt2.training.checkpoints.run_lock import RunLock

FOLDER = Path("checkpoint/run1")


def read_files():
    return {path: path.read_bytes() for path in FOLDER.parent.rglob("*") if path.is_file()}


NEW_MODEL = {"from_scratch": "True", "n_vocab": 280, "n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 1}
RUN_FLAGS = [{}, {"restore_from": "fresh"}, {"restore_from": "fresh", **NEW_MODEL}]


def test_second_run_is_rejected_and_changes_nothing(run):
    run(stop_after=1)
    with RunLock(FOLDER):
        before = read_files()
        for flags in RUN_FLAGS:
            status, _, err = run(stop_after=4, **flags)
            assert status == 1 and err.count("\n") == 1
            assert f"checkpoint/run1 is in use by another training run (process {os.getpid()} on " in err
            assert "wait for that run, end it, or give this run another run_name" in err
        assert read_files() == before
        assert generate.load(str(FOLDER)).hparams.n_ctx == 32
    assert not (FOLDER / run_lock.LOCK_FILE).exists()


def test_run_holds_the_lock_while_it_trains(run):
    """This includes a run that moved an old one aside."""
    rejected = []

    def try_to_enter():
        with pytest.raises(GPT2Error, match="is in use"), RunLock(FOLDER):
            pass
        rejected.append(True)

    for count, flags in enumerate(RUN_FLAGS, start=1):
        status, _, err = after_update(1, try_to_enter, lambda flags=flags: run(stop_after=1, **flags))
        assert (status, len(rejected)) == (0, count), err
    assert not list(Path("checkpoint").rglob(run_lock.LOCK_FILE))


def test_killed_process_releases_the_lock(working_dir):
    code = "import os, sys; from pathlib import Path; from gpt2.training.checkpoints.run_lock import RunLock\n"
    code += "lock = RunLock(Path('checkpoint/run1')).__enter__(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (FOLDER / run_lock.LOCK_FILE).is_file()
    with RunLock(FOLDER):
        pass
    assert list(FOLDER.iterdir()) == []


def test_file_system_without_locks(working_dir, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with RunLock(FOLDER):
        pass
    assert not Path("checkpoint").exists()


def test_lock_file_removed_while_it_is_opened_is_opened_again(working_dir, monkeypatch):
    lock, taken = run_lock._lock, []

    def removed_first(file):
        if not taken:
            (FOLDER / run_lock.LOCK_FILE).unlink()
        taken.append(file)
        lock(file)

    monkeypatch.setattr(run_lock, "_lock", removed_first)
    with RunLock(FOLDER), pytest.raises(GPT2Error, match="is in use"), RunLock(FOLDER):
        pass
    assert len(taken) == 3


def test_removed_lock_file_is_created_and_locked_again(working_dir):
    with RunLock(FOLDER) as lock:
        (FOLDER / run_lock.LOCK_FILE).unlink()
        lock.hold()
        with pytest.raises(GPT2Error, match="is in use"), RunLock(FOLDER):
            pass


def test_folder_that_cannot_be_created(working_dir):
    Path("checkpoint").write_text("a file")
    with pytest.raises(GPT2Error, match="run's folder checkpoint/run1 cannot be written: Not a directory"):
        RunLock(FOLDER).__enter__()
