"""Text -> ids on all cores: child processes that encode, in order and with a bounded number of batches under way.

They are plain processes rather than multiprocessing's: those import the main module again, TensorFlow with it, and run
a program that has no `if __name__ == "__main__"` once more; and a fork after TensorFlow was loaded may hang.
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
from gpt2.text.vocabulary import Vocabulary, type_code

START = "import sys; sys.path[:] = sys.argv[1:]; from gpt2.data.workers import serve; serve()"
AHEAD = 2  # batches per process that are read before the first of them is encoded


class Encoded(NamedTuple):
    """A batch of parts as ids, the end of text after each document that ends in it."""

    ids: bytes  # of type_code(n_vocab)
    documents: int  # how many end in it
    size: int  # bytes of the files that were read for it


def pack_separator(encoder: Vocabulary) -> bytes:
    """What stands between documents, packed: the end of text, and nothing if the vocabulary has none."""
    with contextlib.suppress(GPT2Error):
        return array(type_code(encoder.n_vocab), [encoder.end_of_text]).tobytes()
    return b""


def batches(parts: Iterable[DocumentPart], characters: int) -> Iterator[list[DocumentPart]]:
    """Parts together, of at least so many characters but the last batch."""
    batch, length = [], 0
    for part in parts:
        batch.append(part)
        length += len(part.text)
        if length >= characters:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def encode_batch(encoder: Vocabulary, batch: Sequence[DocumentPart]) -> bytes:
    end = pack_separator(encoder)
    return b"".join([encoder.pack(_text(encoder, part)) + (end if part.last else b"") for part in batch])


def _text(encoder: Vocabulary, part: DocumentPart) -> str:
    """Its text; a document's last line may need an end, which files often leave out."""
    lacks = part.last and encoder.ends_lines and part.text and not part.text.endswith("\n")
    return f"{part.text}\n" if lacks else part.text


def encode_batches(
    batches: Iterable[list[DocumentPart]], encoder: Vocabulary, processes: int
) -> Generator[Encoded, None, None]:
    """Batches -> their ids in the same order, encoded by so many processes; by this one if it is 1.

    Raises GPT2Error if a process ends unexpectedly.
    """
    if processes == 1:
        for batch in batches:
            yield _encoded(encode_batch(encoder, batch), batch)
        return
    under_way: deque[Future[Encoded]] = deque()
    with contextlib.closing(Pool(encoder, processes)) as pool:
        for batch in batches:
            under_way.append(pool.submit(batch))
            if len(under_way) > AHEAD * processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _encoded(ids: bytes, batch: Sequence[DocumentPart]) -> Encoded:
    return Encoded(ids, sum(part.last for part in batch), sum(part.size for part in batch))


class Pool:
    """Processes, each served by a thread of this one and started when it is first needed."""

    def __init__(self, encoder: Vocabulary, processes: int) -> None:
        self.encoder = pickle.dumps(encoder)
        self.threads = ThreadPoolExecutor(processes)
        self.idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self.started: list[subprocess.Popen[bytes]] = []
        self.lock, self.closed = threading.Lock(), False

    def submit(self, batch: list[DocumentPart]) -> Future[Encoded]:
        return self.threads.submit(self._encode, batch)

    def close(self) -> None:
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

    def _encode(self, batch: list[DocumentPart]) -> Encoded:
        try:
            process = self.idle.get_nowait()
        except queue.Empty:
            process = self._start()
        answer = _ask(process, pickle.dumps(batch))
        self.idle.put(process)
        return _encoded(answer, batch)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.lock:
            if self.closed:
                raise GPT2Error("no more text is encoded")
            # In a session of its own, Ctrl-C does not reach it: this process sees to its end.
            process = subprocess.Popen(
                [sys.executable, "-c", START, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self.started.append(process)
        _send(process, self.encoder)
        return process


def _pipe(stream: Any) -> Any:
    assert stream is not None, "both are pipes"
    return stream


def _send(process: subprocess.Popen[bytes], message: bytes) -> None:
    stdin = _pipe(process.stdin)
    try:
        stdin.write(message)
        stdin.flush()
    except OSError as error:
        raise _ended(process) from error


def _ask(process: subprocess.Popen[bytes], message: bytes) -> bytes:
    _send(process, message)
    try:
        answer = pickle.load(_pipe(process.stdout))
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        raise _ended(process) from error
    if isinstance(answer, str):
        raise GPT2Error(answer)
    return answer


def _ended(process: subprocess.Popen[bytes]) -> GPT2Error:
    process.kill()  # it may not have ended, if something else wrote to its stdout
    return GPT2Error(
        f"a process that encoded text ended with status {process.wait()}; if memory was short, use fewer: --workers 1"
    )


def serve() -> None:
    """What a worker does: an encoder from stdin, then batches of parts; their ids, or what failed, to stdout."""
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
