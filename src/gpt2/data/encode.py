"""Text files -> a file of ids, on all cores and in bounded memory whatever their size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from gpt2 import devices
from gpt2.data import documents, token_file
from gpt2.data.workers import Encoded, batches, encode_batches, pack_separator
from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import ByteProgress, expand_path, no_callback
from gpt2.text.vocabulary import Vocabulary

SMALL = 8 << 20  # bytes of text that this process encodes in the time in which others start


class Written(NamedTuple):
    """What a file of ids holds."""

    path: Path
    tokens: int
    documents: int


def out_path(out: str) -> Path:
    """The name of the file of ids that is written for `out`: `.npy` is appended if it is neither that nor `.npz`.

    Raises UsageError if it is the name of a folder.
    """
    path = expand_path(out)
    if path.name and not documents.is_ids(path):
        path = path.with_name(f"{path.name}.npy")
    if not path.name or out.endswith(os.sep) or path.is_dir():
        raise UsageError(f"out must be the name of a file, such as data.npy, not {out!r}")
    return path


def encode(
    in_text: str,
    out: str,
    encoder: Vocabulary,
    encoding: str = "utf-8",
    rows: documents.CsvFormat = documents.PLAIN_CSV,
    combine: int = documents.COMBINE,
    workers: int | None = None,
    report: ByteProgress = no_callback,
) -> Written:
    """Encodes the text files that `in_text` means (see `documents.find`) into the file `out_path(out)`.

    The ids are EOT d1 EOT d2 EOT ... dn EOT; in a `.npz`, in chunks of at least `combine` characters. workers: so many
    processes; all cores, if it is worth it, if None. report: told how many bytes of how many are encoded.

    Raises GPT2Error if there is no text or the file cannot be written, UsageError for an unknown encoding and if `out`
    is no file's name.
    """
    path = out_path(out)
    # A folder may hold what was made of it before. Of links that lead in a circle, Path.resolve would raise.
    own = {os.path.realpath(path), os.path.realpath(token_file.sidecar_of(path))}
    paths = [
        file
        for file in documents.find_text_files(in_text)
        if os.path.realpath(file) not in own or not _is_written(file)
    ]
    at_least = combine if path.suffix.lower() == ".npz" else documents.PART
    encoded = encode_files(paths, encoder, encoding, rows, workers, report, at_least)
    with token_file.write(path, encoder) as writer, contextlib.closing(encoded):
        for batch in encoded:
            writer.append(batch)
        if not writer.tokens:
            raise GPT2Error(f"{printable_name(in_text)} holds no text; give a file of text or a folder of such files")
    return Written(path, writer.tokens, writer.documents)


def _is_written(path: Path) -> bool:
    return documents.is_ids(path) or token_file.is_sidecar(path)


def encode_files(
    paths: Sequence[Path],
    encoder: Vocabulary,
    encoding: str,
    rows: documents.CsvFormat,
    workers: int | None,
    report: ByteProgress = no_callback,
    at_least: int = documents.PART,
) -> Generator[Encoded, None, None]:
    """Text files -> the ids of their documents, an end of text before, between and after them.

    A batch is of at least so many characters but the last; there is none if there is no text.
    """
    size = documents.total_size(paths)
    start = pack_separator(encoder)
    parts = batches(documents.read(paths, encoding, rows, encoder.last_safe_cut), at_least)
    processes = workers or (devices.available_cores() if size > SMALL else 1)
    done = 0
    report(done, size)
    with contextlib.closing(encode_batches(parts, encoder, processes)) as encoded:
        for batch in encoded:
            yield batch._replace(ids=start + batch.ids)
            start = b""
            done += batch.size
            report(done, size)
