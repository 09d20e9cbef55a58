"""Training does not start from weights, or resume with an optimizer's state, that hold NaN or infinity."""

import shutil

import numpy as np
import pytest
import tiny

from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.openai.checkpoint import Checkpoint
from gpt2.formats.weights import flatten, nest
from gpt2.training.checkpoints import tensorflow_checkpoint

ADVICE = "; use an earlier checkpoint, or fetch or convert the model again\n"


def error_line(err):
    (line,) = [line for line in err.splitlines(keepends=True) if line.startswith("error: ")]
    assert err.endswith(line)
    return line


def save_with(folder, source, name, value):
    """Save a model's weights with one changed number."""
    arrays = dict(flatten(tiny.read_model(source)))
    arrays[name] = np.array(arrays[name])
    arrays[name].reshape(-1)[3] = value
    tensorflow_checkpoint.save(folder, nest(arrays.items()), open_model_dir(source).weights_path.name)


@pytest.mark.parametrize("name, value", [("model/wte", np.nan), ("model/h0/ln_2/b", np.inf), ("model/wpe", -np.inf)])
def test_a_run_does_not_start_from_them(run, tiny_dir, working_dir, name, value):
    shutil.copytree(tiny_dir, working_dir / "model")
    save_with(working_dir / "model", tiny_dir, name, value)
    status, _, err = run(model_name=working_dir / "model")
    line = error_line(err)
    assert status == 1 and f" is damaged: {name} holds " in line and line.endswith(ADVICE)
    assert str(working_dir / "model") in line and not list(working_dir.glob("checkpoint/*/model-*"))


def test_a_run_does_not_resume_with_them(run, working_dir):
    assert run(stop_after=1)[0] == 0
    folder = working_dir / "checkpoint/run1"
    state = {name: array for name, array in arrays_of(folder / "training-1").items()}
    name = min(name for name, array in state.items() if array.size > 3)
    state[name].reshape(-1)[3] = np.nan
    runs_before = {path: path.read_bytes() for path in folder.glob("model-1.*")}
    tensorflow_checkpoint._write_tensors(folder / "training-1", state)
    status, _, err = run(stop_after=2)
    assert status == 1
    assert f"{name} holds NaN; remove training-1.* to resume from the weights alone\n" in error_line(err)
    assert runs_before == {path: path.read_bytes() for path in folder.glob("model-1.*")}
    save_with(folder, folder, "model/h1/mlp/c_fc/w", np.inf)
    status, _, err = run(stop_after=2)
    assert status == 1 and "model/h1/mlp/c_fc/w holds infinity" in error_line(err)


def arrays_of(prefix):
    checkpoint = Checkpoint(prefix)
    return {name: np.array(checkpoint.weight(name).array()) for name in checkpoint.shapes}
