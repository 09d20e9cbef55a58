"""Where finished rows go: a file that grows, a folder of Parquet files, a stream; each row once, whatever happens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from gpt2.bulk import file_formats
from gpt2.bulk.batch_worker import Finished
from gpt2.bulk.journal import GO_ON, Journal, Note, append
from gpt2.bulk.row_queue import Ended
from gpt2.errors import GPT2Error, printable_name
from gpt2.files import atomic_write, creating_folder

PART = "part-{:06}.parquet"
PART_ROWS = 2000  # less than the rows that may be on their way


class Output(Protocol):
    """ended: the rows that it has. errors: how many of them have one."""

    ended: Ended
    errors: int

    def add(self, finished: Sequence[Finished]) -> None:
        """Raises GPT2Error if they cannot be written; what was written before stays."""

    def close(self) -> None:
        """All rows have been added. Raises GPT2Error."""


class InOrder:
    """Rows that end in any order -> those that may be written now, in the input's order."""

    def __init__(self, first: int) -> None:
        self.next = first
        self.held: dict[int, Finished] = {}

    def add(self, finished: Sequence[Finished]) -> list[Finished]:
        self.held.update((one.row.number, one) for one in finished)
        found = []
        while self.next in self.held:
            found.append(self.held.pop(self.next))
            self.next += 1
        return found


class Appended:
    """A file that rows are appended to."""

    def __init__(self, path: Path, file: IO[bytes], form: file_formats.Form, journal: Journal) -> None:
        self.path, self.file, self.form, self.journal = path, file, form, journal
        self.ended, self.errors, self.size = Ended(), 0, 0
        for note in journal.notes(os.fstat(file.fileno()).st_size):
            self._note(note)
            self.size = note.end
        self.in_order = InOrder(self.ended.below)
        if not self.size:
            self._append(form.head)

    def add(self, finished: Sequence[Finished]) -> None:
        ready = self.in_order.add(finished) if self.form.is_ordered else finished
        bodies = [self.form.body(one) for one in ready]
        notes, end = [], self.size
        for one, body in zip(ready, bodies):
            end += len(body)
            notes.append(Note(one.row.number, 1, bool(one.error), end))
        self._append(b"".join(bodies))
        self.journal.add(notes)
        for note in notes:
            self._note(note)

    def _note(self, note: Note) -> None:
        self.ended.add(note.first, note.rows)
        self.errors += note.errors

    def close(self) -> None:
        with _writing(self.path):
            os.fsync(self.file.fileno())
        self.journal.shorten(self.ended, self.errors, self.size)

    def _append(self, data: bytes) -> None:
        with _writing(self.path):
            append(self.file, self.size, data)
        self.size += len(data)


class Parts:
    """A folder of Parquet files, each of which is there whole or not at all."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder, self.journal = folder, journal
        self.ended, self.errors, self.count = Ended(), 0, 0
        there = sorted(folder.glob("part-*.parquet"))
        for note in journal.notes(len(there)):
            self._note(note)
        for path in there[self.count :]:
            path.unlink()  # it was not noted: its rows are written again
        self.in_order = InOrder(self.ended.below)
        self.ready: list[Finished] = []

    def add(self, finished: Sequence[Finished]) -> None:
        self.ready += self.in_order.add(finished)
        while len(self.ready) >= PART_ROWS:
            self._commit(PART_ROWS)

    def close(self) -> None:
        if self.ready:
            self._commit(len(self.ready))
        self.journal.shorten(self.ended, self.errors, self.count)

    def _commit(self, count: int) -> None:
        import pyarrow
        from pyarrow import parquet

        rows = [list(cells) for one in self.ready[:count] for cells in file_formats.cells(one)]
        types = {str: pyarrow.string(), int: pyarrow.uint64()}
        schema = pyarrow.schema([(name, types[kind]) for name, kind in file_formats.COLUMNS.items()])
        columns = [pyarrow.array(column, field.type) for column, field in zip(zip(*rows), schema)]
        with atomic_write(self.folder / PART.format(self.count)) as file:
            parquet.write_table(pyarrow.Table.from_arrays(columns, schema=schema), file)
        errors = sum(bool(one.error) for one in self.ready[:count])
        note = Note(self.ready[0].row.number, count, errors, self.count + 1)
        self.journal.add([note])
        self._note(note)
        del self.ready[:count]

    def _note(self, note: Note) -> None:
        self.ended.add(note.first, note.rows)
        self.errors += note.errors
        self.count = note.end


class Stream:
    """What cannot be gone on with: a pipe, a terminal."""

    def __init__(self, file: IO[bytes], form: file_formats.Form) -> None:
        self.file, self.form = file, form
        self.ended, self.errors, self.in_order = Ended(), 0, InOrder(0)
        self.file.write(form.head)

    def add(self, finished: Sequence[Finished]) -> None:
        for one in self.in_order.add(finished) if self.form.is_ordered else finished:
            self.file.write(self.form.body(one))
            self.ended.add(one.row.number)
            self.errors += bool(one.error)
        self.file.flush()

    def close(self) -> None:
        self.file.flush()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GPT2Error(f"{printable_name(path)} cannot be written: {error.strerror or error}; {GO_ON}") from error


@contextlib.contextmanager
def opened(path: Path, made: file_formats.Form | None, journal: Journal) -> Iterator[Output]:
    """The output of a job, with what it has already. made: the form of a file. Raises GPT2Error."""
    if made is None:
        with creating_folder(path):
            yield Parts(path, journal)
        return
    with contextlib.ExitStack() as stack:
        with _writing(path):
            file = stack.enter_context(path.open("ab", buffering=0))
        yield Appended(path, file, made, journal)
