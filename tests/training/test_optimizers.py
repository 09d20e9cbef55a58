"""The optimizers compared with their papers' formulas in NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from gpt2.training import estimate, optimizers
from gpt2.training.optimizers import OPTIMIZERS
from gpt2.training.settings.rules import OPTIMIZERS as NAMES

RATE = 0.01


def run(name, start, gradients):
    """Return the values of a variable after each update."""
    optimizer = OPTIMIZERS[name]
    variable = tf.Variable(start)
    slots = {slot: tf.Variable(tf.zeros(shape)) for slot, shape in optimizer.slots(start.shape).items()}
    values = []
    for step, gradient in enumerate(gradients, start=1):
        optimizer.update(variable, tf.constant(gradient), slots, tf.constant(RATE), tf.constant(float(step)))
        values.append(variable.numpy())
    return values


@pytest.fixture(params=[(5, 3), (4,)], ids=["matrix", "vector"])
def problem(request):
    rng = np.random.default_rng(0)
    draw = lambda: rng.standard_normal(request.param).astype(np.float32)  # noqa: E731
    return draw(), [draw() for _ in range(4)]


def test_every_name_has_an_optimizer():
    assert set(OPTIMIZERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_estimate_knows_the_optimizers_slots(name):
    size = sum(math.prod(shape) for shape in OPTIMIZERS[name].slots((1000, 1000)).values())
    assert estimate.OPTIMIZER_SLOTS[name] == round(size / 1e6)


def test_adam(problem):
    value, gradients = problem
    found = run("adam", value, gradients)
    m, v = np.zeros_like(value), np.zeros_like(value)
    for step, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rate = RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        value = value - rate * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(found[step - 1], value, rtol=1e-5, atol=1e-6)


def test_sgd(problem):
    value, gradients = problem
    np.testing.assert_allclose(run("sgd", value, gradients)[-1], value - RATE * sum(gradients), rtol=1e-5, atol=1e-6)


def test_adafactor(problem):
    value, gradients = problem
    found = run("adafactor", value, gradients)
    second = 0.0
    for step, gradient in enumerate(gradients, start=1):
        decay = 1 - step**-0.8
        second = decay * second + (1 - decay) * (gradient**2 + 1e-30)
        # The rank-one matrix with the row and column sums of the second moment: section 3 of the paper.
        factored = second if value.ndim == 1 else second.sum(1)[:, None] * second.sum(0) / second.sum()
        update = gradient / np.sqrt(factored)
        update /= max(1, np.sqrt((update**2).mean()))
        value = value - RATE * update
        np.testing.assert_allclose(found[step - 1], value, rtol=1e-4, atol=1e-6)


def test_adafactor_has_rows_and_columns_for_a_matrix():
    assert OPTIMIZERS["adafactor"].slots((5, 3)) == {"rows": (5,), "columns": (3,)}


def test_weight_decay_ignores_vectors():
    matrix, vector = tf.Variable(tf.ones([2, 2])), tf.Variable(tf.ones([2]))
    for variable in (matrix, vector):
        optimizers.apply_weight_decay(variable, tf.constant(0.1))
    assert matrix.numpy().tolist() == [[pytest.approx(0.9)] * 2] * 2
    assert vector.numpy().tolist() == [1, 1]
