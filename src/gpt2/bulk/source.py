"""Files of prompts, read row by row: text, JSON lines, csv, Parquet, or stdin. A file is never held whole."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.bulk.file_formats import CSV, JSON_LINES, PARQUET
from gpt2.bulk.rows import PROMPT, Record
from gpt2.data.text_file import TextFileReader
from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import reporting_read_errors

STDIN = "-"
LONGEST = 1 << 24  # characters of a row
BLOCK = 1 << 16  # characters that are read at once
FIRST = 1 << 20  # bytes by whose checksum an input is known again
KEEP = "surrogateescape"  # bytes that are not in the encoding: the row says so
INSTALL = "pip install -r requirements-parquet.txt"


class PromptSource(NamedTuple):
    """Where the rows are, and how they are read. column: the one of the prompts;
    None for `prompt` or, in a table that has none of this name, the first."""

    path: str
    form: str
    delimiter: str | None = None
    encoding: str = "utf-8"
    header: bool = True
    column: str | None = None


class SourceProgress:
    """How much of the input is read: a share, where that can be known."""

    def __init__(self) -> None:
        self.rows = 0
        self.share: Callable[[], float | None] = lambda: None


def check(source: PromptSource) -> None:
    """Raises GPT2Error if the input is not there, UsageError for what cannot be."""
    if source.form == PARQUET:
        if source.path == STDIN:
            raise UsageError("Parquet is read from files, not from stdin")
        parquet()
    if source.delimiter == "":
        raise UsageError("delimiter is what stands between two prompts; it cannot be empty")
    if source.path != STDIN:
        with reporting_read_errors(Path(source.path)), open(source.path, "rb"):
            pass


def parquet() -> Any:
    """pyarrow's module. Raises GPT2Error, saying what to type, where it is missing."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise GPT2Error(f"Parquet needs pyarrow; type: {INSTALL}") from None
    return parquet


def beginning(source: PromptSource, size: int | None = None) -> dict[str, int]:
    """By what the input is known again, which may grow: the checksum of its first bytes, at most so many."""
    if source.path == STDIN:
        return {"bytes": 0, "crc32": 0}
    with reporting_read_errors(Path(source.path)), open(source.path, "rb") as file:
        data = file.read(FIRST if size is None else size)
    return {"bytes": len(data), "crc32": zlib.crc32(data)}


def records(source: PromptSource, progress: SourceProgress) -> Iterator[Record]:
    """The rows in their order. A row that cannot be read is one with an error.

    What grows while it is read is read to where it ends then, short of a row that is not complete; a warning says so.
    Raises GPT2Error for a file that is damaged as a whole.
    """
    found = _parquet(source, progress) if source.form == PARQUET else _of_text(source, progress)
    for number, (values, settings, error) in enumerate(found):
        progress.rows = number + 1
        yield Record(number, values, settings, error)
    progress.share = lambda: 1.0


Found = tuple[dict[str, Any], bool, str]


def _of_text(source: PromptSource, progress: SourceProgress) -> Iterator[Found]:
    files = TextFileReader(source.encoding)
    with _stdin(source) if source.path == STDIN else files.open(Path(source.path)) as (file, text):
        text.reconfigure(errors=KEEP, newline="" if source.form == CSV else "\n")
        growth = _Growth(file, source)
        progress.share = growth.share
        found = _delimited(text, source.delimiter) if source.delimiter is not None else _lines(text)
        lines = (line for line, is_complete in found if is_complete or not growth.has_grown())
        if source.form == CSV:
            yield from _csv(lines, source)
        else:
            for line in lines:
                yield from _json(line) if source.form == JSON_LINES else _text(line, source.encoding)
        growth.report()
    files.report()


@contextlib.contextmanager
def _stdin(source: PromptSource) -> Iterator[tuple[IO[bytes], io.TextIOWrapper]]:
    text = io.TextIOWrapper(sys.stdin.buffer, source.encoding)
    try:
        yield sys.stdin.buffer, text
    finally:
        text.detach()


class _Growth:
    """Whether a file has become longer since it was opened."""

    def __init__(self, file: IO[bytes], source: PromptSource) -> None:
        self.file, self.name = file, printable_name(source.path)
        self.size = 0 if source.path == STDIN else self._size()  # 0 of what has none, too

    def _size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def has_grown(self) -> bool:
        return self.size > 0 and self._size() > self.size

    def share(self) -> float | None:
        return min(1.0, self.file.tell() / self.size) if self.size else None

    def report(self) -> None:
        if self.has_grown():
            said = "has grown while it was read: the output has what was complete; type the same again for the rest"
            warnings.warn(f"{self.name} {said}", stacklevel=2)


def _lines(text: io.TextIOWrapper) -> Iterator[tuple[str, bool]]:
    """Each line without its end, and whether it had one; of a line that is longer than any row, its beginning."""
    while line := text.readline(LONGEST):
        if len(line) == LONGEST and not line.endswith("\n"):
            while (more := text.readline(LONGEST)) and not more.endswith("\n"):
                pass
        yield line.removesuffix("\n"), line.endswith("\n") or len(line) == LONGEST


def _delimited(text: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[str, bool]]:
    """What stands between delimiters; the line ends right beside one belong to it."""
    held = ""
    trimmed = bool(delimiter.strip("\n"))
    for number in itertools.count():
        while delimiter not in held and (block := text.read(BLOCK)):
            held += block
            if len(held) > LONGEST:
                raise GPT2Error(f"a row of more than {LONGEST} characters: the delimiter {delimiter!r} does not come")
        one, found, held = held.partition(delimiter)
        if not found and not one.strip("\n"):
            return
        if trimmed:
            one = one.removesuffix("\n").removesuffix("\r")
            one = one.removeprefix("\r").removeprefix("\n") if number else one
        yield one if found or trimmed else one.removesuffix("\n"), bool(found)
        if not found:
            return


def _text(line: str, encoding: str) -> Iterator[Found]:
    line = line.removesuffix("\r")
    yield {"prompt": line}, False, _too_long(line) or _undecodable(line, encoding)


def _json(line: str) -> Iterator[Found]:
    if not line.strip():
        return
    error = _too_long(line) or _undecodable(line, "utf-8")
    values: Any = {}
    if not error:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as problem:
            values, error = {}, f"not JSON: {problem}"
    if not isinstance(values, dict):
        values, error = {}, f"not an object of JSON but {type(values).__name__}"
    yield values, True, error


def _too_long(line: str) -> str:
    return f"more than {LONGEST} characters" if len(line) >= LONGEST else ""


def _undecodable(text: str, encoding: str) -> str:
    at = next((place for place, character in enumerate(text) if "\udc80" <= character <= "\udcff"), None)
    if at is None:
        return ""
    return f"not {encoding} at character {at} (a byte {ord(text[at]) - 0xDC00:#x}); --encoding names another"


def _csv(lines: Iterator[str], source: PromptSource) -> Iterator[Found]:
    csv.field_size_limit(LONGEST)  # the module's own limit is far less than a prompt may have
    names: list[str] = []
    for row in csv.reader(f"{line}\n" for line in lines):
        if not row:
            continue
        if not names:
            names = row if source.header else [PROMPT, *(f"column{place}" for place in range(2, len(row) + 1))]
            _check_column(names, source)
            if source.header:
                continue
        error = _undecodable("".join(row), source.encoding)
        if len(row) > len(names):
            error = error or f"{len(row)} columns, where the first row has {len(names)}"
        yield {PROMPT: row[0], **dict(zip(names, row))}, False, error


def _check_column(names: Sequence[str], source: PromptSource) -> None:
    """Of a table: the column of the prompts, which is the first one if none has that name and none is asked for."""
    if source.column is not None and source.column not in names:
        raise UsageError(f"{printable_name(source.path)} has no column {source.column!r}; it has {', '.join(names)}")


def _parquet(source: PromptSource, progress: SourceProgress) -> Iterator[Found]:
    import pyarrow

    path = Path(source.path)
    try:
        with reporting_read_errors(path), parquet().ParquetFile(path) as file:
            total, names = file.metadata.num_rows, file.schema_arrow.names
            _check_column(names, source)
            progress.share = lambda: progress.rows / total if total else None
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    yield {PROMPT: values[names[0]], **values}, False, ""
    except pyarrow.ArrowException as error:
        raise GPT2Error(f"{printable_name(path)} cannot be read: {error}") from error
