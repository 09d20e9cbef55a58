"""Files as torch.save writes them, by hand: pickles of tensors, in a zip file or in the older stream."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {"<f8": "Double", "<f4": "Float", "<f2": "Half", "<u2": "BFloat16", "<i8": "Long", "|b1": "Bool"}


class Part(NamedTuple):
    """A tensor that takes numbers of a storage, whose key it says."""

    key: str
    kind: str  # of the storage
    count: int  # of the storage's numbers
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def bfloat16(array: np.ndarray) -> np.ndarray:
    """float32 -> the upper halves, which stand for bfloat16 here."""
    return (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2")


def code(value: Any) -> bytes:
    """The instructions that push a value, as protocol 2 has them."""
    if isinstance(value, Part):
        storage = Persistent(("storage", Name(f"torch {value.kind}Storage"), value.key, "cpu", value.count))
        hooks = Called("collections OrderedDict")
        arguments = (storage, value.offset, value.shape, value.strides, False, hooks)
        return code(Called("torch._utils _rebuild_tensor_v2", arguments))
    if isinstance(value, Name):
        return b"c" + value.text.replace(" ", "\n").encode() + b"\n"
    if isinstance(value, Called):
        return code(Name(value.name)) + code(value.arguments) + b"R"
    if isinstance(value, Persistent):
        return code(value.said) + b"Q"
    if isinstance(value, Raw):
        return value.content
    if isinstance(value, tuple):
        return b"(" + b"".join(map(code, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(code, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(code(key) + code(item) for key, item in value.items()) + b"u"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    return pickle.dumps(value, 2)[2:-1]  # without protocol and end


class Name:
    """A function or class, by `module name`."""

    def __init__(self, text: str) -> None:
        self.text = text


class Called:
    """What a function gives."""

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name, self.arguments = name, arguments


class Persistent:
    """What lies outside of the pickle."""

    def __init__(self, said: tuple[Any, ...]) -> None:
        self.said = said


class Raw:
    """Instructions as they are."""

    def __init__(self, content: bytes) -> None:
        self.content = content


def dumps(value: Any) -> bytes:
    return b"\x80\x02" + code(value) + b"."


def state_dict(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Part], dict[str, np.ndarray]]:
    """A tensor for each array, and the storages by their keys."""
    parts, storages = {}, {}
    for i, (name, array) in enumerate(arrays.items()):
        strides = tuple(step // array.itemsize for step in array.strides)
        parts[name] = Part(str(i), STORAGES[array.dtype.str], array.size, 0, array.shape, strides)
        storages[str(i)] = array.ravel(order="K")
    return parts, storages


def write_zip(
    path: Path, value: Any, storages: Mapping[str, np.ndarray], name: str = "archive", order: str | None = "little"
) -> None:
    """`value` may hold Parts; name: of the folder in the file."""
    write_zip_of(path, dumps(value), storages, name, order)


def write_zip_of(
    path: Path,
    described: bytes,
    storages: Mapping[str, np.ndarray],
    name: str = "archive",
    order: str | None = "little",
    compression: int = zipfile.ZIP_STORED,
) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{name}/data.pkl", described)
        if order:
            file.writestr(f"{name}/byteorder", order)
        for key, array in storages.items():
            file.writestr(f"{name}/data/{key}", array.tobytes())
        file.writestr(f"{name}/version", "3\n")


def stream(described: bytes, storages: Mapping[str, np.ndarray]) -> bytes:
    """The older form of the file."""
    out = io.BytesIO()
    for head in (MAGIC, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": True}):
        out.write(pickle.dumps(head, 2))
    out.write(described)
    out.write(pickle.dumps(list(storages), 2))
    for array in storages.values():
        out.write(struct.pack("<q", array.size) + array.tobytes())
    return out.getvalue()


def write_stream(path: Path, value: Any, storages: Mapping[str, np.ndarray]) -> None:
    path.write_bytes(stream(dumps(value), storages))
