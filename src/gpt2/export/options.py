"""Export options, and the conversion of weights to the exported type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gpt2.errors import GPT2Error, check_choice
from gpt2.formats.weights import MAX_BFLOAT16, Layout, Weight

FLOAT32, FLOAT16, BFLOAT16, Q8_0 = DTYPES = ("float32", "float16", "bfloat16", "q8_0")
GGUF_DTYPE_NAMES = {"f32": FLOAT32, "f16": FLOAT16, "bf16": BFLOAT16}
# The largest number of each type except float32; a scale of q8_0 is a float16.
LARGEST = {FLOAT16: 65504.0, BFLOAT16: MAX_BFLOAT16, Q8_0: 127 * 65504.0}
BFLOAT16_EXPONENT = 0x7F80  # these bits are set in NaN and infinity
SHARD_SIZE = 5_000_000_000  # bytes


class ExportOptions(NamedTuple):
    """The options of an export.

    Attributes:
        dtype: The type of the matrices, one of DTYPES or a key of GGUF_DTYPE_NAMES.
        shard_size: The maximum size in bytes of a weight file, for formats that allow several.
        variant: Whether to write features that the format's other readers do not support.
    """

    dtype: str = FLOAT32
    shard_size: int = SHARD_SIZE
    variant: bool = False


DEFAULT_OPTIONS = ExportOptions()


def resolve_dtype(options: ExportOptions, allowed: Sequence[str], format_name: str) -> str:
    """Return the dtype of an export as one of DTYPES.

    Args:
        options: The export options.
        allowed: The dtypes that the format supports.
        format_name: The name of the format, for the error message.

    Raises:
        UsageError: The format does not support this dtype.
    """
    dtype = options.dtype.lower()
    dtype = GGUF_DTYPE_NAMES.get(dtype, dtype)
    if dtype not in allowed:
        check_choice("dtype", options.dtype, allowed, f" for {format_name}")
    return dtype


def read_rows(weight: Weight, layout: Layout) -> Iterator[np.ndarray]:
    """Yield the rows of a weight in order as float32 arrays [n, columns], with matrices in the given layout."""
    return weight.pieces() if weight.layout in (None, layout) else iter([np.ascontiguousarray(weight.array().T)])


def cast_values(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    """Round float32 values to the nearest value of a type.

    Args:
        name: The weight's name, for error messages.
        values: The values, float32.
        dtype: FLOAT32, FLOAT16 or BFLOAT16.

    Returns:
        Little-endian float32 or float16, or the bits of bfloat16 as uint16.

    Raises:
        GPT2Error: A value is too large for the type.
    """
    if dtype == FLOAT32:
        return values.astype("<f4", copy=False)
    if dtype == BFLOAT16:
        bits = np.ascontiguousarray(values, "<f4").view("<u4")
        cast = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")  # round half to even
        is_finite = (cast & BFLOAT16_EXPONENT != BFLOAT16_EXPONENT).all()
    else:
        with np.errstate(over="ignore"):
            cast = values.astype("<f2")
        is_finite = np.isfinite(cast).all()
    if not is_finite:
        raise overflow_error(name, values, dtype)
    return cast


def overflow_error(name: str, values: np.ndarray, dtype: str) -> GPT2Error:
    """Return the error for values of a weight that are too large for a type other than float32."""
    largest = f"the largest {dtype} is {LARGEST[dtype]:g}"
    return GPT2Error(f"{name} holds {np.abs(values).max():g}, but {largest}; choose another dtype")
