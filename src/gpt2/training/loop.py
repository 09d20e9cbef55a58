"""The loop around the updates: when to save, to validate, to write samples and to stop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from gpt2 import files
from gpt2.data import windows
from gpt2.engine.batch import Batch
from gpt2.engine.tensorflow import TensorFlowBackend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error
from gpt2.request import Sampling
from gpt2.training import distribution
from gpt2.training.checkpoints import run_checkpoint, run_folder
from gpt2.training.checkpoints.run_folder import RunProgress
from gpt2.training.checkpoints.run_lock import RunLock
from gpt2.training.logs.report import VALIDATION_LINE, TrainingReport
from gpt2.training.logs.training_log import TrainingLog
from gpt2.training.settings.settings import TrainingSettings
from gpt2.training.signals import TrainingInterruption
from gpt2.training.starting_point import StartingPoint
from gpt2.training.trainer import DONE, RECOVERY_ADVICE, SIGNALLED, Trainer

SAMPLE_LENGTH = 1023  # tokens, as in the old tools; less if the model's window is smaller
FIRST_UPDATE = "the first update takes longer, as TensorFlow compiles it; Ctrl-C saves and ends when an update is done"


class Computed(NamedTuple):
    """An update."""

    loss: float
    rate: float
    seconds: float
    stop: int  # why any machine wants to stop after it, as bits


class Loop:
    """One machine's part of a run. The first machine alone writes files and validates."""

    def __init__(
        self,
        settings: TrainingSettings,
        start: StartingPoint,
        progress: RunProgress,
        trainer: Trainer,
        split: windows.Split,
        last: int | None,
        saved: Callable[[Path], None] | None,
        report: TrainingReport,
        lock: RunLock | None,
    ) -> None:
        """lock: of the run's folder, on the machine that writes into it."""
        self.settings, self.start, self.progress = settings, start, progress
        self.trainer, self.split, self.last, self.saved = trainer, split, last, saved
        self.report = report
        self.window = start.hparams.n_ctx + 1
        self.replicas = trainer.strategy.num_replicas_in_sync
        self.shape = (self.replicas, settings.accumulate_gradients, settings.batch_size)
        self.saved_step = progress.step  # before the first update there is nothing to save
        self.saved_at = time.monotonic()
        self.backend: TensorFlowBackend | None = None
        self.warned: set[str] = set()
        self.ending = TrainingInterruption(lambda: self.progress.step - self.saved_step, report.notify)
        self.lock, self.writes = lock, lock is not None
        if self.writes:
            self.frame = run_folder.model_files(start.encoder, start.hparams)
            for folder in (settings.run_folder, settings.run_folder / run_folder.BEST_FOLDER, settings.sample_folder):
                files.remove_unfinished(folder)
            run_folder.write_model_files(settings.run_folder, self.frame)
            self.record = TrainingLog(settings, progress, start.resumes, math.prod(self.shape) * start.hparams.n_ctx)

    def run(self) -> None:
        """Updates until the last step, a signal, or too many validations without progress; then saves.

        Raises what a signal stands for, BrokenPipeError if the report is closed.
        """
        self.report.start(self.progress.step, self.last)
        try:
            self._run()
        except Exception:
            if self.ending.given_up:  # TensorFlow has made this error of it
                raise KeyboardInterrupt from None
            raise
        finally:
            self.report.finish()
            if self.writes:
                with self._in_passing():
                    self.record.flush()
        self.ending.raise_if_received()
        if self.report.closed:
            raise BrokenPipeError

    @property
    def ends(self) -> bool:
        """Whether a signal wants the run to save and end, or nobody reads any more what it says."""
        return self.ending.received is not None or self.report.closed

    def _run(self) -> None:
        wanted = DONE if self.writes and self._begin() else 0  # why this machine stops, as bits
        self.report.notify(FIRST_UPDATE)
        computed = self._compute(wanted)
        with self.ending:  # not earlier: to compile may take longer than a supervisor waits
            stop = self._note(computed)  # why any of them does
            while True:
                if self.writes and self._look():
                    wanted |= DONE
                if self.ends:
                    wanted |= SIGNALLED
                if stop or self.progress.step == self.last or (wanted and distribution.worker_count() == 1):
                    break
                stop = self._note(self._compute(wanted))
            if self.writes:
                if self.ends or stop & SIGNALLED:
                    self.report.write_line("interrupted")
                if self.saved_step < self.progress.step:
                    self.trainer.check_weights()
                    self._save()
        if stop & SIGNALLED and not self.ends:
            raise GPT2Error(
                f"another worker was told to stop after {self.progress.step} updates; start all workers again, and the"
                " run goes on from there"
            )

    def _begin(self) -> bool:
        """Validates if that was due where the run stands and has not been done; returns what `_validate` does."""
        self.report.write_line("Training...")
        every, step = self.settings.val_every, self.progress.step
        return every > 0 and step % every == 0 and not self.record.history.is_validated(step) and self._validate()

    def _compute(self, stop: int) -> Computed:
        """One update of all machines; takes why this one wants to stop after it."""
        started = time.monotonic()
        seed, step = self.progress.seed, self.progress.step + 1
        tokens = windows.random_windows(self.split.train, self.window, math.prod(self.shape), seed, step)
        tokens = tokens.reshape(*self.shape, self.window)
        inputs, targets = tokens[..., :-1], tokens[..., 1:]
        if self.settings.noise:
            inputs = windows.add_noise(inputs, self.settings.noise, self.start.hparams.n_vocab, seed, step)
        rate = self.settings.rate(step, self.last)
        loss, stop = self.trainer.update(inputs, targets, rate, seed, stop)
        if not math.isfinite(loss):
            raise GPT2Error(f"the loss of update {step} is {loss}; {RECOVERY_ADVICE}")
        return Computed(loss, rate, time.monotonic() - started, stop)

    def _note(self, computed: Computed) -> int:
        """Counts, records and reports it; from here on a signal must not lose it."""
        self.progress.step += 1
        self.progress.add(computed.loss)
        if self.writes:
            made = self.record.described(computed.loss, computed.seconds)
            with self._in_passing():
                self.record.update(made, computed.rate)
            self.report.update(made)
        return computed.stop

    def _look(self) -> bool:
        """What is due after an update; returns whether validation says that it is time to stop."""
        settings, step = self.settings, self.progress.step

        def due(every: int) -> bool:
            return every > 0 and step % every == 0

        stop = self._validate() if due(settings.val_every) else False
        if due(settings.sample_every):
            with self._in_passing():
                self._sample()
        if due(settings.save_every) or time.monotonic() - self.saved_at > 60 * settings.save_minutes:
            self.trainer.check_weights()
            self.saved_at = time.monotonic()  # of the attempt: one that fails is repeated as late
            with self._in_passing(run_folder.MODEL_NAME.format(step)):
                self._save()
        return stop

    def _validate(self) -> bool:
        """Returns whether there were too many validations since the best one. One that a signal ends does not count:
        it is made up for when the run goes on."""
        self.report.write_line("Calculating validation loss...")
        settings, progress = self.settings, self.progress
        nats = targets = 0.0
        length = 0  # bytes
        batches = windows.spread_windows(
            self.split.validation, self.window, settings.val_batch_size, settings.val_batch_count
        )
        for batch in batches:
            if self.ends:
                return False
            count = batch[:, 1:].size
            nats += self.trainer.loss(batch) * count
            targets += count
            length += sum(len(self.start.encoder.decode_bytes(row)) for row in batch[:, 1:].tolist())
        loss, bits = nats / targets, nats / math.log(2) / max(1, length)
        said = {"step": progress.step, "seconds": self.record.seconds, "loss": loss, "bits_per_byte": bits}
        self.report.write_line(VALIDATION_LINE.format(**said))
        with self._in_passing():
            self.record.validation(loss, bits)
        if not progress.step:  # the model is where it came from, and need not be saved
            progress.best_loss = loss
            return False
        if progress.best_loss is None or loss < progress.best_loss:
            progress.worse = 0
            with self._in_passing(run_folder.BEST_FOLDER):
                self.report.write_line(f"Saving {settings.run_folder / run_folder.BEST_FOLDER}")
                self._make_whole()
                run_checkpoint.save_best(settings.run_folder, self.trainer.weights, self.frame, progress.step)
                progress.best_loss, progress.best_step = loss, progress.step
            return False
        progress.worse += 1
        if not settings.patience or progress.worse < settings.patience:
            return False
        best = (
            f"is in {settings.run_folder / run_folder.BEST_FOLDER}"
            if progress.best_step
            else "is the model it began with"
        )
        self.report.write_line(
            f"no better validation loss in {progress.worse} validations; the best, {progress.best_loss:.3f} after"
            f" {progress.best_step} updates, {best}"
        )
        return True

    def _sample(self) -> None:
        """Each sample begins with a random token of the training text, which is kept, as the old tools did."""
        self.report.write_line("Generating samples...")
        settings, seed, step = self.settings, self.progress.seed, self.progress.step
        if self.backend is None:
            self.backend = TensorFlowBackend(self.trainer.weights, self.start.hparams)
        length = settings.sample_length
        if length is None:
            length = min(SAMPLE_LENGTH, self.start.hparams.n_ctx - 1)
        rng = windows.random_generator(seed, step, windows.SAMPLE_NUMBERS)
        places = rng.integers(len(self.split.train), size=settings.sample_num)
        first = [int(self.split.train[place]) for place in places]
        sampling = Sampling(top_k=0 if settings.top_p else settings.top_k, top_p=settings.top_p)
        ids = [[token] for token in first]
        with Batch(self.backend) as batch:
            for number, token in enumerate(first if length else []):
                batch.add(TokenSequence([token], sampling, seed, number, length))
            while batch and not self.ends:
                for choice in batch.step():
                    ids[choice.sequence].append(choice.id)
                    if len(ids[choice.sequence]) > length:
                        batch.remove(choice.sequence)
        if self.ends:
            return
        self.report.write_line(self.record.samples([self.start.encoder.decode(row) for row in ids]))

    @contextlib.contextmanager
    def _in_passing(self, saving: str = "") -> Iterator[None]:
        """For what writes files on the way: the run, which may yet be saved, goes on; a full disk is said once.

        saving: what is saved; each time that it fails is said.
        """
        try:
            yield
        except (GPT2Error, OSError, tf.errors.OpError) as error:
            said = f"warning: {getattr(error, 'message', error)}; the run goes on"
            if said not in self.warned:
                self.report.write_line(said)
            elif saving:
                self.report.write_line(f"warning: {saving} was not saved either")
            self.warned.add(said)

    def _save(self) -> None:
        folder = self.settings.run_folder
        self.report.write_line(f"Saving {folder / run_folder.MODEL_NAME.format(self.progress.step)}")
        self._make_whole()
        self.progress.seconds = self.record.seconds
        run_checkpoint.save(folder, self.trainer.weights, self.trainer.state, self.progress, self.settings.keep)
        self.saved_step = self.progress.step
        with self._in_passing():
            self.record.history.draw()
        if self.saved is not None:
            self.saved(folder)

    def _make_whole(self) -> None:
        """Puts back what somebody removed from the run's folder, or all of it. Raises GPT2Error if that does not work.

        A run that has begun there meanwhile has the lock, which is then an error.
        """
        assert self.lock is not None, "only who holds it saves"
        folder = self.settings.run_folder
        missing = [name for name in self.frame if not (folder / name).is_file()]
        try:
            self.lock.hold()
        except OSError as error:
            raise GPT2Error(f"the run's folder {folder} cannot be written: {error.strerror}") from error
        if missing:
            self.report.notify(f"warning: {folder} lacks {', '.join(missing)}: what this run knows is written again")
            run_folder.write_model_files(folder, self.frame)
        self.record.restore()
