"""Reads what PyTorch's torch.save wrote, without PyTorch: plain containers, and tensors that are read when asked for.

Since PyTorch 1.6 that is a zip file: `NAME/data.pkl` describes the object, `NAME/data/KEY` are the numbers. Before it
was a stream: four pickles (a magic number, the protocol, the writer's machine, the object), one more of the keys in
order, and of each key the count of its numbers and the numbers. (torch/serialization.py.)

A pickle may ask for any function of Python's to be called. Here it is read by `pickle_machine.py`, which can call
nothing but what is in `KNOWN`; a file that asks for anything else is refused by its name.
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
from gpt2.formats.pytorch.pickle_interpreter import Broken, Builder, Machine, Refused
from gpt2.formats.stored_tensor import FLOATS, NON_FLOATS, Storage, StoredTensor, checked_tensor

MAGIC_NUMBER, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the stream
MAGIC = MAGIC_NUMBER.to_bytes(10, "little")
MOST_NUMBERS = 1 << 48  # of a storage; more are in no file


class Kind(NamedTuple):
    """What stands for a class of storages."""

    dtype: str


def read(path: Path) -> Any:
    """What a file of torch.save holds: dictionaries, lists, tuples, text, bytes, numbers, and a Tensor for each tensor.

    Raises Unreadable; Damaged, naming the file; GPT2Error, naming what it asks for, if that is anything else.
    """
    with files.reporting_read_errors(path), path.open("rb") as file:
        try:
            start = file.read(32)
            file.seek(0)
            if start.startswith(zip_records.MAGIC):
                return _of_zip(path, file)
            if start.startswith(b"\x80") and MAGIC in start:
                return _of_stream(path, file)
        except Refused as error:
            raise GPT2Error(
                f"{path} asks for {error}; of PyTorch's files only tensors and plain containers of them are read, such"
                " as torch.save(model.state_dict(), ...) writes, and nothing is called that a file names"
            ) from error
        except Broken as error:
            raise DamagedFileError(path, str(error)) from error
    raise DamagedFileError(path, "it is no file that torch.save wrote")


def _of_zip(path: Path, file: BinaryIO) -> Any:
    records = zip_records.read_records(path)
    names = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise Broken("it is a zip file, and none that torch.save wrote: it should have one data.pkl")
    storages = Storages(path)
    found = Machine(io.BytesIO(_content(file, records, names[0])), KNOWN, storages.persistent).load()
    prefix = names[0].removesuffix("data.pkl")
    order = _content(file, records, f"{prefix}byteorder") if f"{prefix}byteorder" in records else b"little"
    for key, storage in storages.by_key.items():
        if (record := records.get(f"{prefix}data/{key}")) is None or record.size != storage.size:
            size = "is missing" if record is None else f"has {record.size} bytes, but should have {storage.size}"
            raise Broken(f"{storage.name} {size}")
        storage.start, storage.crc, storage.big_endian = record.start, record.crc, order == b"big"
    return found


def _content(file: BinaryIO, records: Mapping[str, zip_records.Record], name: str) -> bytes:
    """The bytes of a small record."""
    record = records[name]
    if record.size > pickle_interpreter.LARGEST:
        raise Broken(f"{printable_name(name)} is far too large for the description of a model")
    file.seek(record.start)
    data = file.read(record.size)
    if record.crc not in (None, zlib.crc32(data)):
        raise Broken(f"{printable_name(name)} has another checksum than it should")
    return data


def _of_stream(path: Path, file: BinaryIO) -> Any:
    if (Machine(file, {}).load(), Machine(file, {}).load()) != (MAGIC_NUMBER, PROTOCOL):
        raise Broken("it does not begin as torch.save's files do")
    Machine(file, {}).load()  # sizes of types on the writer's machine, which files do not depend on
    storages = Storages(path)
    found = Machine(file, KNOWN, storages.persistent).load()
    keys = Machine(file, {}).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise Broken("it does not say in which order its numbers are")
    if missing := storages.by_key.keys() ^ set(keys):
        raise Broken(
            f"the tensors and the numbers in it do not belong together: first {printable_name(min(missing)[:80])}"
        )
    end = os.fstat(file.fileno()).st_size
    for key in keys:
        storage = storages.by_key[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        storage.start = file.tell()
        if count != storage.count:
            raise Broken(f"{storage.name} has {count} numbers, but should have {storage.count}")
        if storage.start + storage.size > end:
            raise Broken(f"it ends before the end of {storage.name}")
        file.seek(storage.size, os.SEEK_CUR)
    return found


class Storages:
    """Those that a pickle refers to, by their keys; where they lie is found afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.by_key: dict[str, Storage] = {}

    def persistent(self, said: Any) -> Storage:
        """('storage', class, key, device, count), in streams also which part of another storage it is."""
        match said:
            case ("storage", Kind(dtype), str(key), str(), int(count)) if 0 <= count < MOST_NUMBERS:
                pass
            case ("storage", Kind(dtype), str(key), str(), int(count), None) if 0 <= count < MOST_NUMBERS:
                pass
            case _:
                raise Broken("it refers to something that is no storage of numbers")
        storage = self.by_key.setdefault(key, Storage(self.path, f"storage {key[:80]!r}", dtype, count))
        if (storage.dtype, storage.count) != (dtype, count):
            raise Broken(f"it says two things about {storage.name}")
        return storage


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise Broken("a dictionary is made of something")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    """Storage, number at which it begins, shape, strides; whether it has a gradient and its hooks do not matter."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if _are_ints((*shape, *strides)):
            return checked_tensor(storage, offset, shape, strides)
    raise Broken("a tensor is made of what is no storage")


def _parameter(arguments: tuple[Any, ...]) -> StoredTensor:
    match arguments:
        case (StoredTensor() as tensor, *_):
            return tensor
    raise Broken("a parameter is made of what is no tensor")


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    match arguments:
        case (tuple(shape),) if _are_ints(shape):
            return shape
    raise Broken("a size is made of what is no numbers")


def _device(arguments: tuple[Any, ...]) -> str:
    match arguments:
        case (str(kind),) | (str(kind), int()):
            return kind
    raise Broken("a device is made of what is no name")


def _bytes(arguments: tuple[Any, ...]) -> bytes:
    """How protocol 2 writes them."""
    match arguments:
        case (str(text), "latin1") if not text or max(text) < "\u0100":
            return text.encode("latin-1")
    raise Broken("bytes are made of what is no text")


def _are_ints(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int for value in values)


_KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")  # of storages
_BUILDERS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _bytes,
}
# All that a file may name.
KNOWN: dict[str, Any] = {
    **{f"torch.{name}Storage": Kind(dtype) for name, dtype in zip(_KINDS, (*FLOATS, *NON_FLOATS))},
    **{f"torch.{dtype}": dtype for dtype in (*FLOATS, *NON_FLOATS)},
    **{name: Builder(build) for name, build in _BUILDERS.items()},
}
