"""What a plot shows, whatever it is drawn with. Pure.

Rules of this file:
    A value that is not known is None: nothing is drawn there, and nothing is made up between two
    that are known. All values of a panel are of the same spans of time.

Theory of operation:
    `qmpmem.view.svg` draws a figure as SVG, `qmpmem.view.terminal_plot` with characters of a
    terminal. Each kind of area and line has a name, by which both choose colour and pattern, and by
    which a style sheet finds it.
"""

from collections.abc import Sequence
from typing import Final, Literal

from qmpmem.records import Record

Unit = Literal["bytes", "percent"]
Clock = Literal["wall", "seconds"]
Direction = Literal["less", "more"]

MOST: Final = 2.0**64
"""Bytes of an address space: no value that is drawn is larger, so that pixels stay numbers."""


class Area(Record, frozen=True):
    """A part of a stack. The first of a panel lies on the axis, each other on the one before."""

    name: str
    """Its kind, such as ``used``."""
    label: str
    values: tuple[float | None, ...]


class Line(Record, frozen=True):
    """A line over all areas."""

    name: str
    label: str
    values: tuple[float | None, ...]


class Band(Record, frozen=True):
    """A state over some time."""

    begin: float
    end: float
    name: str
    """The state."""
    level: float
    """From 0 to 1: how bad that is."""


class Lane(Record, frozen=True):
    """The states of something over time, above a panel."""

    name: str
    """What has these states: ``host``, ``guest``."""
    bands: tuple[Band, ...]


class Mark(Record, frozen=True):
    """A decision."""

    at: float
    direction: Direction
    text: str
    """What was decided."""
    count: int = 1


class Panel(Record, frozen=True):
    """One pair of axes."""

    title: str
    """The title; "" where that of the figure is enough."""
    unit: Unit
    top: float
    """The value at which the axis ends."""
    spans: tuple[tuple[float, float], ...]
    """Begin and end of the time of each value, oldest first; none overlaps another."""
    areas: tuple[Area, ...] = ()
    lines: tuple[Line, ...] = ()
    lanes: tuple[Lane, ...] = ()
    marks: tuple[Mark, ...] = ()


class Column(Record, frozen=True):
    """Panels below each other, over the same time."""

    title: str
    panels: tuple[Panel, ...]


class Figure(Record, frozen=True):
    """A whole plot."""

    title: str
    description: str
    """What is to be seen, in sentences, for readers who cannot see it."""
    begin: float
    """The begin of all time axes: seconds since 1970, or of the run where `clock` is
    ``seconds``."""
    end: float
    columns: tuple[Column, ...]
    clock: Clock = "wall"
    gap: str = "nothing known"
    """What it means where a panel is empty."""


def finite(value: float | None) -> float | None:
    """Return a value that can be drawn; None for one that cannot, as from a damaged file."""
    return value if value is not None and abs(value) <= MOST else None


def clipped(spans: Sequence[tuple[float, float]], begin: float, end: float) -> list[int]:
    """Return the numbers of the spans that a time axis shows some of."""
    return [
        number
        for number, (first, last) in enumerate(spans)
        if last > begin and first < end and last > first
    ]


def stacked(areas: Sequence[Area], number: int) -> list[tuple[float, float] | None]:
    """Return from where to where each area of a stack is, at one span; None: not known."""
    below = 0.0
    found: list[tuple[float, float] | None] = []
    for area in areas:
        value = finite(area.values[number])
        if value is None:
            found.append(None)
            continue
        found.append((below, below + max(0.0, value)))
        below += max(0.0, value)
    return found
