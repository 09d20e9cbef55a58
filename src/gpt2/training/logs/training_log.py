"""What stays of a run's course: its history and curve, TensorBoard's events, the samples."""

from __future__ import annotations

import time

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.training.checkpoints.run_folder import RunProgress
from gpt2.training.logs.events import EventWriter
from gpt2.training.logs.history import LOSS_KEY, SMOOTHED_LOSS_KEY, STEP_KEY, TOKENS_KEY, VALIDATION_LOSS_KEY, History
from gpt2.training.logs.report import SAMPLE_BLOCK, UpdateStats
from gpt2.training.settings.settings import TrainingSettings


class TrainingLog:
    """Writes into the run's folder and its folder of samples. Raises GPT2Error if that does not work.

    The history and the events then wait for room: they are written with the next ones, or by `flush`.
    """

    def __init__(self, settings: TrainingSettings, progress: RunProgress, resumes: bool, tokens_per_step: int) -> None:
        self.settings, self.progress, self.tokens_per_step = settings, progress, tokens_per_step
        self.started = time.monotonic() - progress.seconds
        self.history = History(settings.run_folder, progress.step if resumes else -1)  # nothing is of this run
        self.events = EventWriter(settings.run_folder)

    @property
    def seconds(self) -> float:
        """How long the run has gone on, without what was lost."""
        return time.monotonic() - self.started

    def described(self, loss: float, seconds: float) -> UpdateStats:
        """The update that was just made, in so many seconds."""
        return UpdateStats(
            self.progress.step, self.seconds, loss, self.progress.smoothed, self.tokens_per_step / seconds
        )

    def update(self, made: UpdateStats, rate: float) -> None:
        record = {STEP_KEY: made.step, LOSS_KEY: made.loss, SMOOTHED_LOSS_KEY: made.smoothed, "learning_rate": rate}
        record |= {"seconds": round(made.seconds, 2), "tokens_per_second": round(made.tokens_per_second, 1)}
        record |= {TOKENS_KEY: self.tokens_per_step}
        try:
            self.history.add(**record)
        finally:
            self.events.scalars(made.step, loss=made.loss, learning_rate=rate)

    def validation(self, loss: float, bits_per_byte: float) -> None:
        step = self.progress.step
        try:
            self.history.add(**{STEP_KEY: step, VALIDATION_LOSS_KEY: loss, "validation_bits_per_byte": bits_per_byte})
        finally:
            self.events.scalars(step, val_loss=loss, val_bits_per_byte=bits_per_byte)

    def samples(self, texts: list[str]) -> str:
        """Writes the samples' file, as the old tools did, and returns what it says of the last one."""
        shown = [SAMPLE_BLOCK.format(number, text) for number, text in enumerate(texts, start=1)]
        path = self.settings.sample_folder / f"samples-{self.progress.step}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_write(path) as file:
                file.write("\n".join(shown).encode("utf-8", errors="replace"))
        except OSError as error:
            raise GPT2Error(f"the samples cannot be written to {path}: {error.strerror}") from error
        self.events.text(self.progress.step, "sample", texts[-1])
        return shown[-1]

    def restore(self) -> None:
        """Makes again what was removed from the run's folder: all of the history, what comes next of the events."""
        self.history.restore()
        self.events.restore()

    def flush(self) -> None:
        """Writes what found no room before."""
        for file in (self.history.file, self.events.file):
            if file.pending:
                file.add()
