"""The loss and its gradients against the original's numbers and against plain automatic differentiation."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny import GOLDEN, with_tensorflow
from variants import VARIANTS, name_of

from gpt2 import model
from gpt2.engine.reference import random_weights
from gpt2.formats.weights import flatten
from gpt2.hparams import HParams
from gpt2.training import block, forward
from gpt2.training.block import ForwardOptions
from gpt2.training.forward import loss_and_gradients

HPARAMS = HParams(n_vocab=300, n_ctx=16, n_embd=32, n_head=4, n_layer=3)
SEED = tf.constant([1, 2])


@pytest.fixture(scope="module")
def weights():
    return random_weights(HPARAMS, 0)


@pytest.fixture(scope="module")
def windows():
    return tf.constant(np.random.default_rng(0).integers(HPARAMS.n_vocab, size=(3, 13)), tf.int32)


def obvious(weights, windows, hparams=HPARAMS):
    """The same by TensorFlow's own means: all logits at once, everything on the tape."""
    variables = tf.nest.map_structure(tf.Variable, weights)
    with tf.GradientTape() as tape:
        logits, _, _ = model.model(variables, hparams, windows[:, :-1])
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(windows[:, 1:], logits))
    return loss, tf.nest.map_structure(tf.convert_to_tensor, tape.gradient(loss, variables))


PLAIN = ForwardOptions()


def computed(weights, windows, regime=PLAIN, embeddings=True, hparams=HPARAMS):
    function = tf.function(lambda x, y: loss_and_gradients(weights, hparams, x, y, regime, SEED, embeddings))
    return function(windows[:, :-1], windows[:, 1:])


def assert_same(found, expected, tolerance=1e-6):
    assert float(found[0]) == pytest.approx(float(expected[0]), abs=tolerance)
    found, expected = dict(flatten(found[1])), dict(flatten(expected[1]))
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "rows, queries",  # of logits at once: all 36, or in six parts; of a window's scores: all 12, or in three parts
    [(1024, 256), (7, 256), (1024, 5)],
)
def test_gradients_are_those_of_the_obvious_computation(weights, windows, monkeypatch, recompute, rows, queries):
    monkeypatch.setattr(forward, "HEAD_ROWS", rows)
    monkeypatch.setattr(block, "QUERIES", queries)
    assert_same(computed(weights, windows, ForwardOptions(recompute=recompute)), obvious(weights, windows))


def test_the_blocks_alone(weights, windows):
    loss, gradients = computed(weights, windows, embeddings=False)
    expected = obvious(weights, windows)
    assert_same((loss, gradients), (expected[0], {name: expected[1][name] for name in ("h0", "h1", "h2")}))


@pytest.mark.parametrize("hparams", VARIANTS, ids=name_of)
def test_gradients_of_variants(hparams):
    weights = random_weights(hparams, 0)
    windows = tf.constant(np.random.default_rng(0).integers(hparams.n_vocab, size=(3, 13)), tf.int32)
    expected = obvious(weights, windows, hparams)
    assert_same(computed(weights, windows, ForwardOptions(recompute=True), hparams=hparams), expected)
    loss = forward.mean_loss(weights, hparams, windows)
    assert float(loss) == pytest.approx(float(expected[0]), abs=1e-6)


def test_computing_again_drops_the_same(weights, windows):
    kept = computed(weights, windows, ForwardOptions(dropout=0.3))
    assert_same(computed(weights, windows, ForwardOptions(dropout=0.3, recompute=True)), kept)
    assert abs(float(kept[0]) - float(obvious(weights, windows)[0])) > 1e-4


def test_dropout_differs_from_layer_to_layer_and_keeps_the_mean():
    x, seeds = tf.ones([200, 50]), [tf.random.fold_in(SEED, layer) for layer in (0, 1)]
    masks = [block.drop(x, ForwardOptions(dropout=0.25), seed, number) for seed in seeds for number in (0, 1)]
    for mask in masks:
        assert float(tf.reduce_mean(mask)) == pytest.approx(1, abs=0.03)
    for a, b in ((0, 1), (0, 2), (1, 3)):
        assert float(tf.reduce_mean(tf.cast(masks[a] == masks[b], tf.float32))) < 0.8


def test_bfloat16_is_near(weights, windows):
    loss, gradients = computed(weights, windows, ForwardOptions(dtype=tf.bfloat16))
    expected_loss, expected = obvious(weights, windows)
    assert float(loss) == pytest.approx(float(expected_loss), abs=0.02)
    found, expected = dict(flatten(gradients)), dict(flatten(expected))
    for name, other in expected.items():
        gradient = found[name]
        assert gradient.dtype == tf.float32
        np.testing.assert_allclose(gradient, other, rtol=0, atol=0.05 * np.abs(other).max(), err_msg=name)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_bfloat16_does_not_drift_with_the_batch(weights, count):
    """What is added up over the rows is added up in float32: 13 to 208 windows of 16 tokens, as many as there are."""
    windows = tf.constant(np.random.default_rng(0).integers(HPARAMS.n_vocab, size=(13 * count, 17)), tf.int32)
    found = dict(flatten(computed(weights, windows, ForwardOptions(dtype=tf.bfloat16))[1]))
    for name, expected in flatten(computed(weights, windows)[1]):
        error = np.linalg.norm(found[name] - expected) / np.linalg.norm(expected)
        assert error < 0.03, name


@pytest.mark.parametrize("number", range(5))
def test_the_loss_of_a_prompt_is_the_originals(small_model, number):
    tokens = tf.constant([GOLDEN["tokens"][number]])
    arguments = small_model.backend.weights, small_model.hparams
    loss, _ = loss_and_gradients(*arguments, tokens[:, :-1], tokens[:, 1:], ForwardOptions(), SEED)
    assert float(loss) == pytest.approx(GOLDEN["losses"][number], abs=1e-4)
    assert float(forward.mean_loss(*arguments, tokens)) == pytest.approx(GOLDEN["losses"][number], abs=1e-4)


@pytest.mark.parametrize("name", ["small", "bard"])
def test_the_loss_of_reference_prompts(reference, small_dir, name):
    loaded = with_tensorflow(small_dir if name == "small" else reference / name)
    outputs = np.load(reference / f"{name}.npz")
    for number, ids in enumerate(json.loads((reference / f"{name}.json").read_text())["tokens"]):
        tokens = tf.constant([ids])
        loss, _ = loss_and_gradients(
            loaded.backend.weights, loaded.hparams, tokens[:, :-1], tokens[:, 1:], ForwardOptions(), SEED
        )
        assert float(loss) == pytest.approx(-outputs[f"tokenlogprob{number}"].mean(), abs=1e-4)
