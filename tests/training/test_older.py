"""The newest checkpoint of a run is damaged, or not wanted: an older one is named, and the run goes on from it."""

import re
from pathlib import Path

import pytest
from runs import assert_same_weights, losses, records, weights

from gpt2 import generate
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import open_model_dir
from gpt2.training.checkpoints import run_checkpoint, run_folder

FOLDER = Path("checkpoint/run1")
SGD = {"optimizer": "sgd", "learning_rate": 0.1}  # which remembers nothing: an older model goes on as it would have


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = [
    ("data-00000-of-00001", flipped),
    ("data-00000-of-00001", lambda path: path.write_bytes(path.read_bytes()[:1000])),
    ("data-00000-of-00001", Path.unlink),
    ("index", flipped),
    ("index", lambda path: path.write_bytes(b"")),
    ("index", Path.unlink),
]


def test_older_ones_are_named(run):
    run(stop_after=3, save_every=1)
    said = "older checkpoints exist, model-2, model-1: resume training with --restore_from checkpoint/run1/model-2,"
    said += " or name model-2 in checkpoint/run1/checkpoint"
    for end, damage in DAMAGES:
        path = FOLDER / f"model-3.{end}"
        whole = path.read_bytes()
        damage(path)
        status, _, err = run(stop_after=4)
        assert status == 1 and err.endswith(f"; {said}\n"), err
        with pytest.raises(GPT2Error, match=re.escape(said)):
            generate.load(str(FOLDER))
        path.write_bytes(whole)


def test_the_run_goes_on_from_an_older_one(run):
    run(run_name="whole", stop_after=6, val_every=2, **SGD)
    run(stop_after=4, save_every=1, val_every=2, **SGD)
    flipped(FOLDER / "model-4.data-00000-of-00001")
    flags = {"stop_after": 6, "val_every": 2, "seed": None, **SGD}
    status, _, err = run(restore_from="checkpoint/run1/model-2", **flags)
    assert status == 0 and re.search("is now checkpoint/run1-until-.*; this one goes on from 2 updates\n", err), err
    assert [record["step"] for record in records()] == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert losses() == pytest.approx(losses("whole"), abs=1e-6)
    assert_same_weights(weights(), weights("whole"))
    [aside] = Path("checkpoint").glob("run1-until-*")
    assert {path.name for path in aside.glob("model-*.index")} == {f"model-{step}.index" for step in (1, 2, 3, 4)}


def test_one_that_ends_before_its_first_save_has_begun_nevertheless(run, monkeypatch):
    run(stop_after=3, save_every=1)

    def broken(*_):
        raise GPT2Error("not now")

    with monkeypatch.context() as patch:
        patch.setattr(run_checkpoint, "save", broken)
        status, _, err = run(restore_from="checkpoint/run1/model-2", stop_after=3)
    assert status == 1 and "the optimiser adam starts anew: checkpoint/run1/model-2 came without its memory" in err
    assert run_folder.read_progress(open_model_dir(FOLDER).weights_path).step == 2
    assert run(stop_after=3)[0] == 0 and list(losses()) == [1, 2, 3]


def test_the_newest_is_the_run_itself(run):
    run(stop_after=1)
    status, _, err = run(restore_from="checkpoint/run1", steps=1)
    assert status == 0 and "anew" not in err and "is now" not in err
    assert list(losses()) == [1, 2]
    assert [path.name for path in Path("checkpoint").iterdir()] == ["run1"]


def test_an_older_one_that_the_state_file_names(run):
    """As the message says."""
    run(stop_after=3, save_every=1, **SGD)
    expected = losses()
    state = FOLDER / "checkpoint"
    state.write_text(state.read_text().replace("model-3", "model-2"))
    assert generate.load(str(FOLDER))
    assert run(stop_after=4, seed=None, **SGD)[0] == 0
    assert list(losses()) == [1, 2, 3, 4] and losses()[3] == pytest.approx(expected[3], abs=1e-6)
