"""How weights are kept in memory: float32 as they are, or narrow, since a decode step reads all of them.

Narrow weights are made from the ordinary checkpoint as it is loaded; activations and sums stay float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from gpt2.model import Narrow

INT8_LARGEST = 127


def narrow(w: tf.Tensor, precision: str) -> Narrow:
    """w [O, I] float32 -> the same, each row in the given precision with a scale of its own.

    int8 is symmetric and rounded to nearest: a row's largest weight becomes 127 or -127, so that no weight is off by
    more than half of 1/127 of it (weight-only quantisation with a scale per output channel).
    """
    if precision != "int8":
        return Narrow(tf.cast(w, precision), tf.ones([w.shape[0]]))
    largest = tf.reduce_max(tf.abs(w), axis=1)
    scale = tf.where(largest > 0, largest / INT8_LARGEST, 1.0)
    return Narrow(tf.cast(tf.round(w / scale[:, None]), tf.int8), scale)


def rows_of_outputs(name: str, parts: Iterable[tf.Tensor], precision: str) -> list[Narrow]:
    """What `checkpoint.load` gives for a kernel [I, O] or for wte [V, E], made narrow part by part."""
    return [narrow(part if name.endswith("wte") else tf.transpose(part), precision) for part in parts]


def narrow_as_loaded(precision: str, name: str, parts: Iterable[tf.Tensor]) -> Narrow:
    """For `checkpoint.load`."""
    return Narrow(*(tf.concat(column, axis=0) for column in zip(*rows_of_outputs(name, parts, precision))))
