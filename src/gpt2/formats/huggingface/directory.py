"""Reader of model directories of Hugging Face's transformers: `config.json`, weights, and a tokenizer's files.

The weights are `model.safetensors` or `pytorch_model.bin`, or several such files (shards) and an index of them. As in
OpenAI's checkpoints, GPT-2's matrices are [inputs, outputs] (class Conv1D), so no matrix is transposed.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.errors import FETCH_AGAIN, DamagedFileError, GPT2Error, printable_name
from gpt2.formats import vocabularies
from gpt2.formats.directory import ModelDir
from gpt2.formats.huggingface import safetensors
from gpt2.formats.huggingface.special_tokens import CONFIG_FILE
from gpt2.formats.openai import checkpoint
from gpt2.formats.pytorch import torch_file
from gpt2.formats.stored_tensor import FLOATS, StoredTensor
from gpt2.formats.weights import LM_HEAD, PREFIX, WTE, Weight, Weights
from gpt2.hparams import GELU, GELU_NEW, HParams

INDEX_SUFFIX = ".index.json"
WEIGHTS_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX_SUFFIX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
VOCABULARY_FILES = "tokenizer.json, or vocab.json and merges.txt"
# The keys in `config.json` for each field of HParams. If a file has several of them, the first is used.
SIZE_KEYS = {
    "n_vocab": ("vocab_size",),
    "n_ctx": ("n_positions", "max_position_embeddings", "n_ctx"),
    "n_embd": ("n_embd", "hidden_size"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_inner": ("n_inner",),
}
DEFAULT_N_VOCAB = 50257
VARIANT_KEYS = ("layer_norm_epsilon", "tie_word_embeddings", "scale_attn_by_inverse_layer_idx")
# The names of each of the two functions in transformers/activations.py.
ACTIVATIONS = {
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), GELU_NEW),
    **dict.fromkeys(("gelu", "gelu_python"), GELU),
}
# Keys of features that GPT-2 does not have, with the values that disable them; the first is transformers' default.
UNSUPPORTED_FEATURES: dict[str, tuple[Any, ...]] = {
    "scale_attn_weights": (True,),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
    "pruned_heads": ({}, None),
    "auto_map": (None, {}),
}
# Attention masks that older versions saved, and heads that are not the language model's.
IGNORED_TENSORS = re.compile(r"h\.\d+\.attn\.(masked_)?bias|(multiple_choice_head|v_head)\..*")
LEAF_NAMES = {"w": "weight", "g": "weight", "b": "bias"}  # from OpenAI's names to transformers'
TENSOR_PREFIX = "transformer."
GIT_LFS_MAGIC = b"version https://git-lfs"


def is_model(path: Path) -> bool:
    """Return whether the folder looks like a model of this format, complete or not."""
    return files.is_file(path / CONFIG_FILE)


def open_model(path: Path, advice: str = FETCH_AGAIN) -> ModelDir:
    """Check that all files exist, and read the config and the vocabulary.

    If the embedding has more rows than the vocabulary has ids, the additional rows are ignored.

    Args:
        path: A folder for which `is_model` is true.
        advice: The remedy for missing files, which ends the error message.

    Raises:
        GPT2Error: If a file is missing or damaged, or if the model has a feature that GPT-2 does not have.
    """
    hparams = read_config(path / CONFIG_FILE)
    weights_path = next((path / name for name in WEIGHTS_FILES if files.is_file(path / name)), None)
    if weights_path is None:
        unsharded = [name for name in WEIGHTS_FILES if not name.endswith(INDEX_SUFFIX)]
        raise GPT2Error(f"{path} lacks {' or '.join(unsharded)}; {advice}")
    if not vocabularies.has_vocabulary(path):
        raise GPT2Error(f"{path} has no vocabulary: copy {VOCABULARY_FILES} of its base model into it")
    vocabulary = vocabularies.load(path)
    if vocabulary.n_vocab > hparams.n_vocab:
        raise GPT2Error(
            f"{path}: the vocabulary has {vocabulary.n_vocab} ids, but {CONFIG_FILE} has vocab_size {hparams.n_vocab};"
            " they belong to different models"
        )
    hparams = dataclasses.replace(hparams, n_vocab=vocabulary.n_vocab)
    return ModelDir(path, hparams, weights_path, read_weights, lambda: vocabulary)


def read_config(path: Path) -> HParams:
    """Return the hyperparameters in a `config.json`; n_vocab includes padding.

    Raises:
        GPT2Error: If the file is damaged or does not describe a GPT-2. The message names the file.
    """
    config = files.read_json(path)
    if not isinstance(config, dict):
        raise DamagedFileError(path, "it should be a JSON object")
    # Files of the first versions lack the key.
    model_type = config.get("model_type", "gpt2" if "n_embd" in config else None)
    if model_type != "gpt2":
        raise GPT2Error(f"{path} describes a model of the type {_shorten(model_type)}; only gpt2 is supported")
    for name, off_values in UNSUPPORTED_FEATURES.items():
        if config.get(name, off_values[0]) not in off_values:
            raise GPT2Error(f"{path}: this model has {name} {_shorten(config[name])}, which GPT-2 does not have")
    sizes = {field: config[key] for field, keys in SIZE_KEYS.items() for key in reversed(keys) if key in config}
    values = {"n_vocab": DEFAULT_N_VOCAB} | sizes | {key: config[key] for key in VARIANT_KEYS if key in config}
    activation = config.get("activation_function", GELU_NEW)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise GPT2Error(f"{path}: activation_function must be one of {known}, not {_shorten(activation)}")
    try:
        return HParams(**values, activation_function=ACTIVATIONS[activation])
    except GPT2Error as error:
        raise GPT2Error(f"{path}: {error}") from error


def read_weights(path: Path, hparams: HParams) -> Weights:
    """Return the weights by their names in OpenAI's checkpoints; numbers are read on request.

    Args:
        path: A weight file, or the index of several weight files.
        hparams: The model's hyperparameters.

    Raises:
        GPT2Error: If a weight is damaged, missing or unknown to GPT-2. The message names the file and the weight.
    """
    stored = _read_tensors(path)
    tensors = _strip_prefix(stored, path)
    layers = {name.split(".")[1] for name in tensors if name.startswith("h.")}
    if len(layers) != hparams.n_layer:
        raise GPT2Error(f"{path} holds {len(layers)} layers, but its {CONFIG_FILE} has n_layer {hparams.n_layer}")
    shapes = hparams.weight_shapes()
    tensor_names = {name: tensor_name(name) for name in shapes}
    if missing := [name for name in tensor_names.values() if name not in tensors]:
        raise GPT2Error(f"{path} lacks {len(missing)} of {len(shapes)} weights of {hparams}; the first is {missing[0]}")
    known = {*tensor_names.values(), tensor_name(LM_HEAD)}  # transformers ignores the head of a tied embedding
    if unknown := [name for name in tensors if name not in known and not IGNORED_TENSORS.fullmatch(name)]:
        raise GPT2Error(
            f"{path} holds {len(unknown)} weights that a GPT-2 with this {CONFIG_FILE} does not have; the first is"
            f" {_shorten(unknown[0])}"
        )
    file_names = {key: key if key in stored else TENSOR_PREFIX + key for key in tensors}
    return {
        name: _make_weight(path, name, file_names[key], tensors[key], shapes[name])
        for name, key in tensor_names.items()
    }


def tensor_name(name: str) -> str:
    """Return a weight's name in transformers, without the prefix `transformer.`.

    >>> tensor_name("model/h0/attn/c_attn/w"), tensor_name("model/wte")
    ('h.0.attn.c_attn.weight', 'wte.weight')

    Args:
        name: The weight's name in OpenAI's checkpoints.
    """
    *parts, leaf = re.sub(r"^h(\d+)/", r"h/\1/", name.removeprefix(PREFIX)).split("/")
    return ".".join([*parts, LEAF_NAMES[leaf]] if leaf in LEAF_NAMES else [*parts, leaf, "weight"])


def _make_weight(path: Path, name: str, file_name: str, tensor: StoredTensor, shape: tuple[int, ...]) -> Weight:
    if name in (WTE, LM_HEAD) and len(tensor.shape) == 2 and tensor.shape[0] > shape[0]:  # padded
        tensor = tensor._replace(shape=(shape[0], tensor.shape[1]))
    if tensor.shape != shape:
        raise GPT2Error(
            f"{path}: {tensor_name(name)} has the shape {list(tensor.shape)}, but should have {list(shape)}"
        )
    if tensor.dtype not in FLOATS:
        raise GPT2Error(
            f"{path}: {tensor_name(name)} is {tensor.dtype}, but weights must be one of {', '.join(FLOATS)}"
        )
    path = tensor.storage.path
    return Weight(shape, checkpoint.layout(name), tensor.pieces, tensor.identity, path, file_name, tensor.checksum)


def _read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return all tensors of a weight file, or of the files in an index."""
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    _check_exists(path)
    if path.suffix == ".safetensors":
        return safetensors.read(path)
    tensors = torch_file.read(path)
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise DamagedFileError(path, "it does not hold a dictionary of named weights")
    if others := [name for name, value in tensors.items() if not isinstance(value, StoredTensor)]:
        raise GPT2Error(f"{path} should hold only weights, but {_shorten(others[0])} is not a tensor")
    return tensors


def _read_shards(path: Path) -> dict[str, StoredTensor]:
    index = files.read_json(path)
    shard_of = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise DamagedFileError(path, "it does not map weights to files")
    tensors: dict[str, StoredTensor] = {}
    suffix = Path(path.name.removesuffix(INDEX_SUFFIX)).suffix
    for shard in dict.fromkeys(shard_of.values()):
        if not re.fullmatch(r"[\w.-]+", shard) or Path(shard).suffix != suffix:
            raise DamagedFileError(path, f"{_shorten(shard)} is not the name of a weights file in the same folder")
        for name, tensor in _read_tensors(path.with_name(shard)).items():
            if shard_of.get(name, shard) != shard or name in tensors:
                raise DamagedFileError(path, f"{_shorten(name)} is in two files")
            tensors[name] = tensor
    if missing := shard_of.keys() - tensors.keys():
        raise DamagedFileError(path, f"{_shorten(min(missing))} is not in {shard_of[min(missing)]}")
    return tensors


def _check_exists(path: Path) -> None:
    """Raise GPT2Error if a file is missing or is a Git LFS pointer instead of its content."""
    if not files.is_file(path):
        raise GPT2Error(f"{path} is missing; fetch or copy it")
    with files.reporting_read_errors(path), path.open("rb") as file:
        if file.read(len(GIT_LFS_MAGIC)) == GIT_LFS_MAGIC:
            raise GPT2Error(f"{path} is only a Git LFS pointer to the weights; fetch the weights with: git lfs pull")


def _strip_prefix(tensors: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    """Remove the prefix `transformer.`, part of all names if the file was saved from a model with a head."""
    stripped = {name.removeprefix(TENSOR_PREFIX): tensor for name, tensor in tensors.items()}
    if len(stripped) < len(tensors):
        raise DamagedFileError(path, f"it holds a weight twice, with and without the prefix {TENSOR_PREFIX}")
    return stripped


def _shorten(value: object) -> str:
    return printable_name(value)[:100] if isinstance(value, str) else reprlib.repr(value)
