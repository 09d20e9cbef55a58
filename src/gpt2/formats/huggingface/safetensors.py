"""Reads safetensors files, Hugging Face's format of named tensors, with NumPy alone.

    size of the header (8 bytes), the header (JSON: of each tensor its type, shape, and where its bytes are), the bytes

The package of this name gives no bfloat16 to NumPy, and maps a file into memory, where one that becomes shorter ends
the process. As the format demands, the tensors must follow one another without gaps and fill the file, so that one that
was cut off is known before anything of it is used. (github.com/huggingface/safetensors, README.)
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.errors import DamagedFileError, printable_name
from gpt2.formats.stored_tensor import MAX_DIMENSIONS, Storage, StoredTensor, checked_tensor, contiguous_strides

LARGEST_HEADER = 1 << 22  # bytes; that of 1558M has 70,000
LARGEST = 1 << 48  # of a dimension
METADATA = "__metadata__"  # texts beside the tensors
TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by their names. Raises Unreadable; Damaged, if what it says cannot be true."""
    with files.reporting_read_errors(path), path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        size = int.from_bytes(file.read(8), "little")
        if end < 8 or size > min(LARGEST_HEADER, end - 8):
            raise DamagedFileError(path, "it does not begin as safetensors files do, or it is cut off")
        header = file.read(size)
    try:
        said = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"its header is not JSON that can be read: {error}") from error
    if not isinstance(said, dict):
        raise DamagedFileError(path, "its header does not name tensors")
    said.pop(METADATA, None)
    tensors = {name: _tensor(path, name, entry, 8 + size) for name, entry in said.items()}
    _check_places(path, [tensor.storage for tensor in tensors.values()], 8 + size, end)
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _tensor(path: Path, name: str, said: Any, start: int) -> StoredTensor:
    """start: of the bytes of all tensors."""
    match said:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(first), int(end)]} if len(said) == 3:
            pass
        case _:
            raise DamagedFileError(path, f"its header does not say what {printable_name(name)[:80]} is")
    named = printable_name(name)[:200]
    if kind not in TYPES:
        raise DamagedFileError(
            path, f"{named} is of the type {printable_name(kind)[:20]}, which is not read", "convert it to F32 or F16"
        )
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < LARGEST for n in shape):
        raise DamagedFileError(path, f"{named} has a shape that cannot be")
    count = contiguous_strides((1, *shape))[0]
    storage = Storage(path, named, TYPES[kind], count, start + first)
    if end - first != storage.size:
        raise DamagedFileError(path, f"{named} has {end - first} bytes, but its shape needs {storage.size}")
    return checked_tensor(storage, 0, tuple(shape), contiguous_strides(shape))


def _check_places(path: Path, storages: list[Storage], start: int, end: int) -> None:
    """Raises Damaged unless the storages lie one behind the other from `start` to `end`."""
    placed = sorted(storages, key=lambda storage: (storage.start, storage.size))
    for before, after in itertools.pairwise([Storage(path, "the header", "uint8", 0, start), *placed]):
        if before.start + before.size != after.start:
            raise DamagedFileError(path, f"{after.name} does not begin where {before.name} ends")
    said = placed[-1].start + placed[-1].size if placed else start
    if said != end:
        raise DamagedFileError(path, f"it has {end} bytes, but its header speaks of {said}")
