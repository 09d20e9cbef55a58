"""The journal next to a job's output, with which the job resumes after a crash and writes no row twice.

The journal is one line of JSON, the job's settings, followed by one binary entry for each piece of output: the piece's
first row, its numbers of rows and of rows with errors, and the end of the output after it (bytes of a file, or number
of files in a folder). A piece is written before its entry. When the job resumes, output beyond the last entry is
cut off, and the rows in it are generated again.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.bulk.row_queue import RowNumberSet
from gpt2.errors import DamagedFileError, GPT2Error, printable_name
from gpt2.files import atomic_write, open_exclusive, reporting_read_errors

ENTRY = struct.Struct("<QIIQ")  # the fields of JournalEntry
RESUME_ADVICE = "the rows written so far are retained, and the same command resumes after them"
ENTRIES_PER_READ = 4096


def append_at(file: IO[bytes], size: int, data: bytes) -> None:
    """Cut a file after `size` bytes, which removes the rest of an interrupted attempt, and append data there.

    Args:
        file: A file that is open for appending and has no buffer.
        size: Number of bytes of the file to retain.
        data: The data.

    Raises:
        OSError: The data cannot be written.
    """
    os.ftruncate(file.fileno(), size)
    while data:
        data = data[os.write(file.fileno(), data) :]


class JournalEntry(NamedTuple):
    """A piece of the output.

    Attributes:
        first_row: The number of its first row.
        n_rows: Number of its rows, whose numbers are consecutive.
        n_errors: Number of rows with errors among them.
        end: End of the output after it: bytes of a file, or number of files in a folder.
    """

    first_row: int
    n_rows: int
    n_errors: int
    end: int


def journal_path(out: Path) -> Path:
    """Return the path of the journal of an output."""
    return out.with_name(f"{out.name}.job")


class Journal:
    """The journal of a job.

    Attributes:
        path: The path of the journal.
        file: The journal, open for appending.
        settings: The settings that the job was started with; None for a new job.
        entries_start: Offset of the first entry in bytes.
        size: Offset of the end of the last entry in bytes.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """Open a journal without reading it."""
        self.path = path
        self.file = file
        self.settings: dict[str, Any] | None = None
        self.entries_start = 0
        self.size = 0

    def read(self) -> None:
        """Read the settings, if there are any.

        Raises:
            UnreadableFileError: The file cannot be read.
            DamagedFileError: The file is not a journal.
        """
        with reporting_read_errors(self.path), self.path.open("rb") as file:
            line = file.readline()
            file_size = file.seek(0, 2)
        if not line.endswith(b"\n"):
            return  # the job was interrupted while it recorded its settings
        try:
            self.settings = dict(json.loads(line))
        except ValueError as error:
            raise DamagedFileError(self.path, str(error), "remove it and the output, and start again") from error
        self.entries_start = len(line)
        self.size = self.entries_start + (file_size - self.entries_start) // ENTRY.size * ENTRY.size

    def entries(self, output_end: int) -> Iterator[JournalEntry]:
        """Yield the entries of the pieces that the output still has; later entries are dropped.

        Args:
            output_end: Present end of the output, see `JournalEntry.end`.
        """
        with reporting_read_errors(self.path), self.path.open("rb") as file:
            position = file.seek(self.entries_start)
            while position < self.size and (
                data := file.read(min(ENTRIES_PER_READ * ENTRY.size, self.size - position))
            ):
                for entry in map(JournalEntry._make, ENTRY.iter_unpack(data)):
                    if entry.end > output_end:
                        self.size = position
                        return
                    yield entry
                    position += ENTRY.size

    def start(self, settings: Mapping[str, Any]) -> None:
        """Start the journal of a new job, and remove the journal of an earlier one."""
        self.settings = dict(settings)
        self.size = 0
        self._append(json.dumps(self.settings).encode("ascii") + b"\n")
        self.entries_start = self.size

    def add(self, entries: Iterable[JournalEntry]) -> None:
        """Append entries.

        Raises:
            GPT2Error: The entries cannot be written.
        """
        self._append(b"".join(ENTRY.pack(*entry) for entry in entries))

    def _append(self, data: bytes) -> None:
        try:
            append_at(self.file, self.size, data)
        except OSError as error:
            raise GPT2Error(
                f"{printable_name(self.path)} cannot be written: {error.strerror or error}; {RESUME_ADVICE}"
            ) from error
        self.size += len(data)

    def compact(self, finished_numbers: RowNumberSet, n_errors: int, end: int) -> None:
        """Replace all entries with a single one, if the finished rows are exactly those below a number.

        Args:
            finished_numbers: The numbers of the finished rows.
            n_errors: Number of rows with errors among them.
            end: End of the output, see `JournalEntry.end`.
        """
        if self.size > self.entries_start + ENTRY.size and not finished_numbers.above:
            settings_line = json.dumps(self.settings).encode("ascii") + b"\n"
            with atomic_write(self.path) as file:
                file.write(settings_line + ENTRY.pack(0, finished_numbers.below, n_errors, end))


@contextlib.contextmanager
def open_journal(out: Path) -> Iterator[Journal]:
    """Open the journal of an output and lock it against other processes.

    Args:
        out: The path of the output.

    Raises:
        GPT2Error: Another process has locked it, or it cannot be written or read.
    """
    path = journal_path(out)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_exclusive(path))
        except OSError as error:
            raise GPT2Error(f"{printable_name(path)} cannot be written: {error.strerror or error}") from error
        journal = Journal(path, file)
        journal.read()
        yield journal
