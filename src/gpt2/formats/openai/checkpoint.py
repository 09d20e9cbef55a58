"""Reads checkpoints in OpenAI's layout, TensorFlow's name-based format, with NumPy alone.

`<prefix>.index` is a table (`table.py`) of the variables: type, shape, shard, offset, size and checksum of each, as
protocol buffers (TensorFlow's core/protobuf/tensor_bundle.proto). `<prefix>.data-0000N-of-0000M` are their bytes. All
that the index says is checked before anything is allocated, and every checksum when the bytes are read.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from gpt2 import files
from gpt2.errors import FETCH_AGAIN, DamagedFileError, GPT2Error
from gpt2.formats.malformed import MalformedFileError
from gpt2.formats.openai.checkpoint_files import data_file, index_file, suggest_older_checkpoints
from gpt2.formats.openai.leveldb_table import mask_crc, read_table
from gpt2.formats.protobuf import read_fields
from gpt2.formats.stored_tensor import read_into
from gpt2.formats.weights import PREFIX, Layout, Weight, Weights
from gpt2.hparams import HParams

PIECE_BYTES = 1 << 25  # bytes of a tensor that are read at once
MAX_INDEX_BYTES = 1 << 24  # bytes; that of 1558M has 30,000
MAX_FILE_BYTES = 1 << 63  # bytes
FLOAT32 = "float32"
DTYPES = {1: FLOAT32, 2: "float64", 3: "int32", 7: "string", 9: "int64", 10: "bool", 14: "bfloat16", 19: "float16"}


class IndexEntry(NamedTuple):
    """What the index says of a variable."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int  # bytes
    size: int  # bytes
    crc: int  # masked


def variable_shapes(hparams: HParams) -> dict[str, tuple[int, ...]]:
    """Name and shape of each variable of a checkpoint, as OpenAI's code creates them."""
    return {name: file_shape(name, shape) for name, shape in hparams.weight_shapes().items()}


class Checkpoint:
    """The variables of a checkpoint by their names; their bytes are read when they are asked for.

    Raises GPT2Error, naming the file, if the index cannot be read or is damaged.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.shards, self.entries = read_index(index_file(prefix))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.entries.items()}

    def check_sizes(self) -> None:
        """Raises GPT2Error, naming the file, unless the data are there and as long as the index needs them."""
        for shard in range(self.shards):
            path = data_file(self.prefix, shard, self.shards)
            needed = max((e.offset + e.size for e in self.entries.values() if e.shard == shard), default=0)
            with files.reporting_read_errors(path):
                if path.stat().st_size < needed:
                    raise damaged_error(path, f"it is shorter than the {needed} bytes that it should have")

    def weight(self, name: str) -> Weight:
        """A float32 variable as the index describes it."""
        entry = self.entries[name]
        return Weight(entry.shape, None, lambda: self._pieces(name), f"{entry.dtype} crc32c {entry.crc:x}")

    def _pieces(self, name: str) -> Iterator[np.ndarray]:
        entry = self.entries[name]
        if entry.dtype != FLOAT32:
            raise GPT2Error(f"{self.prefix}: {name} is {entry.dtype}, but OpenAI's layout holds {FLOAT32}")
        return read_pieces(data_file(self.prefix, entry.shard, self.shards), name, entry)


def read_pieces(path: Path, name: str, entry: IndexEntry) -> Iterator[np.ndarray]:
    """The rows [n, columns] of a float32 variable in order, about PIECE bytes at a time; columns is its last dimension.

    Raises Unreadable; Damaged, perhaps after the last piece, if they are not what the index says.
    """
    columns = entry.shape[-1] if entry.shape else 1
    rows = math.prod(entry.shape[:-1])
    at_once = max(1, PIECE_BYTES // (4 * max(1, columns)))
    crc = 0
    with files.reporting_read_errors(path), path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size < entry.offset + entry.size:
            raise damaged_error(path, f"it ends before the end of {name}")
        file.seek(entry.offset)
        for start in range(0, max(1, rows), at_once):
            piece = np.empty((min(at_once, rows - start), columns), "<f4")
            if read_into(file, piece) < piece.nbytes:
                raise damaged_error(path, f"it has become shorter while {name} was read")
            crc = google_crc32c.extend(crc, piece)
            yield piece
    if mask_crc(crc) != entry.crc:
        raise damaged_error(path, f"{name} has another checksum than it should")


def damaged_error(path: Path, reason: str) -> DamagedFileError:
    """What to raise for a file of a checkpoint; it says how to use older ones of the same run, where they are."""
    prefix = path.with_name(re.sub(r"\.(index|data-\d+-of-\d+)$", "", path.name))
    return DamagedFileError(path, reason, suggest_older_checkpoints(prefix) or FETCH_AGAIN)


def check_data_file(index: Path, data: Path) -> None:
    """Reads through the file of data, of a checkpoint that has one, and compares every checksum in the index.

    Raises Damaged, naming the first variable that differs, and Unreadable.
    """
    for name, entry in read_index(index)[1].items():
        for _ in read_pieces(data, name, entry):
            pass


def read_index(path: Path) -> tuple[int, dict[str, IndexEntry]]:
    """How many files of data there are, and what an `.index` says of each variable.

    Raises Unreadable if it cannot be read, Damaged if it cannot be true.
    """
    try:
        with files.reporting_read_errors(path):
            if path.stat().st_size > MAX_INDEX_BYTES:
                raise MalformedFileError("it is far too large for an index")
            data = path.read_bytes()
        shards, entries = _parsed(data)
        _check_places(entries, shards)
    except MalformedFileError as error:
        raise damaged_error(path, str(error)) from error
    return shards, entries


def read_weights(prefix: Path, hparams: HParams) -> Weights:
    """The weights of the model with these hparams, by their names; read when they are asked for.

    Raises GPT2Error, naming file and variable, if the index is damaged or does not hold exactly these variables.
    """
    checkpoint = Checkpoint(prefix)
    check_variables(checkpoint.entries, hparams, prefix)
    found = {name: checkpoint.weight(name)._replace(layout=layout(name)) for name in variable_shapes(hparams)}
    return {name: w._replace(shape=w.shape[-2:]) if w.layout else w for name, w in found.items()}


def layout(name: str) -> Layout | None:
    """How OpenAI's code lays a variable out: its matrices are [I, O]; wte, the output projection, is [O, I]."""
    return {"w": Layout.IN_OUT, "wte": Layout.OUT_IN, "lm_head": Layout.OUT_IN}.get(name.rpartition("/")[2])


def file_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape in a file: matrices [I, O], once convolutions of width 1, have a leading 1."""
    return (1, *shape) if layout(name) is Layout.IN_OUT else tuple(shape)


def _parsed(data: bytes) -> tuple[int, dict[str, IndexEntry]]:
    """The number of shards, and what the index says of each variable. Raises Broken."""
    table = read_table(data)
    key, header = next(table, (None, b""))
    said = dict(read_fields(header))
    if key != b"" or not isinstance(shards := said.get(1, 0), int) or not 1 <= shards < 100_000:
        raise MalformedFileError("it does not say how many files of data there are")
    if said.get(2, 0):
        raise MalformedFileError("its numbers are big-endian")
    try:
        return shards, {name.decode("utf-8"): _entry(value) for name, value in table}
    except UnicodeDecodeError as error:
        raise MalformedFileError("a name is not UTF-8") from error


def _entry(message: bytes) -> IndexEntry:
    """A BundleEntryProto. Raises Broken."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}  # type, shard, offset, size, checksum: 0 is not written
    shape: tuple[int, ...] = ()
    for number, value in read_fields(message):
        if number in numbers and isinstance(value, int):
            numbers[number] = value
        elif number == 2 and isinstance(value, bytes):
            shape = tuple(_dimensions(value))
        else:
            raise MalformedFileError("a variable is kept in slices, or described in a way that is not known")
    kind, shard, offset, size, crc = numbers.values()
    if offset + size >= MAX_FILE_BYTES:
        raise MalformedFileError("a variable lies beyond the end of any file")
    return IndexEntry(DTYPES.get(kind, f"of the type {kind}"), shape, shard, offset, size, crc)


def _dimensions(message: bytes) -> Iterator[int]:
    for number, value in read_fields(message):
        if number != 2 or not isinstance(value, bytes):
            raise MalformedFileError("a variable's shape is not known")
        size = dict(read_fields(value)).get(1, 0)
        if not isinstance(size, int) or size >= 1 << 40:
            raise MalformedFileError("a variable's shape cannot be")
        yield size


def _check_places(entries: Mapping[str, IndexEntry], shards: int) -> None:
    """Raises Broken unless each variable has bytes of its own, as many as its shape needs."""
    for name, entry in entries.items():
        if entry.shard >= shards:
            raise MalformedFileError(f"{name} is in file {entry.shard}, and there are {shards}")
        if entry.dtype == FLOAT32 and entry.size != 4 * math.prod(entry.shape):
            raise MalformedFileError(f"{name} has {entry.size} bytes and the shape {list(entry.shape)}")
    placed = sorted((entry.shard, entry.offset, entry.size, name) for name, entry in entries.items() if entry.size)
    for (shard, offset, size, name), (other_shard, start, _, other) in itertools.pairwise(placed):
        if shard == other_shard and offset + size > start:
            raise MalformedFileError(f"{other} lies over {name}")


def check_variables(entries: Mapping[str, IndexEntry], hparams: HParams, prefix: Path) -> None:
    """Raises GPT2Error, naming what is wrong, if these are not the variables of this model."""
    layers = {name.split("/")[1] for name in entries if name.startswith(f"{PREFIX}h")}
    if len(layers) != hparams.n_layer:
        raise GPT2Error(f"{prefix} holds {len(layers)} layers, but its hparams.json says n_layer {hparams.n_layer}")
    wanted = variable_shapes(hparams)
    missing = [name for name in wanted if name not in entries]
    if missing:
        raise GPT2Error(f"{prefix} lacks {len(missing)} of {len(wanted)} variables of {hparams}, first {missing[0]}")
    for name, shape in wanted.items():
        entry = entries[name]
        if entry.shape != shape:
            raise GPT2Error(f"{prefix}: {name} has the shape {list(entry.shape)}, but {hparams} needs {list(shape)}")
        if entry.dtype != FLOAT32:
            raise GPT2Error(f"{prefix}: {name} is {entry.dtype}, but OpenAI's layout holds {FLOAT32}")
