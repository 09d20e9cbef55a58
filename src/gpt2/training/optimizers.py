"""Optimisers: gradients -> new values of the weights. A learning rate and a step number go in, no state but `slots`.

One update is one fused kernel for each variable where TensorFlow has one (adam, sgd).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from gpt2.training.settings.settings import ADAFACTOR, ADAM, ADAMW, SGD

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # TensorFlow 1's AdamOptimizer, which the old tools used
# Shazeer and Stern 2018: the two constants against division by zero and the limit of an update's root mean square.
FACTOR_DECAY, FACTOR_EPSILON, FACTOR_LIMIT = 0.8, 1e-30, 1.0

Slots = Mapping[str, tf.Variable]
Shapes = Mapping[str, Sequence[int]]
# (variable, its gradient, its slots, learning rate, number of this update from 1) -> the operation that ends it
Update = Callable[[tf.Variable, tf.Tensor, Slots, tf.Tensor, tf.Tensor], tf.Operation]


class Optimizer(NamedTuple):
    """slots: the shapes of what is kept for a variable of a shape, by name."""

    slots: Callable[[Sequence[int]], Shapes]
    update: Update


def adam(variable: tf.Variable, gradient: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor) -> tf.Operation:
    """Kingma and Ba 2014, with the epsilon of its section 2's last paragraph, as TensorFlow 1 had it."""
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
    return tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)


def adafactor(
    variable: tf.Variable, gradient: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
) -> tf.Operation:
    """Shazeer and Stern 2018: for a matrix, second moments of rows and columns only; no first moment.

    The learning rate is absolute, as with adam: an update's root mean square is at most `rate`.
    """
    apply_weight_decay = 1 - tf.pow(step, -FACTOR_DECAY)
    square = tf.square(gradient) + FACTOR_EPSILON
    if "v" in slots:
        update = gradient * tf.math.rsqrt(_average(slots["v"], square, apply_weight_decay))
    else:
        rows = _average(slots["rows"], tf.reduce_mean(square, axis=1), apply_weight_decay)
        columns = _average(slots["columns"], tf.reduce_mean(square, axis=0), apply_weight_decay)
        update = gradient * tf.math.rsqrt(rows / tf.reduce_mean(rows))[:, None] * tf.math.rsqrt(columns)
    update /= tf.maximum(1.0, tf.sqrt(tf.reduce_mean(tf.square(update))) / FACTOR_LIMIT)
    return _subtract(variable, rate * update)


def _average(slot: tf.Variable, value: tf.Tensor, apply_weight_decay: tf.Tensor) -> tf.Tensor:
    """Moves a slot towards a value; returns what it then holds."""
    average = apply_weight_decay * slot + (1 - apply_weight_decay) * value
    tf.raw_ops.AssignVariableOp(resource=slot.handle, value=average)
    return average


def _subtract(variable: tf.Variable, value: tf.Tensor) -> tf.Operation:
    """By its handle: a variable of several replicas would ask how to reconcile them, and all of them do the same."""
    return tf.raw_ops.AssignSubVariableOp(resource=variable.handle, value=value)


def _moments(shape: Sequence[int]) -> Shapes:
    return {"m": shape, "v": shape}


def _factors(shape: Sequence[int]) -> Shapes:
    return {"rows": shape[:1], "columns": shape[1:]} if len(shape) == 2 else {"v": shape}


OPTIMIZERS = {
    ADAM: Optimizer(_moments, adam),
    ADAMW: Optimizer(_moments, adam),
    SGD: Optimizer(lambda shape: {}, sgd),
    ADAFACTOR: Optimizer(_factors, adafactor),
}


def apply_weight_decay(variable: tf.Variable, amount: tf.Tensor) -> None:
    """Decoupled weight decay (Loshchilov and Hutter 2019) of matrices; norms and biases are left alone."""
    if len(variable.shape) == 2:
        _subtract(variable, amount * variable)
