"""The model that comes with the repository."""

import math
from pathlib import Path

import pytest
import tensorflow as tf
from tiny import with_tensorflow

from gpt2 import generate
from gpt2.errors import GPT2Error
from gpt2.formats import model_dir
from gpt2.request import Request, Sampling
from gpt2.training import forward

FOLDER = Path(__file__).resolve().parents[1] / "models/shakespeare"
# Not part of its training text.
HAMLET = """To be, or not to be, that is the question:
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune,
Or to take arms against a sea of troubles,
And by opposing end them.
"""


@pytest.fixture(scope="module")
def shakespeare():
    return generate.load("shakespeare")


def test_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000


def test_it_predicts_text_that_it_was_not_trained_on(shakespeare):
    ids = [shakespeare.encoder.end_of_text, *shakespeare.encoder.encode(HAMLET)]
    weights = with_tensorflow(FOLDER).backend.weights
    nats = float(forward.mean_loss(weights, shakespeare.hparams, tf.constant([ids]))) * (len(ids) - 1)
    assert nats / math.log(2) / len(HAMLET.encode()) < 2.6  # bits per byte; an untrained model needs 8


def test_it_generates_plays(shakespeare):
    sampling = Sampling(top_k=40, temperature=0.8)
    [text] = generate.generate(shakespeare, [Request("ROMEO:", 200, sampling, seed=1)])
    assert any(line.endswith(":") and line[:1].isupper() for line in text.splitlines())
    assert "\ufffd" not in text and len(text) > 400


def test_the_error_for_a_missing_model_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GPT2Error, match="download it: .*or use an available model: --model_name shakespeare"):
        model_dir.find_model("124M")


def test_an_installed_model_is_found(tmp_path, monkeypatch, tiny_dir):
    monkeypatch.setattr(model_dir, "INSTALLED_MODELS", tiny_dir.parent)
    monkeypatch.setattr(model_dir, "CHECKOUT", tmp_path)
    assert model_dir.find_model("tiny").path == tiny_dir
