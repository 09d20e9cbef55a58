"""What a run tells whoever started it, while it goes on. Where the old tools had a line for it, it is theirs."""

from __future__ import annotations

from typing import NamedTuple

BEGINNING = "[{step} | {seconds:2.2f}]"
LOSS_LINE = BEGINNING + " loss={loss:2.2f} avg={smoothed:2.2f}"
VALIDATION_LINE = BEGINNING + " validation loss = {loss:2.2f} ({bits_per_byte:.3f} bits per byte)"
SAMPLE = "======== SAMPLE {} ========\n{}\n"


class Update(NamedTuple):
    """One update of the weights."""

    step: int
    seconds: float  # that the run has gone on
    loss: float  # nats per token
    smoothed: float
    tokens_per_second: float


class TrainingReport:
    """Listens and does nothing; who wants to show a run overrides what it shows."""

    closed = False  # whether nobody reads it any more, as after `| head`: the run then saves and ends

    def say(self, line: str) -> None:
        """What the old tools printed, or something like it."""

    def note(self, line: str) -> None:
        """What a person should know besides."""

    def begin(self, step: int, last: int | None) -> None:
        """Updates begin, after `step` of them, up to `last`, or without an end."""

    def update(self, update: Update) -> None:
        """One was made."""

    def end(self) -> None:
        """There will be no more."""
