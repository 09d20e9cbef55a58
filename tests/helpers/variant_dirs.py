"""Tiny model directories of GPT-2's variants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny

from gpt2.engine.reference import random_weights
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import open_model_dir
from gpt2.hparams import HParams
from gpt2.training.checkpoints import tensorflow_checkpoint

VARIANTS: dict[str, dict[str, Any]] = {
    "untied": {"tie_word_embeddings": False},
    "epsilon": {"layer_norm_epsilon": 1e-3},
    "inner": {"n_inner": 96},
    "gelu": {"activation_function": "gelu"},
    "scaled": {"scale_attn_by_inverse_layer_idx": True},
    "narrow": {"n_token_embd": 16},
}
SIZES = {"n_ctx": 32, "n_embd": 32, "n_head": 4, "n_layer": 2}


def write(folder: Path, seed: int = 1, **changes: Any) -> ModelDir:
    """Write a model directory in OpenAI's layout with random weights and a small vocabulary, and open it.

    Args:
        folder: The directory, which is created.
        seed: The seed of the weights.
        changes: Hyperparameters that differ from SIZES and GPT-2's.
    """
    folder.mkdir(parents=True)
    hparams = HParams(**{"n_vocab": tiny.write_vocabulary(folder), **SIZES, **changes})
    (folder / "hparams.json").write_text(json.dumps(hparams.as_dict()), encoding="utf-8")
    tensorflow_checkpoint.save(folder, random_weights(hparams, seed))
    return open_model_dir(folder)
