"""GPT-2 in NumPy and float64, without a cache: slow, obvious, and what the fast paths are compared with.

It shares nothing with `model.py` but the names of the weights, and does not use TensorFlow.

Shapes: T time, H heads, D head size, E embedding, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpt2.formats.weights import nest
from gpt2.hparams import HParams


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _norm(x: np.ndarray, g: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * g + b


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _attention(x: np.ndarray, c_attn: Mapping, c_proj: Mapping, n_head: int) -> np.ndarray:
    q, k, v = np.split(x @ c_attn["w"] + c_attn["b"], 3, axis=-1)  # [T, E] each
    visible = np.tri(len(x), dtype=bool)  # [T, T]
    heads = []
    for q_h, k_h, v_h in zip(*(np.split(part, n_head, axis=-1) for part in (q, k, v))):  # [T, D] each
        scores = np.where(visible, q_h @ k_h.T / np.sqrt(q_h.shape[-1]), -np.inf)
        heads.append(_softmax(scores) @ v_h)
    return np.concatenate(heads, axis=-1) @ c_proj["w"] + c_proj["b"]


def logits(weights: Mapping[str, Any], hparams: HParams, tokens: Sequence[int]) -> np.ndarray:
    """Tokens of one text [T] -> logits [T, V] float64; weights as nested dictionaries of anything NumPy can read."""
    weights = _float64(weights)
    x = weights["wte"][list(tokens)] + weights["wpe"][: len(tokens)]  # [T, E]
    for layer in range(hparams.n_layer):
        w = weights[f"h{layer}"]
        x = x + _attention(_norm(x, **w["ln_1"]), **w["attn"], n_head=hparams.n_head)
        c_fc, c_proj = w["mlp"]["c_fc"], w["mlp"]["c_proj"]
        x = x + _gelu(_norm(x, **w["ln_2"]) @ c_fc["w"] + c_fc["b"]) @ c_proj["w"] + c_proj["b"]
    return _norm(x, **weights["ln_f"]) @ weights["wte"].T


def _float64(weights: Any) -> Any:
    if isinstance(weights, Mapping):
        return {name: _float64(value) for name, value in weights.items()}
    return np.asarray(weights, np.float64)


def random_weights(hparams: HParams, seed: int) -> dict[str, Any]:
    """Weights that make every part of the model matter, nested, float32."""
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(shape, np.float32) for name, shape in hparams.weight_shapes().items()}
    return nest((name, 1 + 0.1 * x if name.endswith("/g") else 0.08 * x) for name, x in values.items())
