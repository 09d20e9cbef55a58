"""What a run is asked to do: values that are refused, and settings that are kept with it."""

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
from gpt2.training.settings.settings import FINE_TUNING_RATE, TrainingSettings
from train import train

TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40
FOLDER = Path("checkpoint/run1")
KEPT = FOLDER / "settings.json"
SIZES = {"n_vocab": 280, "n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 1}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with texts."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    Path("other.txt").write_text("zebra quartz vex!? " * 60, encoding="utf-8")
    Path("short.txt").write_text("the cat", encoding="utf-8")
    return tmp_path


@pytest.fixture
def typed(place, capsys):
    """typed(flag=value, ...) -> (status, stdout, stderr) of the command with these flags and no others"""

    def typed(**flags):
        status = cli.main(train, [f"--{name}={value}" for name, value in flags.items()])
        return status, *capsys.readouterr()

    return typed


@pytest.fixture(scope="module")
def two_updates(tmp_path_factory, tiny_dir):
    """A folder in which a run of the tiny model has made 2 updates, and its flags."""
    flags = {"dataset": "text.txt", "model_name": tiny_dir, "learning_rate": 0.01, "batch_size": 2, "seed": 1}
    flags |= {"sample_every": 0, "steps": 2, "val_every": 2, "val_batch_count": 3}
    folder = tmp_path_factory.mktemp("two_updates")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text(TEXT, encoding="utf-8")
        assert cli.main(train, [f"--{name}={value}" for name, value in flags.items()]) == 0
    return folder, flags


@pytest.fixture
def begun(two_updates, place):
    """That run in the working directory; its flags."""
    folder, flags = two_updates
    shutil.copytree(folder / "checkpoint", "checkpoint")
    KEPT.write_text(json.dumps({**json.loads(KEPT.read_text()), "directory": str(place)}))
    return flags


def losses(folder=FOLDER):
    lines = Path(folder, "progress.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines) if "loss" in record}


def weights(folder=FOLDER):
    return {name: np.array(value) for name, value in flatten(tiny.read_model(Path(folder)))}


def files_below(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def interrupted_after(step, command):
    """Runs the command and presses Ctrl-C during that update."""
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
    "wrong, said",
    [
        ({"batch_size": 1.5}, "batch_size must be a whole number, not 1.5"),
        ({"steps": 1e9}, "steps must be a whole number, not 1000000000.0"),
        ({"batch_size": True}, "batch_size must be a whole number, not True"),
        ({"batch_size": None}, "batch_size must be a whole number, not None"),
        ({"n_layer": "6"}, "n_layer must be a whole number, not '6'"),
        ({"seed": 1 << 64}, "seed must be below"),
        ({"sample_length": float("nan")}, "sample_length must be a whole number, not nan"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number, not nan"),
        ({"dropout": float("nan")}, "dropout must be a number, not nan"),
        ({"clip_norm": float("inf")}, "clip_norm must be a number, not inf"),
        ({"save_minutes": "15"}, "save_minutes must be a number, not '15'"),
        ({"multi_gpu": "no"}, "multi_gpu must be True or False, not 'no'"),
        ({"optimizer": 5}, "optimizer must be text, not 5"),
        ({"keep": -1}, "keep must be 0 or more, not -1"),
        ({"dataset": ""}, "dataset is missing"),
        *(({"run_name": name}, "run_name must be the name of a folder") for name in ("", ".", "..", "a/b", "/", "a/")),
    ],
)
def test_values_that_are_refused(wrong, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        TrainingSettings(**{"dataset": "x", **wrong})


def test_numbers_of_numpy_and_paths_are_let_in():
    settings = TrainingSettings(Path("x.txt"), batch_size=np.int64(2), learning_rate=np.float32(0.5), seed=None)
    assert settings == TrainingSettings("x.txt", batch_size=2, learning_rate=0.5)
    json.dumps(dataclasses.asdict(settings))


def test_what_is_left_out_comes_from_the_run(typed, begun):
    assert typed(**{**begun, "run_name": "whole", "steps": 4})[0] == 0
    status, _, err = typed(run_name="run1", steps=2)
    assert status == 0 and "instead of" not in err
    assert losses() == pytest.approx(losses("checkpoint/whole"), abs=1e-6)


def test_from_another_working_directory(typed, begun, place, monkeypatch):
    Path("elsewhere").mkdir()
    Path("elsewhere/text.txt").write_text("nothing but this " * 50)
    monkeypatch.chdir("elsewhere")
    assert typed(checkpoint_dir=place / "checkpoint", steps=1, sample_every=3, sample_length=2)[0] == 0
    assert (place / "samples/run1/samples-3").is_file()
    monkeypatch.chdir(place)
    assert typed(steps=1)[0] == 0
    assert typed(**{**begun, "run_name": "whole", "steps": 4})[0] == 0
    assert losses() == pytest.approx(losses("checkpoint/whole"), abs=1e-6)


def test_a_run_that_was_moved_with_its_text(typed, begun, place, monkeypatch):
    shutil.copytree(place, place / "inner/new")
    kept = json.loads(KEPT.read_text())
    Path("inner/new", KEPT).write_text(json.dumps({**kept, "directory": "/of/another/machine"}))
    monkeypatch.chdir("inner/new")
    assert typed(steps=1)[0] == 0


def test_an_interrupted_run_goes_on_to_its_own_end(typed, begun):
    flags = {**begun, "run_name": "parts", "steps": 5, "lr_schedule": "linear"}
    assert interrupted_after(2, lambda: typed(**flags))[0] == cli.EXIT_INTERRUPTED
    assert typed(run_name="parts")[0] == 0
    assert typed(**{**flags, "run_name": "whole"})[0] == 0
    assert losses("checkpoint/parts") == pytest.approx(losses("checkpoint/whole"), abs=1e-6)
    status, _, err = typed(run_name="parts")
    assert (status, err) == (0, "checkpoint/parts has made 5 updates already; give steps for so many more\n")
    assert typed(run_name="parts", stop_after=6)[0] == 0


def test_what_is_different_is_said_in_one_line(typed, begun):
    status, _, err = typed(dataset="other.txt", learning_rate=0.001, batch_size=2, clip_norm=1, steps=1)
    assert status == 0 and err.splitlines()[0] == (
        "checkpoint/run1 goes on with dataset other.txt instead of the run's text.txt,"
        " with learning_rate 0.001 instead of the run's 0.01, with clip_norm 1.0 instead of the run's 0.0"
    )
    assert "instead of" not in typed(steps=1, dataset=Path("other.txt").resolve())[2]


def test_the_default_rate_of_a_new_model_stays(typed, place):
    assert typed(dataset="text.txt", from_scratch=True, steps=1, sample_every=0, **SIZES)[0] == 0
    assert typed(steps=1)[0] == 0
    rates = [json.loads(line)["learning_rate"] for line in (FOLDER / "progress.jsonl").read_text().splitlines()]
    assert rates == [0.001, 0.001]


@pytest.mark.parametrize(
    "other, said",
    [
        ({"model_name": "355M"}, "begun with model_name "),
        ({"from_scratch": True}, "begun with model_name "),
        ({"vocabulary": "models"}, "begun with model_name "),
        ({"n_layer": 3}, "begun with model_name "),
    ],
)
def test_another_model_for_a_run_is_refused(typed, begun, other, said):
    before = files_below("checkpoint")
    status, _, err = typed(steps=1, **other)
    assert status == 2 and said in err and "restore_from fresh" in err and err.count("\n") == 1
    assert files_below("checkpoint") == before


def test_other_sizes_for_a_run_are_refused(typed, place):
    flags = {"dataset": "text.txt", "from_scratch": True, "sample_every": 0, **SIZES}
    assert typed(steps=1, **flags)[0] == 0
    assert typed(steps=1, **flags)[0] == 0
    for name, other in [("n_embd", 32), ("n_vocab", 300)]:
        status, _, err = typed(**{**flags, name: other})
        assert status == 2 and f"begun with {name} {flags[name]}, not with {name} {other}: leave {name} out" in err
    assert "begun with from_scratch, not with model_name 124M" in typed(model_name="124M")[2]


def test_the_same_model_by_another_name(typed, begun, tiny_dir):
    kept = json.loads(KEPT.read_text())
    for name, same in [("124M", "117M"), (str(tiny_dir), os.path.relpath(tiny_dir))]:
        KEPT.write_text(json.dumps({**kept, "settings": {**kept["settings"], "model_name": name}}))
        assert typed(steps=1, model_name=same)[0] == 0


def test_a_run_without_settings_takes_the_defaults(typed, begun, tiny_dir):
    KEPT.unlink()
    status, _, err = typed(steps=1)
    assert status == 2 and "dataset is missing" in err and err.count("\n") == 1
    assert typed(dataset="text.txt", model_name=tiny_dir, steps=1)[0] == 0
    assert json.loads((FOLDER / "progress.jsonl").read_text().splitlines()[-1])["learning_rate"] == FINE_TUNING_RATE


def test_settings_of_another_version(typed, begun):
    kept = json.loads(KEPT.read_text())
    del kept["settings"]["clip_norm"]
    KEPT.write_text(json.dumps({**kept, "settings": {**kept["settings"], "warp": 9}}))
    status, _, err = typed(steps=1)
    assert status == 0 and "checkpoint/run1 goes on without warp, which this version does not know" in err


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"settings": 5}', b"\xff", b'{"directory": ".", "settings": {"batch_size": "x"}}']
)
def test_damaged_settings(typed, begun, text):
    KEPT.write_bytes(text)
    status, _, err = typed(steps=1)
    assert status == 1 and err.startswith(f"error: {KEPT} is damaged") and "delete it and type" in err
    assert err.count("\n") == 1


def test_several_workers_go_by_what_is_typed(begun, monkeypatch):
    monkeypatch.setattr(run_settings.distribution, "worker_count", lambda: 2)
    assert run_settings.combine_settings({"dataset": "text.txt"}) == TrainingSettings("text.txt")


def test_a_new_run_needs_its_own_flags(typed, begun):
    for flags in ({}, {"restore_from": "fresh"}, {"restore_from": "checkpoint/run1"}):
        status, _, err = typed(**{"run_name": "other", "steps": 1, **flags})
        assert status == 2 and "dataset is missing" in err and err.count("\n") == 1
    assert "dataset is missing" in typed(restore_from="fresh")[2]


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"val_dataset": "other.txt"}, "val_dataset is of no effect without val_every: give val_every too"),
        ({"val_split": 0.2}, "val_split is of no effect without val_every"),
        ({"vocabulary": "models"}, "vocabulary is of no effect without from_scratch: give from_scratch too"),
        ({"n_layer": 3}, "n_layer is of no effect without from_scratch"),
        ({"from_scratch": True, "model_name": "124M"}, "give from_scratch or model_name, not both"),
        ({"from_scratch": True, "vocabulary": "x", "n_vocab": 300}, "give vocabulary or n_vocab, not both"),
        ({"val_every": 5, "val_dataset": "x", "val_split": 0.2}, "give val_dataset or val_split, not both"),
        ({"csv_header": True}, "csv_header is of no effect: there is no .csv in text.txt"),
        ({"csv_start": "<|startoftext|>"}, "csv_start is of no effect: there is no .csv in text.txt"),
    ],
)
def test_flags_that_nothing_would_come_of(typed, flags, said):
    status, _, err = typed(dataset="text.txt", **flags)
    assert status == 2 and said in err and err.count("\n") == 1
    assert not Path("checkpoint").exists()


@pytest.mark.parametrize("flags", [{"dataset": "typo.txt"}, {"dataset": "short.txt"}, {"n_vocab": 5}, {"n_ctx": 5000}])
def test_what_a_fresh_run_is_refused_for_leaves_the_old_one(typed, place, flags):
    old = {"dataset": "text.txt", "from_scratch": True, "sample_every": 0, **SIZES}
    assert typed(steps=1, **old)[0] == 0
    before = files_below(".")
    status, _, err = typed(**{**old, "steps": 1, "restore_from": "fresh", **flags})
    assert status in (1, 2) and err.count("error:") == 1
    assert files_below(".") == before and os.listdir("checkpoint") == ["run1"]


def test_what_is_refused_leaves_no_folder(typed, place):
    status, _, err = typed(dataset="short.txt", from_scratch=True, **SIZES)
    assert status == 1 and "one window is" in err
    assert not Path("checkpoint").exists() and not Path("samples").exists()


def test_a_fresh_model_moves_the_old_one_aside(typed, place):
    flags = {"dataset": "text.txt", "from_scratch": True, "sample_every": 0, "steps": 1, **SIZES}
    assert typed(**flags)[0] == 0
    before = weights()
    assert typed(**{**flags, "restore_from": "fresh", "n_embd": 32, "n_vocab": 270})[0] == 0
    [aside] = [path for path in Path("checkpoint").iterdir() if path.name != "run1"]
    assert weights(aside).keys() == before.keys()
    assert open_model_dir(FOLDER).hparams.n_embd == 32


def test_what_cannot_be_read_is_not_called_damaged(typed, begun, monkeypatch):
    opened = Path.open

    def refuse(path, *arguments, **named):
        if path.name.startswith("training-2.data"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    status, _, err = typed(steps=1)
    assert status == 1 and "cannot be read: Permission denied" in err and "damaged" not in err and "remove" not in err


def test_no_memory_is_not_called_damage(typed, begun, monkeypatch):
    def no_memory(self, name):
        raise MemoryError

    monkeypatch.setattr(checkpoint.Checkpoint, "weight", no_memory)
    status, _, err = typed(steps=1)
    assert status == 1 and "not enough memory" in err and "remove" not in err


def test_what_is_kept(place, monkeypatch):
    settings = TrainingSettings("text.txt")
    monkeypatch.setattr(run_settings.os, "getcwd", lambda: "/here")
    run_settings.write_settings(settings, 5, 1)
    kept = json.loads(KEPT.read_text())
    assert kept["directory"] == "/here" and kept["settings"]["stop_after"] == 5 and kept["settings"]["seed"] == 1
    assert not {"run_name", "checkpoint_dir", "restore_from", "steps", "threads"} & kept["settings"].keys()
