"""What a figure shows at each moment, in words: for a page that shows values at a pointer. Pure.

The words are those of the axes: a script that shows them formats nothing.
"""

from datetime import tzinfo
from typing import Final

from qmpmem.records import Record
from qmpmem.units import Bytes, format_size
from qmpmem.view import axes
from qmpmem.view.figure import Area, Figure, Line, Panel, clipped, finite
from qmpmem.view.rows import UNKNOWN

CLOCK: Final = "%H:%M:%S"
DATED: Final = "%d %b %H:%M"
LONG: Final = 12 * 3600.0
"""Seconds from which on a time axis needs the day beside the time."""


class Reading(Record, frozen=True, array_like=True):
    """The values of a panel over one span of time."""

    begin: float
    """Seconds since 1970."""
    end: float
    clock: str
    """When it begins, as the axis shows it."""
    words: tuple[str, ...]
    """A value for each name of the panel."""


class Readings(Record, frozen=True):
    """The values of one panel."""

    names: tuple[str, ...]
    """The names of its areas from the axis up, then of its lines."""
    rows: tuple[Reading, ...]
    """The values, oldest first; none where nothing is known."""


class Values(Record, frozen=True):
    """The values of a figure, whose panels are one below the other."""

    begin: float
    end: float
    panels: tuple[Readings, ...]


def values(figure: Figure, zone: tzinfo | None = None) -> Values:
    """Return the values of the first column of a figure.

    Args:
        figure: the figure, with a time axis of seconds since 1970.
        zone: what clocks show; None: this machine's.
    """
    form = DATED if figure.end - figure.begin > LONG else CLOCK
    return Values(
        begin=figure.begin,
        end=figure.end,
        panels=tuple(
            _panel(panel, figure, form, zone)
            for column in figure.columns[:1]
            for panel in column.panels
        ),
    )


def _panel(panel: Panel, figure: Figure, form: str, zone: tzinfo | None) -> Readings:
    series: tuple[Area | Line, ...] = (*panel.areas, *panel.lines)
    rows = [
        Reading(
            begin=panel.spans[number][0],
            end=panel.spans[number][1],
            clock=_clock(panel.spans[number][0], form, zone),
            words=tuple(_word(each.values[number], panel) for each in series),
        )
        for number in clipped(panel.spans, figure.begin, figure.end)
    ]
    names = tuple(each.label or panel.title for each in series)
    known = (row for row in rows if any(word != UNKNOWN for word in row.words))
    return Readings(names=names, rows=tuple(known))


def _clock(at: float, form: str, zone: tzinfo | None) -> str:
    moment = axes.local(at, zone)
    return UNKNOWN if moment is None else moment.strftime(form)


def _word(value: float | None, panel: Panel) -> str:
    number = finite(value)
    if number is None:
        return UNKNOWN
    return format_size(Bytes(int(number))) if panel.unit == "bytes" else f"{number:.1f} %"
