"""Progress reports of a run. A line that the old tools also printed has their wording."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

LINE_PREFIX = "[{step} | {seconds:2.2f}]"
LOSS_LINE = LINE_PREFIX + " loss={loss:2.2f} avg={smoothed_loss:2.2f}"
VALIDATION_LINE = LINE_PREFIX + " validation loss = {loss:2.2f} ({bits_per_byte:.3f} bits per byte)"
SAMPLE_BLOCK = "======== SAMPLE {} ========\n{}\n"


class UpdateStats(NamedTuple):
    """Figures of one update of the weights."""

    step: int
    seconds: float  # training time of the run so far
    loss: float  # nats per token
    smoothed_loss: float  # the exponentially smoothed loss, nats per token
    tokens_per_second: float


class BestModel(NamedTuple):
    """The model with the lowest validation loss."""

    folder: Path
    step: int
    loss: float  # nats per token


class RunResult(NamedTuple):
    """What a call of a run leaves.

    Attributes:
        folder: The run's folder.
        step: Number of updates in all.
        has_trained: Whether this call made updates; otherwise the run had reached its end before.
        loss_curve: The picture of the losses; None if there is none.
        best: The best model; None if the run does not validate, or if the initial model is the best.
        continuing_settings: The settings of a call that continues the run, by name; it finds all others in the run.
    """

    folder: Path
    step: int
    has_trained: bool
    loss_curve: Path | None
    best: BestModel | None
    continuing_settings: Mapping[str, Any]


class TrainingReport:
    """A report that shows nothing; a subclass overrides methods to show something."""

    closed = False  # True once the reader is gone, as after `| head`: the run then saves and ends

    def write_line(self, line: str) -> None:
        """Show a line that the old tools printed, or a similar one."""

    def notify(self, line: str) -> None:
        """Show additional information for the user."""

    def start(self, step: int, last_step: int | None) -> None:
        """Start to show updates.

        Args:
            step: Number of updates made so far.
            last_step: Number of the last update; None if the run has no end.
        """

    def update(self, update: UpdateStats) -> None:
        """Show one update."""

    def finish(self) -> None:
        """Stop showing updates."""

    def show_result(self, result: RunResult) -> None:
        """Show what the run leaves, and what to do with it."""
