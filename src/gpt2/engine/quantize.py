"""Quantization of weights to one byte each while they are loaded.

It makes decode steps faster, because each step reads all weights. With TensorFlow, activations and sums stay float32.
The native step rounds activations as well, as bytes.h describes.
"""

from __future__ import annotations

import numpy as np

from gpt2.errors import GPT2Error
from gpt2.formats.weights import MAX_BFLOAT16, Weight
from gpt2.request import BFLOAT16, PRECISIONS

MAX_INT8 = 127


def to_int8(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize a matrix symmetrically, rounding to nearest, with a scale for each output channel.

    A row's largest weight becomes 127 or -127, so that the error of each weight is at most 1/254 of the largest.

    Args:
        w: [O, I] float32.

    Returns:
        The weights [O, I] int8, and the scale of each row [O] float32.
    """
    largest = np.abs(w).max(axis=1)
    scale = np.where(largest > 0, largest / np.float32(MAX_INT8), np.float32(1))
    return np.rint(w / scale[:, None]).astype(np.int8), scale


def bfloat16_overflow(weight: Weight, numbers: np.ndarray) -> GPT2Error:
    """Return the error for finite numbers of a weight that would be infinite in bfloat16."""
    others = " or ".join(precision for precision in PRECISIONS if precision != BFLOAT16)
    return GPT2Error(
        f"{weight.title} holds {np.abs(numbers).max():g}, but the largest bfloat16 is {MAX_BFLOAT16:g}; choose the"
        f" precision {others}"
    )
