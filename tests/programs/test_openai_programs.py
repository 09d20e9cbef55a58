"""Programs written on OpenAI's modules, run as they are: each in a process of its own."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny

from gpt2 import model
from gpt2.formats.openai.vocabulary import load_encoder
from gpt2.engine.tensorflow import as_tensors
from gpt2.formats.openai import checkpoint
from gpt2.formats.model_dir import open_model_dir
from gpt2.hparams import load_hparams

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_dir, small_dir, vocabulary):
    """A folder of models: the reference, another of its size, and the tiny one."""
    folder = tmp_path_factory.mktemp("place") / "models"
    folder.mkdir()
    (folder / "small").symlink_to(small_dir)
    (folder / "tiny").symlink_to(tiny_dir)
    tiny.write_gpt2_model(folder / "other", vocabulary, load_hparams(small_dir / "hparams.json"), seed=3)
    return folder


def run(program, *arguments, given=None, cwd=None, flags=(), **extra):
    """What the program writes, JSON, and what it complains of."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")}
    result = subprocess.run(
        [sys.executable, *flags, str(HERE / program), *map(str, arguments)],
        input=json.dumps(given).encode(),
        capture_output=True,
        cwd=cwd,
        timeout=300,
        env={**kept, "PYTHONPATH": str(CHECKOUT / "src"), **extra},
    )
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stdout), result.stderr.decode()


def test_a_server(models, encoder):
    """One session, one tensor, run for each message; with top_k 1 what OpenAI's own code wrote."""
    answers, said = run("openai_server.py", "small", models, given=tiny.GOLDEN["prompts"])
    assert answers == [encoder.decode(ids) for ids in expected()]
    assert not said, "TensorFlow's chatter is held back"


def test_a_server_of_a_trained_model(reference):
    """One that nshepperd's train.py made; what OpenAI's own code wrote with it."""
    theirs = json.loads((reference / "bard.json").read_text(encoding="utf-8"))
    answers, _ = run("openai_server.py", "bard", reference, given=theirs["prompts"])
    vocabulary = load_encoder(reference / "bard")
    assert answers == [vocabulary.decode(ids) for ids in theirs["greedy"]]


def expected():
    return tiny.GOLDEN["greedy"]


def test_graphs(models):
    prompt, ids = tiny.GOLDEN["prompts"][0], tiny.GOLDEN["tokens"][0]
    found, _ = run("openai_graphs.py", models, given={"prompt": prompt, "ids": ids})
    assert [row[:40] for row in found["half a window"]] == [expected()[0]] * 2 and len(found["half a window"][0]) == 64
    first, second, third = found["two models"]
    assert first["small"][len(ids) :] == second["small"][len(ids) :] == third["small"][len(ids) :] == expected()[0][:20]
    assert second["other"] == third["other"] != first["small"]
    own = found["own loops"]
    assert own["written"] == expected()[0][:5] and own["shape"] == [1, 2, 2, 4, len(ids) + 5, 16]
    np.testing.assert_allclose(own["sums"], 1, atol=1e-5)
    lengths = found["lengths"]
    assert len(lengths["long"]) == 1023 + 4 and lengths["shapes"] == [[2, 60], [2, 21]] and not lengths["again"]
    assert lengths["empty"] == lengths["from the end of a text"][1:]


def test_training_and_export(tiny_dir, tmp_path):
    found, _ = run("openai_training.py", tiny_dir, tmp_path)
    assert found["losses"][-1] < found["losses"][0] / 2 and found["shape"] == [2, 21]
    assert abs(found["fresh"] - np.log(280)) < 0.1, "new weights know nothing"
    hparams = load_hparams(tiny_dir / "hparams.json")
    assert checkpoint.Checkpoint(tmp_path / "model-12").shapes == checkpoint.variable_shapes(hparams)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model-12")
    weights = as_tensors(checkpoint.read_weights(tmp_path / "model-12", hparams))
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    ids = tf.constant([[1, 2, 3], [4, 5, 6]])
    assert served(context=ids)["sample"].numpy().tolist() == found["served"]
    for _ in range(5):
        ids = tf.concat([ids, tf.argmax(model.model(weights, hparams, ids)[0][:, -1:], -1, tf.int32)], axis=1)
    assert ids.numpy().tolist() == found["served"]


def test_paths(tiny_dir, tmp_path):
    """Nothing is installed but the packages; the modules are reached by their paths."""
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator/gpt2").symlink_to(CHECKOUT)
    (tmp_path / "src").mkdir()
    for name in ("gpt2", "encoder.py", "model.py"):
        (tmp_path / "src" / name).symlink_to(CHECKOUT / "src" / name)
    for folder, name in (("models", "tiny"), ("checkpoint", "run1")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).symlink_to(tiny_dir)
    library = tmp_path / "lib/site-packages"
    library.mkdir(parents=True)
    (library / "asks_for_tensorflow_1.py").write_text(
        "import tensorflow\nfound = lambda: hasattr(tensorflow, 'Session')"
    )
    path = os.pathsep.join([sysconfig.get_path("purelib"), str(library), str(tmp_path)])
    found, _ = run("openai_paths.py", cwd=tmp_path, flags=["-S"], PYTHONPATH=path)
    ids = open_model_dir(tiny_dir)
    assert found["ids"] == [[83, 71, 68, 261]] * 4 and ids.hparams.n_vocab == 280
    assert found["sizes"] == [1024, 768, 12, 12, 0]
    placeholder, summary, nothing = found["said"]
    assert "tf.placeholder is part of a graph" in placeholder and "disable_eager_execution" in placeholder
    assert summary.endswith("write import tensorflow.compat.v1 as tf") and "has no attribute 'nothing'" in nothing
    one, other = found["written"]
    assert one == other and len(one[0]) == 4 + 5
    assert (found["own"], found["library"], found["rest"]) == (True, False, [False, False, True])
