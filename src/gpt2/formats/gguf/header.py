"""Reads the header of a GGUF file: its metadata by their keys, and its tensors by their names.

    magic, version, two counts; keys with their values; names, shapes, types and places of tensors; padding; their bytes

(ggml's docs/gguf.md.) Nothing in it is believed: each count and each length is compared with what is left of the file
before anything is made of it. The library's own reader does believe: an array that claims 2**60 numbers keeps it busy
for good.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from gpt2 import files
from gpt2.errors import FETCH_AGAIN, DamagedFileError
from gpt2.formats.malformed import MalformedFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # the first had counts of 32 bits, in llama.cpp's first two weeks of it
MAX_HEADER_BYTES = 1 << 25  # bytes; a vocabulary of 250,000 ids needs a third
LONGEST_NAME = 1 << 12  # bytes, of a key or a tensor
MOST_DIMENSIONS = 4
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # as in struct


class TensorInfo(NamedTuple):
    """What a header says of a tensor."""

    shape: tuple[int, ...]  # as NumPy has it: the last dimension lies together
    kind: int  # one of the library's GGMLQuantizationType, if it is true
    offset: int  # bytes from the beginning of the file


class Header(NamedTuple):
    """Arrays of strings are lists, arrays of numbers NumPy's."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]


def has_magic(path: Path) -> bool:
    """Whether a file begins as such files do; not if it cannot be read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
    return False


def read_header(path: Path, advice: str = FETCH_AGAIN) -> Header:
    """Raises Unreadable if the file cannot be read, Damaged, with this advice, if its header cannot be true."""
    with files.reporting_read_errors(path), path.open("rb") as file:
        try:
            return _header(_Bytes(file, path.stat().st_size))
        except MalformedFileError as error:
            raise DamagedFileError(path, str(error), advice) from error


class _Bytes:
    """A file's bytes one after another, never more than there are; raises Broken for those that are not there."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, min(size, MAX_HEADER_BYTES)
        self.whole = size <= MAX_HEADER_BYTES

    def take(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise MalformedFileError("it is cut off" if self.whole else "what it says of itself is far too long")
        data = self.file.read(size)
        if len(data) < size:
            raise MalformedFileError("it became shorter while it was read")
        return data

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def size(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> str:
        try:
            return self.take(self.size()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedFileError("a text in it is not UTF-8") from error

    def name(self) -> str:
        name = self.text()
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise MalformedFileError("a name in it is none")
        return name


def _header(data: _Bytes) -> Header:
    if data.take(len(MAGIC)) != MAGIC:
        raise MalformedFileError("it does not begin as a GGUF file does")
    version = data.number("I")
    if version not in VERSIONS:
        raise MalformedFileError(f"it is of version {version}; versions {' and '.join(map(str, VERSIONS))} can be read")
    n_tensors, n_keys = data.size(), data.size()
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = data.name()
        if key in metadata:
            raise MalformedFileError(f"it says {key} twice")
        metadata[key] = _value(data, data.number("I"))
    start = data.file.tell
    tensors: dict[str, TensorInfo] = {}
    for _ in range(n_tensors):
        name = data.name()
        if name in tensors:
            raise MalformedFileError(f"it has two tensors {name}")
        tensors[name] = _tensor(data)
    alignment = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise MalformedFileError(f"its {ALIGNMENT} is no power of two")
    begin = -(-start() // alignment) * alignment
    if any(tensor.offset % alignment for tensor in tensors.values()):
        raise MalformedFileError("a tensor does not lie where its alignment says")
    return Header(metadata, {name: t._replace(offset=begin + t.offset) for name, t in tensors.items()})


def _value(data: _Bytes, kind: int) -> Any:
    if kind in NUMBERS:
        return data.number(NUMBERS[kind])
    if kind == STRING:
        return data.text()
    if kind != ARRAY:
        raise MalformedFileError(f"a value has the unknown type {kind}")
    of, count = data.number("I"), data.size()
    if of in NUMBERS:
        dtype = np.dtype(f"<{NUMBERS[of]}")
        return np.frombuffer(data.take(count * dtype.itemsize), dtype)
    if of != STRING:
        raise MalformedFileError(f"an array is of the unknown type {of}")
    if 8 * count > data.left:
        raise MalformedFileError("an array is longer than what is left of it")
    return [data.text() for _ in range(count)]


def _tensor(data: _Bytes) -> TensorInfo:
    """Its offset is counted from where the tensors begin."""
    n_dimensions = data.number("I")
    if n_dimensions > MOST_DIMENSIONS:
        raise MalformedFileError(f"a tensor has {n_dimensions} dimensions")
    shape = tuple(data.size() for _ in range(n_dimensions))[::-1]
    return TensorInfo(shape, data.number("I"), data.size())
