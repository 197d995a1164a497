"""A screen that follows: the same picture again and again, until Ctrl-C.

Rules of this file:
    No mode of the terminal is changed, so there is nothing to put back, however this ends.
"""

import io
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from qmpmem.cli.app import put

if TYPE_CHECKING:
    from collections.abc import Generator

SHORTEST: Final = 0.1
"""Seconds between two looks at least: each look takes time from the guests."""

# ECMA-48: cursor position, erase in page, erase in line.
_HOME: Final = "\x1b[H"
_CLEAR_REST: Final = "\x1b[J"
_CLEAR_LINE: Final = "\x1b[K"


def repeat(show: Callable[[], object], pause: float, *, json: bool) -> None:
    """Show something again and again: in place on a terminal, one below the other elsewhere.

    Args:
        show: writes it, to stdout.
        pause: seconds in between.
        json: whether that is JSON, which gets no empty lines between.
    """
    redraws = sys.stdout.isatty() and not json and os.environ.get("TERM", "dumb") != "dumb"
    begun = False
    while True:
        if redraws:
            with _captured() as picture:
                show()
            _draw(picture.getvalue(), clear=not begun)
        else:
            if begun and not json:
                put("")
            show()
        begun = True
        time.sleep(max(SHORTEST, pause))


@contextmanager
def _captured() -> "Generator[io.StringIO]":
    """Keep what is written, on a stream that says to be the terminal that it is for."""
    terminal = sys.stdout
    picture = _Picture()
    sys.stdout = picture
    try:
        yield picture
    finally:
        sys.stdout = terminal


class _Picture(io.StringIO):
    def isatty(self) -> bool:
        return True


def _draw(picture: str, *, clear: bool) -> None:
    lines = picture.splitlines()
    height = shutil.get_terminal_size().lines
    if len(lines) >= height:
        hidden = len(lines) - height + 2
        lines = [*lines[: height - 2], f"... and {hidden} more lines"]
    start = f"{_HOME}{_CLEAR_REST}" if clear else _HOME
    put(start + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_REST, end="")
