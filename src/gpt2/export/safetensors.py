"""Writer of safetensors files with at most one tensor in memory.

A file consists of the length of the header (8 bytes, little-endian), the header (JSON with the type, shape and position
of each tensor), and the tensors' values. Source: the README of the safetensors project. The project's library needs two
copies of all tensors in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEADER_ALIGNMENT = 8  # bytes; aligns the values after the header
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


class LazyTensor(NamedTuple):
    """A tensor whose values are read only when they are written.

    Attributes:
        name: The tensor's name in the file.
        dtype: The tensor's type, a key of ITEM_BYTES.
        shape: The tensor's shape.
        read: Yields the values in order, as little-endian arrays of the type's size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Iterator[np.ndarray]]

    @property
    def byte_size(self) -> int:
        """The size of its values in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write(path: Path, tensors: Sequence[LazyTensor]) -> None:
    """Write tensors to a file.

    Raises:
        OSError: The file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers rejects files without this entry
    offset = 0
    for tensor in tensors:
        end = offset + tensor.byte_size
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % HEADER_ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors:
            for values in tensor.read():
                file.write(np.ascontiguousarray(values).data)
