"""Outputs of a job, which have each row exactly once: a file that grows, a folder of Parquet files, a stream."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from gpt2.bulk import file_formats
from gpt2.bulk.batch_worker import FinishedRow
from gpt2.bulk.input_check import InputCheck
from gpt2.bulk.journal import RESTART_ADVICE, RESUME_ADVICE, Journal, JournalEntry, append_at
from gpt2.bulk.row_queue import RowNumberSet
from gpt2.errors import GPT2Error, printable_name
from gpt2.files import atomic_write, creating_folder, open_exclusive, reporting_read_errors

PART_NAME = "part-{:06}.parquet"
BYTES_PER_READ = 1 << 20
PART_ROWS = 2000  # fewer than the rows that may be in progress at the same time


class JobOutput(Protocol):
    """The output of a job.

    Attributes:
        finished_numbers: The numbers of its rows, including the rows of earlier runs.
        n_errors: Number of these rows with errors.
        input_check: The check of the input, which an output that is resumed compares with the input of earlier runs.
    """

    finished_numbers: RowNumberSet
    n_errors: int
    input_check: InputCheck

    def add(self, finished: Sequence[FinishedRow]) -> None:
        """Add rows.

        Raises:
            GPT2Error: The rows cannot be written. The rows written before are retained.
        """

    def close(self) -> None:
        """Write the rows that have been held back, after all rows have been added.

        Raises:
            GPT2Error: The rows cannot be written.
        """


class ReorderBuffer:
    """A buffer for rows that finish before their predecessors in the input."""

    def __init__(self, first: int) -> None:
        """Create an empty buffer that waits for the row of the number `first`."""
        self.next_number = first
        self.held_back: dict[int, FinishedRow] = {}

    def add(self, finished: Sequence[FinishedRow]) -> list[FinishedRow]:
        """Add rows, and return those whose predecessors have all finished, in the order of the input."""
        self.held_back.update((each.row.number, each) for each in finished)
        ready = []
        while self.next_number in self.held_back:
            ready.append(self.held_back.pop(self.next_number))
            self.next_number += 1
        return ready


class FileOutput:
    """A file to which rows are appended; see `JobOutput`."""

    def __init__(self, path: Path, file: IO[bytes], row_format: file_formats.RowFormat, journal: Journal) -> None:
        """Resume the output after the last entry of the journal; the file is not changed before rows are added.

        Args:
            path: The path of the file.
            file: The file, open for appending; its buffer is not used.
            row_format: The layout of rows in the file.
            journal: The job's journal.
        """
        self.path = path
        self.file = file
        self.row_format = row_format
        self.journal = journal
        self.input_check = journal.input_check
        self.finished_numbers = RowNumberSet()
        self.n_errors = 0
        self.size = 0
        for entry in journal.entries(os.fstat(file.fileno()).st_size):
            journal.check_entry(entry, self.finished_numbers, self.size + entry.n_rows)  # a row has at least one byte
            self._count(entry)
            self.size = entry.end
        self.crc = _crc_of_start(path, self.size)
        if self.size and journal.output_crc not in (None, self.crc):
            raise GPT2Error(
                f"{printable_name(path)} has changed since the job wrote it, or {printable_name(journal.path)} is the "
                f"journal of another job; {RESTART_ADVICE}"
            )
        self.reorder_buffer = ReorderBuffer(self.finished_numbers.below)

    def add(self, finished: Sequence[FinishedRow]) -> None:
        """Append rows and record them in the journal; see `JobOutput`."""
        self._write_header()
        ready = self.reorder_buffer.add(finished) if self.row_format.is_ordered else finished
        encoded_rows = [file_formats.encode_row(self.row_format.encode, each) for each in ready]
        entries = []
        end = self.size
        for each, encoded in encoded_rows:
            end += len(encoded)
            entries.append(JournalEntry(each.row.number, 1, bool(each.error), end))
        self._append(b"".join(encoded for _, encoded in encoded_rows))
        self.journal.add(entries, self.crc)
        for entry in entries:
            self._count(entry)

    def _count(self, entry: JournalEntry) -> None:
        self.finished_numbers.add(entry.first_row, entry.n_rows)
        self.n_errors += entry.n_errors

    def _write_header(self) -> None:
        if not self.size:
            self._append(self.row_format.header)

    def close(self) -> None:
        """Wait until the file is on the disk, and compact the journal."""
        self._write_header()
        with _reporting_write_errors(self.path):
            os.fsync(self.file.fileno())
        self.journal.compact(self.finished_numbers, self.n_errors, self.size, self.crc)

    def _append(self, data: bytes) -> None:
        with _reporting_write_errors(self.path):
            append_at(self.file, self.size, data)
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)


class ParquetOutput:
    """A folder of Parquet files, each of which is complete or does not exist; see `JobOutput`."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        """Resume the output after the last entry of the journal; no file is changed before rows are written."""
        self.folder = folder
        self.journal = journal
        self.input_check = journal.input_check
        self.finished_numbers = RowNumberSet()
        self.n_errors = 0
        self.n_parts = 0
        parts = sorted(folder.glob("part-*.parquet"))
        for entry in journal.entries(len(parts)):
            journal.check_entry(entry, self.finished_numbers, self.n_parts + 1)
            self._count(entry)
        self.unrecorded = parts[self.n_parts :]
        self.reorder_buffer = ReorderBuffer(self.finished_numbers.below)
        self.ready: list[FinishedRow] = []

    def add(self, finished: Sequence[FinishedRow]) -> None:
        """Add rows, and write a file each time that there are enough of them; see `JobOutput`."""
        self.ready += self.reorder_buffer.add(finished)
        while len(self.ready) >= PART_ROWS:
            self._write_part(PART_ROWS)

    def close(self) -> None:
        """Write the remaining rows, and compact the journal."""
        self._remove_unrecorded()
        if self.ready:
            self._write_part(len(self.ready))
        self.journal.compact(self.finished_numbers, self.n_errors, self.n_parts)

    def _write_part(self, n_rows: int) -> None:
        """Write the first `n_rows` of the rows that are ready, and record them in the journal."""
        import pyarrow
        from pyarrow import parquet

        self._remove_unrecorded()
        encoded_rows = [file_formats.encode_row(file_formats.row_cells, each) for each in self.ready[:n_rows]]
        rows = [cells for _, row in encoded_rows for cells in row]
        arrow_types = {str: pyarrow.string(), int: pyarrow.uint64()}
        schema = pyarrow.schema([(name, arrow_types[kind]) for name, kind in file_formats.COLUMNS.items()])
        columns = [pyarrow.array(column, field.type) for column, field in zip(zip(*rows), schema)]
        with atomic_write(self.folder / PART_NAME.format(self.n_parts)) as file:
            parquet.write_table(pyarrow.Table.from_arrays(columns, schema=schema), file)
        n_errors = sum(bool(finished.error) for finished, _ in encoded_rows)
        entry = JournalEntry(self.ready[0].row.number, n_rows, n_errors, self.n_parts + 1)
        self.journal.add([entry])
        self._count(entry)
        del self.ready[:n_rows]

    def _remove_unrecorded(self) -> None:
        """Remove the files without an entry, whose rows are generated again."""
        for path in self.unrecorded:
            path.unlink(missing_ok=True)
        self.unrecorded = []

    def _count(self, entry: JournalEntry) -> None:
        self.finished_numbers.add(entry.first_row, entry.n_rows)
        self.n_errors += entry.n_errors
        self.n_parts = entry.end


class StreamOutput:
    """An output that cannot be resumed, such as a pipe or a terminal; see `JobOutput`."""

    def __init__(self, file: IO[bytes], row_format: file_formats.RowFormat) -> None:
        """Write the header.

        Args:
            file: The stream.
            row_format: The layout of rows in the file.
        """
        self.file = file
        self.row_format = row_format
        self.input_check = InputCheck()
        self.finished_numbers = RowNumberSet()
        self.n_errors = 0
        self.reorder_buffer = ReorderBuffer(0)
        self.file.write(row_format.header)

    def add(self, finished: Sequence[FinishedRow]) -> None:
        """Write rows; see `JobOutput`."""
        for each in self.reorder_buffer.add(finished) if self.row_format.is_ordered else finished:
            written, encoded = file_formats.encode_row(self.row_format.encode, each)
            self.file.write(encoded)
            self.finished_numbers.add(written.row.number)
            self.n_errors += bool(written.error)
        self.file.flush()

    def close(self) -> None:
        """Flush the stream."""
        self.file.flush()


def _crc_of_start(path: Path, size: int) -> int:
    """Return the CRC-32 of the first `size` bytes of a file."""
    crc = 0
    with reporting_read_errors(path), path.open("rb") as file:
        while size and (data := file.read(min(BYTES_PER_READ, size))):
            crc = zlib.crc32(data, crc)
            size -= len(data)
    return crc


@contextlib.contextmanager
def _reporting_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise GPT2Error(f"{printable_name(path)} cannot be written: {reason}; {RESUME_ADVICE}") from error


@contextlib.contextmanager
def open_output(path: Path, row_format: file_formats.RowFormat | None, journal: Journal) -> Iterator[JobOutput]:
    """Open the output of a job, with the rows of its earlier runs.

    Args:
        path: The path of the file or folder.
        row_format: The layout of rows in a file; None for a folder of Parquet files.
        journal: The job's journal.

    Raises:
        GPT2Error: The output cannot be written.
    """
    if row_format is None:
        with creating_folder(path):
            yield ParquetOutput(path, journal)
        return
    with contextlib.ExitStack() as stack:
        with _reporting_write_errors(path):
            file = stack.enter_context(open_exclusive(path))  # a hard link has a journal of its own
        if os.fstat(file.fileno()).st_nlink > 1:
            raise GPT2Error(
                f"{printable_name(path)} has another name (a hard link), under which another job could write to it; "
                "remove the other name, or give the name of a new file"
            )
        yield FileOutput(path, file, row_format, journal)
