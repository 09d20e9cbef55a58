"""The files of a run: leftovers of killed runs, full disks, removed folders."""

import resource
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from runs import after_update, losses, records

from gpt2 import generate
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import open_model_dir
from gpt2.training.checkpoints import run_checkpoint
from gpt2.training.checkpoints.run_lock import RunLock

UNFINISHED = [
    "checkpoint/run1/.loss.png.01234567.part",
    "checkpoint/run1/.progress.jsonl.89abcdef.part",
    "checkpoint/run1/.saving-abc/model-3.index",
    "checkpoint/run1/best/.saving-abc/model-3.index",
    "checkpoint/run1/best/.hparams.json.01234567.part",
    "samples/run1/.samples-3.01234567.part",
]
USER_FILES = ["checkpoint/run1/.notes.part", "samples/run1/mine.part"]


def test_unfinished_files_of_a_killed_run_are_removed(run):
    for path in map(Path, UNFINISHED + USER_FILES):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert run(stop_after=1)[0] == 0
    assert not [path for path in UNFINISHED if Path(path).exists()]
    assert all(Path(path).exists() for path in USER_FILES)


def fill_disk(free):
    """Simulate a full disk: no file of this process can grow beyond the history's size plus `free` bytes."""
    size = Path("checkpoint/run1/progress.jsonl").stat().st_size + free
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def empty_disk():
    """Return a function that ends the simulation of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def event_steps():
    [path] = Path("checkpoint/run1").glob("events.out.tfevents.*")
    events = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    return [event.step for event in events if event.summary.value]


def test_full_disk_is_reported_at_each_save_and_loses_no_record(run, empty_disk):
    def command():
        return after_update(9, empty_disk, lambda: run(stop_after=10, save_every=2, val_every=5))

    status, out, err = after_update(3, lambda: fill_disk(20), command)
    assert status == 0, err
    lines = [line for line in out.splitlines() if "Saving" in line or "warning" in line]
    folder, full = "checkpoint/run1", "File too large"
    written = f"warning: {folder}/progress.jsonl cannot be written: {full}; the run continues"
    saved = f"could not be written to {folder}: {full}; the previous checkpoint is still in use; the run continues"
    assert lines[0] == f"Saving {folder}/model-2" and written in lines
    assert lines[lines.index(f"Saving {folder}/model-4") + 1] == f"warning: the checkpoint {saved}"
    assert lines[lines.index(f"Saving {folder}/model-6") + 1] == "warning: model-6 was not saved either"
    assert lines[-2:] == [f"Saving {folder}/best", f"Saving {folder}/model-10"]
    expected = [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]
    assert [record["step"] for record in records()] == expected == event_steps()


def test_pending_records_are_written_at_the_end(run, empty_disk):
    """The record of the last update is among them."""
    command = lambda: after_update(5, empty_disk, lambda: run(stop_after=5))  # noqa: E731
    status, _, _ = after_update(2, lambda: fill_disk(20), command)
    assert status == 0 and list(losses()) == [1, 2, 3, 4, 5]


def test_failed_last_save_is_an_error(run, empty_disk):
    status, out, err = after_update(3, lambda: fill_disk(20), lambda: run(stop_after=4, save_every=2))
    assert status == 1 and err.count("error: ") == 1 and "the previous checkpoint is still in use" in err


def test_removed_folder_is_written_again(run):
    """This includes the vocabulary, which was loaded from the folder."""
    run(stop_after=1)
    folder = Path("checkpoint/run1")
    before = {name: (folder / name).read_bytes() for name in ("hparams.json", "encoder.json", "vocab.bpe")}
    status, _, err = after_update(2, lambda: shutil.rmtree(folder), lambda: run(stop_after=4, val_every=3))
    assert (
        status == 0
        and "warning: hparams.json, encoder.json, vocab.bpe missing from checkpoint/run1; the run writes" in err
    )
    assert before == {name: (folder / name).read_bytes() for name in before}
    assert generate.load("checkpoint/run1").hparams.n_ctx == 32
    assert list(losses()) == [1, 2, 3, 4] and event_steps()[-1] == 4
    assert open_model_dir(folder / "best").weights_path.name == "model-3"
    assert not (folder / ".lock").exists()


def test_folder_taken_by_another_run_is_left_alone(run):
    folder, other = Path("checkpoint/run1"), RunLock(Path("checkpoint/run1"))

    def take():
        shutil.rmtree(folder)
        other.__enter__()

    status, _, err = after_update(2, take, lambda: run(stop_after=3))
    assert status == 1 and "error: checkpoint/run1 is in use by another training run" in err
    assert [path.name for path in folder.iterdir()] == [".lock"]
    other.__exit__()


def test_validation_is_recorded_once(run, monkeypatch):
    """A resumed run does not repeat it, not even the first one of a run that failed before its first save."""
    flags = {"val_every": 2, "stop_after": 2}

    def broken(*_):
        raise GPT2Error("not now")

    with monkeypatch.context() as patch:
        patch.setattr(run_checkpoint, "save", broken)
        assert run(**flags)[0] == 1
    assert run(**flags)[0] == 0
    assert run(**flags | {"stop_after": 3})[0] == 0
    assert [record["step"] for record in records() if "validation_loss" in record] == [0, 2]
