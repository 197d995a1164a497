"""The last minutes, hours or day of a guest or the host, as a plot and as a table of values.

Rules of this file:
    The journal is read in a thread, one reading at a time, and not more often than each `FRESH`
    seconds for the same plot: a page that is open asks again and again.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, Literal, get_args

from qmpmem.errors import QmpmemError
from qmpmem.journal import ranges
from qmpmem.journal.points import Series
from qmpmem.journal.store import Reader
from qmpmem.records import Record
from qmpmem.serve.html import Markup, join, tag
from qmpmem.serve.once import Once
from qmpmem.units import Bytes
from qmpmem.view import plots, separated
from qmpmem.view.rows import printable

Stretch = Literal["10m", "1h", "24h"]
SECONDS: Final[Mapping[Stretch, float]] = {"10m": 600.0, "1h": 3600.0, "24h": 86400.0}
WORDS: Final[Mapping[Stretch, str]] = {"10m": "10 minutes", "1h": "1 hour", "24h": "24 hours"}
STRETCHES: Final[tuple[Stretch, ...]] = get_args(Stretch)
FRESH: Final = 10.0
"""Seconds for which what was read is shown."""
WIDTHS: Final[Mapping[str, int]] = {"wide": 900, "narrow": 340}
"""Pixels of a plot for a screen and for a phone, whose letters must be as large."""

Key = tuple[str | None, Stretch]


class Line(Record, frozen=True):
    """A line of the table: a guest over some time. The names are those of the first line."""

    time: float
    maximum: Bytes | None
    actual: Bytes | None
    used: Bytes | None
    cache: Bytes | None
    free: Bytes | None
    cost: Bytes | None
    target: Bytes | None


class Past:
    """Reads the journal for visitors.

    Args:
        journal: its file; it need not be there.
        wall: gives the seconds since 1970.
    """

    def __init__(self, journal: Path, wall: Callable[[], float]) -> None:
        self._journal = journal
        self._wall = wall
        self._turn = asyncio.Lock()
        self._series: Once[Key, Series] = Once(lambda: int(wall() // FRESH), self._read)

    async def plot(self, guest: str | None, stretch: Stretch) -> Markup:
        """Draw a guest, or the host; where that cannot be, say why."""
        try:
            series = await self._series.get((guest, stretch))
        except QmpmemError as error:
            return tag("p", printable(error.message), class_="dim")
        drawn = await asyncio.to_thread(draw, series)
        return join(*drawn)

    async def table(self, guest: str, stretch: Stretch) -> bytes:
        """Write what is known of a guest as comma-separated values.

        Raises:
            QmpmemError: there is no journal, or nothing of this guest in it.
        """
        series = await self._series.get((guest, stretch))
        text = "".join(f"{line}\r\n" for line in separated.lines(Line, lines(series), ("time",)))
        return text.encode("utf-8", "replace")

    async def _read(self, key: Key) -> Series:
        async with self._turn:
            return await asyncio.to_thread(self._read_now, *key)

    def _read_now(self, guest: str | None, stretch: Stretch) -> Series:
        now = self._wall()
        with closing(Reader(self._journal)) as reader:
            return ranges.read(reader, guest, now - SECONDS[stretch], now)


def draw(series: Series) -> list[Markup]:
    """Draw a series once for each width; a style sheet shows the one that fits."""
    return [
        tag("div", Markup(plots.plot(series, width=width, name=name, styled=False)), class_=name)
        for name, width in WIDTHS.items()
    ]


def lines(series: Series) -> list[Line]:
    """Return the lines of the table."""
    return [
        Line(
            time=each.begin,
            maximum=each.point.maximum,
            actual=each.point.actual,
            used=each.point.used,
            cache=each.point.cache,
            free=each.point.free,
            cost=each.point.cost,
            target=each.point.target,
        )
        for each in series.points
    ]


def section(plot: Markup, path: str, stretch: Stretch, table: str | None) -> Markup:
    """Write a plot with what leads to others.

    Args:
        plot: as `Past.plot` draws it.
        path: of the page that it is on.
        stretch: what it shows.
        table: where its values are, as a table.
    """
    links = (
        tag(
            "a",
            WORDS[each],
            href=f"{path}?range={each}",
            aria_current="true" if each == stretch else None,
        )
        for each in STRETCHES
    )
    values = tag("a", "Values (CSV)", href=f"{table}?range={stretch}") if table else None
    return tag(
        "section",
        tag("h2", "The last ", WORDS[stretch]),
        tag("nav", *links, values, aria_label="How far back"),
        tag("div", plot, id="plot", class_="plot", data_from=f"{path}/plot?range={stretch}"),
    )
