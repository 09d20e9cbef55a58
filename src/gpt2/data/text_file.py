"""Files of text, opened: compressed or not, in the encoding that is given or that their byte-order mark says."""

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

NUL = "NUL characters, as in UTF-16 without a byte-order mark, whose encoding must be given, or in what is no text"
MARKED = "read as {}, as the byte-order mark says"


class TextFiles:
    """Opens files of text one after the other, and says in one warning each what it noticed in which of them.

    Bytes that are not in the encoding become U+FFFD, line ends become "\\n", a byte-order mark is dropped. Raises
    UsageError for an unknown encoding.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.undecodable = count_undecodable(encoding, "the text")
        self.noticed: dict[str, dict[str, None]] = {}  # the files of each remark, in their order

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[tuple[IO[bytes], io.TextIOWrapper]]:
        """The file as it is on the disk, whose position says how much is read, and its text.

        Raises GPT2Error, naming the file, if it is damaged, whatever is read from it in the block.
        """
        self.undecodable.text_name = printable_name(path)
        try:
            with path.open("rb") as file, _uncompressed(file, path) as data:
                encoding = encoding_from_bom(data.read(MAX_BOM_BYTES), self.encoding)
                data.seek(0)
                if encoding in ("utf-16", "utf-32") and encoding != self.encoding:
                    self.notice(MARKED.format(encoding), path)
                self.undecodable.encoding = "utf-8" if encoding == "utf-8-sig" else encoding
                with io.TextIOWrapper(data, encoding, REPLACE_AND_COUNT) as text:
                    yield file, text
        except (OSError, EOFError, zlib.error, csv.Error, UnicodeError) as error:
            raise GPT2Error(
                f"{printable_name(path)} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error

    def notice(self, remark: str, path: Path) -> None:
        self.noticed.setdefault(remark, {})[printable_name(path)] = None

    def report(self) -> None:
        self.undecodable.report()
        for remark, names in self.noticed.items():
            warnings.warn(f"{remark}: {summarize_names(names)}", stacklevel=2)
        self.noticed.clear()


def _uncompressed(file: IO[bytes], path: Path) -> Any:
    return gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
