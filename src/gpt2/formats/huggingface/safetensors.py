"""Reader of safetensors files, Hugging Face's format of named tensors, with NumPy alone.

The layout of a file is (github.com/huggingface/safetensors, README):

    size of the header (8 bytes), header (JSON: type, shape and position of each tensor), bytes of the tensors

The package `safetensors` cannot convert bfloat16 to NumPy. It also maps the file into memory, so the process crashes if
the file is truncated while it is read. The format requires that the tensors follow one another without gaps and fill
the file. Therefore a truncated file is detected before a tensor is read.
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

SIZE_BYTES = 8  # width of the field with the size of the header
MAX_HEADER_BYTES = 1 << 22  # the header of the model 1558M has 70,000
MAX_DIMENSION = 1 << 48
METADATA = "__metadata__"  # an entry of the header that is not a tensor
DTYPES = {
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
    """Return the tensors of a file by their names; their numbers are read on request.

    Raises:
        UnreadableFileError: If the file cannot be read.
        DamagedFileError: If the header is damaged or does not match the file's size.
    """
    with files.reporting_read_errors(path), path.open("rb") as file:
        file_size = os.fstat(file.fileno()).st_size
        header_size = int.from_bytes(file.read(SIZE_BYTES), "little")
        if file_size < SIZE_BYTES or header_size > min(MAX_HEADER_BYTES, file_size - SIZE_BYTES):
            raise DamagedFileError(path, "it does not start as safetensors files do, or it is cut off")
        encoded = file.read(header_size)
    try:
        header = json.loads(encoded.decode("utf-8"), object_pairs_hook=_reject_duplicates)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"its header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise DamagedFileError(path, "its header is not a JSON object")
    header.pop(METADATA, None)
    data_start = SIZE_BYTES + header_size
    tensors = {name: _parse_entry(path, name, entry, data_start) for name, entry in header.items()}
    _check_positions(path, [tensor.storage for tensor in tensors.values()], data_start, file_size)
    return tensors


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _parse_entry(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    """Return the tensor that an entry of the header describes.

    Args:
        path: The file.
        name: The tensor's name.
        entry: The tensor's entry, as JSON.
        data_start: Index in the file of the first byte after the header; the entry's offsets are relative to it.
    """
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(first), int(end)]} if len(entry) == 3:
            pass
        case _:
            raise DamagedFileError(path, f"its header does not describe {printable_name(name)[:80]}")
    shown_name = printable_name(name)[:200]
    if dtype not in DTYPES:
        raise DamagedFileError(
            path,
            f"{shown_name} has the type {printable_name(dtype)[:20]}, which is not supported",
            "convert it to F32 or F16",
        )
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < MAX_DIMENSION for n in shape):
        raise DamagedFileError(path, f"{shown_name} has an impossible shape")
    count = contiguous_strides((1, *shape))[0]
    storage = Storage(path, shown_name, DTYPES[dtype], count, data_start + first)
    if end - first != storage.size:
        raise DamagedFileError(path, f"{shown_name} has {end - first} bytes, but its shape needs {storage.size}")
    return checked_tensor(storage, 0, tuple(shape), contiguous_strides(shape))


def _check_positions(path: Path, storages: list[Storage], start: int, file_size: int) -> None:
    """Raise DamagedFileError unless the storages fill the file from `start` to its end without gaps."""
    ordered = sorted(storages, key=lambda storage: (storage.start, storage.size))
    for previous, storage in itertools.pairwise([Storage(path, "the header", "uint8", 0, start), *ordered]):
        if previous.start + previous.size != storage.start:
            raise DamagedFileError(path, f"{storage.name} does not start where {previous.name} ends")
    end = ordered[-1].start + ordered[-1].size if ordered else start
    if end != file_size:
        raise DamagedFileError(path, f"it has {file_size} bytes, but its header describes {end}")
