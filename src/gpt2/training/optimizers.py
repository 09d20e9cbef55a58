"""Optimizers, which turn gradients into new values of the weights.

An optimizer has no state except its slots; the learning rate and the step number are arguments. Where TensorFlow has a
fused kernel (adam, sgd), the update of a variable is one call of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from gpt2.training.settings.rules import ADAFACTOR, ADAM, ADAMW, SGD

# TensorFlow 1's AdamOptimizer, which the old tools used.
BETA_1 = 0.9
BETA_2 = 0.999
EPSILON = 1e-8
# Shazeer and Stern 2018: the exponent of the decay, the constant against division by zero, and the limit of an update's
# root mean square.
FACTOR_DECAY = 0.8
FACTOR_EPSILON = 1e-30
FACTOR_LIMIT = 1.0

Slots = Mapping[str, tf.Variable]
Shapes = Mapping[str, Sequence[int]]
# Takes a variable, its gradient and slots, the learning rate and the update's number from 1; returns the update.
Update = Callable[[tf.Variable, tf.Tensor, Slots, tf.Tensor, tf.Tensor], tf.Operation]


class Optimizer(NamedTuple):
    """An optimizer's functions."""

    slots: Callable[[Sequence[int]], Shapes]  # returns the shapes of a variable's slots by name
    update: Update


def adam(variable: tf.Variable, gradient: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor) -> tf.Operation:
    """Update a variable with Adam (Kingma and Ba 2014).

    As in TensorFlow 1, epsilon is added as in the last paragraph of the paper's section 2.
    """
    return tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=slots["m"].handle,
        v=slots["v"].handle,
        beta1_power=tf.pow(BETA_1, step),
        beta2_power=tf.pow(BETA_2, step),
        lr=rate,
        beta1=BETA_1,
        beta2=BETA_2,
        epsilon=EPSILON,
        grad=gradient,
    )


def sgd(variable: tf.Variable, gradient: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor) -> tf.Operation:
    """Update a variable with plain stochastic gradient descent."""
    return tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)


def adafactor(
    variable: tf.Variable, gradient: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
) -> tf.Operation:
    """Update a variable with Adafactor (Shazeer and Stern 2018), without a first moment.

    A matrix has second moments of its rows and columns only. The learning rate is absolute, as with Adam: the root mean
    square of an update is at most `rate`.
    """
    decay = 1 - tf.pow(step, -FACTOR_DECAY)
    square = tf.square(gradient) + FACTOR_EPSILON
    if "v" in slots:
        update = gradient * tf.math.rsqrt(_update_average(slots["v"], square, decay))
    else:
        rows = _update_average(slots["rows"], tf.reduce_mean(square, axis=1), decay)
        columns = _update_average(slots["columns"], tf.reduce_mean(square, axis=0), decay)
        update = gradient * tf.math.rsqrt(rows / tf.reduce_mean(rows))[:, None] * tf.math.rsqrt(columns)
    update /= tf.maximum(1.0, tf.sqrt(tf.reduce_mean(tf.square(update))) / FACTOR_LIMIT)
    return _subtract(variable, rate * update)


def _update_average(slot: tf.Variable, value: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """Move a slot's exponential average toward a value and return the new average."""
    average = decay * slot + (1 - decay) * value
    tf.raw_ops.AssignVariableOp(resource=slot.handle, value=average)
    return average


def _subtract(variable: tf.Variable, value: tf.Tensor) -> tf.Operation:
    """Subtract a value from a variable.

    The handle is used because a mirrored variable requires a rule to combine the replicas' values, but they are equal.
    """
    return tf.raw_ops.AssignSubVariableOp(resource=variable.handle, value=value)


def _moment_shapes(shape: Sequence[int]) -> Shapes:
    return {"m": shape, "v": shape}


def _factor_shapes(shape: Sequence[int]) -> Shapes:
    return {"rows": shape[:1], "columns": shape[1:]} if len(shape) == 2 else {"v": shape}


OPTIMIZERS = {
    ADAM: Optimizer(_moment_shapes, adam),
    ADAMW: Optimizer(_moment_shapes, adam),
    SGD: Optimizer(lambda shape: {}, sgd),
    ADAFACTOR: Optimizer(_factor_shapes, adafactor),
}


def apply_weight_decay(variable: tf.Variable, amount: tf.Tensor) -> None:
    """Apply decoupled weight decay (Loshchilov and Hutter 2019) to a matrix; norms and biases are left unchanged."""
    if len(variable.shape) == 2:
        _subtract(variable, amount * variable)
