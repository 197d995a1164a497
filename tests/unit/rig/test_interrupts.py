"""Signals wait while a step is done that must be whole."""

import signal
from collections.abc import Iterator

import pytest

from tests.rig import interrupts
from tests.rig.interrupts import uninterrupted


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupts.ENDING)
def test_a_signal_waits_for_the_end_of_the_outermost_step(number: signal.Signals) -> None:
    interrupts.receive()
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012 - the order is meant
        with uninterrupted():
            signal.raise_signal(number)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    with uninterrupted():
        pass  # it was raised once
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_an_error_of_the_step_comes_first_and_the_signal_is_not_lost() -> None:
    interrupts.receive()
    with pytest.raises(ZeroDivisionError), uninterrupted():  # noqa: PT012 - the order is meant
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        pass


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.receive()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
