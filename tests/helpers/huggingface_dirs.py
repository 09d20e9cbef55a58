"""Small model directories in Hugging Face's layout, a few kilobytes each, written with NumPy alone.

tests/golden/make_huggingface.py loads the same directories with transformers, so nothing here imports TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch_files import bfloat16, state_dict, write_stream, write_zip

from gpt2.encoder import END_OF_TEXT, byte_characters
from gpt2.engine.reference import random_weights
from gpt2.formats.huggingface.directory import tensor_name
from gpt2.formats.weights import flatten
from gpt2.hparams import HParams

TEXT = "the cat sat on the mat and the dog sat on the log"
PROMPT_IDS = [116, 260, 7, 81, 263, 220, 256]  # the logits after this prompt are compared
CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_positions": 16,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "activation_function": "gelu_new",
}
# Changes of the config: those that make a variant of GPT-2, and those that have no effect.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gelu": {"activation_function": "gelu"},
    "gelu_pytorch_tanh": {"activation_function": "gelu_pytorch_tanh"},
    "gelu_fast": {"activation_function": "gelu_fast"},
    "epsilon": {"layer_norm_epsilon": 1e-2},
    "n_inner": {"n_inner": 24},
    "untied": {"tie_word_embeddings": False},
    "inverse": {"scale_attn_by_inverse_layer_idx": True},
    "upcast": {"reorder_and_upcast_attn": True},
    "dropout": {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
    "all": {
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-3,
        "n_inner": 40,
        "tie_word_embeddings": False,
        "scale_attn_by_inverse_layer_idx": True,
        "n_head": 4,
    },
}
SAFETENSORS_TYPES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "<u2": "BF16", "<i8": "I64", "|b1": "BOOL"}


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return ids and merges of the 256 bytes, the pieces of the words in TEXT, and `<|endoftext|>`."""
    pieces, merges = list(byte_characters().values()), []
    for word in dict.fromkeys("Ġ" + word for word in TEXT.split()):
        for end in range(2, len(word) + 1):
            if (pair := (word[: end - 1], word[end - 1])) not in merges:
                merges.append(pair)
                pieces.append(word[:end])
    return {piece: i for i, piece in enumerate([*pieces, END_OF_TEXT])}, merges


def tokenizer_json(**changes: Any) -> dict[str, Any]:
    """Return the content of a `tokenizer.json`, with changed parts; a change of `model` is merged into it."""
    ids, merges = vocabulary()
    end = {"id": ids[END_OF_TEXT], "content": END_OF_TEXT, "single_word": False, "lstrip": False, "rstrip": False}
    model: dict[str, Any] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": ""}
    model |= {"end_of_word_suffix": "", "fuse_unk": False, "vocab": ids, "merges": [" ".join(pair) for pair in merges]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**end, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": model | changes.pop("model", {}),
    }
    return tokenizer | changes


def hparams_of(config: Mapping[str, Any]) -> HParams:
    """Return the hyperparameters of a config."""
    names = ("n_embd", "n_head", "n_layer", "n_inner", "layer_norm_epsilon", "tie_word_embeddings")
    options = {name: config[name] for name in (*names, "scale_attn_by_inverse_layer_idx") if name in config}
    return HParams(config["vocab_size"], config["n_positions"], **options)


def random_tensors(config: Mapping[str, Any], prefix: str = "transformer.", seed: int = 1) -> dict[str, np.ndarray]:
    """Return random float32 weights by transformers' names."""
    arrays = {tensor_name(name): array for name, array in flatten(random_weights(hparams_of(config), seed))}
    return {name if name == "lm_head.weight" else prefix + name: array for name, array in arrays.items()}


def convert(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return a float32 array as the numbers of a file of this type."""
    return bfloat16(array) if dtype == "bfloat16" else array.astype(np.dtype(dtype).newbyteorder("<"))


def safetensors(arrays: Mapping[str, np.ndarray], metadata: bool = True) -> bytes:
    """Return the content of a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if metadata else {}
    start = 0
    for name, array in arrays.items():
        dtype = SAFETENSORS_TYPES[array.dtype.str]
        end = start + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values())


def write_file(path: Path, arrays: Mapping[str, np.ndarray], legacy: bool = False) -> None:
    """Write a file of weights; its suffix determines its format."""
    if path.suffix == ".safetensors":
        path.write_bytes(safetensors(arrays))
    else:
        (write_stream if legacy else write_zip)(path, *state_dict(arrays))


def write_weights(directory: Path, arrays: Mapping[str, np.ndarray], name: str, shards: int, legacy: bool) -> None:
    """Write one file, or shards of it and their index."""
    if shards == 1:
        write_file(directory / name, arrays, legacy)
        return
    stem, suffix = name.split(".")
    shard_of: dict[str, str] = {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05}-of-{shards:05}.{suffix}"
        part = dict(list(arrays.items())[shard::shards])
        write_file(directory / file, part, legacy)
        shard_of |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(array.nbytes for array in arrays.values())}, "weight_map": shard_of}
    (directory / f"{name}.index.json").write_text(json.dumps(index))


def write_vocabulary(directory: Path, pair: bool = False) -> int:
    """Write `tokenizer.json`, or the older pair of files, and return the number of ids."""
    ids, merges = vocabulary()
    if pair:
        lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
        (directory / "vocab.json").write_text(json.dumps(ids))
        (directory / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    else:
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    return len(ids)


def write(
    directory: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    file: str = "model.safetensors",
    dtype: str = "float32",
    shards: int = 1,
    legacy: bool = False,
    prefix: str = "transformer.",
    pair: bool = False,
    seed: int = 1,
) -> Path:
    """Write a directory with random weights.

    Args:
        directory: The directory, which is created.
        changes: Changes of the config.
        file: The name of the weights file.
        dtype: The type of the numbers in it.
        shards: The number of files that the weights are split into.
        legacy: Whether a PyTorch file has the older form, a stream.
        prefix: The prefix of the tensors' names.
        pair: Whether the vocabulary is the older pair of files.
        seed: The seed of the weights.

    Returns:
        The directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    n_vocab = write_vocabulary(directory, pair)
    config = {"vocab_size": n_vocab, **CONFIG, "bos_token_id": n_vocab - 1, "eos_token_id": n_vocab - 1}
    config |= changes or {}
    (directory / "config.json").write_text(json.dumps(config))
    arrays = {name: convert(array, dtype) for name, array in random_tensors(config, prefix, seed).items()}
    write_weights(directory, arrays, file, shards, legacy)
    return directory
