"""OpenAI's module `model`: variables under the names that they always had, and `gpt2.model` computed in a graph.

Shapes: B batch, T new tokens, P tokens of the past, L layers, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from gpt2 import hparams as sizes
from gpt2 import model as blocks
from gpt2.errors import GPT2Error, UsageError
from gpt2.formats.openai.checkpoint import file_shape
from gpt2.formats.weights import PREFIX, nest
from gpt2.openai import tf1

v1 = tf.compat.v1
DEVIATIONS = {"wpe": 0.01, "wte": 0.02, "lm_head": 0.02, "w": 0.02}  # of new weights, by the last part of their names
CONSTANTS = {"g": 1.0, "b": 0.0}


class HParams(SimpleNamespace):
    """The sizes of a model as attributes, to be overridden by what `hparams.json` says."""

    def override_from_dict(self, values: Mapping[str, Any]) -> HParams:
        """Raises UsageError for a name that GPT-2 does not have."""
        if unknown := set(values) - set(vars(self)):
            raise UsageError(f"there is no hparam {min(unknown)!r}; they are {', '.join(vars(self))}")
        vars(self).update(values)
        return self


def default_hparams() -> HParams:
    """Those of 124M, without a vocabulary."""
    return HParams(**sizes.HParams(n_vocab=1).as_dict() | {"n_vocab": 0})


def checked(hparams: Any) -> sizes.HParams:
    """From any object with such attributes. Raises GPT2Error for sizes that no model has."""
    names = [field.name for field in dataclasses.fields(sizes.HParams) if hasattr(hparams, field.name)]
    return sizes.HParams(**{name: getattr(hparams, name) for name in names})


def past_shape(*, hparams: Any, batch_size: int | None = None, sequence: int | None = None) -> list[int | None]:
    """[B, L, 2, H, P, D]"""
    return [batch_size, hparams.n_layer, 2, hparams.n_head, sequence, hparams.n_embd // hparams.n_head]


def variables(hparams: sizes.HParams, scope: Any, reuse: Any) -> blocks.Weights:
    """The model's variables in the current graph, made if they are not there, as `gpt2.model` wants its weights.

    Raises GPT2Error outside of a graph.
    """
    if tf.executing_eagerly():
        raise GPT2Error(f"OpenAI's modules build a graph, and there is none: {tf1.GRAPH}")
    found = []
    with v1.variable_scope(scope, reuse=reuse):
        for name, shape in hparams.weight_shapes().items():
            variable = v1.get_variable(name.removeprefix(PREFIX), file_shape(name, shape), initializer=_new(name))
            found.append((name, tf.reshape(variable, shape)))  # read once, not in each step of a loop
    return nest(found)


def _new(name: str) -> Any:
    kind = name.rpartition("/")[2]
    if kind in CONSTANTS:
        return v1.constant_initializer(CONSTANTS[kind])
    return v1.random_normal_initializer(stddev=DEVIATIONS[kind])


def model(
    hparams: Any, X: Any, past: Any = None, scope: Any = "model", reuse: Any = v1.AUTO_REUSE
) -> dict[str, tf.Tensor]:
    """X [B, T], past [B, L, 2, H, P, D] -> "logits" [B, T, V] and "present" [B, L, 2, H, T, D], of the new tokens.

    past: what was present before, joined along P. Raises GPT2Error for impossible sizes, and outside of a graph.
    """
    numbers, tokens = checked(hparams), tf.cast(X, tf.int32)
    weights, cache = variables(numbers, scope, reuse), None
    if past is not None:
        keys, values = (tf.unstack(past[:, :, kind], numbers.n_layer, axis=1) for kind in (0, 1))
        cache = blocks.Cache(keys, values, tf.fill([tf.shape(tokens)[0]], tf.shape(past)[-2]))
    logits, keys, values = blocks.model(weights, numbers, tokens, cache)
    return {"logits": logits, "present": tf.stack([tf.stack(keys, axis=1), tf.stack(values, axis=1)], axis=2)}
