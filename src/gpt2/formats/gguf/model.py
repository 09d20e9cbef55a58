"""GGUF files of the architecture gpt2, as llama.cpp's converter writes them: all of a model in one file.

The path of such a model is the file, or a folder that holds it and no other. What the file says is read by
`gguf_file.py` and checked against what there is; of the package gguf come the types of tensors and the numbers that
narrow ones stand for.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt2 import files
from gpt2.encoder import Encoder, byte_characters
from gpt2.errors import FETCH_AGAIN, DamagedFileError, GPT2Error, printable_name, summarize_names
from gpt2.formats.directory import ModelDir
from gpt2.formats.gguf.header import Header, TensorInfo, has_magic, read_header
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import LM_HEAD, PREFIX, WTE, Layout, Weight, Weights
from gpt2.hparams import HParams

ARCHITECTURE, TOKENIZER_MODEL, PRE_TOKENIZER = "gpt2", "gpt2", "gpt-2"  # as GGUF names them
SUFFIX = ".gguf"
PIECE = 1 << 25  # bytes of numbers that are made at once
NORMAL_TOKEN, CONTROL_TOKEN, USER_DEFINED, UNUSED_TOKEN = 1, 3, 4, 5  # what a token is; ggml's docs/gguf.md
TOKENS, TYPES, MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))
SIZES = {
    "n_ctx": "context_length",
    "n_embd": "embedding_length",
    "n_head": "attention.head_count",
    "n_layer": "block_count",
    "n_inner": "feed_forward_length",
}
EPSILON = "attention.layer_norm_epsilon"
WHOLE = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
OF_A_LAYER = {
    "ln_1": "attn_norm",
    "attn/c_attn": "attn_qkv",
    "attn/c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp/c_fc": "ffn_up",
    "mlp/c_proj": "ffn_down",
}


def key(name: str) -> str:
    """Of what the metadata say of the model."""
    return f"{ARCHITECTURE}.{name}"


def tensor_name(name: str) -> str:
    """A weight's name in a GGUF file.

    >>> tensor_name("model/wte"), tensor_name("model/h3/attn/c_attn/b")
    ('token_embd.weight', 'blk.3.attn_qkv.bias')
    """
    place = name.removeprefix(PREFIX)
    if place in WHOLE:
        return f"{WHOLE[place]}.weight"
    part, _, kind = place.rpartition("/")
    end = "bias" if kind == "b" else "weight"
    if part in WHOLE:
        return f"{WHOLE[part]}.{end}"
    layer, _, part = part.partition("/")
    return f"blk.{layer.removeprefix('h')}.{OF_A_LAYER[part]}.{end}"


def file_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape in a GGUF file: matrices are [O, I]."""
    return shape[::-1] if checkpoint.layout(name) is Layout.IN_OUT else shape


def is_model(path: Path) -> bool:
    """Whether this is such a file, or a folder with one, be it whole or not."""
    if files.is_file(path):
        return path.suffix.lower() == SUFFIX or has_magic(path)
    return bool(_files_in(path))


def _files_in(folder: Path) -> list[Path]:
    if not files.is_folder(folder):
        return []
    with files.reporting_read_errors(folder):
        return sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX and files.is_file(path))


def open_model(path: Path, advice: str = FETCH_AGAIN) -> ModelDir:
    """Reads what the file says, and checks that it is a GPT-2 and that its tensors are there.

    Raises GPT2Error for what it is instead, and naming what is missing, cut off or unreadable. advice: what to do about
    that.
    """
    found = [path] if files.is_file(path) else _files_in(path)
    if len(found) != 1:
        raise GPT2Error(f"{path} holds {len(found)} GGUF files; give the path of one: {summarize_names(found)}")
    file = found[0]
    header = read_header(file, advice)
    _check_kind(file, header.metadata)
    kinds = _types(file, header, advice)
    stored = _stored(file, header, advice)
    hparams = _hparams(file, header, advice, _n_vocab(kinds), _is_tied(file, stored))
    _check_tensors(file, stored, hparams, advice)
    return ModelDir(
        path,
        hparams,
        file,
        lambda path, hparams: _weights(path, stored, hparams, advice),
        functools.partial(_vocabulary, file, header, kinds, advice),
    )


def _check_kind(file: Path, metadata: Mapping[str, Any]) -> None:
    """Raises GPT2Error, naming it, for what GGUF files hold besides GPT-2 models."""
    heads = metadata.get(key(SIZES["n_head"]))
    said = {
        "general.architecture": (ARCHITECTURE,),
        "general.type": ("model", None),
        "split.count": (1, None),
        "tokenizer.ggml.model": (TOKENIZER_MODEL,),
        "tokenizer.ggml.pre": (PRE_TOKENIZER, None),  # files of before it was written leave it out
        key("attention.head_count_kv"): (heads if isinstance(heads, int) else 0, None),
    }
    for name, allowed in said.items():
        value = metadata.get(name)
        if not isinstance(value, (str, int, type(None))) or value not in allowed:
            value = "missing" if value is None else printable_name(str(value)[:40])
            advice = "; join its parts with llama-gguf-split --merge" if name == "split.count" else ""
            raise GPT2Error(f"{file} is not a GGUF file of a GPT-2: {name} is {value}, not {allowed[0]}{advice}")


def _hparams(file: Path, header: Header, advice: str, n_vocab: int, tied: bool) -> HParams:
    sizes = {name: _number(file, header, key(there), int, advice) for name, there in SIZES.items()}
    if sizes["n_inner"] == 4 * sizes["n_embd"]:
        del sizes["n_inner"]
    epsilon = _number(file, header, key(EPSILON), float, advice)
    with np.errstate(all="ignore"):
        written = float(str(np.float32(epsilon)))  # 1e-5, which float32 does not hold
    try:
        return HParams(n_vocab, **sizes, layer_norm_epsilon=written, tie_word_embeddings=tied)
    except GPT2Error as error:
        raise DamagedFileError(file, str(error), advice) from error


def _number(file: Path, header: Header, name: str, kind: type, advice: str) -> Any:
    value = header.metadata.get(name)
    if type(value) is not kind:
        raise DamagedFileError(
            file, f"{name} should be a number, and it {'is missing' if value is None else 'is none'}", advice
        )
    return value


class _Stored(NamedTuple):
    """Where a tensor's rows are, and in which type."""

    shape: tuple[int, ...]
    kind: int
    offset: int  # bytes
    row: int  # bytes

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def end(self) -> int:
        return self.offset + self.rows * self.row


def _stored(file: Path, header: Header, advice: str) -> dict[str, _Stored]:
    """Raises Damaged unless each tensor has bytes of its own in the file, as many as its shape needs."""
    try:
        stored = {name: _placed(name, tensor) for name, tensor in header.tensors.items()}
        placed = sorted((tensor.offset, tensor.end, name) for name, tensor in stored.items())
        for (_, end, name), (start, _, other) in itertools.pairwise(placed):
            if end > start:
                raise ValueError(f"{other} lies over {name}")
        with files.reporting_read_errors(file):
            size = file.stat().st_size
        if placed and placed[-1][1] > size:
            raise ValueError(f"it is cut off: it has {size} bytes, and {placed[-1][2]} ends at {placed[-1][1]}")
    except ValueError as error:
        raise DamagedFileError(file, str(error), advice) from error
    return stored


def _placed(name: str, tensor: TensorInfo) -> _Stored:
    """Raises ValueError for a type or a shape that cannot be."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if not tensor.shape or not all(tensor.shape):
        raise ValueError(f"{name} is empty")
    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    except (ValueError, KeyError):
        raise ValueError(f"{name} is of the unknown type {tensor.kind}") from None
    if tensor.shape[-1] % block:
        raise ValueError(f"{name} has rows of {tensor.shape[-1]} numbers, and blocks of {block}")
    return _Stored(*tensor, tensor.shape[-1] // block * size)


def _is_tied(file: Path, stored: Mapping[str, _Stored]) -> bool:
    """Whether the output projection is the token embedding: not there, or written a second time, as some do."""
    output, embedding = stored.get(tensor_name(LM_HEAD)), stored.get(tensor_name(WTE))
    if output is None or embedding is None:
        return output is None
    if output._replace(offset=embedding.offset) != embedding:
        return False
    pairs = zip(_raw(file, output, output.rows), _raw(file, embedding, embedding.rows))
    return all(np.array_equal(one, other) for one, other in pairs)


def _check_tensors(file: Path, stored: Mapping[str, _Stored], hparams: HParams, advice: str) -> None:
    """Raises GPT2Error, naming what is wrong, if these are not the weights of this model."""
    wanted = {tensor_name(name): file_shape(name, shape) for name, shape in hparams.weight_shapes().items()}
    doubled = {tensor_name(LM_HEAD)} if hparams.tie_word_embeddings else set()
    if missing := [name for name in wanted if name not in stored]:
        raise DamagedFileError(
            file, f"it lacks {len(missing)} of {len(wanted)} tensors of {hparams}: {summarize_names(missing)}", advice
        )
    if unknown := sorted(set(stored) - set(wanted) - doubled):
        raise GPT2Error(f"{file} holds {len(unknown)} tensors that GPT-2 has not: {summarize_names(unknown)}")
    for name, shape in wanted.items():
        there = stored[name].shape
        padded = name in (tensor_name(WTE), tensor_name(LM_HEAD)) and len(there) == 2 and there[0] >= shape[0]
        if there != ((there[0], *shape[1:]) if padded else shape):
            raise DamagedFileError(
                file, f"{name} has the shape {list(there)}, but {hparams} needs {list(shape)}", advice
            )


def _weights(file: Path, stored: Mapping[str, _Stored], hparams: HParams, advice: str) -> Weights:
    return {name: _weight(file, stored, name, shape, advice) for name, shape in hparams.weight_shapes().items()}


def _weight(file: Path, stored: Mapping[str, _Stored], name: str, shape: tuple[int, ...], advice: str) -> Weight:
    there = file_shape(name, shape)  # of an embedding that is padded, without what no id means
    layout = None if checkpoint.layout(name) is None else Layout.OUT_IN
    tensor = stored[tensor_name(name)]
    identity = f"{files.file_fingerprint(file)} {tensor!r}"
    rows = math.prod(there[:-1])
    return Weight(there, layout, lambda: _pieces(file, tensor_name(name), tensor, rows, advice), identity)


def _pieces(file: Path, name: str, tensor: _Stored, rows: int, advice: str) -> Iterator[np.ndarray]:
    """The first rows [n, columns] of a tensor in order, float32. Raises Unreadable and Damaged."""
    from gguf import GGMLQuantizationType, quants

    for raw in _raw(file, tensor, rows, advice):
        try:
            with np.errstate(all="ignore"):
                piece = quants.dequantize(raw, GGMLQuantizationType(tensor.kind))
        except NotImplementedError:
            kind = GGMLQuantizationType(tensor.kind).name
            raise GPT2Error(f"{file}: {name} is of the type {kind}, which cannot be read") from None
        if not np.isfinite(piece).all():
            raise DamagedFileError(file, f"{name} holds numbers that are none", advice)
        yield piece


def _raw(file: Path, tensor: _Stored, rows: int, advice: str = FETCH_AGAIN) -> Iterator[np.ndarray]:
    """The first rows of a tensor as they are in the file [n, bytes], about PIECE bytes of numbers at a time."""
    at_once = max(1, PIECE // (4 * tensor.shape[-1]))
    with files.reporting_read_errors(file), file.open("rb") as source:
        source.seek(tensor.offset)
        for start in range(0, rows, at_once):
            raw = np.empty((min(at_once, rows - start), tensor.row), np.uint8)
            if source.readinto(raw) < raw.nbytes:  # type: ignore[arg-type]
                raise DamagedFileError(file, "it became shorter while it was read", advice)
            yield raw


def _types(file: Path, header: Header, advice: str) -> np.ndarray:
    """What each token is."""
    tokens = header.metadata.get(TOKENS)
    if not isinstance(tokens, list) or not tokens or not isinstance(header.metadata.get(MERGES), list):
        raise DamagedFileError(file, f"{TOKENS} and {MERGES} should be lists of texts", advice)
    kinds = header.metadata.get(TYPES, np.full(len(tokens), NORMAL_TOKEN))
    if not isinstance(kinds, np.ndarray) or kinds.dtype.kind not in "iu" or len(kinds) != len(tokens):
        raise DamagedFileError(file, f"{TYPES} should be a number for each of the {len(tokens)} tokens", advice)
    if (kinds == UNUSED_TOKEN).all():
        raise DamagedFileError(file, "none of its tokens is used", advice)
    return kinds


def _n_vocab(kinds: np.ndarray) -> int:
    """The ids up to the last one that is used: converters fill up to the rows of a padded embedding."""
    return int(np.flatnonzero(kinds != UNUSED_TOKEN)[-1]) + 1


def _vocabulary(file: Path, header: Header, kinds: np.ndarray, advice: str) -> Encoder:
    """The byte-level BPE that the file holds. Raises Damaged if it cannot be one."""
    tokens: list[str] = header.metadata[TOKENS][: _n_vocab(kinds)]
    characters = set(byte_characters().values())
    ordinary = {token for token, kind in zip(tokens, kinds) if kind == NORMAL_TOKEN}
    if missing := characters - ordinary:
        raise DamagedFileError(file, f"its vocabulary lacks {len(missing)} of the 256 bytes", advice)
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        raise DamagedFileError(file, "two of its tokens are the same", advice)
    pairs = [tuple(merge.split(" ")) for merge in header.metadata[MERGES]]
    if not all(len(pair) == 2 for pair in pairs):
        raise DamagedFileError(file, "one of its merges is not of two pieces", advice)
    made = {left + right for left, right in pairs}
    if unmade := ordinary - made - characters:
        raise DamagedFileError(
            file, f"no merge makes {min(unmade)!r} and {len(unmade) - 1} others of its tokens", advice
        )
    if unknown := made - ids.keys():
        raise DamagedFileError(file, f"it lacks the token {min(unknown)!r}, which a merge makes", advice)
    return Encoder(ids, [(left, right) for left, right in pairs])
