"""Model directories small enough for tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from gpt2 import encoder, generate
from gpt2.engine.load import load_backend
from gpt2.engine.reference import random_weights
from gpt2.formats.model_dir import load_vocabulary, open_model_dir
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import nest
from gpt2.hparams import HParams
from gpt2.training.checkpoints import tensorflow_checkpoint

GOLDEN = json.loads(Path(__file__).parents[1].joinpath("golden/small.json").read_text(encoding="utf-8"))
TEXT = "the cat sat on the mat and the dog sat on the log"


def write_vocabulary(directory: Path) -> int:
    """Write a byte-level BPE of 256 bytes, the merges of a few words and `<|endoftext|>`, and return its size."""
    pieces = list(encoder.byte_characters().values())
    merges: list[tuple[str, str]] = []
    for word in dict.fromkeys("Ġ" + word for word in TEXT.split()):
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                pieces.append(word[:end])
    pieces.append(encoder.END_OF_TEXT)
    ids = {piece: i for i, piece in enumerate(pieces)}
    (directory / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
    (directory / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")
    return len(ids)


def write_model(directory: Path, seed: int = 1, n_ctx: int = 32, n_embd: int = 32) -> Path:
    """Write a model directory of a few kilobytes with random weights and a small vocabulary, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    hparams = HParams(n_vocab=write_vocabulary(directory), n_ctx=n_ctx, n_embd=n_embd, n_head=4, n_layer=2)
    return _write(directory, hparams, seed)


def write_gpt2_model(directory: Path, vocabulary: Path, hparams: HParams, seed: int = 2) -> Path:
    """Write a model directory with GPT-2's vocabulary and random weights, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(vocabulary / name, directory / name)
    return _write(directory, hparams, seed)


def _write(directory: Path, hparams: HParams, seed: int) -> Path:
    (directory / "hparams.json").write_text(json.dumps(hparams.as_dict()), encoding="utf-8")
    tensorflow_checkpoint.save(directory, random_weights(hparams, seed))
    return directory


def write_small_reference(directory: Path, vocabulary: Path) -> Path:
    """Write the checkpoint that `golden/small.json` was computed from.

    The order in which the random numbers are drawn is part of its recipe.
    """
    hparams = HParams(n_vocab=50257, n_ctx=128, n_embd=64, n_head=4, n_layer=2)
    write_gpt2_model(directory, vocabulary, hparams)
    rng = np.random.default_rng(7)

    def normal(shape: tuple[int, ...], deviation: float) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    values = {}
    for name, shape in hparams.weight_shapes().items():
        if name.endswith("/g"):
            values[name] = 1 + normal(shape, 0.1)
        elif name.endswith("/b"):
            values[name] = normal(shape, 0.05 if "ln_" in name else 0.02)
        else:
            values[name] = normal(shape, 0.04 if name.endswith("wpe") else 0.08)
    tensorflow_checkpoint.save(directory, nest(values.items()))
    return directory


def read(prefix: Path, hparams: HParams) -> dict[str, Any]:
    """Return a checkpoint's weights as nested arrays."""
    return nest((name, weight.array()) for name, weight in checkpoint.read_weights(prefix, hparams).items())


def read_model(directory: Path) -> dict[str, Any]:
    """Return the weights of a model directory as nested arrays."""
    model_dir = open_model_dir(directory)
    return read(model_dir.weights_path, model_dir.hparams)


def with_tensorflow(path: Path) -> generate.Model:
    """Return a model on TensorFlow's backend, with the weights in the precision of the checkpoint."""
    directory = open_model_dir(path)
    return generate.Model(load_vocabulary(directory), load_backend(directory, native=False))
