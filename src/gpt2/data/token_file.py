"""Files of ids: `.npy` with one row of ids, which is read piece by piece, and the old tools' `.npz`.

`data.npy` has a sidecar, `data.json`, that names the vocabulary of its ids.
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

from gpt2.data.workers import EncodedBatch
from gpt2.errors import GPT2Error, printable_name
from gpt2.files import atomic_write
from gpt2.text.vocabulary import Vocabulary, type_code

BLOCK_IDS = 1 << 22  # ids in memory at the same time
MAX_SIDECAR_BYTES = 1 << 12  # more than a sidecar has; another .json file may have gigabytes
MAX_REASON_CHARACTERS = 200  # length of an error message that may quote a damaged file
ENCODE_COMMAND = "python3 encode.py TEXT"
SIDECAR_KEYS = {"vocabulary", "n_vocab", "tokens", "documents"}


class TokenWriter:
    """A writer that appends batches of ids to a file and counts them; the base class of the two formats.

    Attributes:
        tokens: Number of written ids.
        documents: Number of written documents.
    """

    def __init__(self, file: Any, encoder: Vocabulary) -> None:
        """Start with no ids in `file`, a binary file or an archive."""
        self.file = file
        self.encoder = encoder
        self.tokens = 0
        self.documents = 0

    def append(self, batch: EncodedBatch) -> None:
        """Write the ids of a batch."""
        ids = np.frombuffer(batch.ids, type_code(self.encoder.n_vocab))
        self.write(ids)
        self.tokens += len(ids)
        self.documents += batch.documents

    def write(self, ids: np.ndarray) -> None:
        """Write ids [N] without counting them."""
        raise NotImplementedError


class NpyWriter(TokenWriter):
    """A writer of a `.npy` of little-endian uint16 or uint32; its header is rewritten when the length is known."""

    def __init__(self, file: IO[bytes], encoder: Vocabulary) -> None:
        """Write a first header."""
        super().__init__(file, encoder)
        self.type = np.dtype(type_code(encoder.n_vocab)).newbyteorder("<")
        self._write_header()

    def write(self, ids: np.ndarray) -> None:
        """Write ids [N] without counting them."""
        self.file.write(ids.astype(self.type, copy=False).data)

    def finish(self) -> None:
        """Write the final header."""
        self.file.seek(0)
        self._write_header()  # as long as the first one: NumPy pads it for an array that grows
        self.file.flush()

    def _write_header(self) -> None:
        fields = {"descr": self.type.str, "fortran_order": False, "shape": (self.tokens,)}
        np.lib.format.write_array_header_1_0(self.file, fields)

    def sidecar(self) -> dict[str, str | int]:
        """Return the content of the sidecar."""
        return {
            "vocabulary": self.encoder.fingerprint,
            "n_vocab": self.encoder.n_vocab,
            "tokens": self.tokens,
            "documents": self.documents,
        }


class NpzWriter(TokenWriter):
    """A writer of a `.npz` with one int64 array per batch, like `numpy.savez_compressed`, but array by array."""

    arrays = 0

    def write(self, ids: np.ndarray) -> None:
        """Write ids [N] as the next array, without counting them."""
        with self.file.open(f"arr_{self.arrays}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, ids.astype("<i8"), allow_pickle=False)
        self.arrays += 1


@contextlib.contextmanager
def write(path: Path, encoder: Vocabulary) -> Iterator[TokenWriter]:
    """Yield the writer of a file, which gets its name when the block succeeds.

    If the suffix of `path` is `.npz`, the file is a `.npz`, else a `.npy`.

    Raises:
        GPT2Error: The file cannot be written, or the name of its sidecar belongs to another file. The name is checked
            before anything is written.
    """
    if path.suffix.lower() == ".npz":
        with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            yield NpzWriter(archive, encoder)
        return
    sidecar_path = sidecar_of(path)
    if sidecar_path.exists() and not is_sidecar(sidecar_path):
        name = printable_name(sidecar_path)
        raise GPT2Error(f"the sidecar of {printable_name(path)} would replace {name}; choose another name")
    with atomic_write(path) as file:
        writer = NpyWriter(file, encoder)
        yield writer
        writer.finish()
        # The sidecar gets its name first: if the program ends in between, the old ids do not match it and are rejected.
        with atomic_write(sidecar_path) as sidecar:
            sidecar.write(json.dumps(writer.sidecar(), indent=2).encode("ascii") + b"\n")


def sidecar_of(path: Path) -> Path:
    """Return the path of a token file's sidecar."""
    return path.with_suffix(".json")


def read_sidecar(path: Path) -> dict[str, str | int] | None:
    """Return the content of a sidecar; None if the file does not exist or is not a sidecar."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_SIDECAR_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and set(content) >= SIDECAR_KEYS else None


def is_sidecar(path: Path) -> bool:
    """Return whether a file is the sidecar of a token file."""
    return path.suffix == ".json" and read_sidecar(path) is not None


class TokenFile:
    """A `.npy` that stays open, so that replacing the file changes nothing.

    Args:
        path: The file.
        encoder: The vocabulary of its ids.

    Raises:
        ValueError: The file is cut off. A damaged header raises exceptions of any kind.
    """

    def __init__(self, path: Path, encoder: Vocabulary) -> None:
        """Open the file and read its header."""
        self.path = path
        self.encoder = encoder
        self.file = path.open("rb", buffering=0)
        weakref.finalize(self, self.file.close)
        self.dtype, self.tokens = _read_header(self.file)
        self.start = self.file.tell()
        size = os.fstat(self.file.fileno()).st_size - self.start
        if size < self.tokens * self.dtype.itemsize:
            raise ValueError(f"it is cut off: it has {size} bytes for {self.tokens} ids")

    def read(self, start: int, count: int) -> np.ndarray:
        """Return the ids [count] from position `start`.

        Raises:
            GPT2Error: The file has become shorter, or holds an id that the vocabulary does not have.
        """
        ids = np.empty(count, self.dtype)
        unread = ids.view(np.uint8).data
        offset = self.start + start * ids.itemsize
        try:
            while unread and (n_bytes := os.preadv(self.file.fileno(), [unread], offset)):
                unread = unread[n_bytes:]
                offset += n_bytes
        except OSError as error:
            raise GPT2Error(f"{printable_name(self.path)} cannot be read: {error.strerror}") from error
        if unread:
            raise GPT2Error(f"{printable_name(self.path)} was cut off while it was in use; {_encode_again(self.path)}")
        check_ids(ids, self.path, self.encoder)
        return ids


class StoredIds:
    """The ids of a `.npy` [tokens] as a lazy array: a slice is also lazy, and is read when converted to an array.

    The file may therefore be larger than memory. It is not memory-mapped, because truncating a mapped file would crash
    the program.
    """

    def __init__(self, file: TokenFile, positions: range) -> None:
        """Refer to the ids at these positions of the file."""
        self.file = file
        self.positions = positions

    @property
    def dtype(self) -> np.dtype:
        """The type of the ids."""
        return self.file.dtype

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.positions)

    @overload
    def __getitem__(self, index: slice) -> StoredIds: ...
    @overload
    def __getitem__(self, index: int) -> int: ...
    def __getitem__(self, index: slice | int) -> StoredIds | int:
        """Return a lazy slice, or read one id."""
        if isinstance(index, slice):
            return StoredIds(self.file, self.positions[index])
        return int(self.file.read(self.positions[index], 1)[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read the ids."""
        if self.positions.step == 1:
            ids = self.file.read(self.positions.start, len(self))
        else:
            ids = np.array([self[i] for i in range(len(self))], self.dtype)
        return ids if dtype is None else ids.astype(dtype, copy=False)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all ids in blocks [at most BLOCK_IDS]."""
        for start in range(0, len(self), BLOCK_IDS):
            yield np.asarray(self[start : start + BLOCK_IDS])


Ids = np.ndarray | StoredIds


def read(path: Path, encoder: Vocabulary) -> StoredIds:
    """Return the ids of a `.npy`, lazily.

    If the file has no sidecar, all its ids are checked instead, and a warning says so.

    Raises:
        GPT2Error: The file is damaged or holds ids of another vocabulary.
    """
    try:
        file = TokenFile(path, encoder)
    except Exception as error:  # NumPy raises exceptions of any kind for an invalid header
        raise damaged(path, str(error)) from error
    ids = StoredIds(file, range(file.tokens))
    sidecar_name = printable_name(sidecar_of(path).name)
    sidecar = read_sidecar(sidecar_of(path))
    if sidecar is None:
        for _ in ids.blocks():
            pass  # reading checks the ids
        warnings.warn(f"{printable_name(path)} has no sidecar {sidecar_name} that names its vocabulary", stacklevel=2)
    elif sidecar["vocabulary"] != encoder.fingerprint:
        raise GPT2Error(
            f"{printable_name(path)} holds ids of another vocabulary than the model's; {_encode_again(path)}"
        )
    elif sidecar["tokens"] != len(ids):
        raise damaged(path, f"it has {len(ids)} ids, but its sidecar {sidecar_name} says {sidecar['tokens']}")
    return ids


def read_npz(path: Path, encoder: Vocabulary) -> Iterator[np.ndarray]:
    """Yield the ids of a `.npz` in the order of the file, in blocks [at most BLOCK_IDS].

    Raises:
        GPT2Error: The file is damaged or holds an id that the vocabulary does not have.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    dtype, unread = _read_header(file)
                    while unread:
                        ids = np.frombuffer(file.read(min(unread, BLOCK_IDS) * dtype.itemsize), dtype)
                        if not len(ids):
                            raise ValueError(f"{name} is cut off: {unread} ids are missing")
                        unread -= len(ids)
                        check_ids(ids, path, encoder)
                        yield ids
                    file.read(1)  # reaching the end checks the checksum
    except GPT2Error:
        raise
    except Exception as error:  # the packages raise exceptions of any kind for an invalid archive
        raise damaged(path, str(error)) from error


def check_ids(ids: np.ndarray, path: Path, encoder: Vocabulary) -> None:
    """Check that all ids are from 0 to n_vocab - 1.

    Raises:
        GPT2Error: An id is out of range.
    """
    for i in (int(ids.max()), int(ids.min())) if len(ids) else ():
        if not 0 <= i < encoder.n_vocab:
            raise GPT2Error(
                f"{printable_name(path)} holds the id {i}, but the model's ids are below {encoder.n_vocab};"
                f" {_encode_again(path)}"
            )


def _read_header(file: IO[bytes]) -> tuple[np.dtype, int]:
    """Return the type and number of the ids in a `.npy`; a damaged one raises exceptions of any kind."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    if len(shape) != 1 or shape[0] < 0 or dtype.kind not in "iu":
        raise ValueError(f"it holds {dtype} of the shape {shape} instead of a row of whole numbers")
    return dtype, shape[0]


def damaged(path: Path, reason: str) -> GPT2Error:
    """Return the error for a damaged file; only the first line of the reason is used, as it may quote the file."""
    first_line = printable_name(reason.split("\n")[0][:MAX_REASON_CHARACTERS]) or "it ends too early"
    return GPT2Error(f"{printable_name(path)} is damaged or not a file of ids: {first_line}; {_encode_again(path)}")


def _encode_again(path: Path) -> str:
    return f"encode its text again: {ENCODE_COMMAND} {printable_name(path)} --model_name NAME"
