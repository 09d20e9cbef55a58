"""GPT-2 in NumPy and float64, without a cache: slow, obvious, and what the fast paths are compared with.

It shares nothing with `model.py` but the names of the weights, and does not use TensorFlow.

Shapes: T time, H heads, D head size, E embedding, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpt2.formats.weights import nest
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
        return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / np.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _attention(x: np.ndarray, c_attn: Mapping, c_proj: Mapping, n_head: int, divisor: int) -> np.ndarray:
    q, k, v = np.split(_linear(x, **c_attn), 3, axis=-1)  # [T, E] each
    visible = np.tri(len(x), dtype=bool)  # [T, T]
    heads = []
    for q_h, k_h, v_h in zip(*(np.split(part, n_head, axis=-1) for part in (q, k, v))):  # [T, D] each
        scores = np.where(visible, q_h @ k_h.T / np.sqrt(q_h.shape[-1]) / divisor, -np.inf)
        heads.append(_softmax(scores) @ v_h)
    return _linear(np.concatenate(heads, axis=-1), **c_proj)


def logits(weights: Mapping[str, Any], hparams: HParams, tokens: Sequence[int]) -> np.ndarray:
    """Tokens of one text [T] -> logits [T, V] float64; weights as nested dictionaries of anything NumPy can read."""
    weights, epsilon = _float64(weights), hparams.layer_norm_epsilon
    x = weights["wte"][list(tokens)] + weights["wpe"][: len(tokens)]  # [T, E]
    if hparams.is_factorized:
        x = _linear(x, **weights["in_proj"])
    for layer in range(hparams.n_layer):
        w, divisor = weights[f"h{layer}"], layer + 1 if hparams.scale_attn_by_inverse_layer_idx else 1
        x = x + _attention(_norm(x, **w["ln_1"], epsilon=epsilon), **w["attn"], n_head=hparams.n_head, divisor=divisor)
        inner = _linear(_norm(x, **w["ln_2"], epsilon=epsilon), **w["mlp"]["c_fc"])
        x = x + _linear(_gelu(inner, hparams.activation_function == GELU), **w["mlp"]["c_proj"])
    x = _norm(x, **weights["ln_f"], epsilon=epsilon)
    if hparams.is_factorized:
        x = _linear(x, **weights["out_proj"])
    return x @ weights["wte" if hparams.tie_word_embeddings else "lm_head"].T


def _float64(weights: Any) -> Any:
    if isinstance(weights, Mapping):
        return {name: _float64(value) for name, value in weights.items()}
    return np.asarray(weights, np.float64)


def random_weights(hparams: HParams, seed: int) -> dict[str, Any]:
    """Weights that make every part of the model matter, nested, float32."""
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(shape, np.float32) for name, shape in hparams.weight_shapes().items()}
    return nest((name, 1 + 0.1 * x if name.endswith("/g") else 0.08 * x) for name, x in values.items())
