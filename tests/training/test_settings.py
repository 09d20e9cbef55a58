"""What a run is asked to do: values that are refused, and settings that are kept with it."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tiny

from gpt2.cli import command as cli
from gpt2.cli.training_flags import FLAGS
from gpt2.errors import UsageError
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.weights import leaves
from gpt2.training.settings import Settings
from train import train

TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40
FOLDER = Path("checkpoint/run1")
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
        status = cli.main(train, [f"--{name}={value}" for name, value in flags.items()], FLAGS)
        return status, *capsys.readouterr()

    return typed


def weights(folder=FOLDER):
    return {name: np.array(value) for name, value in leaves(tiny.read_model(Path(folder)))}


def files_below(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


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
    ],
)
def test_values_that_are_refused(wrong, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        Settings(**{"dataset": "x", **wrong})


def test_numbers_of_numpy_and_paths_are_let_in():
    settings = Settings(Path("x.txt"), batch_size=np.int64(2), learning_rate=np.float32(0.5), seed=None)
    assert settings == Settings("x.txt", batch_size=2, learning_rate=0.5)
    json.dumps(dataclasses.asdict(settings))


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
