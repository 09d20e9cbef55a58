"""Export to a GGUF file of the architecture gpt2, for llama.cpp."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import GPT2Error, summarize_names
from gpt2.export import compare
from gpt2.export.byte_level import require_end_of_text, special_tokens, warn_of_added_tokens
from gpt2.export.options import (
    BFLOAT16,
    DEFAULT_OPTIONS,
    DTYPES,
    FLOAT16,
    FLOAT32,
    Q8_0,
    ExportOptions,
    cast_values,
    overflow_error,
    read_rows,
    resolve_dtype,
)
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.gguf.header import DEFAULT_ALIGNMENT
from gpt2.formats.gguf.names import (
    ARCHITECTURE,
    CONTROL_TOKEN,
    ENDING_KEYS,
    NORMAL_TOKEN,
    PRE_TOKENIZER,
    TOKENIZER_MODEL,
    UNUSED_TOKEN,
    USER_DEFINED_TOKEN,
    file_shape,
    tensor_name,
)
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import Layout
from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

NAME = "gguf"
IS_FILE = True
SUPPORTED_VARIANTS = ("n_inner", "layer_norm_epsilon", "tie_word_embeddings")  # variants that llama.cpp supports
TENSOR_TYPES = {FLOAT32: "F32", FLOAT16: "F16", BFLOAT16: "BF16", Q8_0: "Q8_0"}  # names in GGMLQuantizationType
FILE_TYPES = {FLOAT32: 0, FLOAT16: 1, Q8_0: 7, BFLOAT16: 32}  # llama.cpp's llama_ftype
Q8_0_BLOCK = 32  # number of values with a common scale


def check(hparams: HParams, vocabulary: Vocabulary, options: ExportOptions) -> None:
    """Check that llama.cpp's gpt2 architecture supports the model; see `ExportFormat.check`."""
    resolve_dtype(options, DTYPES, NAME)
    unsupported = [
        f"{name} {value}" for name, value in hparams.variant_fields().items() if name not in SUPPORTED_VARIANTS
    ]
    if unsupported:
        raise GPT2Error(f"llama.cpp, which reads GGUF, does not support a GPT-2 with {', '.join(unsupported)}")
    encoder = require_end_of_text(vocabulary, "GGUF")
    warn_of_added_tokens(
        [token.content for token in encoder.added.tokens if not token.is_plain],
        "lose their conditions lstrip, rstrip and single_word, which GGUF lacks",
    )
    if more := sorted(encoder.ending_ids - {encoder.end_of_text})[len(ENDING_KEYS) - 1 :]:
        texts = summarize_names([encoder.token_text(token) for token in more])
        warnings.warn(f"a GGUF file names {len(ENDING_KEYS)} tokens that end a text, so {texts} will not", stacklevel=2)


def write(
    model: ModelDir,
    vocabulary: Vocabulary,
    path: Path,
    options: ExportOptions = DEFAULT_OPTIONS,
    progress: ByteProgress = no_callback,
) -> None:
    """Write the file, with at most one weight in memory at a time; see `ExportFormat.write`."""
    shapes = {name: file_shape(name, shape) for name, shape in model.hparams.weight_shapes().items()}
    dtypes = {name: _weight_dtype(name, shape, options) for name, shape in shapes.items()}
    _write_header(model, vocabulary, path, options, shapes, dtypes)
    weights = compare.with_progress(model, progress)
    # The gguf package needs whole tensors in memory and does not report full disks.
    with path.open("ab") as file:
        for name in shapes:
            file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))
            for rows in read_rows(weights[name], Layout.OUT_IN):
                file.write(np.ascontiguousarray(_encode_values(name, rows, dtypes[name])).data)
        file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))


def verify(model: ModelDir, vocabulary: Vocabulary, path: Path, options: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Compare the file with the model; see `ExportFormat.verify`."""
    tolerances = {dtype: compare.rounding_tolerance(dtype) for dtype in DTYPES}

    def tolerance(name: str, values: np.ndarray) -> Any:
        return tolerances[_weight_dtype(name, values.shape, options)](name, values)

    compare.verify_same(model, vocabulary, path, tolerance)


def _weight_dtype(name: str, shape: tuple[int, ...], options: ExportOptions) -> str:
    """Return the type of a weight; llama.cpp requires float32 for vectors and positions.

    Matrices whose rows cannot be split into Q8_0 blocks become float16 instead.
    """
    dtype = resolve_dtype(options, DTYPES, NAME)
    if checkpoint.layout(name) is None:
        return FLOAT32
    return FLOAT16 if dtype == Q8_0 and shape[-1] % Q8_0_BLOCK else dtype


def _byte_size(shape: tuple[int, ...], dtype: str) -> int:
    from gguf.quants import quant_shape_to_byte_shape

    return math.prod(quant_shape_to_byte_shape(shape, _tensor_type(dtype)))


def _tensor_type(dtype: str) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[TENSOR_TYPES[dtype]]


def _encode_values(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != Q8_0:
        return cast_values(name, values, dtype)
    from gguf import quants

    with np.errstate(over="ignore"):
        largest_scale = (np.abs(values).max() / np.float32(127)).astype(np.float16)
    if not np.isfinite(largest_scale):
        raise overflow_error(name, values, dtype)
    return quants.quantize(values, _tensor_type(dtype))


def _write_header(
    model: ModelDir,
    vocabulary: Vocabulary,
    path: Path,
    options: ExportOptions,
    shapes: dict[str, tuple[int, ...]],
    dtypes: dict[str, str],
) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, ARCHITECTURE)
    try:
        _add_metadata(writer, model, resolve_dtype(options, DTYPES, NAME))
        _add_vocabulary(writer, require_end_of_text(vocabulary, "GGUF"))
        for name, shape in shapes.items():
            size = _byte_size(shape, dtypes[name])
            writer.add_tensor_info(tensor_name(name), shape, np.dtype(np.float32), size, _tensor_type(dtypes[name]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add_metadata(writer: Any, model: ModelDir, dtype: str) -> None:
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


def _add_vocabulary(writer: Any, encoder: Encoder) -> None:
    special = special_tokens(encoder)
    pieces = {token: piece for piece, token in encoder.ids_of.items()} | special
    # A vocabulary of OpenAI's files has no added tokens, but llama.cpp expects its special tokens to be control tokens.
    undeclared = UNUSED_TOKEN if encoder.added else CONTROL_TOKEN
    types = dict.fromkeys(pieces, NORMAL_TOKEN) | dict.fromkeys(special, undeclared)
    types |= {token.id: CONTROL_TOKEN if token.special else USER_DEFINED_TOKEN for token in encoder.added.tokens}
    types[encoder.end_of_text] = CONTROL_TOKEN
    if types[encoder.n_vocab - 1] == UNUSED_TOKEN:  # readers take unused tokens at the end for padding
        types[encoder.n_vocab - 1] = CONTROL_TOKEN
    ids = range(encoder.n_vocab)
    writer.add_tokenizer_model(TOKENIZER_MODEL)
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([pieces.get(token, f"[PAD{token}]") for token in ids])
    writer.add_token_types([types.get(token, UNUSED_TOKEN) for token in ids])
    writer.add_token_merges([f"{left} {right}" for left, right in encoder.merges()])
    writer.add_bos_token_id(encoder.end_of_text)
    others = sorted(encoder.ending_ids - {encoder.end_of_text})
    for key, token in zip(ENDING_KEYS, [encoder.end_of_text, *others]):
        writer.add_uint32(key, token)
    writer.add_add_bos_token(False)
