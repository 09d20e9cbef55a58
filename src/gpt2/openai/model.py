"""OpenAI's module `model`: `gpt2.model` computed in a graph, with the variable names of OpenAI's checkpoints.

Shapes: B batch, T new tokens, P tokens of the past, L layers, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from gpt2 import model as transformer
from gpt2.errors import GPT2Error, UsageError, suggest
from gpt2.formats.openai.checkpoint import file_shape
from gpt2.formats.weights import PREFIX, nest
from gpt2.hparams import HParams as CheckedHParams
from gpt2.openai import tf1

v1 = tf.compat.v1
# Initial values of new weights, by the last part of their names.
STANDARD_DEVIATIONS = {"wpe": 0.01, "wte": 0.02, "lm_head": 0.02, "w": 0.02}
CONSTANTS = {"g": 1.0, "b": 0.0}


class HParams(SimpleNamespace):
    """The sizes of a model as attributes, which `hparams.json` can override."""

    def override_from_dict(self, values: Mapping[str, Any]) -> HParams:
        """Replace sizes by name, and return the object itself.

        Raises:
            UsageError: If GPT-2 does not have a size of that name.
        """
        if unknown := set(values) - set(vars(self)):
            known = f"the hparams are {', '.join(vars(self))}{suggest(min(unknown), vars(self))}"
            raise UsageError(f"there is no hparam {min(unknown)!r}; {known}")
        vars(self).update(values)
        return self


def default_hparams() -> HParams:
    """Return the sizes of 124M, with n_vocab 0."""
    return HParams(**CheckedHParams(n_vocab=1).as_dict() | {"n_vocab": 0})


def check_hparams(hparams: Any) -> CheckedHParams:
    """Return the checked sizes of any object that has them as attributes.

    Raises:
        GPT2Error: If no model can have these sizes.
    """
    names = [field.name for field in dataclasses.fields(CheckedHParams) if hasattr(hparams, field.name)]
    return CheckedHParams(**{name: getattr(hparams, name) for name in names})


def past_shape(*, hparams: Any, batch_size: int | None = None, sequence: int | None = None) -> list[int | None]:
    """Return the shape of the past, [B, L, 2, H, P, D]."""
    return [batch_size, hparams.n_layer, 2, hparams.n_head, sequence, hparams.n_embd // hparams.n_head]


def variables(hparams: CheckedHParams, scope: Any, reuse: Any) -> transformer.Weights:
    """Return the model's variables in the current graph, nested as `gpt2.model` takes its weights.

    Args:
        hparams: The sizes.
        scope: Variable scope of the model.
        reuse: Whether to reuse variables, as in `tf.compat.v1.variable_scope`.

    Raises:
        GPT2Error: If there is no graph.
    """
    if tf.executing_eagerly():
        raise GPT2Error(f"OpenAI's modules build a graph, and there is none: {tf1.GRAPH_ADVICE}")
    named_weights = []
    with v1.variable_scope(scope, reuse=reuse):
        for name, shape in hparams.weight_shapes().items():
            variable = v1.get_variable(name.removeprefix(PREFIX), file_shape(name, shape), initializer=_new(name))
            # The reshape lets a loop read the variable once, not in each step.
            named_weights.append((name, tf.reshape(variable, shape)))
    return nest(named_weights)


def _new(name: str) -> Any:
    """Return the initializer of a variable."""
    kind = name.rpartition("/")[2]
    if kind in CONSTANTS:
        return v1.constant_initializer(CONSTANTS[kind])
    return v1.random_normal_initializer(stddev=STANDARD_DEVIATIONS[kind])


def model(
    hparams: Any, X: Any, past: Any = None, scope: Any = "model", reuse: Any = v1.AUTO_REUSE
) -> dict[str, tf.Tensor]:
    """Compute the logits of new tokens.

    Args:
        hparams: The sizes, as attributes of any object.
        X: The new tokens [B, T].
        past: The "present" of all earlier tokens, concatenated along P: [B, L, 2, H, P, D].
        scope: Variable scope of the model.
        reuse: Whether to reuse variables, as in `tf.compat.v1.variable_scope`.

    Returns:
        "logits" [B, T, V], and "present" [B, L, 2, H, T, D] of the new tokens.

    Raises:
        GPT2Error: If no model can have these sizes, or if there is no graph.
    """
    checked = check_hparams(hparams)
    tokens = tf.cast(X, tf.int32)
    weights = variables(checked, scope, reuse)
    cache = None
    if past is not None:
        keys, values = (tf.unstack(past[:, :, kind], checked.n_layer, axis=1) for kind in (0, 1))
        cache = transformer.Cache(keys, values, tf.fill([tf.shape(tokens)[0]], tf.shape(past)[-2]))
    logits, keys, values = transformer.model(weights, checked, tokens, cache)
    return {"logits": logits, "present": tf.stack([tf.stack(keys, axis=1), tf.stack(values, axis=1)], axis=2)}
