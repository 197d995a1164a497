"""A figure drawn with the characters of a terminal. Pure.

Theory of operation:
    A column of characters shows what was known last within some time. A cell shows the part of the
    stack in which its middle is, with the signs of every bar: used, cache, free, balloon. Signs
    differ without colour, and there is a set of plain ASCII signs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Final

from qmpmem.model.escapes import printable
from qmpmem.records import Record
from qmpmem.view import axes
from qmpmem.view.figure import Figure, Lane, Panel, clipped, finite, stacked
from qmpmem.view.table import cells, wrap

LABELS: Final = 10
"""Columns beside a panel, for what is written at its ticks: ``1023.9 MiB``."""
LEAST_WIDTH: Final = 24
LEAST_HEIGHT: Final = 4
PERCENT_HEIGHT: Final = 3
APART: Final = 12
"""Least columns from one tick of time to the next."""

Signs = Mapping[str, str]

BLOCKS: Final[Signs] = {
    "used": "█",
    "cache": "▓",
    "free": "░",
    "silent": "▒",
    "balloon": "·",
    "waiting": "█",
    "target": "━",
    "less": "▼",
    "more": "▲",
    "both": "◆",
    "side": "│",
    "tick": "┤",
    "floor": "─",
    "corner": "└",
    "at": "┬",
    "cut": "…",
}
ASCII: Final[Signs] = {
    "used": "#",
    "cache": "=",
    "free": "-",
    "silent": "?",
    "balloon": ".",
    "waiting": "#",
    "target": "~",
    "less": "v",
    "more": "^",
    "both": "x",
    "side": "|",
    "tick": "+",
    "floor": "-",
    "corner": "+",
    "at": "+",
    "cut": "...",
}
STATES: Final = {
    "SLACK": "_",
    "BALANCED": "b",
    "SOFT": "s",
    "HARD": "H",
    "CRITICAL": "C",
    "distress": "!",
}
"""How a state is written in one column."""
COLOURS: Final = {
    "used": "34",
    "cache": "36",
    "free": "32",
    "silent": "33",
    "balloon": "90",
    "waiting": "33",
    "target": "35",
    "less": "33",
    "more": "32",
    "SOFT": "33",
    "HARD": "31",
    "CRITICAL": "1;31",
    "distress": "1;31",
}
"""Select graphic rendition (ECMA-48, 8.3.117), of the 16 colours that every terminal has."""


class Screen(Record, frozen=True):
    """The terminal on which a figure is drawn."""

    width: int = 80
    """Columns; never less than `LEAST_WIDTH`."""
    height: int = 12
    """Rows of a panel of sizes."""
    is_ascii: bool = False
    """Whether no other signs can be shown."""
    is_coloured: bool = False
    zone: tzinfo | None = None
    """What the clock of a time axis shows; None: this machine's."""

    @property
    def signs(self) -> Signs:
        """Return the sign of each kind of area, line and mark."""
        return ASCII if self.is_ascii else BLOCKS


def fits(encoding: str) -> bool:
    """Tell whether an encoding has all signs that are not ASCII."""
    try:
        "".join(BLOCKS.values()).encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def lines(figure: Figure, screen: Screen) -> Iterator[str]:
    """Draw the first column of panels of a figure."""
    width = max(LEAST_WIDTH, screen.width)
    yield from _heading(figure, width, screen)
    panels = figure.columns[0].panels if figure.columns else ()
    for panel in panels:
        if panel.title:
            yield from wrap(panel.title, width)
        yield from _panel(panel, figure, _Grid(figure, screen, width))
    yield from _times(figure, _Grid(figure, screen, width))
    yield from _legend(panels, screen, width)


class _Grid:
    """The columns of a panel as stretches of time."""

    def __init__(self, figure: Figure, screen: Screen, width: int) -> None:
        self.screen = screen
        self.columns = width - LABELS - 1
        self._begin = figure.begin
        self._length = figure.end - figure.begin

    def column(self, time: float) -> int:
        """Return the column of a time; one outside the axis is at its end."""
        part = (time - self._begin) / self._length
        return min(self.columns - 1, max(0, int(part * self.columns)))

    def spread(self, begin: float, end: float) -> range:
        """Return the columns that a stretch of time has its middle in, or is in alone."""
        first = self.column(begin)
        last = max(first + 1, math.ceil((end - self._begin) / self._length * self.columns - 0.5))
        return range(first, min(self.columns, last))

    def painted(self, sign: str, name: str) -> str:
        """Write a sign in its colour."""
        colour = COLOURS.get(name)
        return f"\x1b[{colour}m{sign}\x1b[0m" if self.screen.is_coloured and colour else sign


def _heading(figure: Figure, width: int, screen: Screen) -> Iterator[str]:
    days = axes.dates(figure.begin, figure.end, screen.zone) if figure.clock == "wall" else ""
    title = printable(figure.title)
    if cells(title) > width:
        cut = screen.signs["cut"]
        while title and cells(title + cut) > width:
            title = title[:-1]
        title += cut
    if days and cells(title) + cells(days) + 2 <= width:
        yield title + " " * (width - cells(title) - cells(days)) + days
        return
    yield title
    if days:
        yield from wrap(days, width)


def _panel(panel: Panel, figure: Figure, grid: _Grid) -> Iterator[str]:
    signs = grid.screen.signs
    height = max(LEAST_HEIGHT, grid.screen.height)
    if panel.unit == "percent":
        height = PERCENT_HEIGHT
    for lane in panel.lanes:
        yield _row(lane.name, " ", _states(lane, grid))
    if panel.marks:
        yield _row("told", " ", _marks(panel, grid))
    columns = _columns(panel, figure, grid, height)
    ticks = _size_ticks(panel, height)
    for row in reversed(range(height)):
        label = ticks.get(row, "")
        side = signs["tick"] if label else signs["side"]
        yield _row(label, side, [column[row] for column in columns])


def _row(label: str, side: str, content: Sequence[str]) -> str:
    return f"{label:>{LABELS}}{side}{''.join(content)}".rstrip()


def _size_ticks(panel: Panel, height: int) -> dict[int, str]:
    found = (axes.sizes if panel.unit == "bytes" else axes.percents)(panel.top, max(1, height // 3))
    rows = ((min(height - 1, int(tick.at / panel.top * height)), tick.label) for tick in found)
    return dict(rows)


def _columns(panel: Panel, figure: Figure, grid: _Grid, height: int) -> list[list[str]]:
    """Return the cells of each column, from the lowest up."""
    empty = [" "] * height
    columns = [empty] * grid.columns
    for number in clipped(panel.spans, figure.begin, figure.end):
        column = _stack(panel, number, grid, height)
        if column is not None:
            for place in grid.spread(*panel.spans[number]):
                columns[place] = column
    return columns


def _stack(panel: Panel, number: int, grid: _Grid, height: int) -> list[str] | None:
    signs = grid.screen.signs
    edges = stacked(panel.areas, number)
    if all(edge is None for edge in edges):
        return None
    column = [" "] * height
    for row in range(height):
        middle = (row + 0.5) / height * panel.top
        for area, edge in zip(panel.areas, edges, strict=True):
            if edge is not None and edge[0] <= middle < edge[1]:
                column[row] = grid.painted(signs.get(area.name, "?"), area.name)
    for line in panel.lines:
        value = finite(line.values[number])
        if value is not None and line.name in signs:
            row = min(height - 1, max(0, int(value / panel.top * height)))
            column[row] = grid.painted(signs[line.name], line.name)
    return column


def _states(lane: Lane, grid: _Grid) -> list[str]:
    """Return the worst state of each column."""
    worst: dict[int, tuple[float, str]] = {}
    for band in lane.bands:
        for place in grid.spread(band.begin, band.end):
            worst[place] = max(worst.get(place, (0.0, "")), (band.level, band.name))
    names = [worst.get(place, (0.0, ""))[1] for place in range(grid.columns)]
    return [grid.painted(STATES.get(name, "?"), name) if name else " " for name in names]


def _marks(panel: Panel, grid: _Grid) -> list[str]:
    seen: dict[int, set[str]] = {}
    for mark in panel.marks:
        seen.setdefault(grid.column(mark.at), set()).add(mark.direction)
    found = [seen.get(place, set()) for place in range(grid.columns)]
    names = ["both" if len(each) > 1 else next(iter(each), "") for each in found]
    return [grid.painted(grid.screen.signs[name], name) if name else " " for name in names]


def _times(figure: Figure, grid: _Grid) -> Iterator[str]:
    signs, most = grid.screen.signs, max(1, grid.columns // APART)
    if figure.clock == "seconds":
        ticks = axes.seconds(figure.end, most)
    else:
        ticks = axes.times(figure.begin, figure.end, most, grid.screen.zone)
    floor = [signs["floor"]] * grid.columns
    labels = ""
    for tick in ticks:
        place = grid.column(tick.at)
        floor[place] = signs["at"]
        start = min(place, grid.columns - len(tick.label))
        if start >= len(labels) + bool(labels):
            labels = f"{labels:<{start}}{tick.label}"
    yield _row("", signs["corner"], floor)
    yield _row("", " ", [labels])


def _legend(panels: Sequence[Panel], screen: Screen, width: int) -> Iterator[str]:
    signs = screen.signs
    words = {area.name: area.label for panel in panels for area in panel.areas if area.label}
    words |= {line.name: line.label for panel in panels for line in panel.lines}
    found = [f"{signs[name]} {label}" for name, label in words.items() if name in signs]
    states = {band.name for panel in panels for lane in panel.lanes for band in lane.bands}
    found += [f"{sign} {state}" for state, sign in STATES.items() if state in states]
    seen = {mark.direction for panel in panels for mark in panel.marks}
    told = {"less": "told to give", "more": "told to take"}
    found += [f"{signs[way]} {text}" for way, text in told.items() if way in seen]
    line = ""
    for each in found:
        if line and cells(f"{line}  {each}") > width:
            yield line
            line = each
        else:
            line = f"{line}  {each}" if line else each
    if line:
        yield line
