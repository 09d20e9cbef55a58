"""Signals as flags: which ones are caught, and that the previous handlers are restored."""

import signal

import pytest

from gpt2.interrupt import HungUp, Interrupted, SignalFlag, Terminated


@pytest.mark.parametrize(
    "number, exception", [(signal.SIGINT, Interrupted), (signal.SIGTERM, Terminated), (signal.SIGHUP, HungUp)]
)
def test_a_signal_is_a_flag_until_it_is_safe_to_stop(number, exception):
    before = signal.getsignal(number)
    with SignalFlag([number]) as flag:
        signal.raise_signal(number)
        assert flag.received == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before
    with pytest.raises(exception):
        flag.raise_if_received()


def test_an_ignored_signal_stays_ignored():
    """As under nohup, and in the background of a script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalFlag([signal.SIGHUP]) as flag:
            signal.raise_signal(signal.SIGHUP)
        assert flag.received is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_that_python_cannot_restore_is_kept(monkeypatch):
    """Python reports a handler that was installed from C as None."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("the handler was replaced"))
    with SignalFlag() as flag:
        pass
    assert flag.received is None
