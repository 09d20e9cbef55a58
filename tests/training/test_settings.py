"""The settings of a run: rejected values, and settings stored with the run."""

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny

from gpt2.cli import command as cli
from gpt2.errors import UsageError
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import flatten
from gpt2.training import trainer
from gpt2.training.settings import run_settings
from gpt2.training.settings.rules import RULES
from gpt2.training.settings.settings import FINE_TUNING_RATE, TrainingSettings
from train import train

TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40
FOLDER = Path("checkpoint/run1")
SETTINGS_PATH = FOLDER / "settings.json"
SIZES = {"n_vocab": 280, "n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 1}


@pytest.fixture
def working_dir(tmp_path, monkeypatch):
    """Enter a working directory that contains three texts."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    Path("other.txt").write_text("zebra quartz vex!? " * 60, encoding="utf-8")
    Path("short.txt").write_text("the cat", encoding="utf-8")
    return tmp_path


@pytest.fixture
def run_command(working_dir, capsys):
    """Return run_command(flag=value, ...) -> (status, stdout, stderr) of the command with only these flags."""

    def run_command(**flags):
        status = cli.main(train, [f"--{name}={value}" for name, value in flags.items()])
        return status, *capsys.readouterr()

    return run_command


@pytest.fixture(scope="module")
def two_updates(tmp_path_factory, tiny_dir):
    """Return a folder in which a run of the tiny model made 2 updates, and the run's flags."""
    flags = {"dataset": "text.txt", "model_name": tiny_dir, "learning_rate": 0.01, "batch_size": 2, "seed": 1}
    flags |= {"sample_every": 0, "steps": 2, "val_every": 2, "val_batch_count": 3}
    folder = tmp_path_factory.mktemp("two_updates")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text(TEXT, encoding="utf-8")
        assert cli.main(train, [f"--{name}={value}" for name, value in flags.items()]) == 0
    return folder, flags


@pytest.fixture
def started_run(two_updates, working_dir):
    """Copy that run to the working directory and return its flags."""
    folder, flags = two_updates
    shutil.copytree(folder / "checkpoint", "checkpoint")
    SETTINGS_PATH.write_text(json.dumps({**json.loads(SETTINGS_PATH.read_text()), "directory": str(working_dir)}))
    return flags


def losses(folder=FOLDER):
    lines = Path(folder, "progress.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines) if "loss" in record}


def weights(folder=FOLDER):
    return {name: np.array(value) for name, value in flatten(tiny.read_model(Path(folder)))}


def files_below(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def interrupt_after(step, command):
    """Run the command and press Ctrl-C during that update."""
    update = trainer.Trainer.update

    def pressed(self, *arguments):
        result = update(self, *arguments)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "update", pressed)
        return command()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"batch_size": 1.5}, "batch_size must be a whole number, not 1.5"),
        ({"steps": 1e9}, "steps must be a whole number, not 1000000000.0"),
        ({"batch_size": True}, "batch_size must be a whole number, not True"),
        ({"batch_size": None}, "batch_size must be a whole number, not None"),
        ({"n_layer": "6"}, "n_layer must be a whole number, not '6'"),
        ({"seed": 1 << 64}, "seed must be below"),
        ({"sample_length": float("nan")}, "sample_length must be a whole number, not nan"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number, not nan"),
        ({"dropout": float("nan")}, "dropout must be a finite number, not nan"),
        ({"clip_norm": float("inf")}, "clip_norm must be a finite number, not inf"),
        ({"save_minutes": "15"}, "save_minutes must be a finite number, not '15'"),
        ({"multi_gpu": "no"}, "multi_gpu must be True or False, not 'no'"),
        ({"optimizer": 5}, "optimizer must be text, not 5"),
        ({"keep": -1}, "keep must be 0 or more, not -1"),
        ({"dataset": ""}, "dataset is missing"),
        *(({"run_name": name}, "run_name must be the name of a folder") for name in ("", ".", "..", "a/b", "/", "a/")),
    ],
)
def test_rejected_values(values, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        TrainingSettings(**{"dataset": "x", **values})


def test_every_setting_has_a_rule():
    assert list(RULES) == [field.name for field in dataclasses.fields(TrainingSettings)]
    for rule in RULES.values():
        assert {rule.requires, rule.excludes} <= {"", *RULES}


def test_numpy_numbers_and_paths_are_accepted():
    settings = TrainingSettings(Path("x.txt"), batch_size=np.int64(2), learning_rate=np.float32(0.5), seed=None)
    assert settings == TrainingSettings("x.txt", batch_size=2, learning_rate=0.5)
    json.dumps(dataclasses.asdict(settings))


def test_settings_left_out_come_from_the_run(run_command, started_run):
    assert run_command(**{**started_run, "run_name": "whole", "steps": 4})[0] == 0
    status, _, err = run_command(run_name="run1", steps=2)
    assert status == 0 and "instead of" not in err
    assert losses() == pytest.approx(losses("checkpoint/whole"), abs=1e-6)


def test_resuming_from_another_working_directory(run_command, started_run, working_dir, monkeypatch):
    Path("elsewhere").mkdir()
    Path("elsewhere/text.txt").write_text("nothing but this " * 50)
    monkeypatch.chdir("elsewhere")
    assert run_command(checkpoint_dir=working_dir / "checkpoint", steps=1, sample_every=3, sample_length=2)[0] == 0
    assert (working_dir / "samples/run1/samples-3").is_file()
    monkeypatch.chdir(working_dir)
    assert run_command(steps=1)[0] == 0
    assert run_command(**{**started_run, "run_name": "whole", "steps": 4})[0] == 0
    assert losses() == pytest.approx(losses("checkpoint/whole"), abs=1e-6)


def test_run_moved_together_with_its_text(run_command, started_run, working_dir, monkeypatch):
    shutil.copytree(working_dir, working_dir / "inner/new")
    stored = json.loads(SETTINGS_PATH.read_text())
    Path("inner/new", SETTINGS_PATH).write_text(json.dumps({**stored, "directory": "/of/another/machine"}))
    monkeypatch.chdir("inner/new")
    assert run_command(steps=1)[0] == 0


def test_interrupted_run_resumes_to_its_own_end(run_command, started_run):
    flags = {**started_run, "run_name": "parts", "steps": 5, "lr_schedule": "linear"}
    assert interrupt_after(2, lambda: run_command(**flags))[0] == cli.EXIT_INTERRUPTED
    assert run_command(run_name="parts")[0] == 0
    assert run_command(**{**flags, "run_name": "whole"})[0] == 0
    assert losses("checkpoint/parts") == pytest.approx(losses("checkpoint/whole"), abs=1e-6)
    status, _, err = run_command(run_name="parts")
    assert status == 0 and err.startswith("checkpoint/parts has made 5 updates already; to make more, type: ")
    assert err.endswith("train.py --run_name parts --steps 5\n") and err.count("\n") == 1
    assert run_command(run_name="parts", stop_after=6)[0] == 0


def test_changed_settings_are_reported_in_one_line(run_command, started_run):
    status, _, err = run_command(dataset="other.txt", learning_rate=0.001, batch_size=2, clip_norm=1, steps=1)
    assert status == 0 and err.splitlines()[0] == (
        "checkpoint/run1 resumes with dataset other.txt instead of the run's text.txt,"
        " with learning_rate 0.001 instead of the run's 0.01, with clip_norm 1.0 instead of the run's 0.0"
    )
    assert "instead of" not in run_command(steps=1, dataset=Path("other.txt").resolve())[2]


def test_default_learning_rate_of_a_new_model_is_kept(run_command, working_dir):
    assert run_command(dataset="text.txt", from_scratch=True, steps=1, sample_every=0, **SIZES)[0] == 0
    assert run_command(steps=1)[0] == 0
    rates = [json.loads(line)["learning_rate"] for line in (FOLDER / "progress.jsonl").read_text().splitlines()]
    assert rates == [0.001, 0.001]


@pytest.mark.parametrize(
    "other, message",
    [
        ({"model_name": "355M"}, "started with model_name "),
        ({"from_scratch": True}, "started with model_name "),
        ({"vocabulary": "models"}, "started with model_name "),
        ({"n_layer": 3}, "started with model_name "),
    ],
)
def test_another_model_for_a_run_is_rejected(run_command, started_run, other, message):
    before = files_below("checkpoint")
    status, _, err = run_command(steps=1, **other)
    assert status == 2 and message in err and "restore_from fresh" in err and err.count("\n") == 1
    assert files_below("checkpoint") == before


def test_other_sizes_for_a_run_are_rejected(run_command, working_dir):
    flags = {"dataset": "text.txt", "from_scratch": True, "sample_every": 0, **SIZES}
    assert run_command(steps=1, **flags)[0] == 0
    assert run_command(steps=1, **flags)[0] == 0
    for name, other in [("n_embd", 32), ("n_vocab", 300)]:
        status, _, err = run_command(**{**flags, name: other})
        assert status == 2 and f"started with {name} {flags[name]}, not with {name} {other}: leave {name} out" in err
    assert "started with from_scratch, not with model_name 124M" in run_command(model_name="124M")[2]


def test_the_same_model_by_another_name(run_command, started_run, tiny_dir):
    stored = json.loads(SETTINGS_PATH.read_text())
    for name, same in [("124M", "117M"), (str(tiny_dir), os.path.relpath(tiny_dir))]:
        SETTINGS_PATH.write_text(json.dumps({**stored, "settings": {**stored["settings"], "model_name": name}}))
        assert run_command(steps=1, model_name=same)[0] == 0


def test_run_without_stored_settings_takes_the_defaults(run_command, started_run, tiny_dir):
    SETTINGS_PATH.unlink()
    status, _, err = run_command(steps=1)
    assert status == 2 and "dataset is missing" in err and err.count("\n") == 1
    assert run_command(dataset="text.txt", model_name=tiny_dir, steps=1)[0] == 0
    assert json.loads((FOLDER / "progress.jsonl").read_text().splitlines()[-1])["learning_rate"] == FINE_TUNING_RATE


def test_settings_of_another_version(run_command, started_run):
    stored = json.loads(SETTINGS_PATH.read_text())
    del stored["settings"]["clip_norm"]
    SETTINGS_PATH.write_text(json.dumps({**stored, "settings": {**stored["settings"], "warp": 9}}))
    status, _, err = run_command(steps=1)
    assert status == 0 and "checkpoint/run1 resumes without warp, which this version does not know" in err


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"settings": 5}', b"\xff", b'{"directory": ".", "settings": {"batch_size": "x"}}']
)
def test_damaged_settings(run_command, started_run, text):
    SETTINGS_PATH.write_bytes(text)
    status, _, err = run_command(steps=1)
    assert status == 1 and err.startswith(f"error: {SETTINGS_PATH} is damaged") and "delete it and give" in err
    assert err.count("\n") == 1


def test_several_workers_use_the_settings_they_were_given(started_run, monkeypatch):
    monkeypatch.setattr(run_settings.distribution, "worker_count", lambda: 2)
    assert run_settings.combine_settings({"dataset": "text.txt"}) == TrainingSettings("text.txt")


def test_new_run_needs_its_own_flags(run_command, started_run):
    for flags in ({}, {"restore_from": "fresh"}, {"restore_from": "checkpoint/run1"}):
        status, _, err = run_command(**{"run_name": "other", "steps": 1, **flags})
        assert status == 2 and "dataset is missing" in err and err.count("\n") == 1
    assert "dataset is missing" in run_command(restore_from="fresh")[2]


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"val_dataset": "other.txt"}, "val_dataset has no effect without val_every: give val_every as well"),
        ({"val_split": 0.2}, "val_split has no effect without val_every"),
        ({"vocabulary": "models"}, "vocabulary has no effect without from_scratch: give from_scratch as well"),
        ({"n_layer": 3}, "n_layer has no effect without from_scratch"),
        ({"from_scratch": True, "model_name": "124M"}, "give from_scratch or model_name, not both"),
        ({"from_scratch": True, "vocabulary": "x", "n_vocab": 300}, "give vocabulary or n_vocab, not both"),
        ({"val_every": 5, "val_dataset": "x", "val_split": 0.2}, "give val_dataset or val_split, not both"),
        ({"csv_header": True}, "csv_header has no effect: there is no .csv or .tsv in text.txt"),
        ({"csv_start": "<|startoftext|>"}, "csv_start has no effect: there is no .csv or .tsv in text.txt"),
    ],
)
def test_flags_without_effect_are_rejected(run_command, flags, message):
    status, _, err = run_command(dataset="text.txt", **flags)
    assert status == 2 and message in err and err.count("\n") == 1
    assert not Path("checkpoint").exists()


@pytest.mark.parametrize("flags", [{"dataset": "typo.txt"}, {"dataset": "short.txt"}, {"n_vocab": 5}, {"n_ctx": 5000}])
def test_rejected_fresh_run_leaves_the_old_one(run_command, working_dir, flags):
    old = {"dataset": "text.txt", "from_scratch": True, "sample_every": 0, **SIZES}
    assert run_command(steps=1, **old)[0] == 0
    before = files_below(".")
    status, _, err = run_command(**{**old, "steps": 1, "restore_from": "fresh", **flags})
    assert status in (1, 2) and err.count("error:") == 1
    assert files_below(".") == before and os.listdir("checkpoint") == ["run1"]


def test_rejected_run_leaves_no_folder(run_command, working_dir):
    status, _, err = run_command(dataset="short.txt", from_scratch=True, **SIZES)
    assert status == 1 and "but one window needs" in err
    assert not Path("checkpoint").exists() and not Path("samples").exists()


def test_fresh_model_moves_the_old_run_aside(run_command, working_dir):
    flags = {"dataset": "text.txt", "from_scratch": True, "sample_every": 0, "steps": 1, **SIZES}
    assert run_command(**flags)[0] == 0
    before = weights()
    assert run_command(**{**flags, "restore_from": "fresh", "n_embd": 32, "n_vocab": 270})[0] == 0
    [old_run] = [path for path in Path("checkpoint").iterdir() if path.name != "run1"]
    assert weights(old_run).keys() == before.keys()
    assert open_model_dir(FOLDER).hparams.n_embd == 32


def test_unreadable_checkpoint_is_not_called_damaged(run_command, started_run, monkeypatch):
    opened = Path.open

    def refuse(path, *arguments, **named):
        if path.name.startswith("training-2.data"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    status, _, err = run_command(steps=1)
    assert status == 1 and "cannot be read: Permission denied" in err and "damaged" not in err and "remove" not in err


def test_lack_of_memory_is_not_called_damage(run_command, started_run, monkeypatch):
    def no_memory(self, name):
        raise MemoryError

    monkeypatch.setattr(checkpoint.Checkpoint, "weight", no_memory)
    status, _, err = run_command(steps=1)
    assert status == 1 and "not enough memory" in err and "remove" not in err


def test_stored_settings(working_dir, monkeypatch):
    settings = TrainingSettings("text.txt")
    monkeypatch.setattr(run_settings.os, "getcwd", lambda: "/here")
    run_settings.write_settings(settings, 5, 1)
    stored = json.loads(SETTINGS_PATH.read_text())
    assert stored["directory"] == "/here" and stored["settings"]["stop_after"] == 5 and stored["settings"]["seed"] == 1
    assert not {"run_name", "checkpoint_dir", "restore_from", "steps", "threads"} & stored["settings"].keys()
