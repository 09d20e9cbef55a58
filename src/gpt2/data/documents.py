"""Text files -> documents: of any size, in bounded memory.

A plain file is one document, a `.csv` one document a row (its first column), and either may be compressed (`.gz`).
How the bytes become characters: see `text_file`.

>>> list(read([Path("poem.txt")]))
[Part(text='Roses are red,\\n', last=True, size=15)]
"""

from __future__ import annotations

import contextlib
import csv
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

from gpt2.data.text_file import NUL, TextFiles
from gpt2.encoder import last_safe_cut
from gpt2.errors import GPT2Error, printable_name, summarize_names
from gpt2.files import expand_path

PART = 1 << 20  # characters
COMBINE = 50000  # characters of a chunk in an .npz, the old tools' default
ROW_LIMIT = 16 * PART  # of a row of CSV: more is a quotation mark that was not closed, or no CSV
IDS = (".npy", ".npz")  # files of ids, not of text
LastCut = Callable[[str], int]  # see Vocabulary.last_safe_cut


class CsvFormat(NamedTuple):
    """What is made of the rows of a `.csv`: whether the first one is left out, and what is put before each document."""

    header: bool = False
    start: str = ""


PLAIN_CSV = CsvFormat()


class DocumentPart(NamedTuple):
    """Text of a document; `read` gives the parts of a document one after the other."""

    text: str
    last: bool  # whether its document ends with it
    size: int  # bytes of the file that were read for it


def find_text_files(path: str) -> list[Path]:
    """The files that `path` means, sorted: a file, all in a folder and below it, or those whose names match a pattern.

    Hidden files and folders are left out; `~` and $VARIABLES are expanded; `**` in a pattern stands for any number of
    folders. What is no regular file, which may never end, is left out with a warning; so are links to folders, which
    may go in circles.

    Raises GPT2Error if there is no file, if one cannot be read, and if `path` itself is no regular file.
    """
    named = str(expand_path(path)) if path else path
    if os.path.isdir(named):
        found = _regular(Path(parent, name) for parent, names, links in _walk(named) for name in (*names, *links))
        if not found:
            raise GPT2Error(
                f"the folder {printable_name(named)} holds no files; give a file of text or a folder of such files"
            )
    elif os.path.lexists(named):
        if instead := _instead(Path(named)):
            raise GPT2Error(
                f"{printable_name(named)} is {instead}, not a regular file; give a file or a folder of files"
            )
        found = [Path(named)]
    elif not (found := _regular(Path(name) for name in _matches(named))):
        raise GPT2Error(f"{path!r} is neither a file nor a folder, nor a pattern such as 'data/*.txt' that matches one")
    if unreadable := [file for file in found if not os.access(file, os.R_OK)]:
        raise GPT2Error(f"the permission to read is missing: {summarize_names(unreadable)}; give it, or leave them out")
    return found


def _walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """A folder and each below it, with the names of its files and of its links to folders, hidden ones left out."""

    def unreadable(error: OSError) -> None:
        said = f"the folder {printable_name(error.filename)} cannot be read: {error.strerror}"
        raise GPT2Error(f"{said}; mend that, or give what is beside it by name or as 'data/*.txt'") from error

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        yield parent, [name for name in names if not name.startswith(".")], links


def _matches(pattern: str) -> Iterator[str]:
    """The files that match, as `glob.glob` has it but that `**` follows no links to folders: it gives those."""
    recursive = re.fullmatch(r"(|.*?/)\*\*(?:/+(.*)|)", pattern, re.DOTALL)
    if not recursive:
        yield from (name for name in glob.glob(pattern) if not os.path.isdir(name))
        return
    for folder in glob.glob(recursive[1]) if recursive[1] else [os.curdir]:
        for parent, _, links in _walk(folder):
            yield from (os.path.join(parent, link) for link in links)
            yield from _matches(os.path.join(glob.escape(parent), recursive[2] or "*"))


def _regular(paths: Iterable[Path]) -> list[Path]:
    """The regular files among them, sorted; one warning names the others."""
    instead = {path: _instead(path) for path in sorted(set(paths))}
    if left_out := [f"{printable_name(path)} ({what})" for path, what in instead.items() if what]:
        warnings.warn(f"left out, as no regular files: {summarize_names(left_out)}", stacklevel=3)
    return [path for path, what in instead.items() if not what]


def _instead(path: Path) -> str | None:
    """What there is instead of a regular file."""
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


def is_ids(path: Path) -> bool:
    return path.suffix.lower() in IDS


def total_size(paths: Iterable[Path]) -> int:
    """Bytes, as they are on the disk; what is gone has none, and is named when it is read."""
    size = 0
    for path in paths:
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return size


def read(
    paths: Sequence[Path], encoding: str = "utf-8", rows: CsvFormat = PLAIN_CSV, where: LastCut = last_safe_cut
) -> Iterator[DocumentPart]:
    """The documents of text files, in parts of about PART characters; what is empty gives none.

    where: the vocabulary's `last_safe_cut`; by default that of byte-level BPE. Warnings name the files in which there
    is something odd (see `TextFiles`). Raises UsageError for an unknown encoding, GPT2Error, naming the file, for one
    that is damaged or holds ids.
    """
    files = TextFiles(encoding)
    for path in paths:
        if is_ids(path):
            raise GPT2Error(f"{printable_name(path)} holds ids, not text; leave it out")
        with files.open(path) as (file, text):
            before = 0
            for document in _rows(text, rows) if _is_csv(path) else [_blocks(text)]:
                for part, last in cut(document, PART, where):
                    if "\0" in part:
                        files.notice(NUL, path)
                    at = file.tell()
                    yield DocumentPart(part, last, at - before)
                    before = at
    files.report()


def _blocks(text: io.TextIOWrapper) -> Iterator[str]:
    return iter(lambda: text.read(PART), "")


def _is_csv(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".csv")


def _rows(text: io.TextIOWrapper, asked: CsvFormat) -> Iterator[Iterable[str]]:
    """The first column, a document each, rows in which it is blank left out."""
    for first in first_column(text, asked.header):
        if first.strip():
            yield sliced(asked.start + first, PART)


def first_column(text: io.TextIOWrapper, header: bool) -> Iterator[str]:
    """Of the rows of CSV that are not empty, without the first one if that is a header; raises csv.Error."""
    csv.field_size_limit(ROW_LIMIT)  # the module's own limit is far less than a document may have
    length = 0  # of the row, so far

    def lines() -> Iterator[str]:
        nonlocal length
        while line := text.readline(ROW_LIMIT):
            length += len(line)
            if length >= ROW_LIMIT:
                raise csv.Error(f"a row of more than {ROW_LIMIT} characters: a quotation mark is not closed, or no CSV")
            yield line

    for number, row in enumerate(csv.reader(lines())):
        length = 0
        if row and (number or not header):
            yield row[0]


def cut(blocks: Iterable[str], size: int, where: LastCut = last_safe_cut) -> Iterator[tuple[str, bool]]:
    """A document in blocks of `size` characters -> its parts, of about as many, and whether each is the last.

    Where there is no such place in twice as many, such as two million times the same letter, the ids at the cut are
    others than those of the whole: BPE takes 200 bytes of memory for each character of a piece.
    """
    held, found = "", False
    for block in blocks:
        held, found = held + block, True
        if len(held) < size:
            continue
        at = where(held) or (len(held) if len(held) >= 2 * size else 0)
        if at:
            yield held[:at], False
            held = held[at:]
    if found:
        yield held, True


def sliced(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))
