"""One file in GGUF, of the architecture gpt2, as llama.cpp runs it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import GPT2Error
from gpt2.export import compare, options
from gpt2.export.byte_level import require_end_of_text, special_tokens
from gpt2.export.options import DEFAULT_OPTIONS, ExportOptions
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.gguf.header import DEFAULT_ALIGNMENT
from gpt2.formats.gguf.model import (
    ARCHITECTURE,
    CONTROL_TOKEN,
    NORMAL_TOKEN,
    PRE_TOKENIZER,
    TOKENIZER_MODEL,
    UNUSED_TOKEN,
    file_shape,
    tensor_name,
)
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import Layout
from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

NAME, IS_FILE = "gguf", True
HELD = ("n_inner", "layer_norm_epsilon", "tie_word_embeddings")  # of what variants differ in
TYPES = {options.FLOAT32: "F32", options.FLOAT16: "F16", options.BFLOAT16: "BF16", options.Q8_0: "Q8_0"}
FILE_TYPES = {options.FLOAT32: 0, options.FLOAT16: 1, options.Q8_0: 7, options.BFLOAT16: 32}  # llama.cpp's llama_ftype
BLOCK = 32  # numbers of Q8_0 that share a scale


def check(hparams: HParams, vocabulary: Vocabulary, chosen: ExportOptions) -> None:
    """Raises GPT2Error, naming it, for what llama.cpp's gpt2 does not compute; UsageError for a dtype."""
    options.resolve_dtype(chosen, options.DTYPES, NAME)
    if others := [f"{name} {value}" for name, value in hparams.variant_fields().items() if name not in HELD]:
        raise GPT2Error(f"llama.cpp, which reads GGUF, computes no GPT-2 of {', '.join(others)}")
    require_end_of_text(vocabulary, "GGUF")


def write(
    model: ModelDir,
    vocabulary: Vocabulary,
    path: Path,
    chosen: ExportOptions = DEFAULT_OPTIONS,
    report: ByteProgress = no_callback,
) -> None:
    """Writes the file, at most one weight in memory at a time. Raises GPT2Error for what float16 does not have."""
    from gguf import GGUFWriter

    weights = compare.with_progress(model, report)
    shapes = {name: file_shape(name, shape) for name, shape in model.hparams.weight_shapes().items()}
    kinds = {name: _type(name, shape, chosen) for name, shape in shapes.items()}
    writer = GGUFWriter(path, ARCHITECTURE)
    try:
        _describe(writer, model, options.resolve_dtype(chosen, options.DTYPES, NAME))
        _describe_vocabulary(writer, require_end_of_text(vocabulary, "GGUF"))
        for name, shape in shapes.items():
            size = _size(shape, kinds[name])
            writer.add_tensor_info(tensor_name(name), shape, np.dtype(np.float32), size, _kind(kinds[name]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    with path.open("ab") as file:  # not by the package, which takes whole tensors, and says nothing of full disks
        for name in shapes:
            file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))
            for piece in options.read_rows(weights[name], Layout.OUT_IN):
                file.write(np.ascontiguousarray(_stored(name, piece, kinds[name])).data)
        file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))


def verify(model: ModelDir, vocabulary: Vocabulary, path: Path, chosen: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Raises GPT2Error unless what was written is the model, to the rounding of its numbers."""
    roundings = {dtype: compare.rounding_tolerance(dtype) for dtype in options.DTYPES}
    compare.verify_same(
        model, vocabulary, path, lambda name, value: roundings[_type(name, value.shape, chosen)](name, value)
    )


def _type(name: str, shape: tuple[int, ...], chosen: ExportOptions) -> str:
    """What a weight's numbers become: those of vectors and positions stay float32, as llama.cpp wants them, and Q8_0
    has blocks."""
    dtype = options.resolve_dtype(chosen, options.DTYPES, NAME)
    if checkpoint.layout(name) is None:
        return options.FLOAT32
    return options.FLOAT16 if dtype == options.Q8_0 and shape[-1] % BLOCK else dtype


def _size(shape: tuple[int, ...], dtype: str) -> int:
    """In bytes."""
    from gguf.quants import quant_shape_to_byte_shape

    return math.prod(quant_shape_to_byte_shape(shape, _kind(dtype)))


def _kind(dtype: str) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[TYPES[dtype]]


def _stored(name: str, piece: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != options.Q8_0:
        return options.cast_values(name, piece, dtype)
    from gguf import quants

    return quants.quantize(piece, _kind(dtype))


def _describe(writer: Any, model: ModelDir, dtype: str) -> None:
    from gguf import GGML_QUANT_VERSION

    hparams = model.hparams
    writer.add_type("model")
    writer.add_name(model.path.stem)
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_context_length(hparams.n_ctx)
    writer.add_embedding_length(hparams.n_embd)
    writer.add_feed_forward_length(hparams.mlp_size)
    writer.add_block_count(hparams.n_layer)
    writer.add_head_count(hparams.n_head)
    writer.add_layer_norm_eps(hparams.layer_norm_epsilon)


def _describe_vocabulary(writer: Any, encoder: Encoder) -> None:
    special = special_tokens(encoder)
    pieces = {i: piece for piece, i in encoder.ids_of.items()} | special
    ids = range(encoder.n_vocab)
    writer.add_tokenizer_model(TOKENIZER_MODEL)
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([pieces.get(i, f"[PAD{i}]") for i in ids])
    writer.add_token_types(
        [CONTROL_TOKEN if i in special else NORMAL_TOKEN if i in pieces else UNUSED_TOKEN for i in ids]
    )
    writer.add_token_merges([f"{left} {right}" for left, right in encoder.merges()])
    writer.add_bos_token_id(encoder.end_of_text)
    writer.add_eos_token_id(encoder.end_of_text)
    writer.add_add_bos_token(False)
