"""Writing a run's folder while it trains: the model's files, the checkpoints and the log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.training.checkpoints import run_checkpoint, run_folder
from gpt2.training.checkpoints.run_lock import RunLock
from gpt2.training.logs.training_log import TrainingLog
from gpt2.training.prepared_run import PreparedRun

SaveCallback = Callable[[Path], None]


class RunWriter:
    """The writer of a run's folder, on the machine that holds the folder's lock."""

    def __init__(self, run: PreparedRun, lock: RunLock, on_save: SaveCallback | None, tokens_per_update: int) -> None:
        """Make the folder a model directory without weights and open its log.

        Args:
            run: The run.
            lock: The held lock of the run's folder.
            on_save: Called with the folder after each checkpoint.
            tokens_per_update: Tokens of all machines in one update.
        """
        self.run = run
        self.lock = lock
        self.on_save = on_save
        self.folder = run.settings.run_folder
        self.saved_step = run.progress.step  # before the first update there is nothing to save
        self.last_attempt_at = time.monotonic()
        self.model_files = run_folder.model_files(run.start.encoder, run.start.hparams)
        self._shown_warnings: set[str] = set()
        for folder in (self.folder, self.folder / run_folder.BEST_FOLDER, run.settings.sample_folder):
            files.remove_unfinished(folder)
        run_folder.write_model_files(self.folder, self.model_files)
        self.log = TrainingLog(run.settings, run.progress, run.start.resumes, tokens_per_update)

    @contextlib.contextmanager
    def tolerate_failure(self, unsaved: str = "") -> Iterator[None]:
        """Turn a failed write into a warning: the run continues and may be saved later.

        A warning is shown only once, so that a full disk does not repeat it after every update.

        Args:
            unsaved: Name of the checkpoint that the block saves; each of its failures is reported.
        """
        try:
            yield
        except (GPT2Error, OSError, tf.errors.OpError) as error:
            warning = f"warning: {getattr(error, 'message', error)}; the run continues"
            if warning not in self._shown_warnings:
                self.run.report.write_line(warning)
            elif unsaved:
                self.run.report.write_line(f"warning: {unsaved} was not saved either")
            self._shown_warnings.add(warning)

    def save_if_due(self) -> None:
        """Save a checkpoint if one is due by `save_every` or `save_minutes`; a failed save is only a warning.

        Raises:
            GPT2Error: A weight is not finite.
        """
        settings = self.run.settings
        step = self.run.progress.step
        is_due = settings.save_every > 0 and step % settings.save_every == 0
        if not is_due and time.monotonic() - self.last_attempt_at <= 60 * settings.save_minutes:
            return
        self.run.trainer.check_weights()
        self.last_attempt_at = time.monotonic()  # a failed save is repeated after the usual time
        with self.tolerate_failure(run_folder.MODEL_NAME.format(step)):
            self._save()

    def save_unsaved(self) -> None:
        """Save a checkpoint if there were updates since the last one.

        Raises:
            GPT2Error: The checkpoint cannot be written, or a weight is not finite.
        """
        if self.saved_step < self.run.progress.step:
            self.run.trainer.check_weights()
            self._save()

    def _save(self) -> None:
        progress = self.run.progress
        trainer = self.run.trainer
        self.run.report.write_line(f"Saving {self.folder / run_folder.MODEL_NAME.format(progress.step)}")
        self._restore_folder()
        progress.seconds = self.log.elapsed_seconds
        run_checkpoint.save(self.folder, trainer.weights, trainer.state, progress, self.run.settings.keep)
        self.saved_step = progress.step
        with self.tolerate_failure():
            self.log.history.draw_curve()
        if self.on_save is not None:
            self.on_save(self.folder)

    def save_best(self) -> None:
        """Save the present weights as the best ones.

        Raises:
            GPT2Error: The weights cannot be written.
        """
        self.run.report.write_line(f"Saving {self.folder / run_folder.BEST_FOLDER}")
        self._restore_folder()
        run_checkpoint.save_best(self.folder, self.run.trainer.weights, self.model_files, self.run.progress.step)

    def _restore_folder(self) -> None:
        """Recreate files that were removed from the run's folder, or the whole folder.

        Raises:
            GPT2Error: The folder cannot be written, or another run was started in it and holds the lock.
        """
        missing = [name for name in self.model_files if not (self.folder / name).is_file()]
        try:
            self.lock.hold()
        except OSError as error:
            raise GPT2Error(f"the run's folder {self.folder} cannot be written: {error.strerror}") from error
        if missing:
            self.run.report.notify(
                f"warning: {', '.join(missing)} missing from {self.folder}; the run writes the missing files again"
            )
            run_folder.write_model_files(self.folder, self.model_files)
        self.log.restore()
