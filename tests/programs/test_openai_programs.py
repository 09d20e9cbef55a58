"""Programs written for OpenAI's modules, run unchanged, each in its own process."""

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
    """A folder of models: the reference, another one of the same size, and the tiny one."""
    folder = tmp_path_factory.mktemp("workdir") / "models"
    folder.mkdir()
    (folder / "small").symlink_to(small_dir)
    (folder / "tiny").symlink_to(tiny_dir)
    tiny.write_gpt2_model(folder / "other", vocabulary, load_hparams(small_dir / "hparams.json"), seed=3)
    return folder


def run(program, *arguments, stdin=None, cwd=None, flags=(), **extra):
    """Run a program; return the JSON that it writes to stdout, and its stderr."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")}
    result = subprocess.run(
        [sys.executable, *flags, str(HERE / program), *map(str, arguments)],
        input=json.dumps(stdin).encode(),
        capture_output=True,
        cwd=cwd,
        timeout=300,
        env={**environ, "PYTHONPATH": str(CHECKOUT / "src"), **extra},
    )
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stdout), result.stderr.decode()


def test_a_server(models, encoder):
    """With top_k 1 it generates what OpenAI's own code generated."""
    answers, stderr = run("openai_server.py", "small", models, stdin=tiny.GOLDEN["prompts"])
    assert answers == [encoder.decode(ids) for ids in expected()]
    assert not stderr, "TensorFlow's own messages are suppressed"


def test_a_server_of_a_trained_model(reference):
    """With a model of nshepperd's train.py it generates what OpenAI's own code generated."""
    original = json.loads((reference / "bard.json").read_text(encoding="utf-8"))
    answers, _ = run("openai_server.py", "bard", reference, stdin=original["prompts"])
    vocabulary = load_encoder(reference / "bard")
    assert answers == [vocabulary.decode(ids) for ids in original["greedy"]]


def expected():
    return tiny.GOLDEN["greedy"]


def test_graphs(models):
    prompt, ids = tiny.GOLDEN["prompts"][0], tiny.GOLDEN["tokens"][0]
    results, _ = run("openai_graphs.py", models, stdin={"prompt": prompt, "ids": ids})
    assert [row[:40] for row in results["half a window"]] == [expected()[0]] * 2 and len(
        results["half a window"][0]
    ) == 64
    first, second, third = results["two models"]
    assert first["small"][len(ids) :] == second["small"][len(ids) :] == third["small"][len(ids) :] == expected()[0][:20]
    assert second["other"] == third["other"] != first["small"]
    own = results["own loops"]
    assert own["generated"] == expected()[0][:5] and own["shape"] == [1, 2, 2, 4, len(ids) + 5, 16]
    np.testing.assert_allclose(own["sums"], 1, atol=1e-5)
    lengths = results["lengths"]
    assert len(lengths["long"]) == 1023 + 4 and lengths["shapes"] == [[2, 60], [2, 21]] and not lengths["again"]
    assert lengths["empty"] == lengths["end of text"][1:]


def test_training_and_export(tiny_dir, tmp_path):
    results, _ = run("openai_training.py", tiny_dir, tmp_path)
    assert results["losses"][-1] < results["losses"][0] / 2 and results["shape"] == [2, 21]
    assert abs(results["fresh"] - np.log(280)) < 0.1, "new weights predict all ids with equal probability"
    hparams = load_hparams(tiny_dir / "hparams.json")
    assert checkpoint.Checkpoint(tmp_path / "model-12").shapes == checkpoint.variable_shapes(hparams)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model-12")
    weights = as_tensors(checkpoint.read_weights(tmp_path / "model-12", hparams))
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    ids = tf.constant([[1, 2, 3], [4, 5, 6]])
    assert served(context=ids)["sample"].numpy().tolist() == results["served"]
    for _ in range(5):
        ids = tf.concat([ids, tf.argmax(model.model(weights, hparams, ids)[0][:, -1:], -1, tf.int32)], axis=1)
    assert ids.numpy().tolist() == results["served"]


def test_paths(tiny_dir, tmp_path):
    """The dependencies are installed but this package is not; its modules are imported by their paths."""
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
        "import tensorflow\nhas_session = lambda: hasattr(tensorflow, 'Session')"
    )
    path = os.pathsep.join([sysconfig.get_path("purelib"), str(library), str(tmp_path)])
    results, _ = run("openai_paths.py", cwd=tmp_path, flags=["-S"], PYTHONPATH=path)
    directory = open_model_dir(tiny_dir)
    assert results["ids"] == [[83, 71, 68, 261]] * 4 and directory.hparams.n_vocab == 280
    assert results["sizes"] == [1024, 768, 12, 12, 0]
    placeholder, summary, nothing = results["messages"]
    assert "tf.placeholder is part of a graph" in placeholder and "disable_eager_execution" in placeholder
    assert summary.endswith("write import tensorflow.compat.v1 as tf") and "has no attribute 'nothing'" in nothing
    one, other = results["generated"]
    assert one == other and len(one[0]) == 4 + 5
    assert (results["program"], results["library"], results["rest"]) == (True, False, [False, False, True])
