"""Files of a run: what a killed one leaves, full disks, folders that are gone."""

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

LEFT = [
    "checkpoint/run1/.loss.png.01234567.part",
    "checkpoint/run1/.progress.jsonl.89abcdef.part",
    "checkpoint/run1/.saving-abc/model-3.index",
    "checkpoint/run1/best/.saving-abc/model-3.index",
    "checkpoint/run1/best/.hparams.json.01234567.part",
    "samples/run1/.samples-3.01234567.part",
]
OWN = ["checkpoint/run1/.notes.part", "samples/run1/mine.part"]


def test_what_a_killed_run_left_unfinished_is_removed(run):
    for path in map(Path, LEFT + OWN):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert run(stop_after=1)[0] == 0
    assert not [path for path in LEFT if Path(path).exists()]
    assert all(Path(path).exists() for path in OWN)


def limited(more):
    """From now on, no file of this process grows beyond the history's size and so many bytes: a disk that is full."""
    size = Path("checkpoint/run1/progress.jsonl").stat().st_size + more
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def unlimited():
    """unlimited() -> there is room again"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def events():
    [path] = Path("checkpoint/run1").glob("events.out.tfevents.*")
    read = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    return [event.step for event in read if event.summary.value]


def test_a_full_disk_is_said_at_each_save_and_costs_no_record(run, unlimited):
    def command():
        return after_update(9, unlimited, lambda: run(stop_after=10, save_every=2, val_every=5))

    status, out, err = after_update(3, lambda: limited(20), command)
    assert status == 0, err
    said = [line for line in out.splitlines() if "Saving" in line or "warning" in line]
    folder, full = "checkpoint/run1", "File too large"
    written = f"warning: {folder}/progress.jsonl cannot be written: {full}; the run goes on"
    saved = f"could not be written to {folder}: {full}; what was saved before is still in use; the run goes on"
    assert said[0] == f"Saving {folder}/model-2" and written in said
    assert said[said.index(f"Saving {folder}/model-4") + 1] == f"warning: the checkpoint {saved}"
    assert said[said.index(f"Saving {folder}/model-6") + 1] == "warning: model-6 was not saved either"
    assert said[-2:] == [f"Saving {folder}/best", f"Saving {folder}/model-10"]
    expected = [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]
    assert [record["step"] for record in records()] == expected == events()


def test_records_that_still_wait_are_written_at_the_end(run, unlimited):
    """Here the last update's is one of them."""
    command = lambda: after_update(5, unlimited, lambda: run(stop_after=5))  # noqa: E731
    status, _, _ = after_update(2, lambda: limited(20), command)
    assert status == 0 and list(losses()) == [1, 2, 3, 4, 5]


def test_a_last_save_that_fails_is_a_failure(run, unlimited):
    status, out, err = after_update(3, lambda: limited(20), lambda: run(stop_after=4, save_every=2))
    assert status == 1 and err.count("error: ") == 1 and "what was saved before is still in use" in err


def test_a_folder_that_is_removed_is_made_whole_again(run):
    """Its vocabulary too, which had come from there."""
    run(stop_after=1)
    folder = Path("checkpoint/run1")
    before = {name: (folder / name).read_bytes() for name in ("hparams.json", "encoder.json", "vocab.bpe")}
    status, _, err = after_update(2, lambda: shutil.rmtree(folder), lambda: run(stop_after=4, val_every=3))
    assert status == 0 and "warning: checkpoint/run1 lacks hparams.json, encoder.json, vocab.bpe: what this" in err
    assert before == {name: (folder / name).read_bytes() for name in before}
    assert generate.load("checkpoint/run1").hparams.n_ctx == 32
    assert list(losses()) == [1, 2, 3, 4] and events()[-1] == 4
    assert open_model_dir(folder / "best").weights_path.name == "model-3"
    assert not (folder / ".lock").exists()


def test_a_folder_that_another_run_has_taken_is_left_to_it(run):
    folder, other = Path("checkpoint/run1"), RunLock(Path("checkpoint/run1"))

    def take():
        shutil.rmtree(folder)
        other.__enter__()

    status, _, err = after_update(2, take, lambda: run(stop_after=3))
    assert status == 1 and "error: checkpoint/run1 is in use by another training run" in err
    assert [path.name for path in folder.iterdir()] == [".lock"]
    other.__exit__()


def test_a_validation_is_recorded_once(run, monkeypatch):
    """Also that where a run goes on, and that before the first update of one that ended before its first save."""
    flags = {"val_every": 2, "stop_after": 2}

    def broken(*_):
        raise GPT2Error("not now")

    with monkeypatch.context() as patch:
        patch.setattr(run_checkpoint, "save", broken)
        assert run(**flags)[0] == 1
    assert run(**flags)[0] == 0
    assert run(**flags | {"stop_after": 3})[0] == 0
    assert [record["step"] for record in records() if "validation_loss" in record] == [0, 2]
