"""Training with a SentencePiece vocabulary: a new model, and a model of transformer-lm."""

from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
import tiny_lm

from gpt2.engine.reference import random_weights
from gpt2.errors import UsageError
from gpt2.formats.model_dir import find_model, load_vocabulary
from gpt2.formats.weights import flatten
from gpt2.hparams import HParams
from gpt2.training import run
from gpt2.training.settings import run_settings

pytest.importorskip("sentencepiece")
SIZES = {"n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 1}


@pytest.fixture(autouse=True)
def working_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(tiny_lm.TEXT * 10, encoding="utf-8")


def train(**settings):
    return run.train(run_settings.combine_settings({"dataset": "text.txt", **runs.QUICK, **settings}))


def test_resumed_new_model_equals_an_uninterrupted_one(sp_model):
    flags = {"from_scratch": True, "vocabulary": str(sp_model), **SIZES, "n_token_embd": 8, "val_every": 2}
    train(**flags, run_name="whole", stop_after=4)
    for end in (2, 4):
        folder = train(**flags, stop_after=end)
    runs.assert_same_weights(runs.weights(), runs.weights("whole"))
    model = find_model(str(folder))
    assert model.hparams == HParams(tiny_lm.PIECES, **SIZES, n_token_embd=8)
    assert load_vocabulary(model).files()["sp.model"] == sp_model.read_bytes()
    assert load_vocabulary(find_model(str(folder / "best"))).n_vocab == tiny_lm.PIECES
    with pytest.raises(UsageError, match="was started with n_token_embd 8, not with n_token_embd 4"):
        train(**flags | {"n_token_embd": 4}, stop_after=5)


def test_run_from_an_older_checkpoint_keeps_the_vocabulary(sp_model):
    flags = {"from_scratch": True, "vocabulary": str(sp_model), **SIZES, "save_every": 1}
    train(**flags, stop_after=3)
    with pytest.warns(UserWarning, match="resumes after 1 updates"):
        folder = train(restore_from="checkpoint/run1/model-1", stop_after=2)
    assert load_vocabulary(find_model(str(folder))).n_vocab == tiny_lm.PIECES


@pytest.mark.parametrize("hparams", [tiny_lm.HPARAMS, tiny_lm.WIDER])
@pytest.mark.parametrize("legacy", [False, True])
def test_fine_tuning_a_model_of_transformer_lm(tmp_path, sp_model, hparams, legacy):
    base = tiny_lm.write_model(tmp_path / "de", sp_model, hparams, legacy)
    folder = train(model_name=str(base), stop_after=3, sample_every=3, sample_length=5)
    model = find_model(str(folder))
    assert model.hparams == hparams and load_vocabulary(model).files()["sp.model"] == sp_model.read_bytes()
    first, now = dict(flatten(random_weights(hparams, seed=1))), tiny.read(model.weights_path, hparams)
    moved = [np.abs(value - first[name]).max() for name, value in flatten(now)]
    assert min(moved) > 0 and max(moved) < 0.1
    assert Path("samples/run1/samples-3").read_text(encoding="utf-8").startswith("======== SAMPLE 1 ========\n")
    again = train(model_name=str(base), stop_after=4)
    assert find_model(str(again)).weights_path.name == "model-4"
