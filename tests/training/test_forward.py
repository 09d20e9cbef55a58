"""The loss and its gradients compared with the original's values and with automatic differentiation."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny import GOLDEN, with_tensorflow
from variants import VARIANTS, variant_id

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


def reference_gradients(weights, windows, hparams=HPARAMS):
    """Return the loss and gradients by automatic differentiation, with all logits in memory at once."""
    variables = tf.nest.map_structure(tf.Variable, weights)
    with tf.GradientTape() as tape:
        logits, _, _ = model.model(variables, hparams, windows[:, :-1])
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(windows[:, 1:], logits))
    return loss, tf.nest.map_structure(tf.convert_to_tensor, tape.gradient(loss, variables))


DEFAULT_OPTIONS = ForwardOptions()


def compute(weights, windows, options=DEFAULT_OPTIONS, train_embeddings=True, hparams=HPARAMS):
    function = tf.function(lambda x, y: loss_and_gradients(weights, hparams, x, y, options, SEED, train_embeddings))
    return function(windows[:, :-1], windows[:, 1:])


def assert_same(found, expected, tolerance=1e-6):
    assert float(found[0]) == pytest.approx(float(expected[0]), abs=tolerance)
    found, expected = dict(flatten(found[1])), dict(flatten(expected[1]))
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "rows, queries",  # all 36 rows of logits, or six slices; all 12 queries of a window, or three slices
    [(1024, 256), (7, 256), (1024, 5)],
)
def test_gradients_equal_automatic_differentiation(weights, windows, monkeypatch, recompute, rows, queries):
    monkeypatch.setattr(forward, "LOGIT_ROWS", rows)
    monkeypatch.setattr(block, "QUERY_ROWS", queries)
    assert_same(compute(weights, windows, ForwardOptions(recompute=recompute)), reference_gradients(weights, windows))


def test_only_the_blocks_are_trained(weights, windows):
    loss, gradients = compute(weights, windows, train_embeddings=False)
    expected = reference_gradients(weights, windows)
    assert_same((loss, gradients), (expected[0], {name: expected[1][name] for name in ("h0", "h1", "h2")}))


@pytest.mark.parametrize("hparams", VARIANTS, ids=variant_id)
def test_gradients_of_variants(hparams):
    weights = random_weights(hparams, 0)
    windows = tf.constant(np.random.default_rng(0).integers(hparams.n_vocab, size=(3, 13)), tf.int32)
    expected = reference_gradients(weights, windows, hparams)
    assert_same(compute(weights, windows, ForwardOptions(recompute=True), hparams=hparams), expected)
    loss = forward.mean_loss(weights, hparams, windows)
    assert float(loss) == pytest.approx(float(expected[0]), abs=1e-6)


def test_recomputation_drops_the_same_positions(weights, windows):
    kept = compute(weights, windows, ForwardOptions(dropout=0.3))
    assert_same(compute(weights, windows, ForwardOptions(dropout=0.3, recompute=True)), kept)
    assert abs(float(kept[0]) - float(reference_gradients(weights, windows)[0])) > 1e-4


def test_dropout_differs_between_layers_and_keeps_the_mean():
    x, seeds = tf.ones([200, 50]), [tf.random.fold_in(SEED, layer) for layer in (0, 1)]
    masks = [block.drop(x, ForwardOptions(dropout=0.25), seed, number) for seed in seeds for number in (0, 1)]
    for mask in masks:
        assert float(tf.reduce_mean(mask)) == pytest.approx(1, abs=0.03)
    for a, b in ((0, 1), (0, 2), (1, 3)):
        assert float(tf.reduce_mean(tf.cast(masks[a] == masks[b], tf.float32))) < 0.8


def test_bfloat16_is_close_to_float32(weights, windows):
    loss, gradients = compute(weights, windows, ForwardOptions(dtype=tf.bfloat16))
    expected_loss, expected = reference_gradients(weights, windows)
    assert float(loss) == pytest.approx(float(expected_loss), abs=0.02)
    found, expected = dict(flatten(gradients)), dict(flatten(expected))
    for name, other in expected.items():
        gradient = found[name]
        assert gradient.dtype == tf.float32
        np.testing.assert_allclose(gradient, other, rtol=0, atol=0.05 * np.abs(other).max(), err_msg=name)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_bfloat16_error_does_not_grow_with_the_batch(weights, count):
    """Sums over the rows are accumulated in float32; the batches have 13 to 208 windows of 16 tokens."""
    windows = tf.constant(np.random.default_rng(0).integers(HPARAMS.n_vocab, size=(13 * count, 17)), tf.int32)
    found = dict(flatten(compute(weights, windows, ForwardOptions(dtype=tf.bfloat16))[1]))
    for name, expected in flatten(compute(weights, windows)[1]):
        error = np.linalg.norm(found[name] - expected) / np.linalg.norm(expected)
        assert error < 0.03, name


@pytest.mark.parametrize("number", range(5))
def test_loss_of_a_prompt_equals_the_originals(small_model, number):
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
