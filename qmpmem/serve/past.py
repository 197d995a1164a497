"""The past of a guest or the host, as a plot, as its values in words, and as a table.

Rules of this file:
    The journal is read in a thread, one reading at a time, and not more often than each `FRESH`
    seconds for the same plot: a page that is open asks again and again.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from qmpmem.errors import QmpmemError
from qmpmem.journal import ranges
from qmpmem.journal.points import Series
from qmpmem.journal.reader import Reader
from qmpmem.model.escapes import printable
from qmpmem.records import Record
from qmpmem.serve.html import Markup, join, tag
from qmpmem.serve.once_per_round import OncePerRound
from qmpmem.serve.time_range import STRETCHES, WORDS, Window
from qmpmem.units import Bytes
from qmpmem.view import comma_separated, plot_values, plots

FRESH: Final = 10.0
"""Seconds for which what was read of the journal is shown."""
WIDTHS: Final[Mapping[str, int]] = {"wide": 840, "narrow": 340}
"""Pixels of a plot for a screen and for a phone, whose letters must be as large."""

Key = tuple[str | None, Window]


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
        self._series: OncePerRound[Key, Series] = OncePerRound(
            lambda: int(wall() // FRESH), self._read
        )

    @property
    def now(self) -> float:
        """Return the seconds since 1970."""
        return self._wall()

    async def plot(self, guest: str | None, over: Window) -> Markup:
        """Draw a guest, or the host; where that cannot be, say why."""
        try:
            series = await self._series.get((guest, over))
        except QmpmemError as error:
            return tag("p", printable(error.message), class_="dim")
        drawn = await asyncio.to_thread(draw, series)
        return join(*drawn)

    async def values(self, guest: str | None, over: Window) -> bytes:
        """Write what a plot shows at each time, as JSON (`qmpmem.view.plot_values.Values`).

        Raises:
            QmpmemError: there is no journal, or nothing of this guest in it.
        """
        series = await self._series.get((guest, over))
        return await asyncio.to_thread(
            lambda: msgspec.json.encode(plot_values.values(plots.figure(series)))
        )

    async def table(self, guest: str, over: Window) -> bytes:
        """Write what is known of a guest as comma-separated values.

        Raises:
            QmpmemError: there is no journal, or nothing of this guest in it.
        """
        series = await self._series.get((guest, over))
        text = "".join(
            f"{line}\r\n" for line in comma_separated.lines(Line, lines(series), ("time",))
        )
        return text.encode("utf-8", "replace")

    async def _read(self, key: Key) -> Series:
        async with self._turn:
            return await asyncio.to_thread(self._read_now, *key)

    def _read_now(self, guest: str | None, over: Window) -> Series:
        begin, end = over.ends(self._wall())
        with closing(Reader(self._journal)) as reader:
            return ranges.read(reader, guest, begin, end)


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


def section(plot: Markup, path: str, over: Window, now: float, *, table: bool) -> Markup:
    """Write a plot with what leads to others.

    Args:
        plot: as `Past.plot` draws it.
        path: of the page that it is on.
        over: what it shows.
        now: seconds since 1970.
        table: whether its values are at ``path/table.csv``.
    """
    links = (
        tag(
            "a",
            WORDS[each],
            href=f"{path}?range={each}",
            aria_current="true" if over == Window(stretch=each) else None,
        )
        for each in STRETCHES
    )
    others = (tag("a", words, href=f"{path}?{each.query}") for words, each in over.beside(now))
    values = tag("a", "Values (CSV)", href=f"{path}/table.csv?{over.query}") if table else None
    return tag(
        "section",
        tag("h2", over.words),
        tag("nav", *links, *others, values, aria_label="How far back"),
        tag(
            "div",
            plot,
            id="plot",
            class_="plot",
            data_path=path,
            data_query=over.query,
            data_every=None if over.between else 15 if over.stretch == "10m" else 60,
        ),
        tag("p", id="reading", class_="dim", role="status"),
        id="past",
    )
