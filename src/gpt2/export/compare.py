"""A model that was written, beside the one that was read: each weight, and how far rounding may have moved it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.errors import GPT2Error
from gpt2.export import options
from gpt2.files import ByteProgress
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import load_vocabulary, open_model_dir
from gpt2.formats.weights import Layout, Weight, Weights
from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

ROWS = 1024  # that are compared at once
Tolerance = Callable[[str, np.ndarray], Any]  # a weight's name and value -> by how much each number may differ


def no_tolerance(name: str, value: np.ndarray) -> float:
    return 0.0


def rounding_tolerance(dtype: str) -> Tolerance:
    """Of matrices in a narrow type: half a unit of its last place, of its smallest numbers too."""
    return {
        options.FLOAT32: no_tolerance,
        options.FLOAT16: lambda _, value: np.abs(value) * 2.0**-11 + 2.0**-25,
        options.BFLOAT16: lambda _, value: np.abs(value) * 2.0**-8 + 2.0**-134,
        # Half a step of a block, whose scale is rounded to float16; steps of its row's largest number are no finer.
        options.Q8_0: lambda _, value: np.abs(value).max(-1, keepdims=True) * (1 / 254 + 2.0**-11) + 127 * 2.0**-25,
    }[dtype]


def verify_same(model: ModelDir, vocabulary: Vocabulary, path: Path, allowed: Tolerance) -> None:
    """Opens what was written and compares all of it. Raises GPT2Error, naming what differs."""
    found = open_model_dir(path)
    if _rounded(found.hparams) != _rounded(model.hparams):
        raise GPT2Error(f"what was written is another model: {found.hparams}, not {model.hparams}")
    if load_vocabulary(found).fingerprint != vocabulary.fingerprint:
        raise GPT2Error("what was written has another vocabulary")
    weights, written = model.read(), found.read()
    for name, weight in weights.items():
        value, other = _rows(weight), _rows(written[name])
        if value.shape != other.shape or not all(
            _are_near(name, one, two, allowed) for one, two in _parts(value, other)
        ):
            raise GPT2Error(f"what was written differs in {name}")


def _parts(one: np.ndarray, two: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same rows of both, some at a time."""
    for start in range(0, len(one), ROWS):
        yield one[start : start + ROWS], two[start : start + ROWS]


def _are_near(name: str, value: np.ndarray, other: np.ndarray, allowed: Tolerance) -> bool:
    return bool((np.abs(value - other) <= allowed(name, value)).all())


def _rounded(hparams: HParams) -> dict[str, Any]:
    """The epsilon as float32 holds it, in which it is computed."""
    epsilon = float(np.float32(hparams.layer_norm_epsilon))
    return dataclasses.replace(hparams, layer_norm_epsilon=epsilon).as_dict()


def _rows(weight: Weight) -> np.ndarray:
    """Its numbers with the outputs of a matrix as rows, as narrow types are grouped."""
    return weight.array().T if weight.layout is Layout.IN_OUT else weight.array()


def with_progress(model: ModelDir, report: ByteProgress) -> Weights:
    """The model's weights, which tell how far they have been read, in bytes of float32."""
    total, done = 4 * model.hparams.n_params, 0

    def told(weight: Weight) -> Iterator[np.ndarray]:
        nonlocal done
        for piece in weight.pieces():
            yield piece
            done += 4 * piece.size
            report(min(done, total), total)

    def telling(weight: Weight) -> Weight:
        return weight._replace(read=lambda: told(weight))

    assert sum(math.prod(shape) for shape in model.hparams.weight_shapes().values()) == model.hparams.n_params
    return {name: telling(weight) for name, weight in model.read().items()}
