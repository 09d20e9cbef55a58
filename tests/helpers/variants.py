"""The hyperparameters of GPT-2's variants: each difference alone, and all of them together."""

from __future__ import annotations

from typing import Any

from gpt2.hparams import HParams

SIZES: dict[str, Any] = {"n_vocab": 101, "n_ctx": 300, "n_embd": 24, "n_head": 3, "n_layer": 3}
FIELDS: list[dict[str, Any]] = [
    {"n_inner": 70},
    {"n_token_embd": 10},
    {"n_token_embd": 40},
    {"layer_norm_epsilon": 1e-2},
    {"activation_function": "gelu"},
    {"tie_word_embeddings": False},
    {"scale_attn_by_inverse_layer_idx": True},
]
ALL = {"n_inner": 101, "n_token_embd": 17, **{name: value for fields in FIELDS[3:] for name, value in fields.items()}}
VARIANTS = [HParams(**SIZES, **fields) for fields in (*FIELDS, ALL)]


def variant_id(hparams: HParams) -> str:
    """Return a test's id for pytest."""
    return ",".join(f"{name}={value}" for name, value in hparams.variant_fields().items())
