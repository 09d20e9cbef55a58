"""Model directories of Hugging Face's layout, a few kilobytes each, written with NumPy alone.

tests/golden/make_huggingface.py has transformers read the same ones; so nothing here imports TensorFlow.
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
IDS = [116, 260, 7, 81, 263, 220, 256]  # of the prompt whose logits are compared
CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_positions": 16,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "activation_function": "gelu_new",
}
# Changes of the config by which GPT-2's variants differ, and those that change nothing.
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
    """256 bytes, the pieces of TEXT's words, and `<|endoftext|>`."""
    pieces, merges = list(byte_characters().values()), []
    for word in dict.fromkeys("Ġ" + word for word in TEXT.split()):
        for end in range(2, len(word) + 1):
            if (pair := (word[: end - 1], word[end - 1])) not in merges:
                merges.append(pair)
                pieces.append(word[:end])
    return {piece: i for i, piece in enumerate([*pieces, END_OF_TEXT])}, merges


def tokenizer_json(**changes: Any) -> dict[str, Any]:
    """What a `tokenizer.json` says; changes: of its parts, and of those of its model."""
    ids, merges = vocabulary()
    end = {"id": ids[END_OF_TEXT], "content": END_OF_TEXT, "single_word": False, "lstrip": False, "rstrip": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": ""}
    model |= {"end_of_word_suffix": "", "fuse_unk": False, "vocab": ids, "merges": [" ".join(pair) for pair in merges]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    said = {
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
    return said | changes


def hparams_of(config: Mapping[str, Any]) -> HParams:
    names = ("n_embd", "n_head", "n_layer", "n_inner", "layer_norm_epsilon", "tie_word_embeddings")
    same = {name: config[name] for name in (*names, "scale_attn_by_inverse_layer_idx") if name in config}
    return HParams(config["vocab_size"], config["n_positions"], **same)


def arrays_of(config: Mapping[str, Any], prefix: str = "transformer.", seed: int = 1) -> dict[str, np.ndarray]:
    """Random weights as float32, by transformers' names."""
    found = {tensor_name(name): array for name, array in flatten(random_weights(hparams_of(config), seed))}
    return {name if name == "lm_head.weight" else prefix + name: array for name, array in found.items()}


def stored(array: np.ndarray, kind: str) -> np.ndarray:
    return bfloat16(array) if kind == "bfloat16" else array.astype(np.dtype(kind).newbyteorder("<"))


def safetensors(arrays: Mapping[str, np.ndarray], metadata: bool = True) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if metadata else {}
    at = 0
    for name, array in arrays.items():
        kind, end = SAFETENSORS_TYPES[array.dtype.str], at + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values())


def write_file(path: Path, arrays: Mapping[str, np.ndarray], legacy: bool = False) -> None:
    """A file of weights; its name says of which kind."""
    if path.suffix == ".safetensors":
        path.write_bytes(safetensors(arrays))
    else:
        (write_stream if legacy else write_zip)(path, *state_dict(arrays))


def write_weights(directory: Path, arrays: Mapping[str, np.ndarray], name: str, shards: int, legacy: bool) -> None:
    """One file, or shards of it and their index."""
    if shards == 1:
        write_file(directory / name, arrays, legacy)
        return
    stem, suffix = name.split(".")
    places = {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05}-of-{shards:05}.{suffix}"
        part = dict(list(arrays.items())[shard::shards])
        write_file(directory / file, part, legacy)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(array.nbytes for array in arrays.values())}, "weight_map": places}
    (directory / f"{name}.index.json").write_text(json.dumps(index))


def write_vocabulary(directory: Path, pair: bool = False) -> int:
    """`tokenizer.json`, or the older pair of files; returns how many ids there are."""
    ids, merges = vocabulary()
    if pair:
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
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
    kind: str = "float32",
    shards: int = 1,
    legacy: bool = False,
    prefix: str = "transformer.",
    pair: bool = False,
    seed: int = 1,
) -> Path:
    """A directory with random weights. changes: of the config; kind: of the numbers; pair: of vocabulary files."""
    directory.mkdir(parents=True, exist_ok=True)
    n_vocab = write_vocabulary(directory, pair)
    config = {"vocab_size": n_vocab, **CONFIG, "bos_token_id": n_vocab - 1, "eos_token_id": n_vocab - 1}
    config |= changes or {}
    (directory / "config.json").write_text(json.dumps(config))
    arrays = {name: stored(array, kind) for name, array in arrays_of(config, prefix, seed).items()}
    write_weights(directory, arrays, file, shards, legacy)
    return directory
