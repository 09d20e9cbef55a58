"""The log of a run: its history and loss curve, TensorBoard events and sample files."""

from __future__ import annotations

import time

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.training.logs.events import EventWriter
from gpt2.training.logs.history import (
    LOSS_KEY,
    SMOOTHED_LOSS_KEY,
    STEP_KEY,
    TOKENS_KEY,
    VALIDATION_LOSS_KEY,
    History,
)
from gpt2.training.logs.report import SAMPLE_BLOCK, UpdateStats
from gpt2.training.run_progress import RunProgress
from gpt2.training.settings.settings import TrainingSettings


class TrainingLog:
    """The log of a run, in the run's folder and its folder of samples.

    Every method that writes raises GPT2Error if that fails. Unwritten records and events stay pending: they are
    written together with the next ones, or by `flush`.
    """

    def __init__(
        self, settings: TrainingSettings, progress: RunProgress, resumes: bool, tokens_per_update: int
    ) -> None:
        """Open the log of a run.

        Args:
            settings: The run's settings.
            progress: The run's progress, which the training loop updates.
            resumes: Whether to retain the history up to the present step, or to start an empty one.
            tokens_per_update: Tokens of all machines in one update.
        """
        self.settings = settings
        self.progress = progress
        self.tokens_per_update = tokens_per_update
        self.started_at = time.monotonic() - progress.seconds
        self.history = History(settings.run_folder, progress.step if resumes else -1)
        self.events = EventWriter(settings.run_folder)

    @property
    def elapsed_seconds(self) -> float:
        """Training time of the run over all calls, without lost updates."""
        return time.monotonic() - self.started_at

    def update_stats(self, loss: float, seconds: float) -> UpdateStats:
        """Return the figures of the latest update, which took `seconds`."""
        return UpdateStats(
            step=self.progress.step,
            seconds=self.elapsed_seconds,
            loss=loss,
            smoothed_loss=self.progress.smoothed_loss,
            tokens_per_second=self.tokens_per_update / seconds,
        )

    def record_update(self, stats: UpdateStats, learning_rate: float) -> None:
        """Record one update."""
        record = {
            STEP_KEY: stats.step,
            LOSS_KEY: stats.loss,
            SMOOTHED_LOSS_KEY: stats.smoothed_loss,
            "learning_rate": learning_rate,
            "seconds": round(stats.seconds, 2),
            "tokens_per_second": round(stats.tokens_per_second, 1),
            TOKENS_KEY: self.tokens_per_update,
        }
        try:
            self.history.add(**record)
        finally:
            self.events.add_scalars(stats.step, loss=stats.loss, learning_rate=learning_rate)

    def record_validation(self, loss: float, bits_per_byte: float) -> None:
        """Record the validation loss, in nats per token, after the latest update."""
        step = self.progress.step
        try:
            self.history.add(**{STEP_KEY: step, VALIDATION_LOSS_KEY: loss, "validation_bits_per_byte": bits_per_byte})
        finally:
            self.events.add_scalars(step, val_loss=loss, val_bits_per_byte=bits_per_byte)

    def write_samples(self, texts: list[str]) -> str:
        """Write the sample file in the old tools' format.

        Returns:
            The last sample's block, which the old tools print.
        """
        blocks = [SAMPLE_BLOCK.format(number, text) for number, text in enumerate(texts, start=1)]
        path = self.settings.sample_folder / f"samples-{self.progress.step}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_write(path) as file:
                file.write("\n".join(blocks).encode("utf-8", errors="replace"))
        except OSError as error:
            raise GPT2Error(f"the samples cannot be written to {path}: {error.strerror}") from error
        self.events.add_text(self.progress.step, "sample", texts[-1])
        return blocks[-1]

    def restore(self) -> None:
        """Recreate files that were removed from the run's folder: the whole history, and a file for later events."""
        self.history.restore()
        self.events.restore()

    def flush(self) -> None:
        """Write the pending records and events."""
        for file in (self.history.file, self.events.file):
            if file.pending:
                file.add()
