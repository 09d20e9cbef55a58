r"""Tables in `.csv` and `.tsv` files: their rows, and the column that holds the text.

>>> list(read_rows(["id,text\n", '1,"a, b"\n']))
[TableRow(line=1, cells=['id', 'text']), TableRow(line=2, cells=['1', 'a, b'])]
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from gpt2.errors import GPT2Error, UsageError, printable_name, suggest

DELIMITERS = {".csv": ",", ".tsv": "\t"}  # by extension
MAX_ROW_CHARACTERS = 16 << 20  # a longer row has an unclosed quotation mark or is not CSV
MAX_LISTED_COLUMNS = 20  # names of columns in an error message
MAX_NAME_CHARACTERS = 60
NAME_WITHOUT_HEADER = "column{}"  # formatted with the number of the column, from 1
UNCLOSED_QUOTE = "a quotation mark is not closed"
UNESCAPED_QUOTE = 'text follows a closing quotation mark; inside a cell in quotation marks, write "" for each one'


class TableRow(NamedTuple):
    """A row of a table."""

    line: int  # number of its first line in the file, from 1
    cells: list[str]  # empty for a blank line


def table_delimiter(path: Path) -> str | None:
    """Return the delimiter of a table's columns, or None if the file is not a table according to its name."""
    name = path.name.lower().removesuffix(".gz")
    return next((delimiter for extension, delimiter in DELIMITERS.items() if name.endswith(extension)), None)


def limited_lines(text: TextIO) -> Iterator[str]:
    """Yield the lines of a text; a line of more than MAX_ROW_CHARACTERS in pieces, so that memory is bounded."""
    return iter(lambda: text.readline(MAX_ROW_CHARACTERS), "")


def read_rows(lines: Iterable[str], delimiter: str = ",", strict: bool = True) -> Iterator[TableRow]:
    """Yield the rows of a table, blank ones included.

    Args:
        lines: The lines with their ends.
        delimiter: The delimiter of the columns.
        strict: Whether to reject misplaced quotation marks, instead of guessing what they mean.

    Raises:
        csv.Error: The lines are not a table. The message has the number of the row's first line.
    """
    csv.field_size_limit(MAX_ROW_CHARACTERS)  # the module's own limit is much lower
    first_line = 1
    length = 0  # of the current row so far

    def bounded() -> Iterator[str]:
        nonlocal length
        for line in lines:
            length += len(line)
            if length >= MAX_ROW_CHARACTERS:
                raise csv.Error(f"a row has more than {MAX_ROW_CHARACTERS} characters: {UNCLOSED_QUOTE}")
            yield line

    reader = csv.reader(bounded(), delimiter=delimiter, strict=strict)
    try:
        for cells in reader:
            yield TableRow(first_line, cells)
            first_line = reader.line_num + 1
            length = 0
    except csv.Error as error:
        raise csv.Error(f"line {first_line}: {_reason(error, length)}") from error


def _reason(error: csv.Error, length: int) -> str:
    message = str(error)
    if message == "unexpected end of data" or message.startswith("field larger than"):
        return UNCLOSED_QUOTE
    return UNESCAPED_QUOTE if "expected after" in message else message


class TextColumn(NamedTuple):
    """The column of a table that holds the text, as the table's first row determines it."""

    position: int  # of the column, from 0
    width: int  # number of columns
    header: bool  # whether the first row names the columns

    def cell(self, row: TableRow) -> str:
        """Return the cell of a row.

        Raises:
            csv.Error: The row has fewer columns than the first row, or more of them that are not empty.
        """
        surplus = [cell for cell in row.cells[self.width :] if cell]
        if len(row.cells) < self.width or surplus:
            count = f"{len(row.cells)} {'column' if len(row.cells) == 1 else 'columns'}"
            first_row = "its header" if self.header else "its first row"
            raise csv.Error(
                f"line {row.line} has {count}, but {first_row} has {self.width}; enclose a cell that contains the"
                " delimiter or a line end in quotation marks"
            )
        return row.cells[self.position]


def column_names(first_row: Sequence[str], header: bool) -> list[str]:
    """Return the names of a table's columns: its first row, or column1, column2, ..."""
    if header:
        return [name.strip() for name in first_row]
    return [NAME_WITHOUT_HEADER.format(number) for number in range(1, len(first_row) + 1)]


def find_column(path: Path | str, names: Sequence[str], requested: str | None, default: str) -> int:
    """Return the position of the requested column, else of the column `default`, else of the only column.

    Args:
        path: The file, for messages.
        names: The names of the columns.
        requested: The name that the user gives; None if none is given.
        default: The usual name of the column.

    Raises:
        UsageError: There is no such column, or there are several columns and none has the usual name.
        GPT2Error: Several columns have the name.
    """
    file = printable_name(path)
    name = requested if requested is not None else default
    count = Counter(names)[name]
    if count > 1:
        raise GPT2Error(f"{file} has {count} columns named {name!r}; rename one of them")
    if count:
        return names.index(name)
    if requested is not None:
        raise UsageError(
            f"{file} has no column {name!r}; choose one with --column: {_listed(names)}{suggest(name, names)}"
        )
    if len(names) > 1:
        raise UsageError(
            f"{file} has {len(names)} columns, and none is named {name!r}; choose one with --column: {_listed(names)}"
        )
    return 0


def check_delimiter(path: Path | str, names: Sequence[str], delimiter: str) -> None:
    """Raise GPT2Error if the name of the only column suggests that another character separates the columns."""
    for other in (";", "\t", "|", ","):
        if len(names) == 1 and other != delimiter and other in names[0]:
            raise GPT2Error(
                f"the first row of {printable_name(path)} is a single column, {_listed(names)}; if {other!r} separates"
                f" its columns, convert it to a file with {delimiter!r}; if the row is text, add --no_header"
            )


def _listed(names: Sequence[str]) -> str:
    """Return the distinct names for a message, with the number of those that are left out."""
    shown = [printable_name(name[:MAX_NAME_CHARACTERS]) or "(no name)" for name in dict.fromkeys(names)]
    more = len(shown) - MAX_LISTED_COLUMNS
    return ", ".join(shown[:MAX_LISTED_COLUMNS]) + (f" and {more} more" if more > 0 else "")
