"""Reader of the `.index` of a checkpoint: its variables, and the positions of their bytes.

The file is a table (`leveldb_table.py`) of protocol buffers (TensorFlow's core/protobuf/tensor_bundle.proto). The
entry of the empty key describes the data files, and every other entry describes a variable.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gpt2 import files
from gpt2.errors import FETCH_AGAIN, DamagedFileError
from gpt2.formats.malformed import MalformedFileError
from gpt2.formats.openai.checkpoint_files import FLOAT32_BYTES, suggest_older_checkpoints
from gpt2.formats.openai.leveldb_table import read_table
from gpt2.formats.protobuf import read_fields

MAX_INDEX_BYTES = 1 << 24  # the index of 1558M has 30,000
MAX_FILE_BYTES = 1 << 63
MAX_SHARDS = 100_000
MAX_DIMENSION = 1 << 40
FLOAT32 = "float32"
# The numbers of TensorFlow's core/framework/types.proto.
DTYPES = {1: FLOAT32, 2: "float64", 3: "int32", 7: "string", 9: "int64", 10: "bool", 14: "bfloat16", 19: "float16"}
# Fields of a BundleHeaderProto.
NUM_SHARDS, ENDIANNESS = 1, 2
# Fields of a BundleEntryProto.
DTYPE, SHAPE, SHARD, OFFSET, SIZE, CRC = 1, 2, 3, 4, 5, 6


class IndexEntry(NamedTuple):
    """The description of a variable in the index.

    Attributes:
        dtype: A value of DTYPES, or a description of an unknown type.
        shape: The variable's shape.
        shard: The number of its data file, from 0.
        offset: Index of its first byte in the data file.
        size: Its size in bytes.
        crc: The masked CRC32C of its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_index(path: Path) -> tuple[int, dict[str, IndexEntry]]:
    """Read an `.index` file.

    Returns:
        The number of data files, and the entry of each variable by its name.

    Raises:
        UnreadableFileError: The file cannot be read.
        DamagedFileError: The content is malformed.
    """
    try:
        with files.reporting_read_errors(path):
            if path.stat().st_size > MAX_INDEX_BYTES:
                raise MalformedFileError("it is far too large for an index")
            data = path.read_bytes()
        n_shards, entries = _parse_index(data)
        _check_positions(entries, n_shards)
    except MalformedFileError as error:
        raise damaged_error(path, str(error)) from error
    return n_shards, entries


def damaged_error(path: Path, reason: str) -> DamagedFileError:
    """Return the error for a damaged file of a checkpoint, with a hint on older checkpoints of the run."""
    prefix = path.with_name(re.sub(r"\.(index|data-\d+-of-\d+)$", "", path.name))
    return DamagedFileError(path, reason, suggest_older_checkpoints(prefix) or FETCH_AGAIN)


def _parse_index(data: bytes) -> tuple[int, dict[str, IndexEntry]]:
    table = read_table(data)
    key, message = next(table, (None, b""))
    header = dict(read_fields(message))
    n_shards = header.get(NUM_SHARDS, 0)
    if key != b"" or not isinstance(n_shards, int) or not 1 <= n_shards < MAX_SHARDS:
        raise MalformedFileError("it does not state the number of data files")
    if header.get(ENDIANNESS, 0):
        raise MalformedFileError("its numbers are big-endian")
    try:
        return n_shards, {name.decode("utf-8"): _parse_entry(value) for name, value in table}
    except UnicodeDecodeError as error:
        raise MalformedFileError("a name is not UTF-8") from error


def _parse_entry(message: bytes) -> IndexEntry:
    """Parse a BundleEntryProto."""
    numbers = {DTYPE: 0, SHARD: 0, OFFSET: 0, SIZE: 0, CRC: 0}  # protocol buffers omit fields that are 0
    shape: tuple[int, ...] = ()
    for field, value in read_fields(message):
        if field in numbers and isinstance(value, int):
            numbers[field] = value
        elif field == SHAPE and isinstance(value, bytes):
            shape = tuple(_parse_dimensions(value))
        else:
            raise MalformedFileError("a variable is stored in slices or described in an unknown way")
    if numbers[OFFSET] + numbers[SIZE] >= MAX_FILE_BYTES:
        raise MalformedFileError("a variable lies beyond the end of any file")
    dtype = DTYPES.get(numbers[DTYPE], f"of the unknown type {numbers[DTYPE]}")
    return IndexEntry(dtype, shape, numbers[SHARD], numbers[OFFSET], numbers[SIZE], numbers[CRC])


def _parse_dimensions(message: bytes) -> Iterator[int]:
    """Yield the sizes in a TensorShapeProto: field 2 is a dimension, and field 1 of a dimension is its size."""
    for field, value in read_fields(message):
        if field != 2 or not isinstance(value, bytes):
            raise MalformedFileError("a variable's shape is unknown")
        size = dict(read_fields(value)).get(1, 0)
        if not isinstance(size, int) or size >= MAX_DIMENSION:
            raise MalformedFileError("a variable's shape is impossible")
        yield size


def _check_positions(entries: Mapping[str, IndexEntry], n_shards: int) -> None:
    """Check that the size of each variable matches its shape, and that variables do not overlap."""
    for name, entry in entries.items():
        if entry.shard >= n_shards:
            raise MalformedFileError(f"{name} is in data file {entry.shard}, but there are only {n_shards} data files")
        if entry.dtype == FLOAT32 and entry.size != FLOAT32_BYTES * math.prod(entry.shape):
            raise MalformedFileError(f"{name} has {entry.size} bytes, which does not fit its shape {list(entry.shape)}")
    ordered = sorted((entry.shard, entry.offset, entry.size, name) for name, entry in entries.items() if entry.size)
    for (shard, offset, size, name), (next_shard, next_offset, _, next_name) in itertools.pairwise(ordered):
        if shard == next_shard and offset + size > next_offset:
            raise MalformedFileError(f"{next_name} overlaps {name}")
