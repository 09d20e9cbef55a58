"""The training set in memory: text files, `.npy` and `.npz` -> one row of ids.

Every document stands between two ends of text: EOT d1 EOT d2 EOT ... dn EOT. A vocabulary without an end of text joins
the documents with nothing.
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
    rows: documents.CsvFormat = documents.PLAIN_CSV,
    workers: int | None = None,
) -> token_file.Ids:
    """A training set -> its ids [tokens], two or four bytes each; `path` is what `documents.find` takes.

    One `.npy` stays where it is; anything else is read into memory, text encoded by so many processes (all cores if it
    is worth it). Raises GPT2Error for files that are damaged, empty or of another vocabulary, UsageError for an unknown
    encoding.
    """
    paths = [found for found in documents.find_text_files(path) if not token_file.is_sidecar(found)]
    ids: token_file.Ids
    if [_kind(found) for found in paths] == [".npy"]:
        ids = token_file.read(paths[0], encoder)
    else:
        row = JoinedIds(encoder)
        for kind, group in itertools.groupby(paths, key=_kind):
            if kind == "text":
                encoded = encode_files(list(group), encoder, encoding, rows, workers)
                row.add(batch.ids for batch in encoded)
                continue
            for file in group:
                blocks = token_file.read_npz if kind == ".npz" else _blocks
                row.add(block.astype(row.type).tobytes() for block in blocks(file, encoder))
        ids = row.array()
    if not len(ids):
        raise GPT2Error(f"{printable_name(path)} holds no text; give a file of text or a folder of such files")
    return ids


class JoinedIds:
    """Ids that grow in memory, every stream of documents between two ends of text, which neighbours share."""

    def __init__(self, encoder: Vocabulary) -> None:
        self.type = type_code(encoder.n_vocab)
        self.end = pack_separator(encoder)
        self.bytes = bytearray()

    def add(self, blocks: Iterable[bytes]) -> None:
        """Appends a stream, which may have the ends of text at its own two ends or lack them."""
        self._end()
        start = len(self.bytes)
        for block in blocks:
            self.bytes += block.removeprefix(self.end) if len(self.bytes) == start else block
        self._end()

    def _end(self) -> None:
        if not self.bytes.endswith(self.end):
            self.bytes += self.end

    def array(self) -> np.ndarray:
        """The row as it is, not copied; without any id if there are no documents in it."""
        return np.frombuffer(self.bytes, self.type) if len(self.bytes) > len(self.end) else np.zeros(0, self.type)


def _kind(path: Path) -> str:
    return path.suffix.lower() if documents.is_ids(path) else "text"


def _blocks(path: Path, encoder: Vocabulary) -> Iterator[np.ndarray]:
    return token_file.read(path, encoder).blocks()
