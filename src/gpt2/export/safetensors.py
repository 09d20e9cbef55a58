"""Writes files of safetensors, a weight after another.

    bytes of the header; the header, JSON of each tensor's type, shape and place; the tensors' bytes

(The README of the safetensors project.) Its library would need all of a file's tensors in memory, and once more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEADER_ALIGNMENT = 8  # bytes, so that tensors lie as their numbers should
ITEM_SIZES = {"F32": 4, "F16": 2, "BF16": 2}  # bytes


class LazyTensor(NamedTuple):
    """name, type as in ITEM_SIZES, shape, and its numbers in order: arrays that are little-endian and of that size."""

    name: str
    kind: str
    shape: tuple[int, ...]
    read: Callable[[], Iterator[np.ndarray]]

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * ITEM_SIZES[self.kind]


def write(path: Path, tensors: Sequence[LazyTensor]) -> None:
    """Raises OSError."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers reads no file without
    offset = 0
    for tensor in tensors:
        places = [offset, offset + tensor.size]
        described[tensor.name] = {"dtype": tensor.kind, "shape": list(tensor.shape), "data_offsets": places}
        offset += tensor.size
    header = json.dumps(described, separators=(",", ":")).encode("utf-8")
    header += b" " * (-len(header) % HEADER_ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors:
            for piece in tensor.read():
                file.write(np.ascontiguousarray(piece).data)
