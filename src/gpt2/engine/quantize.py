"""Weights in a byte each, made from the ordinary ones as they are loaded: a decode step reads all of them.

With TensorFlow activations and sums stay float32; the native step rounds activations too, as bytes.h describes.
"""

from __future__ import annotations

import numpy as np

LARGEST = 127


def to_int8(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """w [O, I] float32 -> the same in int8, and the scale of each row [O] float32.

    Symmetric and rounded to nearest: a row's largest weight becomes 127 or -127, so that no weight is off by more than
    half of 1/127 of it (weight-only quantisation with a scale per output channel).
    """
    largest = np.abs(w).max(axis=1)
    scale = np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1))
    return np.rint(w / scale[:, None]).astype(np.int8), scale
