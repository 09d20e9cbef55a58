"""Where the texts of one model are written: a thread that takes jobs in the order in which they came.

Jobs that run together are written together, step by step, and no text depends on the others (engine/batch.py). Whoever
brings a job is told its pieces as they come, by a function that the thread calls.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error
from gpt2.generate import Model, TextBatch, TextChunk
from gpt2.server.defaults import ROWS, WAITING

log = logging.getLogger(__name__)
# Seconds, at least, from one telling to the next: nobody reads faster, and for each the event loop, and a client on the
# same machine, take a core from the step that is being computed.
TELLING = 0.05
# Seconds that the event loop and a client get to pass on the first of a text before the next step takes all cores: it
# would wait two or three times as long for one of them (BENCHMARKS.md, at the figures of Tab).
BREATH = 0.001


class Busy(GPT2Error):
    """So many jobs wait that no more are taken."""


class Closed(GPT2Error):
    """The server is being stopped."""


class Failed(GPT2Error):
    """A text could not be written to its end."""


class JobUpdate(NamedTuple):
    """What a job hears after a step: pieces, whose `request` is a text's place in the job; or why it has ended."""

    pieces: list[TextChunk]
    error: GPT2Error | None = None


class Job:
    """Texts that were asked for together; `left` of them have not ended. at_once: whether all is told at the end."""

    def __init__(self, texts: Sequence[TokenSequence], tell: Callable[[JobUpdate], object], at_once: bool) -> None:
        self.waiting = collections.deque(enumerate(texts))
        self.tell, self.at_once = tell, at_once
        self.pieces: list[TextChunk] = []  # that have not been told
        self.told = -TELLING  # when something was, last
        self.left = len(texts)
        self.cancelled = False


class Scheduler:
    """rows: texts that are written at a time. waiting: jobs that may wait, besides those that have begun."""

    def __init__(self, model: Model, rows: int = ROWS, waiting: int = WAITING) -> None:
        self.model, self.rows, self.most_waiting = model, rows, waiting
        self.changed = threading.Condition()
        self.jobs: list[Job] = []  # in the order in which they came, those that are being written first
        self.places: dict[int, tuple[Job, int]] = {}  # of the writer's texts
        self.closing = False
        self.thread = threading.Thread(target=self._work, name="desk", daemon=True)

    def start(self) -> None:
        self.thread.start()

    @property
    def writing(self) -> int:
        """Texts that are being written."""
        return len(self.places)

    @property
    def queued(self) -> int:
        """Texts that wait for a place."""
        with self.changed:
            return sum(len(job.waiting) for job in self.jobs)

    def submit(self, texts: Sequence[TokenSequence], tell: Callable[[JobUpdate], object], at_once: bool = False) -> Job:
        """Takes a job; `tell` is called from the desk's thread until no text is left or an error came.

        Raises Busy, and Closed.
        """
        job = Job(texts, tell, at_once)
        with self.changed:
            if self.closing:
                raise Closed("the server is being stopped; ask again later, or another one")
            waiting = sum(bool(other.waiting) for other in self.jobs)
            if waiting >= self.most_waiting and (waiting or self.writing >= self.rows):
                raise Busy(f"{waiting} requests are waiting already; ask again in a moment")
            self.jobs.append(job)
            self.changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Its texts are no longer wanted; nothing more is told of them."""
        with self.changed:
            job.cancelled = True
            self.changed.notify()

    def close(self, patience: float) -> bool:
        """Takes no more jobs; returns whether those that were there ended within so many seconds."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join(patience)
        return not self.thread.is_alive()

    def _work(self) -> None:
        while not self._is_done():
            try:
                with TextBatch(self.model) as writer:
                    while self._wait():
                        self._take(writer)
                        self._tell(writer.step())
            except Exception as error:  # what is being written is lost; the next job finds a new writer
                log.exception("what was being written is lost")
                self._fail(error)

    def _is_done(self) -> bool:
        with self.changed:
            return self.closing and not self.jobs

    def _wait(self) -> bool:
        """Until there is something to do; returns whether there is."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.closing)
            return bool(self.jobs)

    def _take(self, writer: TextBatch) -> None:
        """Lets those go who are not wanted any more, and begins texts as long as there are places and memory."""
        with self.changed:
            unwanted = [number for number, (job, _) in self.places.items() if job.cancelled]
            self.jobs = [job for job in self.jobs if not job.cancelled]
            waiting = [job for job in self.jobs if job.waiting]
        for number in unwanted:
            del self.places[number]
            writer.remove(number)
        for job in waiting:
            while job.waiting and len(writer) < self.rows and writer.has_room(job.waiting[0][1]):
                place, text = job.waiting.popleft()
                try:
                    self.places[writer.add(text)] = job, place
                except GPT2Error as error:
                    self._refuse(job, error)
            if job.waiting:
                return  # who comes later does not pass

    def _refuse(self, job: Job, error: GPT2Error) -> None:
        with self.changed:
            self.jobs.remove(job)
            job.waiting.clear()
            job.cancelled = True
        job.tell(JobUpdate([], Failed(str(error))))

    def _tell(self, pieces: Sequence[TextChunk]) -> None:
        heard = set()
        for piece in pieces:
            job, place = self.places[piece.request]
            job.pieces.append(piece._replace(request=place))
            heard.add(job)
            if piece.finish_reason:
                del self.places[piece.request]
                job.left -= 1
        with self.changed:
            self.jobs = [job for job in self.jobs if job.left]
        now, has_begun = time.monotonic(), False
        for job in heard:
            if not job.left or not (job.at_once or now < job.told + TELLING):
                has_begun |= job.told < 0 < job.left
                told, job.pieces, job.told = job.pieces, [], now
                job.tell(JobUpdate(told))
        if has_begun:
            time.sleep(BREATH)

    def _fail(self, error: Exception) -> None:
        """Ends the jobs of which something was being written."""
        with self.changed:
            lost = [job for job in self.jobs if len(job.waiting) < job.left]
            self.places.clear()
            self.jobs = [job for job in self.jobs if job not in lost]
        why = "there is not enough memory for it" if isinstance(error, MemoryError) else "something went wrong"
        for job in lost:
            job.tell(JobUpdate([], Failed(f"the text could not be written: {why}")))
