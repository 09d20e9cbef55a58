"""The training loop: updates until the run is complete or a signal ends it."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from gpt2.data import windows
from gpt2.errors import GPT2Error
from gpt2.training import distribution
from gpt2.training.checkpoints.run_lock import RunLock
from gpt2.training.chief_tasks import ChiefTasks
from gpt2.training.prepared_run import PreparedRun
from gpt2.training.run_writer import RunWriter, SaveCallback
from gpt2.training.signals import TrainingInterruption
from gpt2.training.trainer import DONE, RECOVERY_ADVICE, SIGNALLED

FIRST_UPDATE_NOTE = (
    "the first update takes longer, because TensorFlow compiles it; Ctrl-C saves and ends after the current update"
)


class UpdateResult(NamedTuple):
    """The result of one update."""

    loss: float  # nats per token
    learning_rate: float
    seconds: float
    stop_reasons: int  # of all machines, as bits: see `trainer.STOP_REASONS`


class TrainingLoop:
    """One machine's part of a run. Only the first machine has chief tasks: it validates and writes files."""

    def __init__(self, run: PreparedRun, lock: RunLock | None, on_save: SaveCallback | None) -> None:
        """Set up the loop, and on the first machine the run's folder.

        Args:
            run: The run.
            lock: The held lock of the run's folder on the first machine; None on the others.
            on_save: Called with the run's folder after each checkpoint.
        """
        self.run = run
        settings = run.settings
        n_replicas = run.trainer.strategy.num_replicas_in_sync
        self.batch_shape = (n_replicas, settings.accumulate_gradients, settings.batch_size)
        self.window = run.start.hparams.n_ctx + 1
        self.first_step = run.progress.step
        self.interruption = TrainingInterruption(self._count_unsaved_updates, run.report.notify)
        self.chief: ChiefTasks | None = None
        if lock is not None:
            tokens_per_update = math.prod(self.batch_shape) * run.start.hparams.n_ctx
            writer = RunWriter(run, lock, on_save, tokens_per_update)
            self.chief = ChiefTasks(run, writer, self._is_stop_requested)

    def _count_unsaved_updates(self) -> int:
        return self.run.progress.step - (self.chief.writer.saved_step if self.chief else self.first_step)

    def _is_stop_requested(self) -> bool:
        """Return whether the run should save and end: a signal was received, or the report's reader is gone."""
        return self.interruption.received is not None or self.run.report.closed

    def train(self) -> None:
        """Make updates until the last step, a signal, or too many validations without a better loss; then save.

        Raises:
            Interrupted: Ctrl-C was pressed. For SIGTERM it is Terminated, for SIGHUP HungUp.
            BrokenPipeError: The report's reader is gone.
            GPT2Error: The run cannot be saved, a loss or a weight is not finite, or another machine received a signal.
        """
        self.run.report.start(self.run.progress.step, self.run.last_step)
        try:
            self._run_updates()
        except Exception:
            if self.interruption.is_abandoned:  # TensorFlow has turned KeyboardInterrupt into this error
                raise KeyboardInterrupt from None
            raise
        finally:
            self.run.report.finish()
            if self.chief:
                self.chief.flush_log()
        self.interruption.raise_if_received()
        if self.run.report.closed:
            raise BrokenPipeError

    def _run_updates(self) -> None:
        local_reasons = DONE if self.chief and self.chief.start() else 0
        self.run.report.notify(FIRST_UPDATE_NOTE)
        result = self._compute_update(local_reasons)
        with self.interruption:  # not before: compiling can take longer than a supervisor waits
            self._count_update(result)
            while True:
                if self.chief and self.chief.run_due():
                    local_reasons |= DONE
                if self._is_stop_requested():
                    local_reasons |= SIGNALLED
                if self._is_last_update(result.stop_reasons, local_reasons):
                    break
                result = self._compute_update(local_reasons)
                self._count_update(result)
            is_signalled = bool(result.stop_reasons & SIGNALLED)
            if self.chief:
                self.chief.finish(interrupted=is_signalled or self._is_stop_requested())
        if is_signalled and not self._is_stop_requested():
            raise GPT2Error(
                f"another worker received a signal to stop after {self.run.progress.step} updates; start all workers"
                " again to resume the run from there"
            )

    def _is_last_update(self, all_reasons: int, own_reasons: int) -> bool:
        """Return whether to end after the latest update.

        Several machines must end after the same update, so each waits until its reasons have reached all of them.
        """
        if all_reasons or self.run.progress.step == self.run.last_step:
            return True
        return own_reasons != 0 and distribution.worker_count() == 1

    def _compute_update(self, stop_reasons: int) -> UpdateResult:
        """Make one update on all machines.

        Args:
            stop_reasons: This machine's reasons to stop after the update.

        Raises:
            GPT2Error: The loss is not finite.
        """
        started_at = time.monotonic()
        run = self.run
        seed = run.progress.seed
        step = run.progress.step + 1
        tokens = windows.random_windows(run.split.train, self.window, math.prod(self.batch_shape), seed, step)
        tokens = tokens.reshape(*self.batch_shape, self.window)
        inputs = tokens[..., :-1]
        targets = tokens[..., 1:]
        if run.settings.noise:
            inputs = windows.add_noise(inputs, run.settings.noise, run.start.hparams.n_vocab, seed, step)
        learning_rate = run.settings.learning_rate_at(step, run.last_step)
        loss, all_reasons = run.trainer.update(inputs, targets, learning_rate, seed, stop_reasons)
        if not math.isfinite(loss):
            raise GPT2Error(f"the loss of update {step} is {loss}; {RECOVERY_ADVICE}")
        return UpdateResult(loss, learning_rate, time.monotonic() - started_at, all_reasons)

    def _count_update(self, result: UpdateResult) -> None:
        """Count and record an update; from here on a signal does not lose it."""
        self.run.progress.step += 1
        self.run.progress.add_loss(result.loss)
        if self.chief:
            self.chief.record_update(result.loss, result.learning_rate, result.seconds)
