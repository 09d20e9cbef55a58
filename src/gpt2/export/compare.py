"""Comparison of an exported model with the original, up to the rounding error of the exported type."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import GPT2Error
from gpt2.export.options import BFLOAT16, FLOAT16, FLOAT32, Q8_0
from gpt2.files import ByteProgress
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import load_vocabulary, open_model_dir
from gpt2.formats.weights import Layout, Weight, Weights
from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

ROWS_PER_COMPARISON = 1024  # limits the memory for temporary arrays
Tolerance = Callable[
    [str, np.ndarray], Any
]  # called with (weight name, values); returns the largest allowed differences


def no_tolerance(name: str, values: np.ndarray) -> float:
    """Return 0, since the values must be equal."""
    return 0.0


def rounding_tolerance(dtype: str) -> Tolerance:
    """Return the function that computes the rounding error of a type, half a unit in the last place.

    Args:
        dtype: One of DTYPES.
    """
    return {
        FLOAT32: no_tolerance,
        FLOAT16: lambda _, values: np.abs(values) * 2.0**-11 + 2.0**-25,
        BFLOAT16: lambda _, values: np.abs(values) * 2.0**-8 + 2.0**-134,
        # Half a step of a block plus the rounding of its scale to float16. The row's maximum is an upper bound for the
        # block's maximum.
        Q8_0: lambda _, values: np.abs(values).max(-1, keepdims=True) * (1 / 254 + 2.0**-11) + 127 * 2.0**-25,
    }[dtype]


def verify_same(model: ModelDir, vocabulary: Vocabulary, path: Path, tolerance: Tolerance) -> None:
    """Open an exported model and compare its hyperparameters, vocabulary and weights with the original.

    Args:
        model: The original model.
        vocabulary: Its vocabulary.
        path: The exported model.
        tolerance: The largest allowed difference of each value.

    Raises:
        GPT2Error: Hyperparameters, vocabulary or a weight differ. The message names the difference.
    """
    exported = open_model_dir(path)
    if _with_float32_epsilon(exported.hparams) != _with_float32_epsilon(model.hparams):
        raise GPT2Error(f"the exported model has different hyperparameters: {exported.hparams}, not {model.hparams}")
    if load_vocabulary(exported).fingerprint != vocabulary.fingerprint:
        raise GPT2Error("the vocabulary of the exported model differs from the original")
    if _added_texts(vocabulary) - _added_texts(load_vocabulary(exported)):
        raise GPT2Error("the vocabulary of the exported model lacks added tokens of the original")
    exported_weights = exported.read()
    for name, weight in model.read().items():
        if not _is_close(name, _output_rows(weight), _output_rows(exported_weights[name]), tolerance):
            raise GPT2Error(f"the exported model differs from the original in {name}")


def _added_texts(vocabulary: Vocabulary) -> set[str]:
    return {token.content for token in vocabulary.added.tokens} if isinstance(vocabulary, Encoder) else set()


def _is_close(name: str, values: np.ndarray, exported: np.ndarray, tolerance: Tolerance) -> bool:
    if values.shape != exported.shape:
        return False
    for start in range(0, len(values), ROWS_PER_COMPARISON):
        rows = values[start : start + ROWS_PER_COMPARISON]
        difference = np.abs(rows - exported[start : start + ROWS_PER_COMPARISON])
        if not (difference <= tolerance(name, rows)).all():
            return False
    return True


def _with_float32_epsilon(hparams: HParams) -> dict[str, Any]:
    """Return the hyperparameters with the epsilon rounded to float32, the precision of the computation."""
    epsilon = float(np.float32(hparams.layer_norm_epsilon))
    return dataclasses.replace(hparams, layer_norm_epsilon=epsilon).as_dict()


def _output_rows(weight: Weight) -> np.ndarray:
    """Return the values with a matrix's outputs as rows, along which quantized types group values."""
    return weight.unchecked_array().T if weight.layout is Layout.IN_OUT else weight.unchecked_array()


def with_progress(model: ModelDir, progress: ByteProgress) -> Weights:
    """Return the model's weights, which report their progress while they are read.

    Args:
        model: The model.
        progress: Progress callback: called with (done, total) bytes, counted as float32.
    """
    total = 4 * model.hparams.n_params
    done = 0

    def read_pieces(weight: Weight) -> Iterator[np.ndarray]:
        nonlocal done
        for piece in weight.unchecked_pieces():  # the new weight checks them
            yield piece
            done += 4 * piece.size
            progress(min(done, total), total)

    def wrap(weight: Weight) -> Weight:
        return weight._replace(read=lambda: read_pieces(weight))

    assert sum(math.prod(shape) for shape in model.hparams.weight_shapes().values()) == model.hparams.n_params
    return {name: wrap(weight) for name, weight in model.read().items()}
