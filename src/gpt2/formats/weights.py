"""A model's weights between their files and what computes: named, with their layout, in pieces.

Names are those of OpenAI's checkpoints (`HParams.weight_shapes`), whatever the file; the matrices stand as the file
has them, and `layout` says how.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

PREFIX = "model/"  # of all names in a checkpoint
WTE = f"{PREFIX}wte"  # the token embedding [V, E], which is the output projection too
LM_HEAD = f"{PREFIX}lm_head"  # unless there is this one [V, E]


class Layout(enum.Enum):
    """Which end of a matrix is the input of its product: x [N, I] -> [N, O]."""

    IN_OUT = "[I, O]"
    OUT_IN = "[O, I]"


class Weight(NamedTuple):
    """One of a model's weights; nothing is read before it is asked for."""

    shape: tuple[int, ...]
    layout: Layout | None  # of a matrix that products read whole; None for vectors and wpe
    read: Callable[[], Iterator[np.ndarray]]
    identity: str | None = None  # two weights of one identity are the same numbers; None if that is not known

    def pieces(self) -> Iterator[np.ndarray]:
        """Its rows in order, some at a time, float32. Raises GPT2Error, perhaps after the last, for damage."""
        return self.read()

    def array(self) -> np.ndarray:
        """All of it, of `shape`, float32. Raises GPT2Error if it is damaged."""
        whole, at = np.empty(0, np.float32), 0
        for piece in self.pieces():  # the first one is there: so much can be read, and is no mistaken size
            if piece.size == math.prod(self.shape):
                whole = piece  # not copied
            else:
                whole = whole if at else np.empty(math.prod(self.shape), np.float32)
                whole[at : at + piece.size] = piece.reshape(-1)
            at += piece.size
        return whole.reshape(self.shape)


Weights = Mapping[str, Weight]


def wrap_arrays(nested: Mapping[str, Any], layout: Callable[[str], Layout | None]) -> Weights:
    """Weights that are in memory already, nested, as a reader would give them."""
    return {name: _held(np.asarray(array), layout(name)) for name, array in flatten(nested)}


def _held(array: np.ndarray, layout: Layout | None) -> Weight:
    return Weight(array.shape, layout, lambda: iter([array]))


def flatten(nested: Mapping[str, Any], prefix: str = PREFIX) -> Iterator[tuple[str, Any]]:
    """Nested weights -> (name in a checkpoint, what is there)."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def nest(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """(name in a checkpoint, anything) -> nested dictionaries, as `model.py` wants its weights.

    >>> nest([("model/h0/ln_1/g", 1), ("model/wte", 2)])
    {'h0': {'ln_1': {'g': 1}}, 'wte': 2}
    """
    nested: dict[str, Any] = {}
    for name, value in named:
        *parents, leaf = name.removeprefix(PREFIX).split("/")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = value
    return nested
