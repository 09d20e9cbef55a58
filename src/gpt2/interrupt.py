"""Ctrl-C, SIGTERM and SIGHUP as a flag, to be looked at where it is safe to stop.

As an exception, Ctrl-C could strike inside TensorFlow, which makes other errors of it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after what it interrupted has come to an orderly end."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a cluster sends it before it takes a machine back."""


class HungUp(KeyboardInterrupt):
    """SIGHUP: the terminal or the connection is gone."""


SIGNAL_EXCEPTIONS = {
    "SIGINT": Interrupted,
    "SIGTERM": Terminated,
    "SIGHUP": HungUp,
}  # by name: not every system has all


class Interruption:
    """Catches the first of these signals while it is entered; the second one raises at once.

    A signal that is ignored stays so, as under `nohup`; so does the handler of another library, which was installed
    from C: Python could not put it back. In a thread other than the main one, which gets no signals, it does nothing.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
        self.signals = signals
        self.pressed: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.before[number] = signal.signal(number, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        while self.before:
            signal.signal(*self.before.popitem())

    def _press(self, number: int, _: object) -> None:
        if self.pressed is not None:
            raise KeyboardInterrupt
        self.pressed = number

    def throw(self, unless: bool = False) -> None:
        """Raises what the signal stands for, if there was one. unless: it has done all that was wanted of it."""
        if self.pressed is not None and not unless:
            raise SIGNAL_EXCEPTIONS[signal.Signals(self.pressed).name]
