"""Signals during a training run: the run is saved before it ends, unless Ctrl-C is pressed a second time."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

from gpt2.interrupt import SIGNAL_EXCEPTIONS, SignalFlag

DUPLICATE_SIGNAL_SECONDS = 0.5  # one Ctrl-C can arrive twice within this time if a parent program forwards it


class TrainingInterruption(SignalFlag):
    """A record of Ctrl-C, SIGTERM and SIGHUP in a `with` block; a second Ctrl-C raises KeyboardInterrupt.

    SIGTERM and SIGHUP can arrive several times, from a supervisor or a closing terminal, and count once.

    Attributes:
        is_abandoned: Whether a second Ctrl-C ended the run without saving.
    """

    def __init__(self, count_unsaved: Callable[[], int], notify: Callable[[str], None]) -> None:
        """Prepare to catch the signals that this system has.

        Args:
            count_unsaved: Returns the number of updates that a second Ctrl-C would lose.
            notify: Called with a line for the user after each Ctrl-C.
        """
        super().__init__([getattr(signal, name) for name in SIGNAL_EXCEPTIONS if hasattr(signal, name)])
        self.count_unsaved = count_unsaved
        self.notify = notify
        self.first_press_at: float | None = None  # time of the first Ctrl-C
        self.is_abandoned = False

    def _record(self, number: int, _: object) -> None:
        self.received = self.received or number
        if number != signal.SIGINT:
            return
        count = self.count_unsaved()
        updates = f"the {count} updates since the last save" if count != 1 else "the update since the last save"
        if self.first_press_at is None:
            self.first_press_at = time.monotonic()
            self._notify(f"saving; press Ctrl-C again to lose {updates}" if count else "ending")
        elif time.monotonic() > self.first_press_at + DUPLICATE_SIGNAL_SECONDS:
            self.is_abandoned = True
            self._notify(f"lost: {updates}" if count else "nothing is lost")
            raise KeyboardInterrupt

    def _notify(self, line: str) -> None:
        with contextlib.suppress(RuntimeError):  # the signal arrived while another line was being written
            self.notify(line)
