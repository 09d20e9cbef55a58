"""A model's weights as file readers provide them to a backend: named, with their layout, read in pieces.

Names are the names in OpenAI's checkpoints (`HParams.weight_shapes`) for all file formats. Matrices are not transposed:
they keep the orientation of the file, which `Weight.layout` states.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt2.errors import DamagedFileError, GPT2Error

PREFIX = "model/"  # the start of all variable names in OpenAI's checkpoints
WTE = f"{PREFIX}wte"  # the token embedding [V, E], also used as the output projection if LM_HEAD is absent
LM_HEAD = f"{PREFIX}lm_head"  # a separate output projection [V, E]
MAX_BFLOAT16 = 3.3895313892515355e38
NOT_FINITE_ADVICE = "use an earlier checkpoint, or fetch or convert the model again"


class Layout(enum.Enum):
    """The order of a matrix's axes: inputs I and outputs O of the layer that multiplies by it."""

    IN_OUT = "[I, O]"
    OUT_IN = "[O, I]"


class Weight(NamedTuple):
    """One weight of a model, read on request.

    Attributes:
        shape: The shape of the array.
        layout: The order of a matrix's axes; None for vectors and wpe.
        read: Returns an iterator over the pieces of the array, as `unchecked_pieces` does.
        identity: An identifier of the numbers: weights with equal identities have equal numbers. None if unknown.
        path: The file that holds the weight; None if it is in memory.
        file_name: The weight's name in the file, for error messages.
        checksum: A checksum of the numbers that the file contains; None if it contains none. A copy of the file has
            the same one.
    """

    shape: tuple[int, ...]
    layout: Layout | None
    read: Callable[[], Iterator[np.ndarray]]
    identity: str | None = None
    path: Path | None = None
    file_name: str = "a weight"
    checksum: str | None = None

    @property
    def title(self) -> str:
        """The file and the weight's name in it, for error messages."""
        return self.file_name if self.path is None else f"{self.path}: {self.file_name}"

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield the rows in order as float32 arrays, several rows at a time, after checking that they are finite.

        Raises:
            GPT2Error: The weight is damaged, or holds NaN or infinity. Some damage is detected only after the last
                piece.
        """
        for piece in self.read():
            self.check_finite(piece)
            yield piece

    def unchecked_pieces(self) -> Iterator[np.ndarray]:
        """Yield the same arrays as `pieces`, which may hold NaN or infinity, to a caller that checks them itself.

        Raises:
            GPT2Error: The weight is damaged. Some damage is detected only after the last piece.
        """
        return self.read()

    def array(self) -> np.ndarray:
        """Return the whole weight as a float32 array of `shape`.

        Raises:
            GPT2Error: The weight is damaged, or holds NaN or infinity.
        """
        return _join_pieces(self.pieces(), self.shape)

    def unchecked_array(self) -> np.ndarray:
        """Return the same array as `array`, which may hold NaN or infinity, to a caller that checks it itself.

        Raises:
            GPT2Error: The weight is damaged.
        """
        return _join_pieces(self.read(), self.shape)

    def check_finite(self, numbers: np.ndarray) -> None:
        """Check that numbers of this weight are finite in float32.

        Raises:
            GPT2Error: A number is NaN or infinite. The message names the file and the weight.
        """
        if is_moderate(numbers) or np.isfinite(numbers).all():
            return
        found = "NaN" if np.isnan(numbers).any() else "infinity, or a number too large for float32"
        reason = f"{self.file_name} holds {found}"
        if self.path is None:
            raise GPT2Error(f"{reason}; {NOT_FINITE_ADVICE}")
        raise DamagedFileError(self.path, reason, NOT_FINITE_ADVICE)


def is_moderate(numbers: np.ndarray) -> bool:
    """Return whether all numbers are finite in float32 and bfloat16, judged by the sum of their squares.

    This takes half the time of an exact check. It is False if the sum overflows, although the numbers may be finite.

    Args:
        numbers: Float32 numbers of any shape.
    """
    flat = numbers.reshape(-1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)))


def _join_pieces(pieces: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    whole = np.empty(0, np.float32)
    filled = 0
    # Memory is allocated after the first piece, when the file is known to exist with a plausible size.
    for piece in pieces:
        if piece.size == math.prod(shape):
            whole = piece  # not copied
        else:
            whole = whole if filled else np.empty(math.prod(shape), np.float32)
            whole[filled : filled + piece.size] = piece.reshape(-1)
        filled += piece.size
    return whole.reshape(shape)


Weights = Mapping[str, Weight]


def wrap_arrays(nested: Mapping[str, Any], layout: Callable[[str], Layout | None]) -> Weights:
    """Return arrays that are already in memory as weights.

    Args:
        nested: Nested dictionaries of float32 arrays, as `nest` returns them.
        layout: Called with the name of a weight; returns its layout.
    """
    return {name: _wrap_array(name, np.asarray(array), layout(name)) for name, array in flatten(nested)}


def _wrap_array(name: str, array: np.ndarray, layout: Layout | None) -> Weight:
    return Weight(array.shape, layout, lambda: iter([array]), file_name=name)


def flatten(nested: Mapping[str, Any], prefix: str = PREFIX) -> Iterator[tuple[str, Any]]:
    """Yield (name in OpenAI's checkpoints, leaf) for each leaf of nested dictionaries; the inverse of `nest`.

    Args:
        nested: The nested dictionaries.
        prefix: The start of all names.
    """
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def nest(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Convert pairs of (name in OpenAI's checkpoints, value) to nested dictionaries, the form that `model.py` uses.

    >>> nest([("model/h0/ln_1/g", 1), ("model/wte", 2)])
    {'h0': {'ln_1': {'g': 1}}, 'wte': 2}
    """
    nested: dict[str, Any] = {}
    for name, value in pairs:
        *parents, leaf = name.removeprefix(PREFIX).split("/")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = value
    return nested
