"""Worker processes that encode batches of text on all cores, in order, with few batches in progress.

The workers are plain child processes. Workers of multiprocessing would import the main module again, including
TensorFlow, and would run a program without `if __name__ == "__main__"` twice. A fork after TensorFlow is loaded may
hang.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import signal
import subprocess
import sys
import threading
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from gpt2.data.documents import DocumentPart
from gpt2.errors import GPT2Error
from gpt2.package_conflict import WITHOUT_WARNING
from gpt2.text.vocabulary import Vocabulary, type_code

WORKER_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from gpt2.data.workers import run_worker; run_worker()"
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
            in_progress.append(pool.submit(batch))
            if len(in_progress) > BATCHES_AHEAD_PER_PROCESS * processes:
                yield in_progress.popleft().result()
        while in_progress:
            yield in_progress.popleft().result()


def _encoded(ids: bytes, batch: Sequence[DocumentPart]) -> EncodedBatch:
    return EncodedBatch(ids, sum(part.last for part in batch), sum(part.size for part in batch))


class EncoderPool:
    """A pool of worker processes, which start when they are first needed.

    A thread of this process serves each worker.

    Args:
        encoder: The vocabulary.
        processes: Maximum number of worker processes.
    """

    def __init__(self, encoder: Vocabulary, processes: int) -> None:
        """Create a pool without processes."""
        self.encoder = pickle.dumps(encoder)
        self.threads = ThreadPoolExecutor(processes)
        self.idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self.started: list[subprocess.Popen[bytes]] = []
        self.lock = threading.Lock()
        self.closed = False

    def submit(self, batch: list[DocumentPart]) -> Future[EncodedBatch]:
        """Encode a batch in the background."""
        return self.threads.submit(self._encode, batch)

    def close(self) -> None:
        """Kill the processes and wait for their end; batches in progress fail."""
        with self.lock:
            self.closed = True
        for process in self.started:
            process.kill()
        self.threads.shutdown(cancel_futures=True)
        for process in self.started:
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    _pipe(stream).close()
            process.wait()

    def _encode(self, batch: list[DocumentPart]) -> EncodedBatch:
        try:
            process = self.idle.get_nowait()
        except queue.Empty:
            process = self._start()
        ids = _request(process, pickle.dumps(batch))
        self.idle.put(process)
        return _encoded(ids, batch)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.lock:
            if self.closed:
                raise GPT2Error("the pool of worker processes is closed")
            # In a new session the worker does not receive Ctrl-C; this process ends it.
            process = subprocess.Popen(
                [sys.executable, *WITHOUT_WARNING, "-c", WORKER_PROGRAM, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self.started.append(process)
        _send(process, self.encoder)
        return process


def _pipe(stream: Any) -> Any:
    assert stream is not None, "stdin and stdout of a worker are pipes"
    return stream


def _send(process: subprocess.Popen[bytes], message: bytes) -> None:
    stdin = _pipe(process.stdin)
    try:
        stdin.write(message)
        stdin.flush()
    except OSError as error:
        raise _ended_error(process) from error


def _request(process: subprocess.Popen[bytes], message: bytes) -> bytes:
    """Send a pickled batch to a worker and return the packed ids.

    Raises:
        GPT2Error: The worker failed.
    """
    _send(process, message)
    try:
        answer = pickle.load(_pipe(process.stdout))
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        raise _ended_error(process) from error
    if isinstance(answer, str):
        raise GPT2Error(answer)
    return answer


def _ended_error(process: subprocess.Popen[bytes]) -> GPT2Error:
    process.kill()  # it is still running if something else wrote to its stdout
    status = process.wait()
    return GPT2Error(
        f"a worker process that encoded text ended with status {status}; if memory ran out, use fewer processes:"
        " --workers 1"
    )


def run_worker() -> None:
    """Run a worker process, which reads an encoder and batches from stdin and writes ids or errors to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    encoder = pickle.load(sys.stdin.buffer)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            batch = pickle.load(sys.stdin.buffer)
            answer: bytes | str
            try:
                answer = encode_batch(encoder, batch)
            except Exception as error:
                answer = str(error) if isinstance(error, GPT2Error) else f"{type(error).__name__}: {error}"
            pickle.dump(answer, sys.stdout.buffer)
            sys.stdout.flush()
