"""The transformer compared with OpenAI's outputs and with NumPy."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny import GOLDEN, with_tensorflow

from gpt2 import model
from gpt2.engine import reference as numpy_gpt2


@pytest.mark.parametrize("number", range(5))
def test_logits_equal_those_of_the_original(small_model, number):
    tokens = tf.constant([GOLDEN["tokens"][number]])
    logits, _, _ = model.model(small_model.backend.weights, small_model.hparams, tokens)
    np.testing.assert_allclose(logits[0, -1, :: GOLDEN["every"]], GOLDEN["last_logits"][number], rtol=0, atol=1e-4)


def test_logits_equal_those_of_numpy(tiny_model):
    tokens = np.random.default_rng(0).integers(tiny_model.hparams.n_vocab, size=(3, 32))
    logits, _, _ = model.model(tiny_model.backend.weights, tiny_model.hparams, tf.constant(tokens, tf.int32))
    for row in range(3):
        expected = numpy_gpt2.logits(tiny_model.backend.weights, tiny_model.hparams, tokens[row].tolist())
        np.testing.assert_allclose(logits[row], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("split", [1, 5, 11])
def test_logits_with_and_without_a_cache_are_equal(tiny_model, split):
    weights, hparams = tiny_model.backend.weights, tiny_model.hparams
    tokens = tf.constant(np.random.default_rng(1).integers(hparams.n_vocab, size=(2, 12)), tf.int32)
    whole, _, _ = model.model(weights, hparams, tokens)
    first, keys, values = model.model(weights, hparams, tokens[:, :split])
    rest, _, _ = model.model(
        weights, hparams, tokens[:, split:], model.Cache(keys, values, tf.constant([split, split]))
    )
    np.testing.assert_allclose(tf.concat([first, rest], axis=1), whole, rtol=0, atol=1e-5)


def test_unused_cache_slots_are_masked(tiny_model):
    weights, hparams = tiny_model.backend.weights, tiny_model.hparams
    tokens = tf.constant([[1, 2, 3, 4]])
    _, keys, values = model.model(weights, hparams, tokens[:, :3])
    keys, values = ([tf.concat([x[:, :, :2], x[:, :, 2:] + 100], axis=2) for x in kind] for kind in (keys, values))
    logits, _, _ = model.model(weights, hparams, tokens[:, 2:3], model.Cache(keys, values, tf.constant([2])))
    whole, _, _ = model.model(weights, hparams, tokens[:, :3])
    np.testing.assert_allclose(logits[0, -1], whole[0, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["small", "bard"])
def test_reference_checkpoints(reference, small_dir, name):
    directory = small_dir if name == "small" else reference / name
    loaded = with_tensorflow(directory)
    outputs = np.load(reference / f"{name}.npz")
    for number, tokens in enumerate(json.loads((reference / f"{name}.json").read_text())["tokens"]):
        logits, _, _ = model.model(loaded.backend.weights, loaded.hparams, tf.constant([tokens]))
        np.testing.assert_allclose(logits[0, -1], outputs[f"last{number}"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(tf.reduce_logsumexp(logits[0], -1), outputs[f"lse{number}"], rtol=0, atol=1e-4)
