"""Where the ticks of an axis are, and what is written beside them. Pure.

Rules of this file:
    Sizes have ticks at powers of two, so that each is a round number in some unit. Times have ticks
    where a clock on the wall shows a round one.
"""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

from qmpmem.records import Record
from qmpmem.units import Bytes, format_duration, format_size

DAY: Final = 86400
TIMES: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * each for each in (1, 2, 5, 10, 15, 30)),
    *(3600 * each for each in (1, 2, 3, 6, 12)),
    *(DAY * each for each in (1, 2, 7, 14, 28)),
)
"""Seconds that may be between two ticks."""
NEAR: Final = 0.6
"""Part of the way between two ticks: the end of an axis has a tick of its own where the last one is
farther away."""


class Tick(Record, frozen=True):
    """A place on an axis, and what is written there."""

    at: float
    label: str


def sizes(top: float, most: int) -> list[Tick]:
    """Return the ticks of an axis of bytes, from 0 to its top.

    Args:
        top: bytes.
        most: the most ticks for which there is room beside the one at 0.
    """
    step = 2.0 ** max(0, math.ceil(math.log2(max(1.0, top) / max(1, most))))
    return _even(top, step, lambda value: format_size(Bytes(int(value))))


def percents(top: float, most: int) -> list[Tick]:
    """Return the ticks of an axis of percents, from 0 to its top."""
    least = max(top, 1e-6) / max(1, most)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= least)
    return _even(top, step, lambda value: f"{value:g} %")


def times(begin: float, end: float, most: int, zone: tzinfo | None = None) -> list[Tick]:
    """Return the ticks of a time axis, in seconds since 1970.

    Args:
        begin: the begin of the axis.
        end: the end of the axis.
        most: the most ticks for which there is room.
        zone: what clocks show; None: this machine's.
    """
    step = _pace(end - begin, most)
    ahead = offset(begin, zone)
    return [Tick(at=at, label=_clock(at, step, zone)) for at in _multiples(begin, end, step, ahead)]


def seconds(end: float, most: int) -> list[Tick]:
    """Return the ticks of an axis of seconds that begins at 0."""
    step = _pace(end, most)
    return [Tick(at=at, label=format_duration(at)) for at in _multiples(0.0, end, step, 0.0)]


def local(seconds: float, zone: tzinfo | None = None) -> datetime | None:
    """Return what a calendar and a clock show at a time; None: no calendar has it.

    Args:
        seconds: since 1970.
        zone: of the clock; None: this machine's.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    except (OverflowError, OSError, ValueError):
        return None


def offset(seconds: float, zone: tzinfo | None = None) -> float:
    """Return the seconds that a clock is ahead of UTC at a time."""
    moment = local(seconds, zone)
    ahead = None if moment is None else moment.utcoffset()
    return 0.0 if ahead is None else ahead.total_seconds()


def dates(begin: float, end: float, zone: tzinfo | None = None) -> str:
    """Return the days of a time axis, and its clock's zone; "" where no calendar has them."""
    first, last = local(begin, zone), local(end, zone)
    if first is None or last is None:
        return ""
    days = [f"{each:%Y-%m-%d}" for each in (first, last)]
    ahead = f"{last:%z}"
    return f"{' to '.join(dict.fromkeys(days))}, UTC{ahead[:3]}:{ahead[3:5]}"


def _even(top: float, step: float, label: Callable[[float], str]) -> list[Tick]:
    found = [Tick(at=step * each, label=label(step * each)) for each in range(int(top // step) + 1)]
    if top - found[-1].at >= NEAR * step:
        found.append(Tick(at=top, label=label(top)))
    return found


def _pace(length: float, most: int) -> float:
    least = length / max(1, most)
    return next((each for each in TIMES if each >= least), math.ceil(least / DAY) * DAY)


def _multiples(begin: float, end: float, step: float, ahead: float) -> Iterator[float]:
    first = math.ceil((begin + ahead) / step)
    # Counted, not added up: a step is nothing beside a very late time.
    for number in range(int((end - begin) / step) + 1):
        at = (first + number) * step - ahead
        if begin <= at <= end:
            yield at


def _clock(at: float, step: float, zone: tzinfo | None) -> str:
    moment = local(at, zone)
    if moment is None:
        return f"{at:.0f} s"
    is_midnight = (moment.hour, moment.minute, moment.second) == (0, 0, 0)
    if step >= DAY or is_midnight:
        return f"{moment.day} {moment:%b}"
    return f"{moment:%H:%M}" if step >= 60 else f"{moment:%H:%M:%S}"  # noqa: PLR2004 - a minute
