"""The estimated memory of training compared with measured peaks."""

from pathlib import Path

import pytest

from gpt2.cli import command as cli
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import RELEASED_MODELS
from gpt2.hparams import HParams
from gpt2.training import estimate
from gpt2.training.settings.settings import TrainingSettings
from train import train

SMALL, WIDE = HParams(4096, 256, 192, 6, 6), HParams(16000, 512, 512, 8, 8)
SAVING, BFLOAT16 = {"memory_saving_gradients": True}, {"precision": "bfloat16"}


# Peaks in MB that `benchmarks/training_memory.py` measured.
@pytest.mark.parametrize(
    "hparams, settings, peak",
    [
        (SMALL, {}, 728),
        (SMALL, {"batch_size": 16}, 1216),
        (SMALL, {"batch_size": 32, **SAVING}, 1056),
        (SMALL, {"batch_size": 32, **BFLOAT16}, 1355),
        (WIDE, {}, 1398),
        (WIDE, {"batch_size": 8}, 2945),
        (WIDE, {"batch_size": 8, **SAVING}, 1706),
        (WIDE, {"batch_size": 8, **BFLOAT16}, 2137),
        (RELEASED_MODELS["124M"], {}, 3890),
        (RELEASED_MODELS["124M"], {"batch_size": 2}, 5065),
        (RELEASED_MODELS["124M"], SAVING, 3044),
        (RELEASED_MODELS["124M"], BFLOAT16, 3507),
        (RELEASED_MODELS["124M"], {**BFLOAT16, **SAVING}, 3159),
        (RELEASED_MODELS["124M"], {"batch_size": 2, **BFLOAT16}, 4291),
        (RELEASED_MODELS["124M"], {"batch_size": 2, **SAVING}, 3458),
        (RELEASED_MODELS["124M"], {"accumulate_gradients": 2, **SAVING}, 4019),
        (RELEASED_MODELS["124M"], {"accumulate_gradients": 2}, 4630),
        (RELEASED_MODELS["124M"], {"clip_norm": 1.0, **SAVING}, 3081),
        (RELEASED_MODELS["124M"], {"optimizer": "adafactor", **SAVING}, 2067),
    ],
)
def test_the_estimate_is_near_the_measured_peak(hparams, settings, peak):
    assert 0.95 < estimate.estimate_memory(hparams, TrainingSettings("x", **settings)) / 1e6 / peak < 1.08


def test_settings_that_need_more_memory():
    def needed(**settings):
        return estimate.estimate_memory(RELEASED_MODELS["124M"], TrainingSettings("x", **SAVING, **settings))

    assert needed(only_train_transformer_layers=True) < needed()
    assert needed() < needed(val_every=1) < needed(val_every=1, val_batch_size=8)


@pytest.mark.parametrize("name", ["batch_size", "accumulate_gradients", "val_batch_size"])
def test_impossible_memory_is_rejected(name):
    settings = TrainingSettings("x", val_every=1, **{name: 10**9})
    with pytest.raises(GPT2Error, match=r"training will need about [\d,]+\.\d\d GB of memory, but .* are free"):
        estimate.check_resources(RELEASED_MODELS["124M"], settings)


def test_absurd_batch_size_gives_one_line(tmp_path, monkeypatch, capsys, tiny_dir):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on the mat\n" * 40)
    flags = ["text.txt", f"--model_name={tiny_dir}", "--batch_size=1000000000"]
    assert cli.main(train, flags) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: training will need about ") and err.count("\n") == 1
    assert not Path("checkpoint").exists()
