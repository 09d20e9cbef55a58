"""Conversion of a model in any supported format to a format that other programs read."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from gpt2 import files
from gpt2.errors import GPT2Error, check_choice
from gpt2.export.options import DEFAULT_OPTIONS, ExportOptions
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import load_vocabulary
from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

FORMATS = ("openai", "huggingface", "gguf", "saved_model")  # names of the modules that write them
TENSORFLOW_FORMATS = ("openai", "saved_model")  # formats whose modules need TensorFlow


class ExportFormat(Protocol):
    """The interface of a module that writes a format."""

    IS_FILE: bool  # True if the format is one file, False if it is a folder

    def check(self, hparams: HParams, vocabulary: Vocabulary, options: ExportOptions) -> None:
        """Check that the format can hold a model.

        Raises:
            GPT2Error: The model has a feature that the format does not support. The message names the feature.
            UsageError: The format does not support the options.
        """

    def write(
        self, model: ModelDir, vocabulary: Vocabulary, path: Path, options: ExportOptions, progress: ByteProgress
    ) -> None:
        """Write the file, or the files into an empty folder.

        Args:
            model: The model.
            vocabulary: Its vocabulary.
            path: The new file, or the existing empty folder.
            options: The export options.
            progress: Progress callback: called with (done, total) bytes, counted as float32.

        Raises:
            GPT2Error: A weight cannot be represented, or a file cannot be written.
            OSError: A file cannot be written.
        """

    def verify(self, model: ModelDir, vocabulary: Vocabulary, path: Path, options: ExportOptions) -> None:
        """Read the export and compare it with the model, up to the rounding error of its type.

        Raises:
            GPT2Error: The export differs from the model.
        """


def check_format(to: str) -> None:
    """Raise UsageError unless `to` is one of FORMATS."""
    check_choice("to", to, FORMATS)


def convert(
    model: ModelDir,
    target: Path,
    to: str,
    options: ExportOptions = DEFAULT_OPTIONS,
    progress: ByteProgress = no_callback,
) -> None:
    """Write a model in another format.

    The export is read and compared with the model before it gets its final name. If a step fails, no file remains.

    Args:
        model: The model.
        target: The new folder or, for gguf, the new file. Only an empty folder may exist under this name.
        to: One of FORMATS.
        options: The export options.
        progress: Progress callback: called with (done, total) bytes of read weights, counted as float32.

    Raises:
        UsageError: The format is unknown or does not support the options.
        GPT2Error: The format cannot hold the model, the model is damaged, or the export cannot be written.
    """
    check_format(to)
    vocabulary = load_vocabulary(model)
    export_format = cast(ExportFormat, importlib.import_module(f"gpt2.export.{to}"))
    export_format.check(model.hparams, vocabulary, options)
    with _new_path(target, export_format.IS_FILE) as path:
        export_format.write(model, vocabulary, path, options, progress)
        export_format.verify(model, vocabulary, path, options)


@contextlib.contextmanager
def _new_path(target: Path, is_file: bool) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `target` at the end of the block."""
    try:
        exists = target.exists() or target.is_symlink()
        if exists and is_file and target.is_dir():
            raise GPT2Error(
                f"{target} is a folder; give the name of a file in this folder, such as {target / 'model.gguf'}"
            )
        if exists and not (target.is_dir() and not any(target.iterdir())):
            raise GPT2Error(f"{target} already exists; give another name or remove it")
        temporary = files.temporary_file if is_file else files.temporary_folder
        with files.creating_folder(target.parent), temporary(target) as path:
            yield path
    except OSError as error:
        raise GPT2Error(f"{target} cannot be written: {error.strerror or error}") from error
