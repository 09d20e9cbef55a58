"""A folder as transformers saves a GPT-2: config.json, weights in safetensors, and the files of its tokenizer."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.encoder import END_OF_TEXT, MERGES_FILE, Encoder
from gpt2.errors import GPT2Error
from gpt2.export import compare, options, safetensors
from gpt2.export.byte_level import require_byte_level, special_tokens
from gpt2.export.options import DEFAULT_OPTIONS, ExportOptions
from gpt2.export.safetensors import LazyTensor
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import LM_HEAD, PREFIX, Layout, Weight
from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

NAME, IS_FILE = "huggingface", False
TYPES = {options.FLOAT32: "F32", options.FLOAT16: "F16", options.BFLOAT16: "BF16"}
ONE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
SHARD_FILE = "model-{:05d}-of-{:05d}.safetensors"
ENDS = {"w": "weight", "g": "weight", "b": "bias", "wte": "wte.weight", "wpe": "wpe.weight"}


def check(hparams: HParams, vocabulary: Vocabulary, chosen: ExportOptions) -> None:
    """Raises GPT2Error, naming it, for what transformers' GPT-2 has not; UsageError for a dtype."""
    options.resolve_dtype(chosen, list(TYPES), NAME)
    if hparams.is_factorized:
        raise GPT2Error(
            f"transformers has no GPT-2 whose embeddings are narrower than its layers: n_token_embd is"
            f" {hparams.token_size}, and n_embd {hparams.n_embd}"
        )
    require_byte_level(vocabulary, NAME)


def write(
    model: ModelDir,
    vocabulary: Vocabulary,
    folder: Path,
    chosen: ExportOptions = DEFAULT_OPTIONS,
    report: ByteProgress = no_callback,
) -> None:
    """Writes all files into the folder, one weight in memory at a time. Raises GPT2Error for numbers that float16 does
    not have."""
    encoder = require_byte_level(vocabulary, NAME)
    dtype = options.resolve_dtype(chosen, list(TYPES), NAME)
    end = encoder.ids_of.get(END_OF_TEXT)
    _write_weights(folder, list(_tensors(model, dtype, report)), chosen.shard_size)
    _write_json(folder / "config.json", _config(model.hparams, dtype, end))
    ends = {"bos_token_id": end, "eos_token_id": end}
    _write_json(folder / "generation_config.json", {"_from_model_config": True, **ends})
    _write_tokenizer(folder, encoder, model.hparams.n_ctx)


def verify(model: ModelDir, vocabulary: Vocabulary, folder: Path, chosen: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Raises GPT2Error unless what was written is the model, to the rounding of its numbers."""
    dtype = options.resolve_dtype(chosen, list(TYPES), NAME)
    compare.verify_same(model, vocabulary, folder, compare.rounding_tolerance(dtype))


def tensor_name(name: str) -> str:
    """A weight's name in transformers' GPT2LMHeadModel.

    >>> tensor_name("model/h3/attn/c_attn/w"), tensor_name("model/wte")
    ('transformer.h.3.attn.c_attn.weight', 'transformer.wte.weight')
    """
    if name == LM_HEAD:
        return "lm_head.weight"
    *parts, end = name.removeprefix(PREFIX).split("/")
    if parts and parts[0].removeprefix("h").isdecimal():
        parts[:1] = ["h", parts[0].removeprefix("h")]
    return ".".join(["transformer", *parts, ENDS[end]])


def _tensors(model: ModelDir, dtype: str, report: ByteProgress) -> Iterator[LazyTensor]:
    weights = compare.with_progress(model, report)
    for name, shape in model.hparams.weight_shapes().items():
        yield LazyTensor(tensor_name(name), TYPES[dtype], shape, functools.partial(_pieces, name, weights[name], dtype))


def _pieces(name: str, weight: Weight, dtype: str) -> Iterator[np.ndarray]:
    layout = checkpoint.layout(name) or Layout.IN_OUT  # transformers' matrices stand as OpenAI's do
    for piece in options.read_rows(weight, layout):
        yield options.cast_values(name, piece, dtype)


def _write_weights(folder: Path, tensors: Sequence[LazyTensor], shard_size: int) -> None:
    """In one file, or in several of at most so many bytes, unless one tensor has more."""
    shards: list[list[LazyTensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(one.size for one in shards[-1]) + tensor.size > shard_size:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        safetensors.write(folder / ONE_FILE, tensors)
        return
    files_of = {}
    for number, shard in enumerate(shards, start=1):
        file = SHARD_FILE.format(number, len(shards))
        safetensors.write(folder / file, shard)
        files_of.update({tensor.name: file for tensor in shard})
    total = {"total_size": sum(tensor.size for tensor in tensors)}
    _write_json(folder / INDEX_FILE, {"metadata": total, "weight_map": files_of})


def _config(hparams: HParams, dtype: str, end: int | None) -> dict[str, Any]:
    """As transformers' GPT2Config names it; dropout and deviation as in OpenAI's training."""
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
        "bos_token_id": end,
        "eos_token_id": end,
        "use_cache": True,
        "torch_dtype": dtype,
    }


def _write_tokenizer(folder: Path, encoder: Encoder, n_ctx: int) -> None:
    """Both as OpenAI's two files under transformers' names, and in the one file of its tokenizers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    special = special_tokens(encoder)
    ids = {special.get(i, piece): i for piece, i in encoder.ids_of.items()}
    merges = encoder.merges()
    _write_json(folder / "vocab.json", ids)
    (folder / "merges.txt").write_bytes(encoder.files()[MERGES_FILE])
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special.values()])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("bos_token", "eos_token", "unk_token") if END_OF_TEXT in ids else ()
    tokens = {name: END_OF_TEXT for name in names}
    kind = "GPT2Tokenizer" if names else "PreTrainedTokenizerFast"  # the first would add its end of text to the ids
    settings = {"add_prefix_space": False, "clean_up_tokenization_spaces": False, "model_max_length": n_ctx}
    _write_json(folder / "special_tokens_map.json", tokens)
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": kind, **settings, **tokens})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
