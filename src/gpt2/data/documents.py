r"""Documents of any size from text files, read in bounded memory.

A plain file is one document. In a `.csv` or `.tsv`, one column of each row is one document. Both may be compressed
(`.gz`). `text_file` describes how bytes become characters, and `file_kinds` which files are not text.

>>> list(read([Path("poem.txt")]))
[DocumentPart(text='Roses are red,\n', last=True, size=15)]
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gpt2.data import csv_table
from gpt2.data.csv_table import TableRow, TextColumn
from gpt2.data.file_kinds import check_plain_text
from gpt2.data.text_file import NUL_REMARK, TextFileReader
from gpt2.encoder import last_safe_cut
from gpt2.errors import GPT2Error, UsageError, printable_name, summarize_names
from gpt2.files import expand_path

PART_CHARACTERS = 1 << 20  # approximate length of a document part
DEFAULT_COMBINE_CHARACTERS = 50000  # minimum length of a chunk in a .npz, as in the old tools
TOKEN_FILE_SUFFIXES = (".npy", ".npz")
DEFAULT_TEXT_COLUMN = "text"
HEADER_REMARK = "the first row is read as the name of the only column; if it is text, add --no_header"
FindCut = Callable[[str], int]  # see Vocabulary.last_safe_cut


class CsvFormat(NamedTuple):
    """The conversion of the rows of a `.csv` or `.tsv` to documents."""

    header: bool = True  # whether the first row names the columns, and is not a document
    column: str | None = None  # the column of the text; None for DEFAULT_TEXT_COLUMN, or the only column
    prefix: str = ""  # text put before each document
    first_column: bool = False  # whether the text is in the first column, and rows may have any length, as in old tools

    @classmethod
    def from_flags(cls, column: str | None, no_header: bool, csv_header: bool) -> CsvFormat:
        """Return the format that the flags of a command describe.

        Raises:
            UsageError: The flags contradict each other.
        """
        if no_header and csv_header:
            raise UsageError("give csv_header or no_header, not both; csv_header is the default")
        return cls(not no_header, column)


PLAIN_CSV = CsvFormat()


class DocumentPart(NamedTuple):
    """A part of a document; `read` yields the parts of a document one after the other."""

    text: str
    last: bool  # whether the document ends with this part
    size: int  # bytes of the file that were read for it


def find_text_files(path: str) -> list[Path]:
    """Return the files that a path or pattern names, sorted.

    Hidden files and folders are skipped. Special files such as pipes, which may be endless, are skipped with a warning.
    Links to folders, which may form a circle, are skipped with a warning as well.

    Args:
        path: A file, a folder (all files in it and below it) or a pattern, in which `**` matches any number of
            folders. `~` and $VARIABLES are expanded.

    Raises:
        GPT2Error: There is no file, a file cannot be read, or `path` itself is not a regular file.
    """
    expanded = str(expand_path(path)) if path else path
    if os.path.isdir(expanded):
        walk = _walk(expanded)
        paths = _regular_files(Path(parent, name) for parent, names, links in walk for name in (*names, *links))
        if not paths:
            raise GPT2Error(
                f"the folder {printable_name(expanded)} holds no files; give a file of text or a folder of such files"
            )
    elif os.path.lexists(expanded):
        if kind := _special_kind(Path(expanded)):
            raise GPT2Error(
                f"{printable_name(expanded)} is {kind}, not a regular file; give a file or a folder of files"
            )
        paths = [Path(expanded)]
    elif not (paths := _regular_files(Path(name) for name in _matches(expanded))):
        raise GPT2Error(
            f"{path!r} is neither a file nor a folder, nor a pattern such as 'data/*.txt' that matches a file"
        )
    if unreadable := [file for file in paths if not os.access(file, os.R_OK)]:
        names = summarize_names(unreadable)
        raise GPT2Error(f"no permission to read: {names}; change the permissions, or leave these files out")
    return paths


def _walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each folder from this one down, with its file names and its links to folders; skip hidden ones."""

    def raise_unreadable(error: OSError) -> None:
        message = f"the folder {printable_name(error.filename)} cannot be read: {error.strerror}"
        raise GPT2Error(f"{message}; fix that, or give the other files by name or as 'data/*.txt'") from error

    for parent, folders, names in os.walk(folder, onerror=raise_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        yield parent, [name for name in names if not name.startswith(".")], links


def _matches(pattern: str) -> Iterator[str]:
    """Yield the files that match a pattern, like `glob.glob`, and links to folders that `**` matches."""
    recursive = re.fullmatch(r"(|.*?/)\*\*(?:/+(.*)|)", pattern, re.DOTALL)
    if not recursive:
        yield from (name for name in glob.glob(pattern) if not os.path.isdir(name))
        return
    for folder in glob.glob(recursive[1]) if recursive[1] else [os.curdir]:
        for parent, _, links in _walk(folder):
            yield from (os.path.join(parent, link) for link in links)
            yield from _matches(os.path.join(glob.escape(parent), recursive[2] or "*"))


def _regular_files(paths: Iterable[Path]) -> list[Path]:
    """Return the regular files, sorted; one warning names the others."""
    kinds = {path: _special_kind(path) for path in sorted(set(paths))}
    if skipped := [f"{printable_name(path)} ({kind})" for path, kind in kinds.items() if kind]:
        warnings.warn(f"skipped, because they are not regular files: {summarize_names(skipped)}", stacklevel=3)
    return [path for path, kind in kinds.items() if not kind]


def _special_kind(path: Path) -> str | None:
    """Return the kind of a file that is not regular, such as "a pipe"; None if it is regular."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink() and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return f"a dead link to {printable_name(os.readlink(path))}"
        raise GPT2Error(f"{printable_name(path)} cannot be read: {error.strerror}") from error
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a link to a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def is_token_file(path: Path) -> bool:
    """Return whether a file holds ids, according to the suffix of its name."""
    return path.suffix.lower() in TOKEN_FILE_SUFFIXES


def check_files(paths: Sequence[Path], encoding: str = "utf-8", csv_format: CsvFormat = PLAIN_CSV) -> None:
    """Check that files hold text, and that each table has the column of the text, before all of them are read.

    Args:
        paths: The files.
        encoding: Name of an encoding that Python knows.
        csv_format: The layout of `.csv` and `.tsv` files.

    Raises:
        GPT2Error: A file is of another kind, or its first row is damaged. The message names the file.
        UsageError: The encoding is unknown, or the column must be chosen.
    """
    reader = TextFileReader(encoding)
    if token_files := [path for path in paths if is_token_file(path)]:
        raise GPT2Error(f"{summarize_names(token_files)} holds ids, not text; leave it out")
    check_plain_text(paths, encoding)
    for path in paths:
        delimiter = _table_delimiter(path, csv_format)
        if delimiter and not csv_format.first_column:
            with reader.open(path) as (_, text):
                rows = csv_table.read_rows(csv_table.limited_lines(text), delimiter)
                if first := next(filter(_has_text, rows), None):
                    _find_text_column(path, first, delimiter, csv_format)


def total_size(paths: Iterable[Path]) -> int:
    """Return the files' total bytes on the disk; a missing file counts as 0, because reading it reports the error."""
    size = 0
    for path in paths:
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return size


def read(
    paths: Sequence[Path],
    encoding: str = "utf-8",
    csv_format: CsvFormat = PLAIN_CSV,
    find_cut: FindCut = last_safe_cut,
) -> Iterator[DocumentPart]:
    """Yield the documents of text files, in parts of about PART_CHARACTERS; empty documents are skipped.

    Warnings name the files with unusual content (see `TextFileReader`). Call `check_files` first.

    Args:
        paths: The files.
        encoding: Name of an encoding that Python knows.
        csv_format: The layout of `.csv` and `.tsv` files.
        find_cut: The vocabulary's `last_safe_cut`; by default the function of byte-level BPE.

    Raises:
        UsageError: The encoding is unknown.
        GPT2Error: A file is damaged. The message names the file.
    """
    reader = TextFileReader(encoding)
    for path in paths:
        with reader.open(path) as (file, text):
            previous = 0  # the position in the file
            for document in _documents(path, text, csv_format, reader):
                for part, last in split_document(document, PART_CHARACTERS, find_cut):
                    if "\0" in part:
                        reader.notice(NUL_REMARK, path)
                    position = file.tell()
                    yield DocumentPart(part, last, position - previous)
                    previous = position
    reader.report()


def _documents(
    path: Path, text: io.TextIOWrapper, csv_format: CsvFormat, reader: TextFileReader
) -> Iterator[Iterable[str]]:
    """Yield the documents of a file in blocks. A reader for another kind of file belongs here."""
    delimiter = _table_delimiter(path, csv_format)
    if delimiter is None:
        yield iter(lambda: text.read(PART_CHARACTERS), "")
        return
    if csv_format.first_column:
        cells = first_column(text, csv_format.header, delimiter)
    else:
        cells = _text_column(path, text, delimiter, csv_format, reader)
    for cell in cells:
        if cell.strip():
            yield slice_text(csv_format.prefix + cell, PART_CHARACTERS)


def _table_delimiter(path: Path, csv_format: CsvFormat) -> str | None:
    """Return the delimiter of a table, or None for plain text; to the old tools, a `.tsv` is plain text."""
    delimiter = csv_table.table_delimiter(path)
    return None if csv_format.first_column and delimiter != csv_table.DELIMITERS[".csv"] else delimiter


def first_column(text: io.TextIOWrapper, header: bool, delimiter: str = ",") -> Iterator[str]:
    """Yield the first column of each non-empty row, as gpt-2-simple does.

    Args:
        text: The file.
        header: Whether the first row is skipped.
        delimiter: The delimiter of the columns.

    Raises:
        csv.Error: The file is not a table.
    """
    rows = csv_table.read_rows(csv_table.limited_lines(text), delimiter, strict=False)
    for number, row in enumerate(rows):
        if row.cells and (number or not header):
            yield row.cells[0]


def _text_column(
    path: Path, text: io.TextIOWrapper, delimiter: str, csv_format: CsvFormat, reader: TextFileReader
) -> Iterator[str]:
    """Yield the cells of a table's text column; blank rows are skipped."""
    column = None
    for row in filter(_has_text, csv_table.read_rows(csv_table.limited_lines(text), delimiter)):
        if column is None:
            column = _find_text_column(path, row, delimiter, csv_format)
            if column.header:
                if csv_format.column is None and row.cells[column.position].strip() != DEFAULT_TEXT_COLUMN:
                    reader.notice(HEADER_REMARK, path)
                continue
        yield column.cell(row)


def _has_text(row: TableRow) -> bool:
    return any(map(str.strip, row.cells))


def _find_text_column(path: Path, first: TableRow, delimiter: str, csv_format: CsvFormat) -> TextColumn:
    """Return the column of the text, from the first row.

    Raises:
        GPT2Error: The row seems to have another delimiter, or names several columns equally.
        UsageError: There is no such column, or the column must be chosen.
    """
    names = csv_table.column_names(first.cells, csv_format.header)
    if csv_format.header and csv_format.column is None:
        csv_table.check_delimiter(path, names, delimiter)
    position = csv_table.find_column(path, names, csv_format.column, DEFAULT_TEXT_COLUMN)
    return TextColumn(position, len(names), csv_format.header)


def split_document(
    blocks: Iterable[str], part_characters: int, find_cut: FindCut = last_safe_cut
) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a document, and whether each is the last.

    If no safe cut is found within twice the size of a part, as in two million repetitions of one letter, the document
    is cut anyway, and the ids at the cut differ from the ids of the whole. BPE would take 200 bytes of memory for each
    character of such a piece.

    Args:
        blocks: The document in blocks of `part_characters` characters.
        part_characters: The approximate length of a part.
        find_cut: The vocabulary's `last_safe_cut`.
    """
    pending = ""
    has_text = False
    for block in blocks:
        pending += block
        has_text = True
        if len(pending) < part_characters:
            continue
        cut = find_cut(pending) or (len(pending) if len(pending) >= 2 * part_characters else 0)
        if cut:
            yield pending[:cut], False
            pending = pending[cut:]
    if has_text:
        yield pending, True


def slice_text(text: str, block_characters: int) -> Iterator[str]:
    """Yield a text in blocks of this length; the last one may be shorter."""
    return (text[start : start + block_characters] for start in range(0, len(text), block_characters))
