"""Reader of the header of a GGUF file: metadata by key, and tensor descriptions by name.

The layout of a file is (ggml's docs/gguf.md):

    magic, version, two counts; keys and values; names, shapes, types and offsets of tensors; padding; their bytes

Each count and length is compared with the rest of the file before memory is allocated. The reader of the package gguf
lacks these checks: an array that claims 2**60 numbers makes it run forever.
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
VERSIONS = (2, 3)  # version 1 with 32-bit counts was in use for two weeks only
MAX_HEADER_BYTES = 1 << 25  # a vocabulary of 250,000 ids needs a third of this
MAX_NAME_LENGTH = 1 << 12  # characters of a key or a tensor's name
MAX_DIMENSIONS = 4
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes
# Types of metadata values.
STRING = 8
ARRAY = 9
# The codes of the module struct for the types of numbers.
NUMBER_CODES = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
MIN_STRING_BYTES = 8  # size of an empty string, which has only a length


class GGUFTensorInfo(NamedTuple):
    """The description of a tensor in a header.

    Attributes:
        shape: The tensor's shape in NumPy's order: neighbors in the last dimension are adjacent in the file.
        ggml_type: A value of the package's GGMLQuantizationType, unless the file is damaged.
        offset: Index of the tensor's first byte in the file.
    """

    shape: tuple[int, ...]
    ggml_type: int
    offset: int


class GGUFFile(NamedTuple):
    """A GGUF file whose header has been read.

    Attributes:
        path: The file.
        advice: The remedy for a damaged file, which ends the error message.
        metadata: Values by their keys. Arrays of strings are lists, arrays of numbers are NumPy arrays.
        tensors: The description of each tensor by its name.
    """

    path: Path
    advice: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensorInfo]

    def damaged(self, reason: str) -> DamagedFileError:
        """Return the error for a damaged file.

        Args:
            reason: The damage, as a clause.
        """
        return DamagedFileError(self.path, reason, self.advice)


def has_magic(path: Path) -> bool:
    """Return whether a file starts like a GGUF file, or False if it cannot be read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
    return False


def read_header(path: Path, advice: str = FETCH_AGAIN) -> GGUFFile:
    """Read the header of a GGUF file.

    Args:
        path: The file.
        advice: The remedy for a damaged file, which ends the error message.

    Raises:
        UnreadableFileError: The file cannot be read.
        DamagedFileError: The header is damaged or cut off.
    """
    with files.reporting_read_errors(path), path.open("rb") as file:
        try:
            metadata, tensors = _read_header(_HeaderReader(file, path.stat().st_size))
        except MalformedFileError as error:
            raise DamagedFileError(path, str(error), advice) from error
    return GGUFFile(path, advice, metadata, tensors)


class _HeaderReader:
    """A reader of values from the start of a file, limited to the size of the file.

    All methods raise MalformedFileError if the file ends too early.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Start at the beginning of a file of `size` bytes."""
        self.file = file
        self.bytes_left = min(size, MAX_HEADER_BYTES)
        self.fits_limit = size <= MAX_HEADER_BYTES

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise MalformedFileError("it is cut off" if self.fits_limit else "its header is far too long")
        data = self.file.read(size)
        if len(data) < size:
            raise MalformedFileError("it became shorter while it was read")
        return data

    def read_number(self, code: str) -> Any:
        """Return a little-endian number of the type `code`, as in the module struct."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def read_size(self) -> int:
        """Return a count, a length or an offset."""
        return int.from_bytes(self.take(8), "little")

    def read_string(self) -> str:
        """Return a string."""
        try:
            return self.take(self.read_size()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedFileError("a string in it is not UTF-8") from error

    def read_name(self) -> str:
        """Return a key or a tensor's name, which may appear in messages."""
        name = self.read_string()
        if len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise MalformedFileError("it contains an invalid name")
        return name

    def read_value(self, value_type: int) -> Any:
        """Return a metadata value of this type."""
        if value_type in NUMBER_CODES:
            return self.read_number(NUMBER_CODES[value_type])
        if value_type == STRING:
            return self.read_string()
        if value_type != ARRAY:
            raise MalformedFileError(f"a value has the unknown type {value_type}")
        item_type = self.read_number("I")
        count = self.read_size()
        if item_type in NUMBER_CODES:
            dtype = np.dtype(f"<{NUMBER_CODES[item_type]}")
            return np.frombuffer(self.take(count * dtype.itemsize), dtype)
        if item_type != STRING:
            raise MalformedFileError(f"an array has the unknown type {item_type}")
        if MIN_STRING_BYTES * count > self.bytes_left:
            raise MalformedFileError("an array is longer than the rest of the file")
        return [self.read_string() for _ in range(count)]

    def read_tensor_info(self) -> GGUFTensorInfo:
        """Return a tensor's description, with its offset counted from the start of the tensor data."""
        n_dimensions = self.read_number("I")
        if n_dimensions > MAX_DIMENSIONS:
            raise MalformedFileError(f"a tensor has {n_dimensions} dimensions")
        shape = tuple(self.read_size() for _ in range(n_dimensions))[::-1]
        return GGUFTensorInfo(shape, self.read_number("I"), self.read_size())


def _read_header(reader: _HeaderReader) -> tuple[dict[str, Any], dict[str, GGUFTensorInfo]]:
    if reader.take(len(MAGIC)) != MAGIC:
        raise MalformedFileError("it does not start like a GGUF file")
    version = reader.read_number("I")
    if version not in VERSIONS:
        readable = " and ".join(map(str, VERSIONS))
        raise MalformedFileError(f"its version is {version}; only versions {readable} can be read")
    n_tensors = reader.read_size()
    n_keys = reader.read_size()
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = reader.read_name()
        if key in metadata:
            raise MalformedFileError(f"the key {key} appears twice")
        metadata[key] = reader.read_value(reader.read_number("I"))
    tensors: dict[str, GGUFTensorInfo] = {}
    for _ in range(n_tensors):
        name = reader.read_name()
        if name in tensors:
            raise MalformedFileError(f"two tensors are called {name}")
        tensors[name] = reader.read_tensor_info()
    alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise MalformedFileError(f"its {ALIGNMENT_KEY} is not a power of two")
    if any(tensor.offset % alignment for tensor in tensors.values()):
        raise MalformedFileError(f"a tensor is not aligned to {alignment} bytes")
    data_start = -(-reader.file.tell() // alignment) * alignment
    return metadata, {name: t._replace(offset=data_start + t.offset) for name, t in tensors.items()}
