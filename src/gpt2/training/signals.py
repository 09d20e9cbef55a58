"""How signals end a training run: it saves first, unless somebody presses Ctrl-C a second time."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

from gpt2.interrupt import SIGNAL_EXCEPTIONS, SignalFlag

DUPLICATE_SIGNAL_SECONDS = 0.5  # seconds; one Ctrl-C comes twice in less where a program in between passes it on


class TrainingInterruption(SignalFlag):
    """Catches Ctrl-C, SIGTERM and SIGHUP while it is entered.

    SIGTERM and SIGHUP may come several times, from a supervisor or a terminal that closes, and stay one flag.
    """

    def __init__(self, unsaved: Callable[[], int], notify: Callable[[str], None]) -> None:
        """unsaved: how many updates a second Ctrl-C would lose. note: is told so."""
        super().__init__([getattr(signal, name) for name in SIGNAL_EXCEPTIONS if hasattr(signal, name)])
        self.unsaved, self.notify = unsaved, notify
        self.asked: float | None = None  # when Ctrl-C was pressed first
        self.given_up = False

    def _record(self, number: int, _: object) -> None:
        self.received = self.received or number
        if number != signal.SIGINT:
            return
        count = self.unsaved()
        lost = f"the {count} updates since the last save" if count != 1 else "the update since the last save"
        if self.asked is None:
            self.asked = time.monotonic()
            self._tell(f"saving; press Ctrl-C again to lose {lost}" if count else "ending")
        elif time.monotonic() > self.asked + DUPLICATE_SIGNAL_SECONDS:
            self.given_up = True
            self._tell(f"lost: {lost}" if count else "nothing is lost")
            raise KeyboardInterrupt

    def _tell(self, line: str) -> None:
        with contextlib.suppress(RuntimeError):  # it struck while a line was being written
            self.notify(line)
