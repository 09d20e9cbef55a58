"""Text files -> documents: of any size, in bounded memory.

A plain file is one document, a `.csv` one document a row (its first column), and either may be compressed (`.gz`).
Bytes that are not in the expected encoding become U+FFFD, line ends become "\\n", a byte order mark is dropped.

>>> list(read([Path("poem.txt")]))
[Part(text='Roses are red,\\n', last=True, size=15)]
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import glob
import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.errors import GPT2Error
from gpt2.text.undecodable import REPLACE_AND_COUNT, count_undecodable

PART = 1 << 20  # characters
COMBINE = 50000  # characters of a chunk in an .npz, the old tools' default
ROW_LIMIT = 16 * PART  # of a row of CSV: more is a quotation mark that was not closed, or no CSV
IDS = (".npy", ".npz")  # files of ids, not of text
# Where the encoder's pattern ends a piece whatever follows, so that the parts have the ids of the whole. No piece goes
# on from other characters to white space, from a letter to what is none, nor from a digit to what is none; a piece
# that begins there looks at nothing before it, and the look-ahead of `\s+(?!\S)` never reaches over such a place.
BOUNDARY = r"(?<=\S)\s|(?<=\p{L})\P{L}|(?<=\p{N})\P{N}"


class Csv(NamedTuple):
    """What is made of the rows of a `.csv`: whether the first one is left out, and what is put before each document."""

    header: bool = False
    start: str = ""


PLAIN_CSV = Csv()


class Part(NamedTuple):
    """Text of a document; `read` gives the parts of a document one after the other."""

    text: str
    last: bool  # whether its document ends with it
    size: int  # bytes of the file that were read for it


@functools.cache
def last_boundary() -> Any:
    import regex  # the encoder's own, whose classes must be the same; it can search from the end

    return regex.compile(BOUNDARY, regex.REVERSE)


def find(path: str) -> list[Path]:
    """The files that `path` means, sorted: a file, all in a folder and below it, or those whose names match a pattern.

    Hidden files and folders are left out; `~` and $VARIABLES are expanded; `**` in a pattern stands for any number of
    folders. Raises GPT2Error if there is no file.
    """
    expanded = os.path.expanduser(os.path.expandvars(path))
    if os.path.isfile(expanded):
        return [Path(expanded)]
    if os.path.isdir(expanded):
        if not (below := _files_below(expanded)):
            raise GPT2Error(f"the folder {expanded} holds no files; give a file of text or a folder of such files")
        return sorted(below)
    matches = [Path(name) for name in glob.glob(expanded, recursive=True) if os.path.isfile(name)]
    if not matches:
        raise GPT2Error(f"{path!r} is neither a file nor a folder, nor a pattern such as 'data/*.txt' that matches one")
    return sorted(matches)


def _files_below(folder: str) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return found


def is_ids(path: Path) -> bool:
    return path.suffix.lower() in IDS


def total_size(paths: Iterable[Path]) -> int:
    """Bytes, as they are on the disk."""
    return sum(path.stat().st_size for path in paths)


def read(paths: Sequence[Path], encoding: str = "utf-8", rows: Csv = PLAIN_CSV) -> Iterator[Part]:
    """The documents of text files, in parts of about PART characters; what is empty gives none.

    One warning counts the bytes that are not in the encoding. Raises UsageError for an unknown encoding, GPT2Error,
    naming the file, for one that is damaged or holds ids.
    """
    undecodable = count_undecodable(encoding, "the text")
    for path in paths:
        if is_ids(path):
            raise GPT2Error(f"{path} holds ids, not text; leave it out")
        try:
            yield from _read_file(path, encoding, rows)
        except (OSError, EOFError, zlib.error, csv.Error, UnicodeError) as error:
            raise GPT2Error(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    undecodable.report()


def _read_file(path: Path, encoding: str, rows: Csv) -> Iterator[Part]:
    before = 0
    with path.open("rb") as file, _decoded(file, path, encoding) as text:
        blocks = iter(lambda: text.read(PART), "")
        for document in _rows(text, rows) if _is_csv(path) else [blocks]:
            for part, last in cut(document, PART):
                at = file.tell()
                yield Part(part, last, at - before)
                before = at


def _is_csv(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".csv")


@contextlib.contextmanager
def _decoded(file: IO[bytes], path: Path, encoding: str) -> Iterator[io.TextIOWrapper]:
    data: Any = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
    drops_mark = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    with data, io.TextIOWrapper(data, drops_mark, REPLACE_AND_COUNT) as text:
        yield text


def _rows(text: io.TextIOWrapper, asked: Csv) -> Iterator[Iterable[str]]:
    """The first column, a document each, rows in which it is blank left out."""
    csv.field_size_limit(ROW_LIMIT)  # the module's own limit is far less than a document may have
    rows = csv.reader(_lines(text))
    if asked.header:
        next(rows, None)
    for row in rows:
        if row and row[0].strip():
            yield sliced(asked.start + row[0], PART)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(ROW_LIMIT):
        if len(line) == ROW_LIMIT:
            raise csv.Error(f"a line of more than {ROW_LIMIT} characters is not CSV")
        yield line


def cut(blocks: Iterable[str], size: int) -> Iterator[tuple[str, bool]]:
    """A document in blocks of `size` characters -> its parts, of about as many, and whether each is the last.

    Where BPE would make one piece of more than twice as many, such as two million times the same letter, the ids at
    the cut are others than those of the whole: a piece takes 200 bytes of memory for each character.
    """
    held, found = "", False
    for block in blocks:
        held, found = held + block, True
        if len(held) < size:
            continue
        boundary = last_boundary().search(held)
        at = boundary.start() if boundary else len(held) if len(held) >= 2 * size else 0
        if at:
            yield held[:at], False
            held = held[at:]
    if found:
        yield held, True


def sliced(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))
