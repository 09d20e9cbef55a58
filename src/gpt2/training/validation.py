"""Validation during training: the loss on held-out text, the best model so far, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from gpt2.data import windows
from gpt2.training.checkpoints import run_folder
from gpt2.training.logs.report import VALIDATION_LINE
from gpt2.training.prepared_run import PreparedRun
from gpt2.training.run_writer import RunWriter


class ValidationLoss(NamedTuple):
    """The loss on the validation text."""

    nats_per_token: float
    bits_per_byte: float


class Validator:
    """The validation of a run, on the machine that writes its folder."""

    def __init__(self, run: PreparedRun, writer: RunWriter, is_stop_requested: Callable[[], bool]) -> None:
        """Set the run.

        Args:
            run: The run.
            writer: The writer of its folder.
            is_stop_requested: Returns True once the run should end soon; a validation then stops early.
        """
        self.run = run
        self.writer = writer
        self.is_stop_requested = is_stop_requested

    def validate_if_due(self) -> bool:
        """Validate if it is due by `val_every`, and return whether training should stop early."""
        every = self.run.settings.val_every
        return every > 0 and self.run.progress.step % every == 0 and self._validate()

    def validate_if_missing(self) -> bool:
        """Validate before the first update of a call if that is due and not recorded yet.

        Return whether training should stop early.
        """
        return not self.writer.log.history.is_validated(self.run.progress.step) and self.validate_if_due()

    def _validate(self) -> bool:
        """Validate and return whether there were too many validations since the best one.

        A validation that a signal broke off does not count; the resumed run repeats it.
        """
        self.run.report.write_line("Calculating validation loss...")
        loss = self._compute_loss()
        if loss is None:
            return False
        self._record(loss)
        progress = self.run.progress
        if not progress.step:  # the initial model exists elsewhere and need not be saved
            progress.best_loss = loss.nats_per_token
            return False
        if progress.best_loss is None or loss.nats_per_token < progress.best_loss:
            self._save_best(loss)
            return False
        progress.worse += 1
        if not self.run.settings.patience or progress.worse < self.run.settings.patience:
            return False
        self._report_early_stop()
        return True

    def _compute_loss(self) -> ValidationLoss | None:
        """Return the loss of the validation batches; None if a stop was requested during validation."""
        run = self.run
        settings = run.settings
        window = run.start.hparams.n_ctx + 1
        nats = 0.0
        n_targets = 0.0
        n_bytes = 0
        batches = windows.spread_windows(
            run.split.validation, window, settings.val_batch_size, settings.val_batch_count
        )
        for batch in batches:
            if self.is_stop_requested():
                return None
            targets = batch[:, 1:]
            nats += run.trainer.loss(batch) * targets.size
            n_targets += targets.size
            n_bytes += sum(len(run.start.encoder.decode_bytes(row)) for row in targets.tolist())
        return ValidationLoss(nats / n_targets, nats / math.log(2) / max(1, n_bytes))

    def _record(self, loss: ValidationLoss) -> None:
        line = VALIDATION_LINE.format(
            step=self.run.progress.step,
            seconds=self.writer.log.elapsed_seconds,
            loss=loss.nats_per_token,
            bits_per_byte=loss.bits_per_byte,
        )
        self.run.report.write_line(line)
        with self.writer.tolerate_failure():
            self.writer.log.record_validation(loss.nats_per_token, loss.bits_per_byte)

    def _save_best(self, loss: ValidationLoss) -> None:
        progress = self.run.progress
        progress.worse = 0
        with self.writer.tolerate_failure(run_folder.BEST_FOLDER):
            self.writer.save_best()
            progress.best_loss = loss.nats_per_token
            progress.best_step = progress.step

    def _report_early_stop(self) -> None:
        progress = self.run.progress
        best = "is the initial model"
        if progress.best_step:
            best = f"is in {self.run.settings.run_folder / run_folder.BEST_FOLDER}"
        self.run.report.write_line(
            f"no better validation loss in {progress.worse} validations; the best, {progress.best_loss:.3f} after"
            f" {progress.best_step} updates, {best}"
        )
