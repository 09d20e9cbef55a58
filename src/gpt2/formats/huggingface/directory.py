"""Model directories as Hugging Face's transformers writes them: `config.json`, weights, and a tokenizer's files.

The weights are `model.safetensors` or `pytorch_model.bin`, or several such files and an index of them. Matrices of
GPT-2 are [inputs, outputs] there as in OpenAI's checkpoints (its class Conv1D), so that nothing is transposed.
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
from gpt2.formats.huggingface.vocabulary import CONFIG_FILE
from gpt2.formats.openai import checkpoint
from gpt2.formats.pytorch import torch_file
from gpt2.formats.stored_tensor import FLOATS, StoredTensor
from gpt2.formats.weights import LM_HEAD, PREFIX, WTE, Weight, Weights
from gpt2.hparams import GELU, GELU_NEW, HParams

INDEX = ".index.json"
WEIGHTS_FILES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
VOCABULARY_FILES = "tokenizer.json, or vocab.json and merges.txt"
# Each size's name, and the one by which transformers knows it too.
SIZES = {
    "n_vocab": ("vocab_size",),
    "n_ctx": ("n_positions", "max_position_embeddings", "n_ctx"),
    "n_embd": ("n_embd", "hidden_size"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_inner": ("n_inner",),
}
VARIANT = ("layer_norm_epsilon", "tie_word_embeddings", "scale_attn_by_inverse_layer_idx")
# transformers/activations.py has several names for each of the two.
ACTIVATIONS = {
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), GELU_NEW),
    **dict.fromkeys(("gelu", "gelu_python"), GELU),
}
# What GPT-2 has not, and the values that say that this one has it not either; the first is transformers' default.
NOT_HAD: dict[str, tuple[Any, ...]] = {
    "scale_attn_weights": (True,),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
    "pruned_heads": ({}, None),
    "auto_map": (None, {}),
}
# Masks that older versions saved, and heads that stand beside the one that gives logits.
UNUSED = re.compile(r"h\.\d+\.attn\.(masked_)?bias|(multiple_choice_head|v_head)\..*")
LEAVES = {"w": "weight", "g": "weight", "b": "bias"}
POINTER = b"version https://git-lfs"


def is_model(path: Path) -> bool:
    """Whether the folder is such a directory, be it whole or not."""
    return files.is_file(path / CONFIG_FILE)


def open_model(path: Path, advice: str = FETCH_AGAIN) -> ModelDir:
    """Checks that all files are there; reads config and vocabulary.

    An embedding that is padded beyond the vocabulary's ids is cut to them. Raises GPT2Error naming what is missing or
    damaged, or what this model has and GPT-2 has not. advice: what to do about what is missing.
    """
    hparams = read_config(path / CONFIG_FILE)
    weights = next((path / name for name in WEIGHTS_FILES if files.is_file(path / name)), None)
    if weights is None:
        raise GPT2Error(f"{path} lacks {' or '.join(name for name in WEIGHTS_FILES if INDEX not in name)}; {advice}")
    if not vocabularies.has_vocabulary(path):
        raise GPT2Error(f"{path} has no vocabulary: copy {VOCABULARY_FILES} of the model it was trained from into it")
    vocabulary = vocabularies.load(path)
    if vocabulary.n_vocab > hparams.n_vocab:
        raise GPT2Error(
            f"{path}: the vocabulary has {vocabulary.n_vocab} ids, but {CONFIG_FILE} says vocab_size {hparams.n_vocab};"
            " they belong to different models"
        )
    hparams = dataclasses.replace(hparams, n_vocab=vocabulary.n_vocab)
    return ModelDir(path, hparams, weights, read_weights, lambda: vocabulary)


def read_config(path: Path) -> HParams:
    """What a `config.json` says; n_vocab is as it says, padding included.

    Raises GPT2Error, naming the file, if it is damaged or not of a GPT-2.
    """
    said = files.read_json(path)
    if not isinstance(said, dict):
        raise DamagedFileError(path, "it should be a JSON object")
    kind = said.get("model_type", "gpt2" if "n_embd" in said else None)  # the first versions did not write it
    if kind != "gpt2":
        raise GPT2Error(f"{path} is of a model of the type {_shown(kind)}; only gpt2 is read")
    for name, ours in NOT_HAD.items():
        if said.get(name, ours[0]) not in ours:
            raise GPT2Error(f"{path}: this model has {name} {_shown(said[name])}, which GPT-2 has not")
    found = {ours: said[name] for ours, names in SIZES.items() for name in reversed(names) if name in said}
    values = {"n_vocab": 50257} | found | {name: said[name] for name in VARIANT if name in said}
    activation = said.get("activation_function", GELU_NEW)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise GPT2Error(f"{path}: activation_function must be one of {known}, not {_shown(activation)}")
    try:
        return HParams(**values, activation_function=ACTIVATIONS[activation])
    except GPT2Error as error:
        raise GPT2Error(f"{path}: {error}") from error


def read_weights(path: Path, hparams: HParams) -> Weights:
    """The weights by OpenAI's names, from a file of weights or an index of several; read when they are asked for.

    Raises GPT2Error, naming file and weight, for what is damaged, missing, or not a GPT-2's.
    """
    tensors = _without_prefix(_tensors(path), path)
    layers = {name.split(".")[1] for name in tensors if name.startswith("h.")}
    if len(layers) != hparams.n_layer:
        raise GPT2Error(f"{path} holds {len(layers)} layers, but its {CONFIG_FILE} says n_layer {hparams.n_layer}")
    wanted = {name: tensor_name(name) for name in hparams.weight_shapes()}
    if missing := [name for name in wanted.values() if name not in tensors]:
        raise GPT2Error(f"{path} lacks {len(missing)} of {len(wanted)} weights of {hparams}, first {missing[0]}")
    known = {*wanted.values(), tensor_name(LM_HEAD)}  # where wte is the output too, transformers does not look at it
    if others := [name for name in tensors if name not in known and not UNUSED.fullmatch(name)]:
        raise GPT2Error(
            f"{path} holds {len(others)} weights that a GPT-2 with this {CONFIG_FILE} has not, first"
            f" {_shown(others[0])}"
        )
    shapes = hparams.weight_shapes()
    return {name: _weight(path, name, tensors[theirs], shapes[name]) for name, theirs in wanted.items()}


def tensor_name(name: str) -> str:
    """OpenAI's name of a weight -> transformers', without the prefix `transformer.`.

    >>> tensor_name("model/h0/attn/c_attn/w"), tensor_name("model/wte")
    ('h.0.attn.c_attn.weight', 'wte.weight')
    """
    *parts, leaf = re.sub(r"^h(\d+)/", r"h/\1/", name.removeprefix(PREFIX)).split("/")
    return ".".join([*parts, LEAVES[leaf]] if leaf in LEAVES else [*parts, leaf, "weight"])


def _weight(path: Path, name: str, tensor: StoredTensor, shape: tuple[int, ...]) -> Weight:
    if name in (WTE, LM_HEAD) and len(tensor.shape) == 2 and tensor.shape[0] > shape[0]:  # padded
        tensor = tensor._replace(shape=(shape[0], tensor.shape[1]))
    if tensor.shape != shape:
        raise GPT2Error(
            f"{path}: {tensor_name(name)} has the shape {list(tensor.shape)}, but should have {list(shape)}"
        )
    if tensor.dtype not in FLOATS:
        raise GPT2Error(f"{path}: {tensor_name(name)} is {tensor.dtype}, but weights are one of {', '.join(FLOATS)}")
    return Weight(shape, checkpoint.layout(name), tensor.pieces, tensor.identity)


def _tensors(path: Path) -> dict[str, StoredTensor]:
    """All tensors of a file of weights, or of those that an index names."""
    if path.name.endswith(INDEX):
        return _sharded(path)
    _check_is_there(path)
    if path.suffix == ".safetensors":
        return safetensors.read(path)
    found = torch_file.read(path)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise DamagedFileError(path, "it holds no weights with names")
    if others := [name for name, value in found.items() if not isinstance(value, StoredTensor)]:
        raise GPT2Error(f"{path} should hold weights alone, but {_shown(others[0])} is none")
    return found


def _sharded(path: Path) -> dict[str, StoredTensor]:
    said = files.read_json(path)
    places = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise DamagedFileError(path, "it does not say in which files the weights are")
    found: dict[str, StoredTensor] = {}
    suffix = Path(path.name.removesuffix(INDEX)).suffix
    for name in dict.fromkeys(places.values()):
        if not re.fullmatch(r"[\w.-]+", name) or Path(name).suffix != suffix:
            raise DamagedFileError(path, f"{_shown(name)} is no name of a file of weights beside it")
        for tensor, content in _tensors(path.with_name(name)).items():
            if places.get(tensor, name) != name or tensor in found:
                raise DamagedFileError(path, f"{_shown(tensor)} is in two files")
            found[tensor] = content
    if missing := places.keys() - found.keys():
        raise DamagedFileError(path, f"{_shown(min(missing))} is not in {places[min(missing)]}")
    return found


def _check_is_there(path: Path) -> None:
    """Raises GPT2Error for a file that is missing, or only stands for one that git has not fetched."""
    if not files.is_file(path):
        raise GPT2Error(f"{path} is missing; fetch or copy it")
    with files.reporting_read_errors(path), path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise GPT2Error(f"{path} is only a pointer of Git LFS to the weights; fetch them with: git lfs pull")


def _without_prefix(tensors: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    """By their names in the transformer itself, which stand behind `transformer.` where it has a head."""
    found = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise DamagedFileError(path, "it holds a weight twice, with and without transformer. before its name")
    return found


def _shown(value: object) -> str:
    return printable_name(value)[:100] if isinstance(value, str) else reprlib.repr(value)
