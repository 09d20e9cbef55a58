"""Reader of GGUF models of the architecture gpt2, as llama.cpp's converter writes them.

The path of such a model is the file, or a folder that holds no other GGUF file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2 import files
from gpt2.errors import FETCH_AGAIN, GPT2Error, printable_name, summarize_names
from gpt2.formats.directory import ModelDir
from gpt2.formats.gguf.header import GGUFFile, has_magic, read_header
from gpt2.formats.gguf.names import (
    ARCHITECTURE,
    EPSILON_KEY,
    PRE_TOKENIZER,
    SIZE_KEYS,
    TOKENIZER_MODEL,
    file_shape,
    metadata_key,
    tensor_name,
)
from gpt2.formats.gguf.tensors import GGUFTensor, locate_tensors, read_pieces, read_raw
from gpt2.formats.gguf.vocabulary import count_ids, read_token_types, read_vocabulary
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import LM_HEAD, WTE, Layout, Weight, Weights
from gpt2.hparams import HParams

SUFFIX = ".gguf"
MAX_VALUE_LENGTH = 40  # characters of a metadata value in a message


def is_model(path: Path) -> bool:
    """Return whether `path` is a GGUF file or a folder with GGUF files, complete or not."""
    if files.is_file(path):
        return path.suffix.lower() == SUFFIX or has_magic(path)
    return bool(_list_files(path))


def _list_files(folder: Path) -> list[Path]:
    if not files.is_folder(folder):
        return []
    with files.reporting_read_errors(folder):
        return sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX and files.is_file(path))


def open_model(path: Path, advice: str = FETCH_AGAIN) -> ModelDir:
    """Open a model after checking that it is a GPT-2 and that the file contains all of its tensors.

    Args:
        path: The file, or the folder that holds it.
        advice: The remedy for a damaged file, which ends the error message.

    Raises:
        GPT2Error: The file is cut off, damaged, unreadable or not a GPT-2, or the folder holds several GGUF files.
    """
    paths = [path] if files.is_file(path) else _list_files(path)
    if len(paths) != 1:
        raise GPT2Error(f"{path} holds {len(paths)} GGUF files; give the path of one of them: {summarize_names(paths)}")
    file = read_header(paths[0], advice)
    _check_architecture(file)
    token_types = read_token_types(file)
    tensors = locate_tensors(file)
    hparams = _read_hparams(file, count_ids(token_types), _is_tied(file, tensors))
    _check_tensors(file, tensors, hparams)
    return ModelDir(
        path,
        hparams,
        file.path,
        lambda path, hparams: _read_weights(file._replace(path=path), tensors, hparams),
        functools.partial(read_vocabulary, file, token_types),
    )


def _check_architecture(file: GGUFFile) -> None:
    """Raise GPT2Error if the file is not a complete GPT-2 model but, for example, an adapter or a part."""
    n_heads = file.metadata.get(metadata_key(SIZE_KEYS["n_head"]))
    allowed_values = {
        "general.architecture": (ARCHITECTURE,),
        "general.type": ("model", None),
        "split.count": (1, None),
        "tokenizer.ggml.model": (TOKENIZER_MODEL,),
        "tokenizer.ggml.pre": (PRE_TOKENIZER, None),  # missing in older files
        metadata_key("attention.head_count_kv"): (n_heads if isinstance(n_heads, int) else 0, None),
    }
    for key, allowed in allowed_values.items():
        value = file.metadata.get(key)
        if not isinstance(value, (str, int, type(None))) or value not in allowed:
            actual = "missing" if value is None else printable_name(str(value)[:MAX_VALUE_LENGTH])
            remedy = "; join its parts with llama-gguf-split --merge" if key == "split.count" else ""
            raise GPT2Error(f"{file.path} is not a GGUF file of GPT-2: {key} is {actual}, not {allowed[0]}{remedy}")


def _read_hparams(file: GGUFFile, n_vocab: int, is_tied: bool) -> HParams:
    sizes = {name: _read_number(file, metadata_key(key), int) for name, key in SIZE_KEYS.items()}
    if sizes["n_inner"] == 4 * sizes["n_embd"]:
        del sizes["n_inner"]
    epsilon = _read_number(file, metadata_key(EPSILON_KEY), float)
    with np.errstate(all="ignore"):
        epsilon = float(str(np.float32(epsilon)))  # the shortest decimal: the float32 of 1e-5 becomes 1e-5 again
    try:
        return HParams(n_vocab, **sizes, layer_norm_epsilon=epsilon, tie_word_embeddings=is_tied)
    except GPT2Error as error:
        raise file.damaged(str(error)) from error


def _read_number(file: GGUFFile, key: str, number_type: type) -> Any:
    value = file.metadata.get(key)
    if type(value) is not number_type:
        actual = "missing" if value is None else "of another type"
        raise file.damaged(f"{key} should be a number, but it is {actual}")
    return value


def _is_tied(file: GGUFFile, tensors: Mapping[str, GGUFTensor]) -> bool:
    """Return whether the output projection is tied: absent, or identical to the token embedding."""
    output = tensors.get(tensor_name(LM_HEAD))
    embedding = tensors.get(tensor_name(WTE))
    if output is None or embedding is None:
        return output is None
    if output._replace(offset=embedding.offset) != embedding:
        return False
    pairs = zip(read_raw(file, output, output.n_rows), read_raw(file, embedding, embedding.n_rows))
    return all(np.array_equal(output_rows, embedding_rows) for output_rows, embedding_rows in pairs)


def _check_tensors(file: GGUFFile, tensors: Mapping[str, GGUFTensor], hparams: HParams) -> None:
    """Check the names and shapes of the tensors against the hyperparameters."""
    expected = {tensor_name(name): file_shape(name, shape) for name, shape in hparams.weight_shapes().items()}
    if missing := [name for name in expected if name not in tensors]:
        raise file.damaged(
            f"it lacks {len(missing)} of {len(expected)} tensors of {hparams}: {summarize_names(missing)}"
        )
    second_copy = {tensor_name(LM_HEAD)} if hparams.tie_word_embeddings else set()
    if unknown := sorted(set(tensors) - set(expected) - second_copy):
        raise GPT2Error(
            f"{file.path} holds {len(unknown)} tensors that GPT-2 does not have: {summarize_names(unknown)}"
        )
    embeddings = (tensor_name(WTE), tensor_name(LM_HEAD))
    for name, shape in expected.items():
        actual = tensors[name].shape
        is_padded = name in embeddings and len(actual) == 2 and actual[0] >= shape[0]
        if actual != ((actual[0], *shape[1:]) if is_padded else shape):
            raise file.damaged(f"{name} has the shape {list(actual)}, but {hparams} needs {list(shape)}")


def _read_weights(file: GGUFFile, tensors: Mapping[str, GGUFTensor], hparams: HParams) -> Weights:
    return {name: _weight(file, tensors, name, shape) for name, shape in hparams.weight_shapes().items()}


def _weight(file: GGUFFile, tensors: Mapping[str, GGUFTensor], name: str, shape: tuple[int, ...]) -> Weight:
    shape = file_shape(name, shape)  # without the rows that pad an embedding
    layout = None if checkpoint.layout(name) is None else Layout.OUT_IN
    file_name = tensor_name(name)
    tensor = tensors[file_name]
    identity = f"{files.file_fingerprint(file.path)} {tensor!r}"
    n_rows = math.prod(shape[:-1])
    return Weight(shape, layout, lambda: read_pieces(file, file_name, tensor, n_rows), identity, file.path, file_name)
