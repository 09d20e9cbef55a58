"""The journal next to a job's output, with which the job resumes after a crash and writes no row twice.

The journal is one line of JSON, the job's settings, followed by one binary entry for each piece of output: the piece's
first row, its numbers of rows and of rows with errors, and the end of the output after it (bytes of a file, or number
of files in a folder). A piece is written before its entry. When the job resumes, output beyond the last entry is
cut off, and the rows in it are generated again.

The entries that are written together end with a seal, an entry without rows that has the checksums of the input read so
far, of the output and of the journal up to there. Entries without a seal do not count, except in the journals of older
versions, which have no seals.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.bulk.input_check import InputCheck
from gpt2.bulk.row_queue import RowNumberSet
from gpt2.errors import DamagedFileError, GPT2Error, printable_name
from gpt2.files import MAX_TEXT_FILE_BYTES, atomic_write, is_file, open_exclusive, reporting_read_errors

ENTRY = struct.Struct("<QIIQ")  # the fields of JournalEntry
RESUME_ADVICE = "the rows written so far are retained, and the same command resumes after them"
RESTART_ADVICE = "nothing has been changed; to start again, move it and the output away"
ENTRIES_PER_READ = 4096
VERSION_KEY = "journal_version"  # in the settings of journals that have seals
VERSION = 2
MAX_LEAD_ROWS = 1 << 24  # no job finishes rows so far ahead of its first unfinished row
MAX_ROWS_PER_ENTRY = (1 << 32) - 1


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


class EntryGroup(NamedTuple):
    """Entries that were written together.

    Attributes:
        entries: The entries.
        seal: The values of `JournalEntry` of the seal; None for an entry of an older version.
        size: Size of the journal up to the end of the group in bytes.
        crc: CRC-32 of the journal up to there.
    """

    entries: list[JournalEntry]
    seal: JournalEntry | None
    size: int
    crc: int


def journal_path(out: Path) -> Path:
    """Return the path of the journal of an output."""
    return out.with_name(f"{out.name}.job")


class Journal:
    """The journal of a job.

    Attributes:
        path: The path of the journal.
        file: The journal, open for appending.
        settings: The settings that the job was started with; None for a new job.
        is_empty: Whether the file is empty.
        entries_start: Offset of the first entry in bytes.
        settings_crc: CRC-32 of the journal up to there.
        size: Offset of the end of the last entry in bytes.
        crc: CRC-32 of the journal up to there.
        input_check: The check of the input.
        output_crc: CRC-32 of the output, as the last seal has it; None if there is no seal.
        is_sealed: Whether entries count only with a seal.
        is_outdated: Whether it should be replaced, because it was written by an older version.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """Open a journal without reading it."""
        self.path = path
        self.file = file
        self.settings: dict[str, Any] | None = None
        self.is_empty = True
        self.entries_start = 0
        self.settings_crc = 0
        self.size = 0
        self.crc = 0
        self.input_check = InputCheck()
        self.output_crc: int | None = None
        self.is_sealed = True
        self.is_outdated = False

    def damaged(self, reason: str) -> DamagedFileError:
        """Return the error for a damaged journal."""
        return DamagedFileError(self.path, reason, RESTART_ADVICE)

    def read(self) -> None:
        """Read the settings, if there are any.

        Raises:
            UnreadableFileError: The file cannot be read.
            DamagedFileError: The file is not a journal.
        """
        with reporting_read_errors(self.path), self.path.open("rb") as file:
            line = file.readline(MAX_TEXT_FILE_BYTES)
            first_entry = file.read(ENTRY.size)
        self.is_empty = not line
        if not line.endswith(b"\n"):
            if not line.startswith(b'{"'[: len(line)]):
                raise self.damaged("it is not the journal of a job")
            return  # the job was interrupted while it recorded its settings
        settings = self._parse(line)
        self.entries_start = self.size = len(line)
        self.settings_crc = self.crc = zlib.crc32(line)
        self.is_sealed = VERSION_KEY in settings
        if self.is_sealed and len(first_entry) == ENTRY.size and any(first_entry):
            self._check_seal(JournalEntry._make(ENTRY.unpack(first_entry)), self.crc)
        self.settings = settings

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            settings = json.loads(line, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"its first line is not JSON: {error}") from error
        if not isinstance(settings, dict):
            raise self.damaged(f"its first line is not an object but a JSON value of type {type(settings).__name__}")
        if settings.get(VERSION_KEY, VERSION) != VERSION:
            raise GPT2Error(f"{printable_name(self.path)} was written by a newer version; {RESTART_ADVICE}")
        return settings

    def entries(self, output_end: int) -> Iterator[JournalEntry]:
        """Yield the entries of the pieces that the output still has; later entries are dropped.

        The input is compared up to the last seal all the same, so that the journal of another job is not taken for the
        journal of an output that has become shorter.

        Args:
            output_end: Present end of the output, see `JournalEntry.end`.

        Raises:
            DamagedFileError: The entries are damaged.
        """
        self.size = self.entries_start
        self.crc = self.settings_crc
        is_dropped = False
        for entries, seal, size, crc in self._groups():
            is_dropped = is_dropped or any(entry.end > output_end for entry in entries)
            if seal is not None:
                self.input_check.expected_rows = seal.first_row
                self.input_check.expected_crc = seal.n_errors
            if is_dropped:
                continue
            self.size = size
            self.crc = crc
            self.output_crc = None if seal is None else seal.end >> 32
            yield from entries

    def _groups(self) -> Iterator[EntryGroup]:
        position = self.entries_start
        crc = self.settings_crc
        entries: list[JournalEntry] = []
        for data in self._packed_entries():
            entry = JournalEntry._make(ENTRY.unpack(data))
            if not any(data):
                return  # after a power failure, the end of a file may be zeros
            position += len(data)
            if entry.n_rows:
                crc = zlib.crc32(data, crc)
                entries.append(entry)
                if self.is_sealed:
                    continue
            else:
                self._check_seal(entry, crc)
                crc = zlib.crc32(data, crc)
            yield EntryGroup(entries, None if entry.n_rows else entry, position, crc)
            entries = []

    def _packed_entries(self) -> Iterator[bytes]:
        with reporting_read_errors(self.path), self.path.open("rb") as file:
            file.seek(self.entries_start)
            while data := file.read(ENTRIES_PER_READ * ENTRY.size):
                for start in range(0, len(data) - ENTRY.size + 1, ENTRY.size):
                    yield data[start : start + ENTRY.size]

    def _check_seal(self, seal: JournalEntry, crc: int) -> None:
        if seal.n_rows or seal.end & 0xFFFFFFFF != crc:
            raise self.damaged("its checksum does not match")

    def check_entry(self, entry: JournalEntry, finished_numbers: RowNumberSet, min_end: int) -> None:
        """Check that an entry may follow others; the journals of older versions have no checksums.

        Args:
            entry: The entry.
            finished_numbers: The numbers of the rows of the entries before.
            min_end: The least possible end of the output after the entry, see `JournalEntry.end`.

        Raises:
            DamagedFileError: It may not.
        """
        lead = entry.first_row - finished_numbers.below
        is_possible = lead == 0 or (0 < lead < MAX_LEAD_ROWS and entry.n_rows == 1)
        is_new = entry.first_row not in finished_numbers
        if not (is_possible and is_new and entry.n_errors <= entry.n_rows and entry.end >= min_end):
            raise self.damaged(f"its entry for row {entry.first_row + 1} is impossible")

    def start(self, settings: Mapping[str, Any]) -> None:
        """Start the journal of a new job, and remove the journal of an earlier one."""
        self.settings = {VERSION_KEY: VERSION, **settings}
        self.is_sealed = True
        self.size = self.crc = 0
        line = self._settings_line()
        self.entries_start = len(line)
        self.settings_crc = zlib.crc32(line)
        self._append(self._sealed(line, 0))

    def upgrade(self, settings: Mapping[str, Any]) -> None:
        """Replace the settings that an older version recorded, as soon as the job has finished."""
        self.settings = {VERSION_KEY: VERSION, **settings}
        self.is_outdated = True

    def add(self, entries: Iterable[JournalEntry], output_crc: int = 0) -> None:
        """Append entries and their seal.

        Args:
            entries: The entries.
            output_crc: CRC-32 of the output, including the pieces of the entries.

        Raises:
            GPT2Error: The entries cannot be written.
        """
        self._append(self._sealed(b"".join(ENTRY.pack(*entry) for entry in entries), output_crc))

    def _settings_line(self) -> bytes:
        return json.dumps(self.settings).encode("ascii") + b"\n"

    def _sealed(self, data: bytes, output_crc: int, crc_before: int | None = None) -> bytes:
        """Return data with a seal behind it."""
        crc = zlib.crc32(data, self.crc if crc_before is None else crc_before)
        return data + ENTRY.pack(self.input_check.rows, 0, self.input_check.crc, output_crc << 32 | crc)

    def _append(self, data: bytes) -> None:
        try:
            append_at(self.file, self.size, data)
        except OSError as error:
            raise GPT2Error(
                f"{printable_name(self.path)} cannot be written: {error.strerror or error}; {RESUME_ADVICE}"
            ) from error
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def compact(self, finished_numbers: RowNumberSet, n_errors: int, end: int, output_crc: int = 0) -> None:
        """Replace all entries with a single one, if the finished rows are exactly those below a number.

        Args:
            finished_numbers: The numbers of the finished rows.
            n_errors: Number of rows with errors among them.
            end: End of the output, see `JournalEntry.end`.
            output_crc: CRC-32 of the output.
        """
        is_long = self.size > self.entries_start + 3 * ENTRY.size  # two seals and an entry
        if (
            (is_long or self.is_outdated)
            and not finished_numbers.above
            and finished_numbers.below <= MAX_ROWS_PER_ENTRY
        ):
            line = self._settings_line()
            first = self._sealed(line, 0, 0)
            entry = ENTRY.pack(0, finished_numbers.below, n_errors, end) if finished_numbers.below else b""
            with atomic_write(self.path) as file:
                file.write(first + self._sealed(entry, output_crc, zlib.crc32(first)))


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a value of a setting")


def adopt_journal(link: Path, out: Path) -> None:
    """Move the journal that an older version wrote next to a link to its place next to the output.

    Args:
        link: The path that was given for the output.
        out: The path of the output without links.

    Raises:
        GPT2Error: The journal cannot be moved, or another process uses it.
    """
    old = journal_path(link)
    new = journal_path(out)
    if old == new or new.exists() or not out.exists() or not is_file(old):
        return
    try:
        with open_exclusive(old):
            shutil.move(old, new)
    except OSError as error:
        raise GPT2Error(f"{printable_name(old)} cannot be moved to {printable_name(new)}: {error.strerror}") from error


@contextlib.contextmanager
def open_journal(out: Path) -> Iterator[Journal]:
    """Open the journal of an output and lock it against other processes.

    Args:
        out: The path of the output.

    Raises:
        GPT2Error: Another process has locked it, or it cannot be written or read.
    """
    path = journal_path(out)
    if path.exists() and not is_file(path):
        raise GPT2Error(f"{printable_name(path)} is not a regular file, but the journal of the job; move it away")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_exclusive(path))
        except OSError as error:
            raise GPT2Error(f"{printable_name(path)} cannot be written: {error.strerror or error}") from error
        journal = Journal(path, file)
        journal.read()
        yield journal
