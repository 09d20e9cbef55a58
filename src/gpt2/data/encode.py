"""Functions that encode text files of any size into a file of ids, on all cores and in bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from gpt2 import devices
from gpt2.data import documents, token_file
from gpt2.data.workers import EncodedBatch, encode_batches, group_parts, pack_separator
from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import ByteProgress, expand_path, no_callback
from gpt2.text.vocabulary import Vocabulary

SINGLE_PROCESS_BYTES = 8 << 20  # this process encodes this much text in the time that worker processes take to start


class EncodedFile(NamedTuple):
    """A file of ids and the number of tokens and documents in it."""

    path: Path
    tokens: int
    documents: int


def out_path(out: str) -> Path:
    """Return the path of the file of ids for `out`: `.npy` is appended unless it ends in `.npy` or `.npz`.

    Raises:
        UsageError: `out` is the name of a folder.
    """
    path = expand_path(out)
    if path.name and not documents.is_token_file(path):
        path = path.with_name(f"{path.name}.npy")
    if not path.name or out.endswith(os.sep) or path.is_dir():
        raise UsageError(f"out must be the name of a file, such as data.npy, not {out!r}")
    return path


def encode(
    in_text: str,
    out: str,
    encoder: Vocabulary,
    encoding: str = "utf-8",
    csv_format: documents.CsvFormat = documents.PLAIN_CSV,
    combine: int = documents.DEFAULT_COMBINE_CHARACTERS,
    workers: int | None = None,
    report: ByteProgress = no_callback,
) -> EncodedFile:
    """Encode text files into a file of ids: EOT d1 EOT d2 EOT ... dn EOT.

    Args:
        in_text: A file, folder or pattern, as `documents.find_text_files` takes it.
        out: The path of the file; `out_path` describes how it is completed.
        encoder: The vocabulary.
        encoding: The encoding of the text files.
        csv_format: The layout of `.csv` and `.tsv` files.
        combine: Minimum characters of a chunk in a `.npz`.
        workers: Number of processes; None for all cores if there is enough text.
        report: Called with (done, total) bytes.

    Returns:
        The path of the file, and its numbers of tokens and documents.

    Raises:
        GPT2Error: There is no text, or the file cannot be written.
        UsageError: The encoding is unknown, or `out` is not the name of a file.
    """
    path = out_path(out)
    # The folder of the text may contain the output of an earlier call. Path.resolve would raise for a loop of links.
    outputs = {os.path.realpath(path), os.path.realpath(token_file.sidecar_of(path))}
    paths = [
        file
        for file in documents.find_text_files(in_text)
        if os.path.realpath(file) not in outputs or not _is_output(file)
    ]
    documents.check_files(paths, encoding, csv_format)
    min_characters = combine if path.suffix.lower() == ".npz" else documents.PART_CHARACTERS
    encoded = encode_files(paths, encoder, encoding, csv_format, workers, report, min_characters)
    with token_file.write(path, encoder) as writer, contextlib.closing(encoded):
        for batch in encoded:
            writer.append(batch)
        if not writer.tokens:
            raise GPT2Error(f"{printable_name(in_text)} holds no text; give a file of text or a folder of such files")
    return EncodedFile(path, writer.tokens, writer.documents)


def _is_output(path: Path) -> bool:
    return documents.is_token_file(path) or token_file.is_sidecar(path)


def encode_files(
    paths: Sequence[Path],
    encoder: Vocabulary,
    encoding: str,
    csv_format: documents.CsvFormat,
    workers: int | None,
    report: ByteProgress = no_callback,
    min_characters: int = documents.PART_CHARACTERS,
) -> Generator[EncodedBatch, None, None]:
    """Yield the ids of the documents in text files, with an end of text before, between and after them.

    Args:
        paths: The files.
        encoder: The vocabulary.
        encoding: The encoding of the text files.
        csv_format: The layout of `.csv` and `.tsv` files.
        workers: Number of processes; None for all cores if there is enough text.
        report: Called with (done, total) bytes.
        min_characters: Minimum characters of a batch; the last one may be shorter. Without text, there is no batch.
    """
    size = documents.total_size(paths)
    leading = pack_separator(encoder)
    parts = group_parts(documents.read(paths, encoding, csv_format, encoder.last_safe_cut), min_characters)
    processes = workers or (devices.available_cores() if size > SINGLE_PROCESS_BYTES else 1)
    done = 0
    report(done, size)
    with contextlib.closing(encode_batches(parts, encoder, processes)) as encoded:
        for batch in encoded:
            yield batch._replace(ids=leading + batch.ids)
            leading = b""
            done += batch.size
            report(done, size)
