"""A reader of text files, compressed or not, which detects byte-order marks."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gpt2.errors import GPT2Error, printable_name, summarize_names
from gpt2.text.undecodable import MAX_BOM_BYTES, REPLACE_AND_COUNT, count_undecodable, encoding_from_bom

# Remarks, each followed by the names of its files.
NUL_REMARK = "NUL characters, as in binary files, or in UTF-16 without a byte-order mark (set its encoding)"
BYTE_ORDER_MARK_REMARK = "read as {}, as the byte-order mark says"


class TextFileReader:
    r"""A reader that opens text files one after the other, and collects remarks about them for one warning each.

    Bytes that are not in the encoding become U+FFFD, line ends become "\n", and a byte-order mark is dropped.

    Args:
        encoding: Name of an encoding that Python knows.

    Raises:
        UsageError: The encoding is unknown.
    """

    def __init__(self, encoding: str) -> None:
        """Start without remarks."""
        self.encoding = encoding
        self.undecodable = count_undecodable(encoding, "the text")
        self.remarks: dict[str, dict[str, None]] = {}  # remark -> the names of its files, in order

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[tuple[IO[bytes], io.TextIOWrapper]]:
        """Open a file.

        Yields:
            The binary file on the disk, whose position shows the progress, and its decoded text.

        Raises:
            GPT2Error: Reading in the block failed. The message names the file.
        """
        self.undecodable.text_name = printable_name(path)
        with open_decompressed(path) as (file, data):
            encoding = encoding_from_bom(data.read(MAX_BOM_BYTES), self.encoding)
            data.seek(0)
            if encoding in ("utf-16", "utf-32") and encoding != self.encoding:
                self.notice(BYTE_ORDER_MARK_REMARK.format(encoding), path)
            self.undecodable.encoding = "utf-8" if encoding == "utf-8-sig" else encoding
            with io.TextIOWrapper(data, encoding, REPLACE_AND_COUNT) as text:
                yield file, text

    def notice(self, remark: str, path: Path) -> None:
        """Add a file to a remark."""
        self.remarks.setdefault(remark, {})[printable_name(path)] = None

    def report(self) -> None:
        """Give one warning for each remark, with the names of its files, and clear the remarks."""
        self.undecodable.report()
        for remark, names in self.remarks.items():
            warnings.warn(f"{remark}: {summarize_names(names)}", stacklevel=2)
        self.remarks.clear()


@contextlib.contextmanager
def open_decompressed(path: Path) -> Iterator[tuple[IO[bytes], Any]]:
    """Open a file that is compressed if its name ends in `.gz`.

    Yields:
        The file on the disk, and the file with its decompressed content.

    Raises:
        GPT2Error: Reading in the block failed. The message names the file.
    """
    try:
        with path.open("rb") as file, _decompress(file, path) as data:
            yield file, data
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GPT2Error(f"{printable_name(path)} cannot be read: {reason}") from error


def _decompress(file: IO[bytes], path: Path) -> Any:
    return gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
