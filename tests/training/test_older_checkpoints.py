"""Resuming from an older checkpoint of a run because the newest one is damaged or unwanted."""

import re
from pathlib import Path

import pytest
from runs import assert_same_weights, losses, records, weights

from gpt2 import generate
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import open_model_dir
from gpt2.training.checkpoints import run_checkpoint, run_folder

FOLDER = Path("checkpoint/run1")
SGD = {"optimizer": "sgd", "learning_rate": 0.1}  # it has no state, so a resumed older model trains as the run did


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGED_FILES = [
    ("data-00000-of-00001", flip_bit),
    ("data-00000-of-00001", lambda path: path.write_bytes(path.read_bytes()[:1000])),
    ("data-00000-of-00001", Path.unlink),
    ("index", flip_bit),
    ("index", lambda path: path.write_bytes(b"")),
    ("index", Path.unlink),
]


def test_error_names_older_checkpoints(run):
    run(stop_after=3, save_every=1)
    advice = "older checkpoints exist, model-2, model-1: resume training with --restore_from checkpoint/run1/model-2,"
    advice += " or name model-2 in checkpoint/run1/checkpoint"
    for suffix, damage in DAMAGED_FILES:
        path = FOLDER / f"model-3.{suffix}"
        whole = path.read_bytes()
        damage(path)
        status, _, err = run(stop_after=4)
        assert status == 1 and err.endswith(f"; {advice}\n"), err
        with pytest.raises(GPT2Error, match=re.escape(advice)):
            generate.load(str(FOLDER))
        path.write_bytes(whole)


def test_resuming_from_an_older_checkpoint(run):
    run(run_name="whole", stop_after=6, val_every=2, **SGD)
    run(stop_after=4, save_every=1, val_every=2, **SGD)
    flip_bit(FOLDER / "model-4.data-00000-of-00001")
    flags = {"stop_after": 6, "val_every": 2, "seed": None, **SGD}
    status, _, err = run(restore_from="checkpoint/run1/model-2", **flags)
    assert status == 0 and re.search("is now checkpoint/run1-until-.*; this run resumes after 2 updates\n", err), err
    assert [record["step"] for record in records()] == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert losses() == pytest.approx(losses("whole"), abs=1e-6)
    assert_same_weights(weights(), weights("whole"))
    [old_run] = Path("checkpoint").glob("run1-until-*")
    assert {path.name for path in old_run.glob("model-*.index")} == {f"model-{step}.index" for step in (1, 2, 3, 4)}


def test_run_from_an_older_checkpoint_that_fails_before_its_first_save_can_be_resumed(run, monkeypatch):
    run(stop_after=3, save_every=1)

    def broken(*_):
        raise GPT2Error("not now")

    with monkeypatch.context() as patch:
        patch.setattr(run_checkpoint, "save", broken)
        status, _, err = run(restore_from="checkpoint/run1/model-2", stop_after=3)
    assert status == 1 and "the optimizer adam starts without a state: checkpoint/run1/model-2 has none for it" in err
    assert run_folder.read_progress(open_model_dir(FOLDER).weights_path).step == 2
    assert run(stop_after=3)[0] == 0 and list(losses()) == [1, 2, 3]


def test_the_newest_checkpoint_resumes_the_run(run):
    run(stop_after=1)
    status, _, err = run(restore_from="checkpoint/run1", steps=1)
    assert status == 0 and "without a state" not in err and "is now" not in err
    assert list(losses()) == [1, 2]
    assert [path.name for path in Path("checkpoint").iterdir()] == ["run1"]


def test_older_checkpoint_named_in_the_state_file(run):
    """The error message suggests this."""
    run(stop_after=3, save_every=1, **SGD)
    expected = losses()
    state = FOLDER / "checkpoint"
    state.write_text(state.read_text().replace("model-3", "model-2"))
    assert generate.load(str(FOLDER))
    assert run(stop_after=4, seed=None, **SGD)[0] == 0
    assert list(losses()) == [1, 2, 3, 4] and losses()[3] == pytest.approx(expected[3], abs=1e-6)
