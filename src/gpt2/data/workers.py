"""Batches of text, encoded on all cores, in order, with few batches in progress."""

from __future__ import annotations

import contextlib
import functools
import queue
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from gpt2.child_processes import ChildEndedError, ChildPool, ChildProcess
from gpt2.data.documents import DocumentPart
from gpt2.errors import GPT2Error
from gpt2.text.vocabulary import Vocabulary, type_code

BATCHES_AHEAD_PER_PROCESS = 2  # batches that are read before the first of them is encoded


class EncodedBatch(NamedTuple):
    """The ids of a batch of document parts, with the end of text after each document that ends in it."""

    ids: bytes  # an array of type_code(n_vocab)
    documents: int  # number of documents that end in it
    size: int  # bytes of the files that were read for it


def pack_separator(encoder: Vocabulary) -> bytes:
    """Return the packed end-of-text id, which separates documents; empty if the vocabulary has none."""
    with contextlib.suppress(GPT2Error):
        return array(type_code(encoder.n_vocab), [encoder.end_of_text]).tobytes()
    return b""


def group_parts(parts: Iterable[DocumentPart], min_characters: int) -> Iterator[list[DocumentPart]]:
    """Yield the parts in batches of at least `min_characters`; the last batch may be shorter."""
    batch = []
    length = 0
    for part in parts:
        batch.append(part)
        length += len(part.text)
        if length >= min_characters:
            yield batch
            batch = []
            length = 0
    if batch:
        yield batch


def encode_batch(encoder: Vocabulary, batch: Sequence[DocumentPart]) -> bytes:
    """Return the packed ids of a batch, with the end of text after each document that ends in it."""
    separator = pack_separator(encoder)
    return b"".join([encoder.pack(_text(encoder, part)) + (separator if part.last else b"") for part in batch])


def _text(encoder: Vocabulary, part: DocumentPart) -> str:
    """Return a part's text; if the vocabulary encodes line ends, end a document's last line with one."""
    lacks_line_end = part.last and encoder.ends_lines and part.text and not part.text.endswith("\n")
    return f"{part.text}\n" if lacks_line_end else part.text


def encode_batches(
    batches: Iterable[list[DocumentPart]], encoder: Vocabulary, processes: int
) -> Generator[EncodedBatch, None, None]:
    """Yield the ids of batches in their order.

    Args:
        batches: The document parts.
        encoder: The vocabulary.
        processes: Number of worker processes; 1 encodes in this process.

    Raises:
        GPT2Error: A worker process ended unexpectedly.
    """
    if processes == 1:
        for batch in batches:
            yield _encoded(encode_batch(encoder, batch), batch)
        return
    in_progress: deque[Future[EncodedBatch]] = deque()
    with contextlib.closing(EncoderPool(encoder, processes)) as pool:
        for batch in batches:
            in_progress.append(pool.encode(batch))
            if len(in_progress) > BATCHES_AHEAD_PER_PROCESS * processes:
                yield in_progress.popleft().result()
        while in_progress:
            yield in_progress.popleft().result()


def _encoded(ids: bytes, batch: Sequence[DocumentPart]) -> EncodedBatch:
    return EncodedBatch(ids, sum(part.last for part in batch), sum(part.size for part in batch))


class EncoderPool(ChildPool):
    """A pool of child processes that encode, which start when they are first needed."""

    def __init__(self, encoder: Vocabulary, processes: int) -> None:
        """Create a pool without processes.

        Args:
            encoder: The vocabulary.
            processes: Maximum number of child processes.
        """
        super().__init__(functools.partial(_encode_or_explain, encoder), processes)
        self.idle: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()

    def encode(self, batch: list[DocumentPart]) -> Future[EncodedBatch]:
        """Encode a batch in the background."""
        return self.submit(self._encode, batch)

    def _encode(self, batch: list[DocumentPart]) -> EncodedBatch:
        try:
            child = self.idle.get_nowait()
        except queue.Empty:
            child = self.start()
        try:
            ids = child.call(batch)
        except ChildEndedError as error:
            raise GPT2Error(
                f"a worker process that encoded text ended with status {error.status}; if memory ran out, use fewer"
                " processes: --workers 1"
            ) from error
        self.idle.put(child)
        return _encoded(ids, batch)


def _encode_or_explain(encoder: Vocabulary, batch: Sequence[DocumentPart]) -> bytes:
    """Encode a batch in a child process; raise GPT2Error for any error."""
    try:
        return encode_batch(encoder, batch)
    except GPT2Error:
        raise
    except Exception as error:
        raise GPT2Error(f"{type(error).__name__}: {error}") from error
