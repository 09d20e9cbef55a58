"""The training set in memory: one row of ids from text, `.npy` and `.npz` files.

Every document has an end of text before and after it: EOT d1 EOT d2 EOT ... dn EOT. If the vocabulary has no
end-of-text token, the documents follow each other directly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from gpt2.data import documents, token_file
from gpt2.data.encode import encode_files
from gpt2.data.workers import pack_separator
from gpt2.errors import GPT2Error, printable_name
from gpt2.text.vocabulary import Vocabulary, type_code


def load(
    path: str,
    encoder: Vocabulary,
    encoding: str = "utf-8",
    csv_format: documents.CsvFormat = documents.PLAIN_CSV,
    workers: int | None = None,
) -> token_file.Ids:
    """Load a training set.

    A single `.npy` is read lazily. Everything else is loaded into memory, and text is encoded.

    Args:
        path: A file, folder or pattern, as `documents.find_text_files` takes it.
        encoder: The vocabulary.
        encoding: The encoding of the text files.
        csv_format: The layout of `.csv` and `.tsv` files.
        workers: Number of processes that encode text; None for all cores if there is enough text.

    Returns:
        Ids [tokens] of two or four bytes each.

    Raises:
        GPT2Error: A file is damaged or holds ids of another vocabulary, or there is no text.
        UsageError: The encoding is unknown.
    """
    paths = check(path, encoding, csv_format)
    ids: token_file.Ids
    if [_kind(file) for file in paths] == [".npy"]:
        ids = token_file.read(paths[0], encoder)
    else:
        joined = JoinedIds(encoder)
        for kind, group in itertools.groupby(paths, key=_kind):
            if kind == "text":
                encoded = encode_files(list(group), encoder, encoding, csv_format, workers)
                joined.add(batch.ids for batch in encoded)
                continue
            for file in group:
                blocks = token_file.read_npz if kind == ".npz" else _npy_blocks
                joined.add(block.astype(joined.type).tobytes() for block in blocks(file, encoder))
        ids = joined.array()
    if not len(ids):
        raise GPT2Error(f"{printable_name(path)} holds no text; give a file of text or a folder of such files")
    return ids


def check(path: str, encoding: str = "utf-8", csv_format: documents.CsvFormat = documents.PLAIN_CSV) -> list[Path]:
    """Return the files of a training set, after checking that each holds ids or text, before they are read as a whole.

    Args:
        path: A file, folder or pattern, as `documents.find_text_files` takes it.
        encoding: The encoding of the text files.
        csv_format: The layout of `.csv` and `.tsv` files.

    Raises:
        GPT2Error: A file is missing, or holds neither ids nor text.
        UsageError: The encoding is unknown, or the column of a table must be chosen.
    """
    paths = [file for file in documents.find_text_files(path) if not token_file.is_sidecar(file)]
    documents.check_files([file for file in paths if _kind(file) == "text"], encoding, csv_format)
    return paths


class JoinedIds:
    """Streams of documents joined in memory, with exactly one end of text between neighbors and at both ends."""

    def __init__(self, encoder: Vocabulary) -> None:
        """Start without documents."""
        self.type = type_code(encoder.n_vocab)
        self.separator = pack_separator(encoder)
        self.bytes = bytearray()

    def add(self, blocks: Iterable[bytes]) -> None:
        """Append a stream of packed ids, which may start and end with an end of text or not."""
        self._add_separator()
        start = len(self.bytes)
        for block in blocks:
            self.bytes += block.removeprefix(self.separator) if len(self.bytes) == start else block
        self._add_separator()

    def _add_separator(self) -> None:
        if not self.bytes.endswith(self.separator):
            self.bytes += self.separator

    def array(self) -> np.ndarray:
        """Return the ids [tokens] without copying them; empty if there are no documents."""
        has_documents = len(self.bytes) > len(self.separator)
        return np.frombuffer(self.bytes, self.type) if has_documents else np.zeros(0, self.type)


def _kind(path: Path) -> str:
    return path.suffix.lower() if documents.is_token_file(path) else "text"


def _npy_blocks(path: Path, encoder: Vocabulary) -> Iterator[np.ndarray]:
    return token_file.read(path, encoder).blocks()
