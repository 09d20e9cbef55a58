"""Reader of prompts, row by row: text, JSON lines, csv, Parquet, or stdin. A file is never in memory as a whole."""

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
from gpt2.bulk.rows import DEFAULT_PROMPT_COLUMN, InputRecord
from gpt2.data.text_file import TextFileReader
from gpt2.errors import GPT2Error, UsageError, printable_name, suggest
from gpt2.files import reporting_read_errors
from gpt2.installation import install_command

STDIN = "-"
MAX_ROW_CHARACTERS = 1 << 24
CHARACTERS_PER_READ = 1 << 16
CHECKSUM_BYTES = 1 << 20  # an input is recognized by the checksum of its start
PARQUET_BATCH_ROWS = 256
KEEP_UNDECODABLE = "surrogateescape"  # a byte that is not in the encoding becomes an error of its row
REQUIREMENTS = "-r requirements-parquet.txt"


class PromptSource(NamedTuple):
    """A file of prompts and how to read it.

    Attributes:
        path: The path, or STDIN.
        file_format: One of `file_formats.FORMATS`.
        delimiter: Separator of prompts in a text file; None is the end of a line.
        encoding: The encoding.
        header: Whether the first row of a csv file has the names of the columns.
        column: The column of the prompts; None is `prompt` or, in a table without that column, the first one.
    """

    path: str
    file_format: str
    delimiter: str | None = None
    encoding: str = "utf-8"
    header: bool = True
    column: str | None = None


class SourceProgress:
    """The progress of reading the input.

    Attributes:
        rows: Number of rows.
        share: Returns the share of the input, from 0 to 1; None if it is unknown.
    """

    def __init__(self) -> None:
        """Start at 0 rows."""
        self.rows = 0
        self.share: Callable[[], float | None] = lambda: None


def check_source(source: PromptSource) -> None:
    """Check that the input can be opened.

    Raises:
        GPT2Error: The input cannot be opened.
        UsageError: A value is not allowed.
    """
    if source.file_format == PARQUET:
        if source.path == STDIN:
            raise UsageError("Parquet is read from files, not from stdin")
        import_parquet()
    if source.delimiter == "":
        raise UsageError("delimiter separates prompts; it cannot be empty")
    if source.path != STDIN:
        with reporting_read_errors(Path(source.path)), open(source.path, "rb"):
            pass


def import_parquet() -> Any:
    """Return the module `pyarrow.parquet`.

    Raises:
        GPT2Error: The package is not installed. The message gives the command that installs it.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise GPT2Error(f"Parquet needs pyarrow; type: {install_command(REQUIREMENTS, 'pyarrow')}") from None
    return parquet


def input_checksum(source: PromptSource, n_bytes: int | None = None) -> dict[str, int]:
    """Return a checksum of the start of an input, by which it is recognized even if rows have been added at its end.

    Args:
        source: The input.
        n_bytes: Use at most this many bytes; None for CHECKSUM_BYTES.

    Returns:
        The number of bytes used and their CRC-32; zeros for stdin.
    """
    if source.path == STDIN:
        return {"bytes": 0, "crc32": 0}
    with reporting_read_errors(Path(source.path)), open(source.path, "rb") as file:
        data = file.read(CHECKSUM_BYTES if n_bytes is None else n_bytes)
    return {"bytes": len(data), "crc32": zlib.crc32(data)}


def read_records(source: PromptSource, progress: SourceProgress) -> Iterator[InputRecord]:
    """Yield the rows in their order; a row that cannot be read has an error.

    If a file grows while it is read, an incomplete last row is skipped, and a warning says that the file has grown.

    Args:
        source: The input.
        progress: The progress, which is updated before each row.

    Raises:
        GPT2Error: The file as a whole is damaged.
    """
    rows = _read_parquet(source, progress) if source.file_format == PARQUET else _read_text_file(source, progress)
    for number, (values, has_settings, error) in enumerate(rows):
        progress.rows = number + 1
        yield InputRecord(number, values, has_settings, error)
    progress.share = lambda: 1.0


RowFields = tuple[dict[str, Any], bool, str]  # values, has_settings and error of an InputRecord


def _read_text_file(source: PromptSource, progress: SourceProgress) -> Iterator[RowFields]:
    reader = TextFileReader(source.encoding)
    with _open_stdin(source) if source.path == STDIN else reader.open(Path(source.path)) as (file, text):
        text.reconfigure(errors=KEEP_UNDECODABLE, newline="" if source.file_format == CSV else "\n")
        growth = _GrowthCheck(file, source)
        progress.share = growth.share
        pieces = _split_at_delimiter(text, source.delimiter) if source.delimiter is not None else _split_lines(text)
        lines = (line for line, is_complete in pieces if is_complete or not growth.has_grown())
        if source.file_format == CSV:
            yield from _parse_csv(lines, source)
        else:
            for line in lines:
                yield from _parse_json(line) if source.file_format == JSON_LINES else _parse_text(line, source.encoding)
        growth.warn()
    reader.report()


@contextlib.contextmanager
def _open_stdin(source: PromptSource) -> Iterator[tuple[IO[bytes], io.TextIOWrapper]]:
    text = io.TextIOWrapper(sys.stdin.buffer, source.encoding)
    try:
        yield sys.stdin.buffer, text
    finally:
        text.detach()


class _GrowthCheck:
    """A comparison of a file's size with its size when it was opened."""

    def __init__(self, file: IO[bytes], source: PromptSource) -> None:
        """Remember the size."""
        self.file = file
        self.name = printable_name(source.path)
        self.size = 0 if source.path == STDIN else self._current_size()  # a pipe has the size 0 as well

    def _current_size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def has_grown(self) -> bool:
        return self.size > 0 and self._current_size() > self.size

    def share(self) -> float | None:
        return min(1.0, self.file.tell() / self.size) if self.size else None

    def warn(self) -> None:
        if self.has_grown():
            warnings.warn(
                f"{self.name} has grown while it was read; the output has only its complete rows; "
                "run the same command again to generate the others",
                stacklevel=2,
            )


def _split_lines(text: io.TextIOWrapper) -> Iterator[tuple[str, bool]]:
    """Yield each line without its end, and whether it had one; of a line that is too long, only the start."""
    while line := text.readline(MAX_ROW_CHARACTERS):
        is_too_long = len(line) == MAX_ROW_CHARACTERS
        if is_too_long and not line.endswith("\n"):
            while (rest := text.readline(MAX_ROW_CHARACTERS)) and not rest.endswith("\n"):
                pass
        yield line.removesuffix("\n"), line.endswith("\n") or is_too_long


def _split_at_delimiter(text: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[str, bool]]:
    """Yield each text between two delimiters, and whether a delimiter follows.

    A line end next to a delimiter belongs to the delimiter, unless the delimiter itself consists of line ends.
    """
    buffer = ""
    has_own_lines = bool(delimiter.strip("\n"))
    for number in itertools.count():
        while delimiter not in buffer and (block := text.read(CHARACTERS_PER_READ)):
            buffer += block
            if len(buffer) > MAX_ROW_CHARACTERS:
                raise GPT2Error(
                    f"a row has more than {MAX_ROW_CHARACTERS} characters without the delimiter {delimiter!r}; "
                    "give the delimiter that the file has"
                )
        piece, match, buffer = buffer.partition(delimiter)
        if not match and not piece.strip("\n"):
            return
        if has_own_lines:
            piece = piece.removesuffix("\n").removesuffix("\r")
            piece = piece.removeprefix("\r").removeprefix("\n") if number else piece
        yield piece if match or has_own_lines else piece.removesuffix("\n"), bool(match)
        if not match:
            return


def _parse_text(line: str, encoding: str) -> Iterator[RowFields]:
    line = line.removesuffix("\r")
    yield {"prompt": line}, False, _length_error(line) or _encoding_error(line, encoding)


def _parse_json(line: str) -> Iterator[RowFields]:
    if not line.strip():
        return
    error = _length_error(line) or _encoding_error(line, "utf-8")
    values: Any = {}
    if not error:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as problem:
            error = f"not JSON: {problem}"
    if not isinstance(values, dict):
        error = f"not an object but a JSON value of type {type(values).__name__}"
        values = {}
    yield values, True, error


def _length_error(line: str) -> str:
    return f"more than {MAX_ROW_CHARACTERS} characters" if len(line) >= MAX_ROW_CHARACTERS else ""


def _encoding_error(text: str, encoding: str) -> str:
    index = next((index for index, character in enumerate(text) if "\udc80" <= character <= "\udcff"), None)
    if index is None:
        return ""
    byte = ord(text[index]) - 0xDC00
    return f"not {encoding} at character {index} (byte {byte:#x}); give the file's encoding with --encoding"


def _parse_csv(lines: Iterator[str], source: PromptSource) -> Iterator[RowFields]:
    csv.field_size_limit(MAX_ROW_CHARACTERS)  # the default limit is far below the length of some prompts
    names: list[str] = []
    for row in csv.reader(f"{line}\n" for line in lines):
        if not row:
            continue
        if not names:
            numbered = [DEFAULT_PROMPT_COLUMN, *(f"column{number}" for number in range(2, len(row) + 1))]
            names = row if source.header else numbered
            _check_column(names, source)
            if source.header:
                continue
        error = _encoding_error("".join(row), source.encoding)
        if len(row) > len(names):
            error = error or f"{len(row)} columns, but the first row has {len(names)}"
        yield {DEFAULT_PROMPT_COLUMN: row[0], **dict(zip(names, row))}, False, error


def _check_column(names: Sequence[str], source: PromptSource) -> None:
    if source.column is not None and source.column not in names:
        known = f"it has {', '.join(names)}{suggest(source.column, names)}"
        raise UsageError(f"{printable_name(source.path)} has no column {source.column!r}; {known}")


def _read_parquet(source: PromptSource, progress: SourceProgress) -> Iterator[RowFields]:
    import pyarrow

    path = Path(source.path)
    try:
        with reporting_read_errors(path), import_parquet().ParquetFile(path) as file:
            n_rows = file.metadata.num_rows
            names = file.schema_arrow.names
            _check_column(names, source)
            progress.share = lambda: progress.rows / n_rows if n_rows else None
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                for values in batch.to_pylist():
                    yield {DEFAULT_PROMPT_COLUMN: values[names[0]], **values}, False, ""
    except pyarrow.ArrowException as error:
        raise GPT2Error(f"{printable_name(path)} cannot be read: {error}") from error
