"""What score.py and evaluate.py have in common: which model, which texts, and where the answer goes.

stdout, or a file, gets what was found; all else goes to stderr.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from gpt2 import files
from gpt2.cli.command import print_error_line
from gpt2.devices import check_threads
from gpt2.errors import UsageError
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import find_model, load_vocabulary
from gpt2.request import check_precision
from gpt2.text.undecodable import MAX_BOM_BYTES, REPLACE_AND_COUNT, check_encoding, count_undecodable, encoding_from_bom
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:  # they need packages, which --help does not
    from gpt2.evaluation.custom_text import NamedText
    from gpt2.generate import Model

STDIN = "-"


class ModelFlags(NamedTuple):
    """The flags that say which model computes, and how."""

    model_name: str
    models_dir: str
    precision: str
    threads: int | None
    cache: bool = True


class TextFlags(NamedTuple):
    """The flags that say which text: a file or several, `-` for stdin, or the text itself; stdin if neither."""

    in_text: str | None
    text: str | None
    encoding: str
    csv_header: bool = False


def found(chosen: ModelFlags) -> tuple[ModelDir, Vocabulary]:
    """The model, whose weights are not read yet. Raises GPT2Error if it is not there, UsageError for the flags."""
    check_precision(chosen.precision)
    check_threads(chosen.threads)
    directory = find_model(chosen.model_name, chosen.models_dir)
    return directory, load_vocabulary(directory)


def loaded(directory: ModelDir, vocabulary: Vocabulary, chosen: ModelFlags) -> Model:
    """The model with its weights; says on what it computes."""
    from gpt2 import generate

    model = generate.load_weights(
        directory, vocabulary, chosen.precision, print_error_line, chosen.threads, chosen.cache
    )
    about = f"{model.backend.device} ({chosen.precision}, {model.backend.name})"
    print_error_line(f"{directory.path.name} on {about}")
    return model


def texts(source: TextFlags, vocabulary: Vocabulary) -> tuple[Iterable[NamedText], int | None]:
    """The texts, and how many bytes they have together if that is known before they are read.

    Raises GPT2Error for files that are not there, UsageError for two sources.
    """
    from gpt2.data import documents
    from gpt2.evaluation.custom_text import NamedText, read_files

    check_encoding(source.encoding)
    if source.text is not None:
        if source.in_text is not None:
            raise UsageError("give in_text or text, not both")
        return [NamedText("text", [source.text])], None
    if source.in_text in (None, STDIN):
        return _stdin(source.encoding, vocabulary.last_safe_cut), None
    paths = documents.find_text_files(source.in_text)
    plain = not any(path.suffix.lower() in (".gz", ".csv") for path in paths)
    size = documents.total_size(paths) if plain else None
    rows = documents.CsvFormat(header=source.csv_header)
    return read_files(paths, source.encoding, rows, vocabulary.last_safe_cut), size


def _stdin(encoding: str, where: Callable[[str], int]) -> Iterator[NamedText]:
    from gpt2.evaluation.custom_text import read_stream

    if sys.stdin.isatty():
        print_error_line("the text is read from the terminal; Ctrl-D ends it")
    undecodable = count_undecodable(encoding, "the standard input")
    start = sys.stdin.buffer.peek(MAX_BOM_BYTES) if isinstance(sys.stdin.buffer, io.BufferedReader) else b""
    marked = encoding_from_bom(start[:MAX_BOM_BYTES], encoding)
    yield read_stream(io.TextIOWrapper(sys.stdin.buffer, marked, REPLACE_AND_COUNT), "stdin", where)
    undecodable.report()


@contextlib.contextmanager
def output(out: str | None) -> Iterator[Callable[[str], object]]:
    """Takes text to stdout, or to a file that is there whole or not at all."""
    if out is None:
        yield sys.stdout.write
        return
    with (
        files.atomic_write(files.expand_path(out)) as file,
        io.TextIOWrapper(file, "utf-8", "replace", newline="\n") as text,
    ):
        yield text.write
