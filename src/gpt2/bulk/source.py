"""Reader of prompts, row by row: text, JSON lines, csv, Parquet, or stdin. A file is never in memory as a whole."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.bulk import row_fields
from gpt2.bulk.csv_rows import Columns, check_columns, parse_csv
from gpt2.bulk.file_formats import CSV, JSON_LINES, PARQUET, TEXT
from gpt2.bulk.parquet_rows import import_parquet, read_parquet
from gpt2.bulk.row_fields import KEEP_UNDECODABLE, RowFields, encoding_error, length_error
from gpt2.bulk.rows import DEFAULT_PROMPT_COLUMN, InputRecord
from gpt2.data.text_file import TextFileReader
from gpt2.errors import UsageError, printable_name
from gpt2.files import reporting_read_errors

STDIN = "-"
CHARACTERS_PER_READ = 1 << 16
CHECKSUM_BYTES = 1 << 20  # an input is recognized by the checksum of its start


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
    for number, fields in enumerate(rows):
        progress.rows = number + 1
        content = fields.content if fields.error else ""
        yield InputRecord(number, fields.values, fields.has_settings, fields.error, content)
    progress.share = lambda: 1.0


def _choose_columns(names: Sequence[str], source: PromptSource) -> Columns:
    return check_columns(source.path, names, source.column, DEFAULT_PROMPT_COLUMN)


def _read_parquet(source: PromptSource, progress: SourceProgress) -> Iterator[RowFields]:
    def report_size(n_rows: int) -> None:
        progress.share = lambda: progress.rows / n_rows if n_rows else None

    return read_parquet(Path(source.path), lambda names: _choose_columns(names, source), report_size)


def _read_text_file(source: PromptSource, progress: SourceProgress) -> Iterator[RowFields]:
    reader = TextFileReader(source.encoding)
    row_fields.register_undecodable_handler()
    with _open_stdin(source) if source.path == STDIN else reader.open(Path(source.path)) as (file, text):
        text.reconfigure(errors=KEEP_UNDECODABLE, newline="" if source.file_format == CSV else "\n")
        growth = _GrowthCheck(file, source)
        progress.share = growth.share
        yield from _parse_csv(text, source, growth) if source.file_format == CSV else _parse_lines(text, source, growth)
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


def _parse_csv(text: io.TextIOWrapper, source: PromptSource, growth: _GrowthCheck) -> Iterator[RowFields]:
    def choose_columns(first_row: Sequence[str]) -> Columns:
        numbered = [DEFAULT_PROMPT_COLUMN, *(f"column{number}" for number in range(2, len(first_row) + 1))]
        return _choose_columns(first_row if source.header else numbered, source)

    pieces = iter(lambda: text.readline(row_fields.MAX_ROW_CHARACTERS), "")
    return parse_csv(pieces, choose_columns, source.header, source.encoding, growth.has_grown)


def _parse_lines(text: io.TextIOWrapper, source: PromptSource, growth: _GrowthCheck) -> Iterator[RowFields]:
    """Yield the rows of a text file or of JSON lines."""
    delimiter = source.delimiter if source.file_format == TEXT else None
    for line, is_complete in _split_lines(text) if delimiter is None else _split_at_delimiter(text, delimiter):
        if not is_complete and growth.has_grown():
            return
        yield from _parse_json(line) if source.file_format == JSON_LINES else _parse_text(line, source.encoding)


def _split_lines(text: io.TextIOWrapper) -> Iterator[tuple[str, bool]]:
    """Yield each line without its end, and whether it had one; of a line that is too long, only the start."""
    while line := text.readline(row_fields.MAX_ROW_CHARACTERS):
        is_too_long = len(line) == row_fields.MAX_ROW_CHARACTERS
        if is_too_long and not line.endswith("\n"):
            while (rest := text.readline(row_fields.MAX_ROW_CHARACTERS)) and not rest.endswith("\n"):
                pass
        yield line.removesuffix("\n"), line.endswith("\n") or is_too_long


def _split_at_delimiter(text: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[str, bool]]:
    """Yield each text between two delimiters, and whether a delimiter follows; of a text that is too long, the start.

    A line end next to a delimiter belongs to the delimiter, unless the delimiter itself consists of line ends.
    """
    rest = ""
    has_own_lines = bool(delimiter.strip("\n"))
    for number in itertools.count():
        piece, has_delimiter, rest = _read_to_delimiter(text, rest, delimiter)
        if not has_delimiter and not piece.strip("\n"):
            return
        if has_own_lines:
            piece = piece.removesuffix("\n").removesuffix("\r")
            piece = piece.removeprefix("\r").removeprefix("\n") if number else piece
        yield piece if has_delimiter or has_own_lines else piece.removesuffix("\n"), has_delimiter
        if not has_delimiter:
            return


def _read_to_delimiter(text: io.TextIOWrapper, read: str, delimiter: str) -> tuple[str, bool, str]:
    """Return the text up to the next delimiter, whether there is one, and the text that was read after it.

    Args:
        text: The file.
        read: The text that has already been read.
        delimiter: The delimiter.
    """
    start = ""  # of a text that is too long
    while delimiter not in read and (block := text.read(CHARACTERS_PER_READ)):
        read += block
        if len(read) > row_fields.MAX_ROW_CHARACTERS + CHARACTERS_PER_READ and delimiter not in read:
            start = start or read
            read = read[-len(delimiter) :]  # may end with the start of the delimiter
    piece, match, rest = read.partition(delimiter)
    return start or piece, bool(match), rest


def _parse_text(line: str, encoding: str) -> Iterator[RowFields]:
    line = line.removesuffix("\r")
    error = length_error(len(line)) or encoding_error(line, encoding)
    yield RowFields({DEFAULT_PROMPT_COLUMN: line}, line, error=error)


def _parse_json(line: str) -> Iterator[RowFields]:
    if not line.strip():
        return
    error = length_error(len(line)) or encoding_error(line, "utf-8")
    values: Any = {}
    if not error:
        try:
            values = json.loads(line, object_pairs_hook=_unique_keys)
        except Exception as problem:  # besides invalid JSON: too many digits, or nested too deeply
            error = row_fields.shorten(f"not JSON: {problem}")
    if not isinstance(values, dict):
        error = f"not an object but a JSON value of type {type(values).__name__}"
        values = {}
    yield RowFields(values, line, True, error)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: Two keys are the same; it is unclear which of their values is meant.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        raise ValueError(f"an object has the key {repeated[0]!r} twice")
    return values
