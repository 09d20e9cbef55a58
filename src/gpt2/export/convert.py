"""A model of any format that is read here -> one of those that others read."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from gpt2 import files
from gpt2.errors import GPT2Error, UsageError
from gpt2.export.options import DEFAULT_OPTIONS, ExportOptions
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import load_vocabulary
from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

FORMATS = ("openai", "huggingface", "gguf", "saved_model")  # and the modules that write them
TENSORFLOW_FORMATS = ("openai", "saved_model")


class ExportFormat(Protocol):
    """What such a module has."""

    IS_FILE: bool  # whether it writes one file, not a folder

    def check(self, hparams: HParams, vocabulary: Vocabulary, chosen: ExportOptions) -> None:
        """Raises GPT2Error, naming it, for what the format cannot hold, and UsageError for options."""

    def write(
        self, model: ModelDir, vocabulary: Vocabulary, path: Path, chosen: ExportOptions, report: ByteProgress
    ) -> None:
        """Writes the file, or into the empty folder. Raises GPT2Error and OSError."""

    def verify(self, model: ModelDir, vocabulary: Vocabulary, path: Path, chosen: ExportOptions) -> None:
        """Reads what was written. Raises GPT2Error unless it is the model, to the rounding of its numbers."""


def check_format(to: str) -> None:
    """Raises UsageError unless it is one of FORMATS."""
    if to not in FORMATS:
        raise UsageError(f"to must be one of {', '.join(FORMATS)}, not {to!r}")


def convert(
    model: ModelDir, target: Path, to: str, chosen: ExportOptions = DEFAULT_OPTIONS, report: ByteProgress = no_callback
) -> None:
    """Writes the model to `target`, a folder or, for gguf, a file; nothing may be there but an empty folder.

    It is read back and compared with the model before it gets this name; if anything fails, nothing is left. report:
    told how many bytes of the weights, as float32, have been read of how many. Raises UsageError for an unknown format
    and for options that it does not have, GPT2Error for a model that it cannot hold, one that is damaged, and for what
    cannot be written.
    """
    check_format(to)
    vocabulary = load_vocabulary(model)
    writer = cast(ExportFormat, importlib.import_module(f"gpt2.export.{to}"))
    writer.check(model.hparams, vocabulary, chosen)
    with _new(target, writer.IS_FILE) as part:
        writer.write(model, vocabulary, part, chosen, report)
        writer.verify(model, vocabulary, part, chosen)


@contextlib.contextmanager
def _new(target: Path, is_file: bool) -> Iterator[Path]:
    """A path to write to, which becomes `target`. Raises GPT2Error if there is something of that name."""
    try:
        there = target.exists() or target.is_symlink()
        if there and is_file and target.is_dir():
            raise GPT2Error(f"{target} is a folder; give the name of a file in it, such as {target / 'model.gguf'}")
        if there and not (target.is_dir() and not any(target.iterdir())):
            raise GPT2Error(f"{target} is there already; give another name, or remove it")
        aside = files.temporary_file if is_file else files.temporary_folder
        with files.creating_folder(target.parent), aside(target) as part:
            yield part
    except OSError as error:
        raise GPT2Error(f"{target} cannot be written: {error.strerror or error}") from error
