"""A slow and simple GPT-2 in NumPy and float64, without a cache, for checking the fast implementations.

It shares only the weights' names with `model.py`, and it does not use TensorFlow.

Shapes: T time, H heads, D head size, E embedding, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt2.formats.weights import LM_HEAD, WTE, Layout, Weight, Weights, nest
from gpt2.hparams import GELU, HParams


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _norm(x: np.ndarray, g: np.ndarray, b: np.ndarray, epsilon: float) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * g + b


def _linear(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return x @ w + b


def _gelu(x: np.ndarray, exact: bool) -> np.ndarray:
    if exact:
        return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _attention(
    x: np.ndarray, c_attn: Mapping, c_proj: Mapping, n_head: int, divisor: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the attention's output [T, E] for x [T, E], and the attention weights [H, T, T]."""
    q, k, v = np.split(_linear(x, **c_attn), 3, axis=-1)  # [T, E] each
    visible = np.tri(len(x), dtype=bool)  # [T, T]
    weights = []
    outputs = []
    for q_h, k_h, v_h in zip(*(np.split(part, n_head, axis=-1) for part in (q, k, v))):  # [T, D] each
        scores = np.where(visible, q_h @ k_h.T / math.sqrt(q_h.shape[-1]) / divisor, -np.inf)
        weights.append(_softmax(scores))
        outputs.append(weights[-1] @ v_h)
    return _linear(np.concatenate(outputs, axis=-1), **c_proj), np.stack(weights)


class Trace(NamedTuple):
    """The intermediate values of a text.

    Attributes:
        attention: Each layer's attention weights [H, T, T]; each row sums to 1.
        hidden: The hidden states [T, E] before the first layer and after each layer.
    """

    attention: list[np.ndarray]
    hidden: list[np.ndarray]


def trace(weights: Mapping[str, Any], hparams: HParams, tokens: Sequence[int]) -> Trace:
    """Compute a text up to its last hidden state, in the weights' type.

    Args:
        weights: Nested dictionaries of arrays.
        hparams: The model's sizes.
        tokens: The ids of one text [T].

    Returns:
        The attention weights and hidden states.
    """
    epsilon = hparams.layer_norm_epsilon
    x = weights["wte"][list(tokens)] + weights["wpe"][: len(tokens)]  # [T, E]
    if hparams.is_factorized:
        x = _linear(x, **weights["in_proj"])
    attention = []
    hidden = [x]
    for layer in range(hparams.n_layer):
        w = weights[f"h{layer}"]
        divisor = layer + 1 if hparams.scale_attn_by_inverse_layer_idx else 1
        attended, attention_weights = _attention(
            _norm(x, **w["ln_1"], epsilon=epsilon), **w["attn"], n_head=hparams.n_head, divisor=divisor
        )
        x = x + attended
        inner = _linear(_norm(x, **w["ln_2"], epsilon=epsilon), **w["mlp"]["c_fc"])
        x = x + _linear(_gelu(inner, hparams.activation_function == GELU), **w["mlp"]["c_proj"])
        attention.append(attention_weights)
        hidden.append(x)
    return Trace(attention, hidden)


def unembed(weights: Mapping[str, Any], hparams: HParams, x: np.ndarray) -> np.ndarray:
    """Return the logits [T, V] of hidden states [T, E].

    Hidden states after the last layer give the model's logits. Hidden states after an earlier layer give a preliminary
    guess (the "logit lens", nostalgebraist 2020).
    """
    x = _norm(x, **weights["ln_f"], epsilon=hparams.layer_norm_epsilon)
    if hparams.is_factorized:
        x = _linear(x, **weights["out_proj"])
    return x @ weights["wte" if hparams.tie_word_embeddings else "lm_head"].T


def logits(weights: Mapping[str, Any], hparams: HParams, tokens: Sequence[int]) -> np.ndarray:
    """Return the logits [T, V] float64 of the ids [T] of one text.

    The weights are nested dictionaries of values that NumPy can convert to arrays.
    """
    weights = _float64(weights)
    return unembed(weights, hparams, trace(weights, hparams, tokens).hidden[-1])


def read(weights: Weights) -> dict[str, Any]:
    """Return a model's weights from any format, nested as `trace` takes them.

    Raises:
        GPT2Error: A weight is damaged.
    """
    return nest((name, _array(name, weight)) for name, weight in weights.items())


def _array(name: str, weight: Weight) -> np.ndarray:
    layout = Layout.OUT_IN if name in (WTE, LM_HEAD) else Layout.IN_OUT
    return weight.array() if weight.layout in (None, layout) else weight.array().T


def _float64(weights: Any) -> Any:
    if isinstance(weights, Mapping):
        return {name: _float64(value) for name, value in weights.items()}
    return np.asarray(weights, np.float64)


def random_weights(hparams: HParams, seed: int) -> dict[str, Any]:
    """Return random nested float32 weights, large enough for every part of the model to affect the logits."""
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(shape, np.float32) for name, shape in hparams.weight_shapes().items()}
    return nest((name, 1 + 0.1 * x if name.endswith("/g") else 0.08 * x) for name, x in values.items())
