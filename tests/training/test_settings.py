"""What a run is asked to do: values that are refused."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UsageError
from gpt2.training.settings import Settings


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
