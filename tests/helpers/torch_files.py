"""Files in the forms that torch.save writes, made by hand: pickles of tensors in a zip file or in the older stream."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {"<f8": "Double", "<f4": "Float", "<f2": "Half", "<u2": "BFloat16", "<i8": "Long", "|b1": "Bool"}


class TensorView(NamedTuple):
    """A tensor: a view of the storage `key`."""

    key: str
    kind: str  # the type of the storage
    size: int  # of the storage, in numbers
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def bfloat16(array: np.ndarray) -> np.ndarray:
    """Return the upper halves of float32 numbers, which represent bfloat16 here."""
    return (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2")


def code(value: Any) -> bytes:
    """Return the instructions of pickle protocol 2 that push a value."""
    if isinstance(value, TensorView):
        storage = Persistent(("storage", Name(f"torch {value.kind}Storage"), value.key, "cpu", value.size))
        hooks = Call("collections OrderedDict")
        arguments = (storage, value.offset, value.shape, value.strides, False, hooks)
        return code(Call("torch._utils _rebuild_tensor_v2", arguments))
    if isinstance(value, Name):
        return b"c" + value.text.replace(" ", "\n").encode() + b"\n"
    if isinstance(value, Call):
        return code(Name(value.name)) + code(value.arguments) + b"R"
    if isinstance(value, Persistent):
        return code(value.persistent_id) + b"Q"
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
    return pickle.dumps(value, 2)[2:-1]  # without the protocol and the end


class Name:
    """A function or class, named by `module name`."""

    def __init__(self, text: str) -> None:
        self.text = text


class Call:
    """A call of a function."""

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments


class Persistent:
    """A reference to an object outside of the pickle."""

    def __init__(self, persistent_id: tuple[Any, ...]) -> None:
        self.persistent_id = persistent_id


class Raw:
    """Instructions that are written unchanged."""

    def __init__(self, content: bytes) -> None:
        self.content = content


def dumps(value: Any) -> bytes:
    """Return a whole pickle."""
    return b"\x80\x02" + code(value) + b"."


def state_dict(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, TensorView], dict[str, np.ndarray]]:
    """Return a tensor for each array, and the storages by their keys."""
    views: dict[str, TensorView] = {}
    storages: dict[str, np.ndarray] = {}
    for i, (name, array) in enumerate(arrays.items()):
        strides = tuple(step // array.itemsize for step in array.strides)
        views[name] = TensorView(str(i), STORAGES[array.dtype.str], array.size, 0, array.shape, strides)
        storages[str(i)] = array.ravel(order="K")
    return views, storages


def write_zip(
    path: Path, value: Any, storages: Mapping[str, np.ndarray], name: str = "archive", order: str | None = "little"
) -> None:
    """Write a zip file that holds `value`, which may contain TensorViews, in a folder called `name`."""
    write_zip_of_pickle(path, dumps(value), storages, name, order)


def write_zip_of_pickle(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, np.ndarray],
    name: str = "archive",
    order: str | None = "little",
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Write a zip file around a pickle that is already encoded."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{name}/data.pkl", pickled)
        if order:
            file.writestr(f"{name}/byteorder", order)
        for key, array in storages.items():
            file.writestr(f"{name}/data/{key}", array.tobytes())
        file.writestr(f"{name}/version", "3\n")


def stream(pickled: bytes, storages: Mapping[str, np.ndarray]) -> bytes:
    """Return a file in the older form around a pickle that is already encoded."""
    out = io.BytesIO()
    for head in (MAGIC, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": True}):
        out.write(pickle.dumps(head, 2))
    out.write(pickled)
    out.write(pickle.dumps(list(storages), 2))
    for array in storages.values():
        out.write(struct.pack("<q", array.size) + array.tobytes())
    return out.getvalue()


def write_stream(path: Path, value: Any, storages: Mapping[str, np.ndarray]) -> None:
    """Write a file in the older form that holds `value`."""
    path.write_bytes(stream(dumps(value), storages))
