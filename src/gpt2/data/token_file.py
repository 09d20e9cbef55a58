"""Files of ids: `.npy`, one row of ids that training maps into memory, and the `.npz` of the old tools.

Beside `data.npy` lies `data.json`, its sidecar, which says of which vocabulary the ids are.
"""

from __future__ import annotations

import contextlib
import json
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpt2.data.workers import Encoded
from gpt2.encoder import type_code
from gpt2.errors import GPT2Error
from gpt2.files import replacing
from gpt2.text.vocabulary import TextEncoder

BLOCK = 1 << 22  # ids that are looked at together
ENCODE = "python3 encode.py TEXT"
SIDECAR_KEYS = {"vocabulary", "n_vocab", "tokens", "documents"}


class TokenWriter:
    """Appends batches of ids to a file, and counts them."""

    def __init__(self, file: Any, encoder: TextEncoder) -> None:
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

    def __init__(self, file: IO[bytes], encoder: TextEncoder) -> None:
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
def write(path: Path, encoder: TextEncoder) -> Iterator[TokenWriter]:
    """A file of ids that appears when the block has ended well: the old tools' if `path` ends in `.npz`, else a `.npy`.

    Raises GPT2Error if it cannot be written; before anything else, if the name of its sidecar is that of another file.
    """
    if path.suffix.lower() == ".npz":
        with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            yield NpzWriter(archive, encoder)
        return
    beside = sidecar_of(path)
    if beside.exists() and not is_sidecar(beside):
        raise GPT2Error(f"{path} needs {beside} for its sidecar, and that is another file; choose another name")
    with replacing(path) as file:
        writer = NpyWriter(file, encoder)
        yield writer
        writer.finish()
        # First: if all ends in between, the old ids have a sidecar that does not fit, and are refused.
        with replacing(beside) as sidecar:
            sidecar.write(json.dumps(writer.sidecar(), indent=2).encode("ascii") + b"\n")


def sidecar_of(path: Path) -> Path:
    return path.with_suffix(".json")


def read_sidecar(path: Path) -> dict[str, str | int] | None:
    """What a sidecar says; None if there is none or the file is something else."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(1 << 12))  # far more than a sidecar holds; a text may have gigabytes
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and set(said) >= SIDECAR_KEYS else None


def is_sidecar(path: Path) -> bool:
    return path.suffix == ".json" and read_sidecar(path) is not None


def read(path: Path, encoder: TextEncoder) -> np.ndarray:
    """The ids of a `.npy` [tokens], mapped into memory.

    Raises GPT2Error if it is damaged or of another vocabulary. Without a sidecar its ids are looked through instead,
    and a warning says so.
    """
    try:
        ids = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, str(error)) from error
    _check_row(ids, path)
    said = read_sidecar(sidecar_of(path))
    if said is None:
        check_ids(ids, path, encoder)
        warnings.warn(f"{path} has no {sidecar_of(path).name} beside it that names its vocabulary", stacklevel=2)
    elif said["vocabulary"] != encoder.fingerprint:
        raise GPT2Error(f"{path} holds ids of another vocabulary than the model's; {_again(path)}")
    elif said["tokens"] != len(ids):
        raise damaged(path, f"it has {len(ids)} ids, but {sidecar_of(path).name} beside it says {said['tokens']}")
    return ids


def read_npz(path: Path, encoder: TextEncoder) -> Iterator[np.ndarray]:
    """The chunks of a `.npz` in the order of the file, each [ids]; raises GPT2Error if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    chunk = np.lib.format.read_array(file, allow_pickle=False)
                _check_row(chunk, path)
                check_ids(chunk, path, encoder)
                yield chunk
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, str(error)) from error


def check_ids(ids: np.ndarray, path: Path, encoder: TextEncoder) -> None:
    """Raises GPT2Error if one of the ids is not below n_vocab."""
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK]
        for i in (int(block.max()), int(block.min())):
            if not 0 <= i < encoder.n_vocab:
                raise GPT2Error(f"{path} holds the id {i}, the model's are below {encoder.n_vocab}; {_again(path)}")


def _check_row(ids: np.ndarray, path: Path) -> None:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise damaged(path, f"it holds {ids.dtype} of the shape {ids.shape} instead of a row of whole numbers")


def damaged(path: Path, reason: str) -> GPT2Error:
    return GPT2Error(f"{path} is damaged or no file of ids: {reason.splitlines()[0] if reason else ''}; {_again(path)}")


def _again(path: Path) -> str:
    return f"encode its text again: {ENCODE} {path} --model_name NAME"
