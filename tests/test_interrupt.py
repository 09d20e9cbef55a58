"""Signals as flags: which are caught, and that all is put back."""

import signal

import pytest

from gpt2.interrupt import HungUp, Interrupted, Interruption, Terminated


@pytest.mark.parametrize(
    "number, raised", [(signal.SIGINT, Interrupted), (signal.SIGTERM, Terminated), (signal.SIGHUP, HungUp)]
)
def test_a_signal_is_a_flag_until_it_is_safe_to_stop(number, raised):
    before = signal.getsignal(number)
    with Interruption([number]) as interruption:
        signal.raise_signal(number)
        assert interruption.pressed == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before
    with pytest.raises(raised):
        interruption.throw()


def test_what_is_ignored_stays_ignored():
    """As under nohup, and in the background of a script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption([signal.SIGHUP]) as interruption:
            signal.raise_signal(signal.SIGHUP)
        assert interruption.pressed is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_that_python_cannot_put_back_stays(monkeypatch):
    """To Python, one that was installed from C is None."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("it was replaced"))
    with Interruption() as interruption:
        pass
    assert interruption.pressed is None
