"""Reader of files that torch.save wrote, without PyTorch: plain containers, and tensors that load lazily.

Since PyTorch 1.6, such a file is a zip file: `NAME/data.pkl` describes the object, and each `NAME/data/KEY` holds the
numbers of one storage. Older versions wrote a stream: four pickles (a magic number, the protocol, the type sizes of the
writer's machine, the object), one more pickle with the storage keys in order, and for each key the count of its numbers
and the numbers. Source: torch/serialization.py.

A pickle may request a call of any Python function. This module reads pickles with `pickle_interpreter.py`, which calls
only the functions in `ALLOWED_NAMES`. A file that requests another function is rejected with an error that names it.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gpt2 import files
from gpt2.errors import DamagedFileError, GPT2Error, printable_name
from gpt2.formats.pytorch import pickle_interpreter, zip_records
from gpt2.formats.pytorch.pickle_interpreter import (
    AllowedFunction,
    ForbiddenPickleError,
    MalformedPickleError,
    PickleInterpreter,
)
from gpt2.formats.stored_tensor import FLOATS, NON_FLOATS, Storage, StoredTensor, checked_tensor

STREAM_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
STREAM_MAGIC_BYTES = STREAM_MAGIC_NUMBER.to_bytes(10, "little")
STREAM_PROTOCOL = 1001
MAX_STORAGE_NUMBERS = 1 << 48


class StorageType(NamedTuple):
    """The replacement of a PyTorch class such as torch.FloatStorage.

    Attributes:
        dtype: One of FLOATS or NON_FLOATS.
    """

    dtype: str


def read(path: Path) -> Any:
    """Return the object in a file that torch.save wrote.

    Returns:
        Dictionaries, lists, tuples, text, bytes and numbers, with a `StoredTensor` in place of each tensor.

    Raises:
        UnreadableFileError: If the file cannot be read.
        DamagedFileError: If the file is damaged or torch.save did not write it.
        GPT2Error: If the file contains anything except tensors and plain containers. The message names the object.
    """
    with files.reporting_read_errors(path), path.open("rb") as file:
        try:
            start = file.read(32)
            file.seek(0)
            if start.startswith(zip_records.MAGIC):
                return _read_zip(path, file)
            if start.startswith(b"\x80") and STREAM_MAGIC_BYTES in start:
                return _read_stream(path, file)
        except ForbiddenPickleError as error:
            raise GPT2Error(
                f"{path} requests {error}, which is not allowed: PyTorch files may hold only tensors and plain"
                " containers of them, as torch.save(model.state_dict(), ...) writes them; functions in a file are"
                " never called"
            ) from error
        except MalformedPickleError as error:
            raise DamagedFileError(path, str(error)) from error
    raise DamagedFileError(path, "it is not a file that torch.save wrote")


def _read_zip(path: Path, file: BinaryIO) -> Any:
    records = zip_records.read_records(path)
    names = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise DamagedFileError(
            path, "it is a zip file, but torch.save did not write it: it should have exactly one data.pkl"
        )
    storages = StorageTable(path)
    description = io.BytesIO(_read_record(path, file, records, names[0]))
    value = PickleInterpreter(description, ALLOWED_NAMES, storages.load_persistent).load()
    folder = names[0].removesuffix("data.pkl")
    order = b"little"
    if f"{folder}byteorder" in records:
        order = _read_record(path, file, records, f"{folder}byteorder")
    for key, storage in storages.by_key.items():
        record = records.get(f"{folder}data/{key}")
        if record is None:
            raise DamagedFileError(path, f"{storage.name} is missing")
        if record.size != storage.size:
            raise DamagedFileError(path, f"{storage.name} has {record.size} bytes, but should have {storage.size}")
        storage.start = record.start
        storage.crc = record.crc
        storage.big_endian = order == b"big"
    return value


def _read_record(path: Path, file: BinaryIO, records: Mapping[str, zip_records.ZipRecord], name: str) -> bytes:
    """Return the content of a small record."""
    record = records[name]
    if record.size > pickle_interpreter.MAX_PICKLE_BYTES:
        raise DamagedFileError(path, f"{printable_name(name)} is far too large for the description of a model")
    file.seek(record.start)
    data = file.read(record.size)
    if record.crc not in (None, zlib.crc32(data)):
        raise DamagedFileError(path, f"{printable_name(name)} does not match its checksum")
    return data


def _read_stream(path: Path, file: BinaryIO) -> Any:
    magic_number = PickleInterpreter(file, {}).load()
    protocol = PickleInterpreter(file, {}).load()
    if (magic_number, protocol) != (STREAM_MAGIC_NUMBER, STREAM_PROTOCOL):
        raise DamagedFileError(path, "it does not start as files of torch.save do")
    PickleInterpreter(file, {}).load()  # the type sizes of the writer's machine, not needed
    storages = StorageTable(path)
    value = PickleInterpreter(file, ALLOWED_NAMES, storages.load_persistent).load()
    keys = PickleInterpreter(file, {}).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise DamagedFileError(path, "its list of storages is damaged")
    if unmatched := storages.by_key.keys() ^ set(keys):
        raise DamagedFileError(
            path,
            "its tensors and its list of storages do not match: the first difference is"
            f" {printable_name(min(unmatched)[:80])}",
        )
    end = os.fstat(file.fileno()).st_size
    for key in keys:
        storage = storages.by_key[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        storage.start = file.tell()
        if count != storage.count:
            raise DamagedFileError(path, f"{storage.name} has {count} numbers, but should have {storage.count}")
        if storage.start + storage.size > end:
            raise DamagedFileError(path, f"it ends before the end of {storage.name}")
        file.seek(storage.size, os.SEEK_CUR)
    return value


class StorageTable:
    """The storages of a pickle by their keys; their positions are added after the pickle has been loaded."""

    def __init__(self, path: Path) -> None:
        """Start with an empty table.

        Args:
            path: The file that holds the storages.
        """
        self.path = path
        self.by_key: dict[str, Storage] = {}

    def load_persistent(self, persistent_id: Any) -> Storage:
        """Return the storage of a persistent id.

        Args:
            persistent_id: ("storage", class, key, device, count). In streams, a sixth item describes a view of another
                storage, and only None is accepted.

        Raises:
            MalformedPickleError: If the id has another form or contradicts an earlier one.
        """
        match persistent_id:
            case ("storage", StorageType(dtype), str(key), str(), int(count)) if 0 <= count < MAX_STORAGE_NUMBERS:
                pass
            case ("storage", StorageType(dtype), str(key), str(), int(count), None) if 0 <= count < MAX_STORAGE_NUMBERS:
                pass
            case _:
                raise MalformedPickleError("it refers to an object that is not a storage of numbers")
        storage = self.by_key.setdefault(key, Storage(self.path, f"storage {key[:80]!r}", dtype, count))
        if (storage.dtype, storage.count) != (dtype, count):
            raise MalformedPickleError(f"it declares two sizes or types for {storage.name}")
        return storage


def _build_ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise MalformedPickleError("an OrderedDict has arguments, which torch.save does not write")
    return {}


def _build_tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    """Build a tensor from a storage, the index of its first number, shape and strides; ignore other arguments."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if _are_ints((*shape, *strides)):
            return checked_tensor(storage, offset, shape, strides)
    raise MalformedPickleError("a tensor is not built from a storage, an offset, a shape and strides")


def _build_parameter(arguments: tuple[Any, ...]) -> StoredTensor:
    match arguments:
        case (StoredTensor() as tensor, *_):
            return tensor
    raise MalformedPickleError("a parameter is not built from a tensor")


def _build_size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    match arguments:
        case (tuple(shape),) if _are_ints(shape):
            return shape
    raise MalformedPickleError("a torch.Size is not built from integers")


def _build_device(arguments: tuple[Any, ...]) -> str:
    match arguments:
        case (str(kind),) | (str(kind), int()):
            return kind
    raise MalformedPickleError("a torch.device is not built from a name")


def _build_bytes(arguments: tuple[Any, ...]) -> bytes:
    """Build bytes from Latin-1 text, as pickle protocol 2 writes them."""
    match arguments:
        case (str(text), "latin1") if not text or max(text) < "\u0100":
            return text.encode("latin-1")
    raise MalformedPickleError("bytes are not built from Latin-1 text")


def _are_ints(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int for value in values)


# PyTorch's names of storage types, in the order of FLOATS and NON_FLOATS.
_STORAGE_TYPES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_FUNCTIONS = {
    "collections.OrderedDict": _build_ordered_dict,
    "torch._utils._rebuild_tensor": _build_tensor,
    "torch._utils._rebuild_tensor_v2": _build_tensor,
    "torch._utils._rebuild_parameter": _build_parameter,
    "torch.Size": _build_size,
    "torch.device": _build_device,
    "_codecs.encode": _build_bytes,
}
# All names that a file may use.
ALLOWED_NAMES: dict[str, Any] = {
    **{f"torch.{name}Storage": StorageType(dtype) for name, dtype in zip(_STORAGE_TYPES, (*FLOATS, *NON_FLOATS))},
    **{f"torch.{dtype}": dtype for dtype in (*FLOATS, *NON_FLOATS)},
    **{name: AllowedFunction(build) for name, build in _FUNCTIONS.items()},
}
