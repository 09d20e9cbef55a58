"""What a job has done, kept beside its output, so that it goes on after a crash and no row is written twice.

The journal is a line of JSON, the job's settings, and then for each piece of output the first row that is in it, how
many rows are, how many of them have errors, and where the output ends after it (bytes of a file, files of a folder). A
piece is written before it is noted: what the output holds beyond the last note is cut off, and those rows are written
again.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.bulk.row_queue import Ended
from gpt2.errors import DamagedFileError, GPT2Error, printable_name
from gpt2.files import atomic_write, open_exclusive, reporting_read_errors

NOTE = struct.Struct("<QIIQ")
GO_ON = "what is written stays, and the same command goes on from there"
AT_ONCE = 4096  # notes that are read at once


def append(file: IO[bytes], size: int, data: bytes) -> None:
    """Writes after the first so many bytes of a file that is open to be appended to: what a crash or a full disk left
    of an earlier attempt is cut off. Raises OSError; nothing is kept in a buffer then."""
    os.ftruncate(file.fileno(), size)
    while data:
        data = data[os.write(file.fileno(), data) :]


class Note(NamedTuple):
    first: int
    rows: int
    errors: int
    end: int


def journal_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.job")


class Journal:
    """settings: those with which the job was begun; None of a new one."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.settings: dict[str, Any] | None = None
        self.start = self.size = 0  # where the notes begin, and end

    def read(self) -> None:
        """Raises Unreadable, and Damaged for what is no journal."""
        with reporting_read_errors(self.path), self.path.open("rb") as file:
            line = file.readline()
            size = file.seek(0, 2)
        if not line.endswith(b"\n"):
            return  # it was being begun
        try:
            self.settings = dict(json.loads(line))
        except ValueError as error:
            raise DamagedFileError(self.path, str(error), "remove it and the output, and begin anew") from error
        self.start = len(line)
        self.size = self.start + (size - self.start) // NOTE.size * NOTE.size

    def notes(self, most: int) -> Iterator[Note]:
        """Those of what an output that ends at `most` holds; what follows them is no longer there."""
        with reporting_read_errors(self.path), self.path.open("rb") as file:
            at = file.seek(self.start)
            while at < self.size and (data := file.read(min(AT_ONCE * NOTE.size, self.size - at))):
                for note in map(Note._make, NOTE.iter_unpack(data)):
                    if note.end > most:
                        self.size = at
                        return
                    yield note
                    at += NOTE.size

    def begin(self, settings: Mapping[str, Any]) -> None:
        self.settings, self.size = dict(settings), 0
        self._append(json.dumps(self.settings).encode("ascii") + b"\n")
        self.start = self.size

    def add(self, notes: Iterable[Note]) -> None:
        """Raises GPT2Error if they cannot be written."""
        self._append(b"".join(NOTE.pack(*note) for note in notes))

    def _append(self, data: bytes) -> None:
        try:
            append(self.file, self.size, data)
        except OSError as error:
            raise GPT2Error(
                f"{printable_name(self.path)} cannot be written: {error.strerror or error}; {GO_ON}"
            ) from error
        self.size += len(data)

    def shorten(self, ended: Ended, errors: int, end: int) -> None:
        """Says in one note that all rows below a number are done, if that is so."""
        if self.size > self.start + NOTE.size and not ended.above:
            with atomic_write(self.path) as file:
                file.write(json.dumps(self.settings).encode("ascii") + b"\n" + NOTE.pack(0, ended.below, errors, end))


@contextlib.contextmanager
def opened(out: Path) -> Iterator[Journal]:
    """The journal of an output, which no other process has. Raises GPT2Error if that cannot be."""
    path = journal_of(out)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_exclusive(path))
        except OSError as error:
            raise GPT2Error(f"{printable_name(path)} cannot be written: {error.strerror or error}") from error
        journal = Journal(path, file)
        journal.read()
        yield journal
