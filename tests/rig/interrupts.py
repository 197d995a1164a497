"""Signals that end a bench or the demo, which wait while a step is done that must be whole.

Theory of operation:
    Python raises KeyboardInterrupt between any two instructions of the main thread, also between
    the fork(2) inside of subprocess.Popen and the moment at which the caller has the process. That
    process is then known to no cleanup, and its cgroup cannot be removed (rmdir(2): EBUSY). So the
    handler of such a signal raises nothing inside of `uninterrupted`, whose end raises it instead.

Rules of this file:
    Only the main thread receives signals, and only it may use `uninterrupted`.
"""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Pending:
    def __init__(self) -> None:
        self.depth = 0
        """How many steps that must be whole are being done, one inside of the other."""
        self.came = False


_pending: Final = _Pending()


def receive() -> None:
    """Have signals that end a program raise KeyboardInterrupt, except those that are ignored."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal.signal's
    if _pending.depth:
        _pending.came = True
    else:
        raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Generator[None]:
    """Do a step whole: a signal that comes meanwhile raises KeyboardInterrupt at its end.

    What the step makes must be known to its cleanup before the end of this context.
    """
    _pending.depth += 1
    try:
        yield
    finally:
        _pending.depth -= 1
    if _pending.came and not _pending.depth:
        _pending.came = False
        raise KeyboardInterrupt
