"""What can be chosen of how a model is written, and what its numbers become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gpt2.errors import GPT2Error, UsageError
from gpt2.formats.weights import Layout, Weight

FLOAT32, FLOAT16, BFLOAT16, Q8_0 = DTYPES = ("float32", "float16", "bfloat16", "q8_0")
ALSO = {"f32": FLOAT32, "f16": FLOAT16, "bf16": BFLOAT16}  # what GGUF calls them
SHARD_SIZE = 5_000_000_000  # bytes


class ExportOptions(NamedTuple):
    """dtype: of the matrices in the file; a name of DTYPES, or GGUF's name of it.
    shard_size: bytes of a file of weights, where they may be several.
    variant: whether a layout that other tools read may hold what they cannot.
    """

    dtype: str = FLOAT32
    shard_size: int = SHARD_SIZE
    variant: bool = False


DEFAULT_OPTIONS = ExportOptions()


def resolve_dtype(options: ExportOptions, allowed: Sequence[str], to: str) -> str:
    """The name in DTYPES. Raises UsageError unless it is one of those that a format allows."""
    asked = options.dtype.lower()
    name = ALSO.get(asked, asked)
    if name not in allowed:
        raise UsageError(f"dtype must be one of {', '.join(allowed)} for {to}, not {options.dtype!r}")
    return name


def read_rows(weight: Weight, layout: Layout) -> Iterator[np.ndarray]:
    """A weight's rows in order, some at a time, float32, its matrices in this layout."""
    return weight.pieces() if weight.layout in (None, layout) else iter([np.ascontiguousarray(weight.array().T)])


def cast_values(name: str, piece: np.ndarray, dtype: str) -> np.ndarray:
    """float32 -> little-endian float32, float16, or bfloat16 as uint16, to the nearest. Raises GPT2Error for a number
    that is too large for float16."""
    if dtype == FLOAT32:
        return piece.astype("<f4", copy=False)
    if dtype == BFLOAT16:
        bits = np.ascontiguousarray(piece, "<f4").view("<u4")
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")  # of two that are as near, the even one
    with np.errstate(over="ignore"):
        half = piece.astype("<f2")
    if not np.isfinite(half).all():
        raise GPT2Error(f"{name} holds {np.abs(piece).max():g}, and float16 ends at 65504: choose another dtype")
    return half
