"""Files of ids: `.npy`, one row of ids of which training reads what it needs, and the `.npz` of the old tools.

Beside `data.npy` lies `data.json`, its sidecar, which says of which vocabulary the ids are.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, overload

import numpy as np

from gpt2.data.workers import Encoded
from gpt2.errors import GPT2Error, printable_name
from gpt2.files import atomic_write
from gpt2.text.vocabulary import Vocabulary, type_code

BLOCK = 1 << 22  # ids that are in memory together
ENCODE = "python3 encode.py TEXT"
SIDECAR_KEYS = {"vocabulary", "n_vocab", "tokens", "documents"}


class TokenWriter:
    """Appends batches of ids to a file, and counts them."""

    def __init__(self, file: Any, encoder: Vocabulary) -> None:
        self.file, self.encoder = file, encoder
        self.tokens = self.documents = 0

    def append(self, encoded: Encoded) -> None:
        ids = np.frombuffer(encoded.ids, type_code(self.encoder.n_vocab))
        self.write(ids)
        self.tokens += len(ids)
        self.documents += encoded.documents

    def write(self, ids: np.ndarray) -> None:
        raise NotImplementedError


class NpyWriter(TokenWriter):
    """A `.npy` of little-endian uint16, or uint32, whose header is written again when its length is known."""

    def __init__(self, file: IO[bytes], encoder: Vocabulary) -> None:
        super().__init__(file, encoder)
        self.type = np.dtype(type_code(encoder.n_vocab)).newbyteorder("<")
        self._write_header()

    def write(self, ids: np.ndarray) -> None:
        self.file.write(ids.astype(self.type, copy=False).data)

    def finish(self) -> None:
        self.file.seek(0)
        self._write_header()  # as long as the first one: NumPy leaves room in it for an array that grows
        self.file.flush()

    def _write_header(self) -> None:
        fields = {"descr": self.type.str, "fortran_order": False, "shape": (self.tokens,)}
        np.lib.format.write_array_header_1_0(self.file, fields)

    def sidecar(self) -> dict[str, str | int]:
        return {
            "vocabulary": self.encoder.fingerprint,
            "n_vocab": self.encoder.n_vocab,
            "tokens": self.tokens,
            "documents": self.documents,
        }


class NpzWriter(TokenWriter):
    """A `.npz` with an array of int64 for each batch, as `numpy.savez_compressed` writes it but one at a time."""

    arrays = 0

    def write(self, ids: np.ndarray) -> None:
        with self.file.open(f"arr_{self.arrays}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, ids.astype("<i8"), allow_pickle=False)
        self.arrays += 1


@contextlib.contextmanager
def write(path: Path, encoder: Vocabulary) -> Iterator[TokenWriter]:
    """A file of ids that appears when the block has ended well: the old tools' if `path` ends in `.npz`, else a `.npy`.

    Raises GPT2Error if it cannot be written; before anything else, if the name of its sidecar is that of another file.
    """
    if path.suffix.lower() == ".npz":
        with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            yield NpzWriter(archive, encoder)
        return
    beside = sidecar_of(path)
    if beside.exists() and not is_sidecar(beside):
        raise GPT2Error(
            f"{printable_name(path)} needs {printable_name(beside)} for its sidecar, and that is another file; choose"
            " another name"
        )
    with atomic_write(path) as file:
        writer = NpyWriter(file, encoder)
        yield writer
        writer.finish()
        # First: if all ends in between, the old ids have a sidecar that does not fit, and are refused.
        with atomic_write(beside) as sidecar:
            sidecar.write(json.dumps(writer.sidecar(), indent=2).encode("ascii") + b"\n")


def sidecar_of(path: Path) -> Path:
    return path.with_suffix(".json")


def read_sidecar(path: Path) -> dict[str, str | int] | None:
    """What a sidecar says; None if there is none or the file is something else."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            said = json.loads(file.read(1 << 12))  # far more than a sidecar holds; a text may have gigabytes
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and set(said) >= SIDECAR_KEYS else None


def is_sidecar(path: Path) -> bool:
    return path.suffix == ".json" and read_sidecar(path) is not None


class TokenFile:
    """A `.npy` that stays open: another file that gets its name changes nothing."""

    def __init__(self, path: Path, encoder: Vocabulary) -> None:
        self.path, self.encoder = path, encoder
        self.file = path.open("rb", buffering=0)
        weakref.finalize(self, self.file.close)
        self.dtype, self.tokens = _read_header(self.file)
        self.start = self.file.tell()
        there = os.fstat(self.file.fileno()).st_size - self.start
        if there < self.tokens * self.dtype.itemsize:
            raise ValueError(f"it is cut off: {there} bytes are not {self.tokens} ids")

    def read(self, start: int, count: int) -> np.ndarray:
        """Ids [count]; raises GPT2Error if the file has become shorter or holds ids that the vocabulary has not."""
        ids = np.empty(count, self.dtype)
        left, at = ids.view(np.uint8).data, self.start + start * ids.itemsize
        try:
            while left and (done := os.preadv(self.file.fileno(), [left], at)):
                left, at = left[done:], at + done
        except OSError as error:
            raise GPT2Error(f"{printable_name(self.path)} cannot be read: {error.strerror}") from error
        if left:
            raise GPT2Error(f"{printable_name(self.path)} was cut off while it was in use; {_again(self.path)}")
        check_ids(ids, self.path, self.encoder)
        return ids


class StoredIds:
    """The ids of a `.npy` [tokens], in their file: a slice is the same for fewer, and is read when made an array.

    So the file may be larger than memory. Were it mapped instead, a file that is cut off would end the program.
    """

    def __init__(self, file: TokenFile, places: range) -> None:
        self.file, self.places = file, places

    @property
    def dtype(self) -> np.dtype:
        return self.file.dtype

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, at: slice) -> StoredIds: ...
    @overload
    def __getitem__(self, at: int) -> int: ...
    def __getitem__(self, at: slice | int) -> StoredIds | int:
        if isinstance(at, slice):
            return StoredIds(self.file, self.places[at])
        return int(self.file.read(self.places[at], 1)[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.places.step == 1:
            ids = self.file.read(self.places.start, len(self))
        else:
            ids = np.array([self[i] for i in range(len(self))], self.dtype)
        return ids if dtype is None else ids.astype(dtype, copy=False)

    def blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), BLOCK):
            yield np.asarray(self[start : start + BLOCK])


Ids = np.ndarray | StoredIds


def read(path: Path, encoder: Vocabulary) -> StoredIds:
    """The ids of a `.npy` [tokens], which are read where they are used.

    Raises GPT2Error if it is damaged or of another vocabulary. Without a sidecar its ids are looked through instead,
    and a warning says so.
    """
    try:
        file = TokenFile(path, encoder)
    except Exception as error:  # whatever NumPy makes of a header that is none
        raise damaged(path, str(error)) from error
    ids = StoredIds(file, range(file.tokens))
    beside = sidecar_of(path)
    said = read_sidecar(beside)
    if said is None:
        for _ in ids.blocks():
            pass
        warnings.warn(
            f"{printable_name(path)} has no {printable_name(beside.name)} beside it that names its vocabulary",
            stacklevel=2,
        )
    elif said["vocabulary"] != encoder.fingerprint:
        raise GPT2Error(f"{printable_name(path)} holds ids of another vocabulary than the model's; {_again(path)}")
    elif said["tokens"] != len(ids):
        raise damaged(path, f"it has {len(ids)} ids, but {printable_name(beside.name)} beside it says {said['tokens']}")
    return ids


def read_npz(path: Path, encoder: Vocabulary) -> Iterator[np.ndarray]:
    """The ids of a `.npz` in the order of the file, in blocks [ids]; raises GPT2Error if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    dtype, left = _read_header(file)
                    while left:
                        ids = np.frombuffer(file.read(min(left, BLOCK) * dtype.itemsize), dtype)
                        if not len(ids):
                            raise ValueError(f"{name} is cut off: {left} ids are missing")
                        left -= len(ids)
                        check_ids(ids, path, encoder)
                        yield ids
                    file.read(1)  # at its end, the checksum is looked at
    except GPT2Error:
        raise
    except Exception as error:  # whatever the packages make of an archive that is none
        raise damaged(path, str(error)) from error


def check_ids(ids: np.ndarray, path: Path, encoder: Vocabulary) -> None:
    """Raises GPT2Error if one of the ids is not below n_vocab."""
    for i in (int(ids.max()), int(ids.min())) if len(ids) else ():
        if not 0 <= i < encoder.n_vocab:
            raise GPT2Error(
                f"{printable_name(path)} holds the id {i}, the model's are below {encoder.n_vocab}; {_again(path)}"
            )


def _read_header(file: IO[bytes]) -> tuple[np.dtype, int]:
    """The type and the number of the ids that follow in a `.npy`; raises errors of any kind if it is damaged."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    if len(shape) != 1 or shape[0] < 0 or dtype.kind not in "iu":
        raise ValueError(f"it holds {dtype} of the shape {shape} instead of a row of whole numbers")
    return dtype, shape[0]


def damaged(path: Path, reason: str) -> GPT2Error:
    said = (
        printable_name(reason.split("\n")[0][:200]) or "it ends too early"
    )  # what is quoted of a file may be anything
    return GPT2Error(f"{printable_name(path)} is damaged or no file of ids: {said}; {_again(path)}")


def _again(path: Path) -> str:
    return f"encode its text again: {ENCODE} {printable_name(path)} --model_name NAME"
