"""Told to end while something is half done: it is taken back first."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a program which does not handle them: Ctrl-C, `kill`, a terminal that is
closed."""


@contextmanager
def by_exception() -> Generator[None]:
    """End by SystemExit on the first of these signals; the others cannot disturb the way back.

    One that is ignored, as under nohup, stays so.
    """
    mine = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = [(number, signal.signal(number, _end)) for number in mine]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)  # as shells say it
