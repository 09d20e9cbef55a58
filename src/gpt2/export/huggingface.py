"""Export to a folder for transformers: config.json, safetensors weights and the tokenizer's files."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import GPT2Error
from gpt2.export import compare, safetensors
from gpt2.export.byte_level import require_byte_level, special_tokens
from gpt2.export.options import (
    BFLOAT16,
    DEFAULT_OPTIONS,
    FLOAT16,
    FLOAT32,
    ExportOptions,
    cast_values,
    read_rows,
    resolve_dtype,
)
from gpt2.export.safetensors import LazyTensor
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import LM_HEAD, PREFIX, Layout, Weight
from gpt2.hparams import HParams
from gpt2.text import bpe_files
from gpt2.text.added_tokens import AddedToken
from gpt2.text.vocabulary import Vocabulary

NAME = "huggingface"
IS_FILE = False
TENSOR_TYPES = {FLOAT32: "F32", FLOAT16: "F16", BFLOAT16: "BF16"}  # names in safetensors
WEIGHTS_FILE = "model.safetensors"
SHARD_FILE = "model-{:05d}-of-{:05d}.safetensors"
INDEX_FILE = "model.safetensors.index.json"
WEIGHT_NAMES = {"w": "weight", "g": "weight", "b": "bias", "wte": "wte.weight", "wpe": "wpe.weight"}


def check(hparams: HParams, vocabulary: Vocabulary, options: ExportOptions) -> None:
    """Check that transformers' GPT-2 supports the model; see `ExportFormat.check`."""
    resolve_dtype(options, list(TENSOR_TYPES), NAME)
    if hparams.is_factorized:
        raise GPT2Error(
            f"transformers does not support a GPT-2 with embeddings and layers of different widths: n_token_embd is"
            f" {hparams.token_size}, and n_embd is {hparams.n_embd}"
        )
    require_byte_level(vocabulary, NAME)


def write(
    model: ModelDir,
    vocabulary: Vocabulary,
    folder: Path,
    options: ExportOptions = DEFAULT_OPTIONS,
    progress: ByteProgress = no_callback,
) -> None:
    """Write all files, with at most one weight in memory at a time; see `ExportFormat.write`."""
    encoder = require_byte_level(vocabulary, NAME)
    dtype = resolve_dtype(options, list(TENSOR_TYPES), NAME)
    end_of_text = encoder.ids_of.get(encoder.end_token)
    ending_ids = sorted(encoder.ending_ids, key=lambda token: (token != end_of_text, token))
    _write_weights(folder, list(_lazy_tensors(model, dtype, progress)), options.shard_size)
    _write_json(folder / "config.json", _config(model.hparams, dtype, end_of_text))
    eos = ending_ids if len(ending_ids) > 1 else end_of_text
    generation_config = {"_from_model_config": True, "bos_token_id": end_of_text, "eos_token_id": eos}
    _write_json(folder / "generation_config.json", generation_config)
    _write_tokenizer(folder, encoder, model.hparams.n_ctx)


def verify(model: ModelDir, vocabulary: Vocabulary, folder: Path, options: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Compare the folder with the model; see `ExportFormat.verify`."""
    dtype = resolve_dtype(options, list(TENSOR_TYPES), NAME)
    compare.verify_same(model, vocabulary, folder, compare.rounding_tolerance(dtype))


def tensor_name(name: str) -> str:
    """Return a weight's name in transformers' GPT2LMHeadModel, given its name in OpenAI's checkpoints.

    >>> tensor_name("model/h3/attn/c_attn/w"), tensor_name("model/wte")
    ('transformer.h.3.attn.c_attn.weight', 'transformer.wte.weight')
    """
    if name == LM_HEAD:
        return "lm_head.weight"
    *scopes, weight = name.removeprefix(PREFIX).split("/")
    if scopes and scopes[0].removeprefix("h").isdecimal():
        scopes[:1] = ["h", scopes[0].removeprefix("h")]
    return ".".join(["transformer", *scopes, WEIGHT_NAMES[weight]])


def _lazy_tensors(model: ModelDir, dtype: str, progress: ByteProgress) -> Iterator[LazyTensor]:
    weights = compare.with_progress(model, progress)
    for name, shape in model.hparams.weight_shapes().items():
        read = functools.partial(_read_values, name, weights[name], dtype)
        yield LazyTensor(tensor_name(name), TENSOR_TYPES[dtype], shape, read)


def _read_values(name: str, weight: Weight, dtype: str) -> Iterator[np.ndarray]:
    layout = checkpoint.layout(name) or Layout.IN_OUT  # transformers uses OpenAI's layouts
    for rows in read_rows(weight, layout):
        yield cast_values(name, rows, dtype)


def _write_weights(folder: Path, tensors: Sequence[LazyTensor], shard_size: int) -> None:
    """Write one file, or several of at most `shard_size` bytes; a larger tensor gets a separate file."""
    shards: list[list[LazyTensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(other.byte_size for other in shards[-1]) + tensor.byte_size > shard_size:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        safetensors.write(folder / WEIGHTS_FILE, tensors)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file_name = SHARD_FILE.format(number, len(shards))
        safetensors.write(folder / file_name, shard)
        weight_map.update({tensor.name: file_name for tensor in shard})
    total_size = sum(tensor.byte_size for tensor in tensors)
    _write_json(folder / INDEX_FILE, {"metadata": {"total_size": total_size}, "weight_map": weight_map})


def _config(hparams: HParams, dtype: str, end_of_text: int | None) -> dict[str, Any]:
    """Return the fields of transformers' GPT2Config, with the dropout and initializer range of OpenAI's training."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": hparams.n_vocab,
        "n_positions": hparams.n_ctx,
        "n_ctx": hparams.n_ctx,
        "n_embd": hparams.n_embd,
        "n_head": hparams.n_head,
        "n_layer": hparams.n_layer,
        "n_inner": hparams.n_inner,
        "activation_function": hparams.activation_function,
        "layer_norm_epsilon": hparams.layer_norm_epsilon,
        "tie_word_embeddings": hparams.tie_word_embeddings,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": hparams.scale_attn_by_inverse_layer_idx,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "initializer_range": 0.02,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "use_cache": True,
        "torch_dtype": dtype,
    }


def _write_tokenizer(folder: Path, encoder: Encoder, n_ctx: int) -> None:
    """Write OpenAI's two vocabulary files under transformers' names, and tokenizer.json for the tokenizers library."""
    special = special_tokens(encoder)
    ids = {special.get(token, piece): token for piece, token in encoder.ids_of.items()}
    _write_json(folder / "vocab.json", ids)
    (folder / "merges.txt").write_bytes(bpe_files.merges_content(encoder.merges()))
    # A vocabulary of OpenAI's files has no added tokens, but transformers expects its special tokens to be such.
    added = encoder.added.tokens or [AddedToken(text, token, special=True) for token, text in special.items()]
    _write_fast_tokenizer(folder / "tokenizer.json", ids, encoder.merges(), added)
    roles = ("bos_token", "eos_token", "unk_token") if encoder.end_token in ids else ()
    tokens = dict.fromkeys(roles, encoder.end_token)
    # Without an end-of-text token, GPT2Tokenizer would add one to the ids.
    tokenizer_class = "GPT2Tokenizer" if roles else "PreTrainedTokenizerFast"
    settings = {"add_prefix_space": False, "clean_up_tokenization_spaces": False, "model_max_length": n_ctx}
    _write_json(folder / "special_tokens_map.json", tokens)
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": tokenizer_class, **settings, **tokens})


def _write_fast_tokenizer(
    path: Path, ids: dict[str, int], merges: list[tuple[str, str]], added: Sequence[AddedToken]
) -> None:
    import tokenizers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    for token in added:
        flags = dataclasses.asdict(token)
        del flags["id"]  # the model has the ids
        tokenizer.add_tokens([tokenizers.AddedToken(**flags)])
    tokenizer.save(str(path))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
