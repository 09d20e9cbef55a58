"""What a run tells whoever started it, while it goes on. Where the old tools had a line for it, it is theirs."""

from __future__ import annotations

from typing import NamedTuple

LINE_PREFIX = "[{step} | {seconds:2.2f}]"
LOSS_LINE = LINE_PREFIX + " loss={loss:2.2f} avg={smoothed:2.2f}"
VALIDATION_LINE = LINE_PREFIX + " validation loss = {loss:2.2f} ({bits_per_byte:.3f} bits per byte)"
SAMPLE_BLOCK = "======== SAMPLE {} ========\n{}\n"


class UpdateStats(NamedTuple):
    """One update of the weights."""

    step: int
    seconds: float  # that the run has gone on
    loss: float  # nats per token
    smoothed: float
    tokens_per_second: float


class TrainingReport:
    """Listens and does nothing; who wants to show a run overrides what it shows."""

    closed = False  # whether nobody reads it any more, as after `| head`: the run then saves and ends

    def write_line(self, line: str) -> None:
        """What the old tools printed, or something like it."""

    def notify(self, line: str) -> None:
        """What a person should know besides."""

    def start(self, step: int, last: int | None) -> None:
        """Updates begin, after `step` of them, up to `last`, or without an end."""

    def update(self, update: UpdateStats) -> None:
        """One was made."""

    def finish(self) -> None:
        """There will be no more."""
