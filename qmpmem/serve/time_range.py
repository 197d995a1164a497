"""Which part of the past a page shows: the last minutes, hours or day, or from one time to another.

A window is read from the query of an address: ``range=1h``, or ``from=…&to=…`` in seconds since
1970. Pure.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Final, Literal, get_args

from qmpmem.records import Record

Stretch = Literal["10m", "1h", "24h"]
SECONDS: Final[Mapping[Stretch, float]] = {"10m": 600.0, "1h": 3600.0, "24h": 86400.0}
WORDS: Final[Mapping[Stretch, str]] = {"10m": "10 minutes", "1h": "1 hour", "24h": "24 hours"}
STRETCHES: Final[tuple[Stretch, ...]] = get_args(Stretch)
SHORTEST: Final = 10
"""Seconds that a window has at least: rounds are a second or more apart."""
LONGEST: Final = 31 * 86400
"""Seconds that a window has at the most: the journal reaches no further back."""
DIGITS: Final = 11
"""Digits of a time in an address: the year 5138 has no more."""


class Window(Record, frozen=True):
    """A part of the past."""

    stretch: Stretch = "10m"
    """The window's length, up to now; it has no meaning where `between` is known."""
    between: tuple[int, int] | None = None
    """The beginning and the end of the window, in seconds since 1970."""

    @property
    def query(self) -> str:
        """Return what follows ``?`` in an address."""
        if self.between is None:
            return f"range={self.stretch}"
        return f"from={self.between[0]}&to={self.between[1]}"

    @property
    def name(self) -> str:
        """Return a part of a file's name."""
        return self.stretch if self.between is None else "{}-{}".format(*self.between)

    @property
    def words(self) -> str:
        """Return a heading."""
        if self.between is None:
            return f"The last {WORDS[self.stretch].removeprefix('1 ')}"
        begin, end = (time.localtime(each) for each in self.between)
        form = "%H:%M:%S" if begin[:3] == end[:3] else "%Y-%m-%d %H:%M:%S"
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', begin)} to {time.strftime(form, end)}"

    def ends(self, now: float) -> tuple[float, float]:
        """Return from when to when it is, in seconds since 1970."""
        if self.between is None:
            return now - SECONDS[self.stretch], now
        begin, end = self.between
        return float(begin), float(end)

    def beside(self, now: float) -> Iterator[tuple[str, "Window"]]:
        """Yield windows of the same length before and after this one, and what each is called."""
        begin, end = (int(each) for each in self.ends(now))
        length = end - begin
        if begin >= length:
            yield "Earlier", Window(between=(begin - length, begin))
        if self.between is not None and end < now:
            yield "Later", Window(between=(end, end + length))


def window(query: Mapping[str, str]) -> Window:
    """Read a window; what is none is the last ten minutes.

    Args:
        query: of an address.
    """
    begin, end = _moment(query.get("from")), _moment(query.get("to"))
    if begin is not None and end is not None and SHORTEST <= end - begin <= LONGEST:
        return Window(between=(begin, end))
    known: dict[str, Stretch] = {each: each for each in STRETCHES}
    return Window(stretch=known.get(query.get("range", ""), "10m"))


def _moment(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        return None
    return int(text)
