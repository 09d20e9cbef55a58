"""Ctrl-C, SIGTERM and SIGHUP as a flag, which is checked where it is safe to stop.

If Ctrl-C raised an exception at once, this could happen inside TensorFlow, which would turn it into another error.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any


class Interrupted(KeyboardInterrupt):
    """An interruption by Ctrl-C, raised after the work has stopped cleanly."""


class Terminated(KeyboardInterrupt):
    """A termination by SIGTERM, which a cluster sends before it reclaims a machine."""


class HungUp(KeyboardInterrupt):
    """A hang-up (SIGHUP), sent when the terminal or the connection is closed."""


# The keys are names, because not every system has every signal.
SIGNAL_EXCEPTIONS = {"SIGINT": Interrupted, "SIGTERM": Terminated, "SIGHUP": HungUp}


class SignalFlag:
    """A record of the first of the given signals inside a `with` block; a second one raises KeyboardInterrupt.

    An ignored signal stays ignored, as under `nohup`. A handler that another library installed from C stays
    installed, because Python could not restore it. Outside the main thread, which alone receives signals, the flag
    does nothing.

    Attributes:
        received: The number of the first received signal, or None.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
        """Choose the signals to catch."""
        self.signals = signals
        self.received: int | None = None
        self.previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> SignalFlag:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.previous_handlers[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        while self.previous_handlers:
            signal.signal(*self.previous_handlers.popitem())

    def _record(self, number: int, _: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def raise_if_received(self) -> None:
        """Raise the exception of the received signal, if there is one."""
        if self.received is not None:
            raise SIGNAL_EXCEPTIONS[signal.Signals(self.received).name]
