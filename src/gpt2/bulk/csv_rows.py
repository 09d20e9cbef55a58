r"""Reader of the rows of a .csv file. A row that is not csv gets an error, and the next row starts after it.

Python's `csv` parses each row. This module finds the end of each row first, because `csv` reports neither a quotation
mark that is never closed nor the end of a row that is too long.
"""

from __future__ import annotations

import csv
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from gpt2.bulk import row_fields
from gpt2.bulk.row_fields import RowFields
from gpt2.errors import GPT2Error, UsageError, printable_name, suggest, summarize_names

QUOTE = '"'
DELIMITER = ","
QUOTING_ADVICE = "a cell that contains a comma, a line end or a quotation mark must be in quotation marks"


class QuoteTracker:
    """The state of csv's grammar at the end of the characters so far.

    Attributes:
        is_quoted: Whether the characters end within a quoted cell.
        quote_line: The line in which the last quoted cell started.
    """

    def __init__(self) -> None:
        """Start at the first cell of a row."""
        self.is_quoted = False
        self.quote_line = 0
        self.is_cell_start = True
        self.is_after_quote = False  # a quotation mark in a quoted cell, which ends the cell or is one of a pair

    def feed(self, characters: str, line: int) -> None:
        """Advance by some characters of a line."""
        if QUOTE not in characters and not self.is_quoted and not self.is_after_quote:
            self.is_cell_start = characters.endswith(DELIMITER)
            return
        position = 0
        while position < len(characters):
            position = self._advance(characters, position, line)

    def _advance(self, characters: str, position: int, line: int) -> int:
        """Advance beyond the next quotation mark or delimiter, and return the new position."""
        if self.is_after_quote:
            self.is_after_quote = False
            self.is_quoted = characters[position] == QUOTE  # a pair stands for one quotation mark
            return position + 1 if self.is_quoted else position
        if self.is_quoted:
            end = characters.find(QUOTE, position)
            self.is_quoted = end < 0
            self.is_after_quote = end >= 0
            return len(characters) if end < 0 else end + 1
        if self.is_cell_start and characters[position] == QUOTE:
            self.is_cell_start = False
            self.is_quoted = True
            self.quote_line = line
            return position + 1
        end = characters.find(DELIMITER, position)
        self.is_cell_start = end >= 0
        return len(characters) if end < 0 else end + 1


class RawRow:
    """The text of a row before it is parsed.

    Attributes:
        pieces: Its lines; a long line may be divided, and a row that is too long has only its first line.
        checksum: The checksum of all its characters.
        n_characters: Number of all its characters.
        first_line: The number of its first line, from 1.
        last_line: The number of the line at its end.
        unclosed_line: The line in which an unclosed quoted cell starts; 0 if all cells are closed.
        is_complete: Whether it ends with a line end.
    """

    def __init__(self, first_line: int) -> None:
        """Start without characters."""
        self.pieces: list[str] = []
        self.checksum = 0
        self.n_characters = 0
        self.first_line = first_line
        self.last_line = first_line
        self.unclosed_line = 0
        self.is_complete = False

    def add(self, piece: str) -> None:
        """Add a piece of a line, and discard all but the first one if the row is too long."""
        self.n_characters += len(piece)
        self.checksum = zlib.crc32(piece.encode("utf-8", "surrogatepass"), self.checksum)
        self.pieces.append(piece)
        if row_fields.length_error(self.n_characters):
            del self.pieces[1:]

    @property
    def error(self) -> str:
        """The error of a row that cannot be parsed, or an empty string."""
        if self.unclosed_line:
            has_more_lines = self.last_line > self.unclosed_line
            swallowed = f", so the row includes all lines up to {self.last_line}" if has_more_lines else ""
            return f"the quotation mark that opens in line {self.unclosed_line} is never closed{swallowed}; close it"
        error = row_fields.length_error(self.n_characters)
        return error and f"{error} ({self.lines}); {QUOTING_ADVICE}"

    @property
    def lines(self) -> str:
        """The numbers of its lines, for messages."""
        if self.last_line == self.first_line:
            return f"line {self.first_line}"
        return f"lines {self.first_line} to {self.last_line}"


def split_rows(pieces: Iterable[str]) -> Iterator[RawRow]:
    """Yield the rows of a file, including blank ones.

    Args:
        pieces: The lines with their ends; a long line may be divided into several pieces.
    """
    line = 1
    row = RawRow(line)
    tracker = QuoteTracker()
    for piece in pieces:
        tracker.feed(piece, line)
        row.add(piece)
        row.last_line = line
        if not piece.endswith(("\n", "\r")):
            continue
        line += 1
        if not tracker.is_quoted:
            row.is_complete = True
            yield row
            row = RawRow(line)
            tracker = QuoteTracker()
    if row.pieces:
        row.unclosed_line = tracker.quote_line if tracker.is_quoted else 0
        yield row


class Columns(NamedTuple):
    """The columns of a table.

    Attributes:
        names: Their names.
        prompt_alias: The name by which the first column is also known; empty if another column has this name.
    """

    names: Sequence[str]
    prompt_alias: str = ""

    def values(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Return the cells of a row by the names of their columns."""
        alias = {self.prompt_alias: cells[0]} if self.prompt_alias and cells else {}
        return {**alias, **dict(zip(self.names, cells))}


def check_columns(path: str, names: Sequence[str], column: str | None, default: str) -> Columns:
    """Return the columns of a table after checking their names.

    Args:
        path: The file, for messages.
        names: The names of the columns; several columns may have an empty name.
        column: The column of the prompts; None for the default or, if there is no such column, the first one.
        default: The usual name of the column of the prompts.

    Raises:
        UsageError: Two columns have the same name, or no column has the requested name.
    """
    file = printable_name(path)
    repeated = [name for name, count in Counter(names).items() if count > 1 and (name or column == "")]
    if repeated:
        raise UsageError(
            f"{file} has several columns named {summarize_names([repr(name) for name in repeated])}; rename all but one"
        )
    if column is not None and column not in names:
        known = f"it has {', '.join(names)}{suggest(column, names)}"
        raise UsageError(f"{file} has no column {column!r}; {known}")
    return Columns(names, "" if default in names else default)


def parse_csv(
    pieces: Iterable[str],
    choose_columns: Callable[[Sequence[str]], Columns],
    header: bool,
    encoding: str,
    has_grown: Callable[[], bool],
) -> Iterator[RowFields]:
    """Yield the rows of a .csv file, without blank ones.

    Args:
        pieces: The lines of the file with their ends; a long line may be divided into several pieces.
        choose_columns: Returns the columns for the cells of the first row.
        header: Whether the first row has the names of the columns.
        encoding: The encoding of the file, for messages.
        has_grown: Returns whether the file has grown while it was read; an incomplete last row is skipped if so.

    Raises:
        GPT2Error: The first row is not csv.
        UsageError: The names of the columns are not allowed.
    """
    columns: Columns | None = None
    for raw in split_rows(pieces):
        if not raw.is_complete and has_grown():
            return
        cells, error = _parse_row(raw)
        error = error or row_fields.encoding_error("".join(cells), encoding)
        if not cells and not error:
            continue
        if columns is None:
            if error:
                raise GPT2Error(f"the first row cannot be read: {error}")
            columns = choose_columns(cells)
            if header:
                continue
        content = f"{raw.checksum} {raw.n_characters} {columns.names}"
        yield RowFields(columns.values(cells), content, error=error or _width_error(cells, columns.names))


def _parse_row(raw: RawRow) -> tuple[list[str], str]:
    """Return the cells of a row and its error; if there is an error, the cells in its first line."""
    # The default limit is far below the length of some prompts.
    csv.field_size_limit(row_fields.MAX_ROW_CHARACTERS + 1)
    try:
        if not raw.error:
            return next(csv.reader(raw.pieces, strict=True), []), ""
        error = raw.error
    except csv.Error as problem:
        error = f"not csv in {raw.lines}: {problem}; {QUOTING_ADVICE}, which is written twice"
    try:
        return next(csv.reader(raw.pieces[:1]), []), error
    except csv.Error:
        return [], error


def _width_error(cells: Sequence[str], names: Sequence[str]) -> str:
    """Return the error of a row with more or fewer cells than columns, or an empty string."""
    if len(cells) == len(names):
        return ""
    count = f"{len(cells)} cell" if len(cells) == 1 else f"{len(cells)} cells"
    return f"{count}, but the first row has {len(names)}: {', '.join(names)}; {QUOTING_ADVICE}"
