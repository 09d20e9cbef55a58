"""Runs copied to and from a Google Drive: newer runs are not lost, and an interrupted copy leaves a usable run."""

import itertools
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny

import gpt_2_simple as gpt2
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.openai.checkpoint_files import current_checkpoint
from gpt2.formats.weights import flatten, nest
from gpt2.training.checkpoints import tensorflow_checkpoint
from gpt_2_simple import drive

RUN = Path("checkpoint/run1")


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Return the folder of a mounted Drive, outside of which the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drive, "MOUNT_POINT", tmp_path / "drive")
    (tmp_path / "drive/MyDrive").mkdir(parents=True)
    return tmp_path / "drive/MyDrive"


@pytest.fixture
def train(tiny_dir):
    """Return a function that brings a run to a step: all weights are that number, and runs differ in their history."""
    weights = list(flatten(tiny.read_model(tiny_dir)))

    def train_to(folder, step, run="a"):
        for old_file in folder.glob("model-*"):
            old_file.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("hparams.json", "encoder.json", "vocab.bpe"):
            shutil.copy(tiny_dir / name, folder / name)
        (folder / "counter").write_text(f"{step}\n")
        history = [json.dumps({"step": n, "loss": f"{run} {n}"}) for n in range(500, step + 1, 500)]
        (folder / "progress.jsonl").write_text("".join(f"{line}\n" for line in history))
        value = step + (run == "b") / 2
        tensorflow_checkpoint.save(
            folder, nest((name, np.full_like(array, value)) for name, array in weights), f"model-{step}"
        )

    return train_to


def value(folder):
    """Read the current checkpoint of a run, and return the value that all weights have."""
    assert (folder / "checkpoint").is_file(), list(folder.iterdir())
    values = {float(x) for _, array in flatten(tiny.read_model(folder)) for x in np.unique(array)}
    assert len(values) == 1, values
    return values.pop()


def moved_aside(folder):
    return sorted(folder.parent.glob(f"{folder.name}-until-*"))


def test_a_newer_local_run_is_moved_aside_by_a_folder_from_drive(mounted, train):
    train(mounted / RUN, 1000)
    train(RUN, 2000)
    with pytest.warns(
        UserWarning, match=r"the previous run in checkpoint/run1 is now .*run1-until-.*the copy replaces it"
    ):
        gpt2.copy_checkpoint_from_gdrive(copy_folder=True)
    assert (value(RUN), [value(path) for path in moved_aside(RUN)]) == (1000, [2000])
    gpt2.copy_checkpoint_from_gdrive(copy_folder=True)  # the second copy has nothing to do
    assert len(moved_aside(RUN)) == 1 and value(RUN) == 1000


def test_a_newer_local_run_is_moved_aside_by_an_archive_from_drive(mounted, train):
    train(RUN, 1000)
    gpt2.copy_checkpoint_to_gdrive()
    train(RUN, 2000)
    with pytest.warns(UserWarning, match="is now"):
        gpt2.copy_checkpoint_from_gdrive()
    assert (value(RUN), [value(path) for path in moved_aside(RUN)]) == (1000, [2000])
    assert not [path for path in RUN.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("copy_folder", [False, True])
def test_a_newer_run_on_drive_is_moved_aside(mounted, train, copy_folder):
    train(RUN, 2000)
    gpt2.copy_checkpoint_to_gdrive(copy_folder=copy_folder)
    shutil.rmtree(RUN)
    train(RUN, 1000)
    with pytest.warns(UserWarning, match="is now .*-until-"):
        gpt2.copy_checkpoint_to_gdrive(copy_folder=copy_folder)
    archives = moved_aside(mounted / (RUN if copy_folder else "checkpoint_run1.tar"))
    assert len(archives) == 1
    if not copy_folder:
        with tarfile.open(archives[0]) as tar:
            assert f"{RUN}/model-2000.index" in tar.getnames()
    shutil.rmtree(RUN)
    gpt2.copy_checkpoint_from_gdrive(copy_folder=copy_folder)
    assert value(RUN) == 1000


@pytest.mark.parametrize("copy_folder", [False, True])
@pytest.mark.parametrize("step", [1000, 2000])
def test_a_different_run_of_the_same_name_is_moved_aside(mounted, train, copy_folder, step):
    """Whether it has as many updates or fewer; its files can have the same size and any age."""
    train(RUN, 2000, "b")
    gpt2.copy_checkpoint_to_gdrive(copy_folder=copy_folder)
    shutil.rmtree(RUN)
    train(RUN, step)
    with pytest.warns(UserWarning, match="is now"):
        gpt2.copy_checkpoint_from_gdrive(copy_folder=copy_folder)
    assert (value(RUN), [value(path) for path in moved_aside(RUN)]) == (2000.5, [step])


@pytest.mark.parametrize("copy_folder", [False, True])
def test_an_earlier_state_is_updated(mounted, train, copy_folder):
    """Nothing is moved aside, and other files in the folder stay."""
    train(RUN, 1000)
    gpt2.copy_checkpoint_to_gdrive(copy_folder=copy_folder)
    (mounted / RUN).mkdir(parents=True, exist_ok=True)
    (mounted / RUN / "notes.txt").write_text("mine")
    train(RUN, 2000)
    gpt2.copy_checkpoint_to_gdrive(copy_folder=copy_folder)
    assert not moved_aside(mounted / (RUN if copy_folder else "checkpoint_run1.tar"))
    assert (mounted / RUN / "notes.txt").read_text() == "mine"
    if copy_folder:
        assert value(mounted / RUN) == 2000 and not list((mounted / RUN).glob("model-1000*"))
    train(RUN, 1000)
    gpt2.copy_checkpoint_from_gdrive(copy_folder=copy_folder)
    assert value(RUN) == 2000 and not moved_aside(RUN)


def interrupted_after(copy, n_files):
    """Return a copy function that raises KeyboardInterrupt after `n_files` files."""
    files_left = itertools.count(n_files, -1)

    def copy_or_interrupt(source, target):
        if not next(files_left):
            raise KeyboardInterrupt
        copy(source, target)

    return copy_or_interrupt


@pytest.mark.parametrize("target_step, target_run", [(500, "a"), (2000, "a"), (1000, "b"), (None, "a")])
@pytest.mark.parametrize("copy", ["copy_run", "mirror_run"])
@pytest.mark.filterwarnings("ignore:the previous run in")
def test_an_interrupted_copy_leaves_a_usable_run(mounted, train, monkeypatch, target_step, target_run, copy):
    """It may be interrupted after any number of files; the next copy completes it."""
    source, target = mounted / RUN, RUN
    train(source, 1000)
    real_copy = drive._copy_file
    for n_files in range(20):
        shutil.rmtree(RUN.parent, ignore_errors=True)
        if target_step is not None:
            train(target, target_step, target_run)
            before = value(target)
        monkeypatch.setattr(drive, "_copy_file", interrupted_after(real_copy, n_files))
        try:
            getattr(drive, copy)(source, target)
            break
        except KeyboardInterrupt:
            assert target_step is None or value(target) == before
        monkeypatch.setattr(drive, "_copy_file", real_copy)
        getattr(drive, copy)(source, target)
        assert value(target) == 1000
    assert value(target) == 1000 and n_files > 2


def test_incomplete_runs_are_not_copied(mounted, train):
    train(RUN, 2000)
    train(mounted / RUN, 1000)
    data = mounted / RUN / "model-1000.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(GPT2Error, match="model-1000.data-00000-of-00001 is damaged: it is shorter than the"):
        gpt2.copy_checkpoint_from_gdrive(copy_folder=True)
    data.unlink()
    with pytest.raises(GPT2Error, match="model-1000.data-00000-of-00001 cannot be read: No such file"):
        gpt2.copy_checkpoint_from_gdrive(copy_folder=True)
    (mounted / RUN / "checkpoint").unlink()
    with pytest.raises(GPT2Error, match="holds no checkpoint to copy"):
        gpt2.copy_checkpoint_from_gdrive(copy_folder=True)
    (mounted / "checkpoint_run1.tar").write_bytes(b"damaged")
    with pytest.raises(GPT2Error, match="checkpoint_run1.tar could not be copied to checkpoint/run1: "):
        gpt2.copy_checkpoint_from_gdrive()
    assert value(RUN) == 2000 and [path.name for path in RUN.parent.iterdir()] == ["run1"]
    shutil.rmtree(RUN.parent)
    with pytest.raises(GPT2Error, match="checkpoint_run1.tar could not be copied to checkpoint/run1: "):
        gpt2.copy_checkpoint_from_gdrive()
    assert not RUN.parent.exists()


def test_a_full_drive_gives_a_one_line_error(mounted, train, monkeypatch):
    def raise_disk_full(*_):
        raise OSError(28, "No space left on device")

    train(RUN, 1000)
    monkeypatch.setattr(drive.shutil, "copyfile", raise_disk_full)
    for copy_folder in (False, True):
        with pytest.raises(GPT2Error, match="could not be copied to .*: No space left on device$"):
            gpt2.copy_checkpoint_to_gdrive(copy_folder=copy_folder)


def test_files_of_a_save_in_progress_are_not_copied(mounted, train):
    train(RUN, 1000)
    (RUN / ".saving-x").mkdir()
    (RUN / ".saving-x/model-2000.index").write_text("half")
    gpt2.copy_checkpoint_to_gdrive(copy_folder=True)
    assert open_model_dir(mounted / RUN) and current_checkpoint(mounted / RUN).name == "model-1000"
    assert not list((mounted / RUN).glob(".*"))
