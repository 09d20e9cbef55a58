"""Text input of a command: files, stdin, or a text on the command line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from gpt2.cli.command import print_error_line
from gpt2.errors import UsageError
from gpt2.text.undecodable import MAX_BOM_BYTES, REPLACE_AND_COUNT, check_encoding, count_undecodable, encoding_from_bom
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:  # imports packages that --help does not need
    from gpt2.data.documents import CsvFormat
    from gpt2.evaluation.custom_text import NamedText

STDIN = "-"


class TextInput(NamedTuple):
    """The flags that choose the text to read.

    If neither files nor a text are given, or if `in_text` is "-", stdin is read.

    Attributes:
        in_text: The path of a file or folder, or a pattern of paths.
        text: The text itself, instead of files.
        encoding: The encoding of files and stdin.
        csv_format: The layout of .csv and .tsv files.
    """

    in_text: str | None
    text: str | None
    encoding: str
    csv_format: CsvFormat

    @property
    def is_given(self) -> bool:
        """Return whether files or a text are given."""
        return self.in_text is not None or self.text is not None

    def open(self, vocabulary: Vocabulary) -> tuple[Iterable[NamedText], int | None]:
        """Return the texts, and their total size in bytes if it is known before they are read.

        Raises:
            GPT2Error: A file is missing.
            UsageError: Both files and a text are given.
        """
        from gpt2.data import documents
        from gpt2.data.csv_table import table_delimiter
        from gpt2.evaluation.custom_text import NamedText, read_files

        check_encoding(self.encoding)
        if self.text is not None:
            if self.in_text is not None:
                raise UsageError("give in_text or text, not both")
            return [NamedText("text", [self.text])], None
        if self.in_text in (None, STDIN):
            return _read_stdin(self.encoding, vocabulary.last_safe_cut), None
        paths = documents.find_text_files(self.in_text)
        documents.check_files(paths, self.encoding, self.csv_format)
        is_plain = not any(path.suffix.lower() == ".gz" or table_delimiter(path) for path in paths)
        size = documents.total_size(paths) if is_plain else None
        return read_files(paths, self.encoding, self.csv_format, vocabulary.last_safe_cut), size


def _read_stdin(encoding: str, last_safe_cut: Callable[[str], int]) -> Iterator[NamedText]:
    from gpt2.evaluation.custom_text import read_stream

    if sys.stdin.isatty():
        print_error_line("the text is read from the terminal; Ctrl-D ends it")
    undecodable = count_undecodable(encoding, "the standard input")
    start = sys.stdin.buffer.peek(MAX_BOM_BYTES) if isinstance(sys.stdin.buffer, io.BufferedReader) else b""
    actual_encoding = encoding_from_bom(start[:MAX_BOM_BYTES], encoding)
    stream = io.TextIOWrapper(sys.stdin.buffer, actual_encoding, REPLACE_AND_COUNT)
    try:
        yield read_stream(stream, "stdin", last_safe_cut)
    finally:  # also if only the first characters are requested
        undecodable.report()
