"""Progress reports of a run. A line that the old tools also printed has their wording."""

from __future__ import annotations

from typing import NamedTuple

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
