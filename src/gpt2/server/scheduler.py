"""The scheduler of one model: a thread that generates the texts of all jobs, in the order in which they arrive.

Texts of several jobs are generated together, step by step, and no text depends on the others (`engine.batch`). The
thread calls a function of each job with the job's updates.
"""

from __future__ import annotations

import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error
from gpt2.server.defaults import BATCH_SIZE, QUEUE_SIZE
from gpt2.text_batch import Model, TextBatch, TextChunk

log = logging.getLogger(__name__)
# Minimum time between two updates of a job. People do not read faster. Each update also takes a core from the running
# step, for the event loop and a client on the same machine.
UPDATE_INTERVAL_SECONDS = 0.05
# Pause after a job's first update, in which the event loop and the client pass on the start of the text. The next step
# takes all cores, and without a pause they would wait two or three times as long for one (BENCHMARKS.md, the figures of
# Tab).
FIRST_UPDATE_PAUSE_SECONDS = 0.001


class QueueFullError(GPT2Error):
    """The error of a job that is rejected because the queue is full."""


class ShutdownError(GPT2Error):
    """The error of a job that is rejected because the scheduler is shutting down."""


class GenerationError(GPT2Error):
    """The error of a text whose generation failed."""


class JobUpdate(NamedTuple):
    """An update about a job.

    Attributes:
        chunks: New chunks of its texts; a chunk's `request` is the text's index in the job.
        error: Reason for the failure of the job, in its last update.
    """

    chunks: list[TextChunk]
    error: GPT2Error | None = None


class GenerationJob:
    """Texts that were requested together.

    Attributes:
        waiting: The sequences that have not joined the batch yet, with their indices in the job.
        notify: Called with each update.
        at_once: Whether there is a single update, at the end.
        chunks: The chunks for the next update.
        last_update: Time of the last update, by `time.monotonic`; -inf before the first one.
        n_unfinished: Number of texts that have not ended.
        is_cancelled: Whether the texts are no longer needed.
    """

    def __init__(
        self, sequences: Sequence[TokenSequence], notify: Callable[[JobUpdate], object], at_once: bool
    ) -> None:
        """Create a job whose texts all wait."""
        self.waiting = collections.deque(enumerate(sequences))
        self.notify = notify
        self.at_once = at_once
        self.chunks: list[TextChunk] = []
        self.last_update = -math.inf
        self.n_unfinished = len(sequences)
        self.is_cancelled = False


class Scheduler:
    """A thread that generates the texts of jobs.

    Attributes:
        model: The model that generates.
        jobs: The unfinished jobs in the order of their arrival, guarded by `changed`.
        running: For each text in the batch, by its number there, its job and its index in the job.
    """

    def __init__(self, model: Model, batch_size: int = BATCH_SIZE, queue_size: int = QUEUE_SIZE) -> None:
        """Create a scheduler, which has to be started.

        Args:
            model: The model that generates.
            batch_size: Number of texts that are generated at the same time.
            queue_size: Number of jobs that may wait in addition to the started ones.
        """
        self.model = model
        self.batch_size = batch_size
        self.queue_size = queue_size
        self.changed = threading.Condition()
        self.jobs: list[GenerationJob] = []
        self.running: dict[int, tuple[GenerationJob, int]] = {}
        self.is_closing = False
        self.thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    @property
    def n_running(self) -> int:
        """The number of texts that are being generated."""
        return len(self.running)

    @property
    def n_queued(self) -> int:
        """The number of waiting texts."""
        with self.changed:
            return sum(len(job.waiting) for job in self.jobs if not job.is_cancelled)

    def submit(
        self, sequences: Sequence[TokenSequence], notify: Callable[[JobUpdate], object], at_once: bool = False
    ) -> GenerationJob:
        """Accept a job.

        Args:
            sequences: The sequences to generate, made by `prepare`.
            notify: Called from the scheduler's thread with each update, until all texts have ended or an error occurs.
            at_once: Whether there is a single update, when all texts have ended.

        Returns:
            The job, for `cancel`.

        Raises:
            QueueFullError: Too many jobs are waiting.
            ShutdownError: The scheduler has been closed.
        """
        job = GenerationJob(sequences, notify, at_once)
        with self.changed:
            if self.is_closing:
                raise ShutdownError("the server is shutting down; try again later, or use another server")
            n_waiting = sum(bool(other.waiting) for other in self.jobs if not other.is_cancelled)
            if n_waiting >= self.queue_size and (n_waiting or self.n_running >= self.batch_size):
                raise QueueFullError(f"{n_waiting} requests are already waiting; try again in a moment")
            self.jobs.append(job)
            self.changed.notify()
        return job

    def cancel(self, job: GenerationJob) -> None:
        """Stop a job, which gets no more updates."""
        with self.changed:
            job.is_cancelled = True
            self.changed.notify()

    def close(self, timeout: float) -> bool:
        """Accept no more jobs, and wait for the unfinished ones.

        Args:
            timeout: Maximum time to wait, in seconds.

        Returns:
            Whether all jobs have ended in time.
        """
        with self.changed:
            self.is_closing = True
            self.changed.notify()
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def _run(self) -> None:
        while not self._is_done():
            try:
                with TextBatch(self.model) as batch:
                    while self._wait_for_jobs():
                        self._remove_cancelled(batch)
                        self._fill(batch)
                        self._send_updates(batch.step())
            except Exception as error:  # the running texts are lost; the next jobs get a new batch
                log.exception("the running texts are lost")
                self._fail_started_jobs(error)

    def _is_done(self) -> bool:
        with self.changed:
            return self.is_closing and not self.jobs

    def _wait_for_jobs(self) -> bool:
        """Wait until there are jobs or the scheduler is closing, and return whether there are jobs."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.is_closing)
            return bool(self.jobs)

    def _remove_cancelled(self, batch: TextBatch) -> None:
        with self.changed:
            cancelled = [number for number, (job, _) in self.running.items() if job.is_cancelled]
            self.jobs = [job for job in self.jobs if not job.is_cancelled]
        for number in cancelled:
            del self.running[number]
            batch.remove(number)

    def _fill(self, batch: TextBatch) -> None:
        """Start waiting texts, in their order, while the batch has memory and free slots."""
        with self.changed:
            jobs = [job for job in self.jobs if job.waiting]
        for job in jobs:
            while job.waiting and len(batch.texts) < self.batch_size and batch.can_start(job.waiting[0][1]):
                index, sequence = job.waiting.popleft()
                try:
                    self.running[batch.add(sequence)] = job, index
                except GPT2Error as error:
                    self._reject(job, error)
            if job.waiting:
                return  # later jobs do not overtake this one

    def _reject(self, job: GenerationJob, error: GPT2Error) -> None:
        with self.changed:
            self.jobs.remove(job)
            job.waiting.clear()
            job.is_cancelled = True
        job.notify(JobUpdate([], GenerationError(str(error))))

    def _send_updates(self, chunks: Sequence[TextChunk]) -> None:
        jobs = set()
        for chunk in chunks:
            job, index = self.running[chunk.request]
            job.chunks.append(chunk._replace(request=index))
            jobs.add(job)
            if chunk.finish_reason:
                del self.running[chunk.request]
                job.n_unfinished -= 1
        with self.changed:
            self.jobs = [job for job in self.jobs if job.n_unfinished]
        now = time.monotonic()
        has_first_update = False
        for job in jobs:
            is_due = not job.at_once and now >= job.last_update + UPDATE_INTERVAL_SECONDS
            if job.n_unfinished and not is_due:
                continue
            if job.n_unfinished and job.last_update == -math.inf:
                has_first_update = True
            update = JobUpdate(job.chunks)
            job.chunks = []
            job.last_update = now
            job.notify(update)
        if has_first_update:
            time.sleep(FIRST_UPDATE_PAUSE_SECONDS)

    def _fail_started_jobs(self, error: Exception) -> None:
        with self.changed:
            lost = [job for job in self.jobs if len(job.waiting) < job.n_unfinished]
            self.running.clear()
            self.jobs = [job for job in self.jobs if job not in lost]
        reason = "an unexpected exception; see the server's log"
        if isinstance(error, MemoryError):
            reason = "there is not enough memory"
        for job in lost:
            job.notify(JobUpdate([], GenerationError(f"the text could not be generated: {reason}")))
