"""What the journal knows over some time, as a figure, and as SVG. Pure.

Theory of operation:
    A guest's stack is what it uses, its cache, what is free in it, and its balloon, up to its
    maximum: the same order as in every bar. Where it does not report, what it has is one area of
    its own. The target holds from when the guest was told until it is told another, or until
    nothing is known.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from itertools import pairwise
from typing import Final

from qmpmem.journal.points import GuestPoint, HostPoint, Moment, Series, connected
from qmpmem.model.round import STATES, HostState, severity
from qmpmem.records import Record, replace
from qmpmem.units import Bytes, format_size
from qmpmem.view import axes, svg
from qmpmem.view.figure import Area, Band, Column, Figure, Lane, Line, Mark, Panel, finite
from qmpmem.view.rows import label

WIDTH: Final = 900
"""Pixels."""

LATEST: Final = 2.0**40
"""Most seconds since 1970, and before: no calendar goes so far."""
CEILINGS: Final = (10.0, 20.0, 50.0, 100.0)
"""Percents at which axes end."""

Spans = tuple[tuple[float, float], ...]


def plot(
    series: Series,
    *,
    width: int = WIDTH,
    zone: tzinfo | None = None,
    name: str = "plot",
    styled: bool = True,
) -> str:
    """Draw a series as SVG.

    Args:
        series: of a guest or of the host (`qmpmem.journal.ranges.read`).
        width: pixels; the text is as large in a narrow plot, and its legend has more lines.
        zone: what the clock of the axis shows; None: this machine's.
        name: what the ids in it begin with: two plots in one page need two.
        styled: whether the style sheet is in it. A page whose policy allows none inside it takes
            `qmpmem.view.svg.STYLE` from a file of its own.
    """
    options = svg.Options(width=width, zone=zone, name=name, styled=styled)
    return svg.draw(figure(series, zone), options)


def figure(series: Series, zone: tzinfo | None = None) -> Figure:
    """Return what a plot of a series shows."""
    begin, end = _axis(series)
    who = "host" if series.guest is None else f"guest {label(series.guest, series.name)}"
    panels = _host(series) if series.guest is None else _guest(series)
    days = axes.dates(begin, end, zone)
    return Figure(
        title=f"Memory of {who}" if series.guest else "Memory of the host",
        description=" ".join(_sentences(series, days)),
        begin=begin,
        end=end,
        columns=(Column(title="", panels=tuple(panels)),),
    )


class Stack(Record, frozen=True):
    """A guest's size, taken apart; what is not known is None."""

    used: float | None = None
    cache: float | None = None
    free: float | None = None
    silent: float | None = None
    """What it has, where it does not report what it does with it."""
    balloon: float | None = None


def stack(point: GuestPoint) -> Stack:
    """Take a guest's size apart. Bytes; the sum is its maximum, as far as it is known."""
    if point.actual is None:
        return Stack()
    has = max(0, point.actual)
    rest = None if point.maximum is None else float(max(0, point.maximum - has))
    if point.used is None or point.cache is None:
        return Stack(silent=float(has), balloon=rest)
    # These are means over rounds that differ: the parts must not be more than the whole.
    uses = min(max(0, point.used), has)
    cache = min(max(0, point.cache), has - uses)
    return Stack(used=float(uses), cache=float(cache), free=float(has - uses - cache), balloon=rest)


def spans(times: Sequence[float], step: float) -> Spans:
    """Return from when to when the value of each point holds: to the next, unless there is a gap.

    Args:
        times: when points begin, oldest first.
        step: seconds that each covers.
    """
    joined = connected(times, step)
    ends = [
        after if join or after < before + step else before + step
        for (before, after), join in zip(pairwise(times), joined, strict=True)
    ]
    return tuple(zip(times, [*ends, *(time + step for time in times[-1:])], strict=True))


def _axis(series: Series) -> tuple[float, float]:
    begin = min(LATEST, max(-LATEST, finite(series.begin) or 0.0))
    end = min(LATEST, max(-LATEST, finite(series.end) or 0.0))
    return begin, max(end, begin + 1.0)


def _guest(series: Series) -> Iterator[Panel]:
    found = spans([each.begin for each in series.points], series.step)
    points = [each.point for each in series.points]
    stacks = [stack(point) for point in points]
    targets = _targets(points, found)
    tops = [
        finite(value) or 0.0
        for point, target in zip(points, targets, strict=True)
        for value in (point.maximum, point.actual, target)
    ]
    areas = (
        Area(name="used", label="used", values=tuple(each.used for each in stacks)),
        Area(name="cache", label="cache", values=tuple(each.cache for each in stacks)),
        Area(name="free", label="free", values=tuple(each.free for each in stacks)),
        Area(
            name="silent",
            label="actual, not reported what for",
            values=tuple(each.silent for each in stacks),
        ),
        Area(name="balloon", label="balloon", values=tuple(each.balloon for each in stacks)),
    )
    yield Panel(
        title="",
        unit="bytes",
        top=max([1.0, *tops]),
        spans=found,
        areas=tuple(each for each in areas if any(value is not None for value in each.values)),
        lines=(
            Line(name="actual", label="actual", values=tuple(point.actual for point in points)),
            Line(name="target", label="target", values=tuple(targets)),
        ),
        lanes=tuple(
            lane
            for lane in (
                Lane(name="host", bands=_bands(series.host, series.step)),
                Lane(name="guest", bands=_suffers(points, found)),
            )
            if lane.bands
        ),
        marks=tuple(_marks(series.points)),
    )


def _targets(points: Sequence[GuestPoint], found: Spans) -> list[float | None]:
    """Return what a guest was last told at each point; None before, and after each gap."""
    targets: list[float | None] = []
    known: float | None = None
    last: float | None = None
    for point, (begin, end) in zip(points, found, strict=True):
        if last is not None and begin > last:
            known = None
        known = known if point.target is None else float(point.target)
        targets.append(known)
        last = end
    return targets


def _marks(points: Sequence[Moment]) -> Iterator[Mark]:
    for each in points:
        point = each.point
        size = "" if point.target is None else format_size(point.target)
        if point.less > 0:
            text = f"told to give: {size}"
            yield Mark(at=each.begin, direction="less", text=text, count=point.less)
        if point.more > 0:
            text = f"told to take: {size}"
            yield Mark(at=each.begin, direction="more", text=text, count=point.more)


def _host(series: Series) -> Iterator[Panel]:
    found = spans([each.begin for each in series.host], series.step)
    points = series.host
    shares = [_share(point) for point in points]
    yield Panel(
        title="",
        unit="bytes",
        top=max([1.0, *(finite(point.total) or 0.0 for point in points)]),
        spans=found,
        areas=(
            Area(name="used", label="guests", values=tuple(each.guests for each in shares)),
            Area(name="silent", label="others", values=tuple(each.others for each in shares)),
            Area(name="free", label="available", values=tuple(each.available for each in shares)),
        ),
        lines=(
            Line(
                name="target",
                label="where the reserve begins",
                values=tuple(each.reserve for each in shares),
            ),
        ),
        lanes=(Lane(name="host", bands=_bands(points, series.step)),) if points else (),
    )
    some = tuple(finite(point.some) for point in points)
    if any(value is not None for value in some):
        yield Panel(
            title="Waiting for memory (PSI some, 10 s), at most",
            unit="percent",
            top=_ceiling(max(value or 0.0 for value in some)),
            spans=found,
            areas=(Area(name="waiting", label="", values=some),),
        )


def _ceiling(percent: float) -> float:
    """Return where an axis of percents ends, so that two with little to show look alike."""
    return next((each for each in CEILINGS if each >= percent), percent)


class _Share(Record, frozen=True):
    guests: float | None = None
    others: float | None = None
    available: float | None = None
    reserve: float | None = None


def _share(point: HostPoint) -> _Share:
    """Take the host's memory apart; the sum is all of it."""
    if point.total is None or point.available is None:
        return _Share()
    total = float(max(0, point.total))
    available = min(max(0.0, float(point.available)), total)
    guests = min(max(0.0, float(point.cost or 0)), total - available)
    return _Share(
        guests=None if point.cost is None else guests,
        others=total - available - guests,
        available=available,
        reserve=None if point.reserve is None else max(0.0, total - point.reserve),
    )


def _bands(points: Sequence[HostPoint], step: float) -> tuple[Band, ...]:
    """Return the worst state of the host at each stretch."""
    found = spans([point.begin for point in points], step)
    return _joined(
        Band(begin=begin, end=end, name=state, level=(severity(state) + 1) / len(STATES))
        for point, (begin, end) in zip(points, found, strict=True)
        if (state := point.state) is not None
    )


def _suffers(points: Sequence[GuestPoint], found: Spans) -> tuple[Band, ...]:
    """Return when a guest was in distress at any time."""
    return _joined(
        Band(begin=begin, end=end, name="distress", level=1.0)
        for point, (begin, end) in zip(points, found, strict=True)
        if point.distress > 0
    )


def _joined(bands: Iterable[Band]) -> tuple[Band, ...]:
    """Make one band of those that go on in the same state."""
    found: list[Band] = []
    for band in bands:
        if found and (found[-1].name, found[-1].end) == (band.name, band.begin):
            found[-1] = replace(found[-1], end=band.end)
        else:
            found.append(band)
    return tuple(found)


def _sentences(series: Series, days: str) -> Iterator[str]:
    yield f"{days}." if days else ""
    if series.guest is None:
        yield from _about_host(series.host)
    else:
        yield from _about_guest([each.point for each in series.points])
    worst: list[HostState] = [point.state for point in series.host if point.state is not None]
    if worst:
        yield f"The host's worst state is {max(worst, key=severity)}."


def _about_guest(points: Sequence[GuestPoint]) -> Iterator[str]:
    if not points:
        yield "Nothing is known of it in this time."
        return
    lows = [point.lowest for point in points if point.lowest is not None]
    highs = [point.highest for point in points if point.highest is not None]
    if lows and highs:
        yield f"It has {format_size(min(lows))} to {format_size(max(highs))}."
    peaks = [point.peak for point in points if point.peak is not None]
    if peaks:
        yield f"It uses {format_size(Bytes(max(peaks)))} at most."
    less, more = sum(point.less for point in points), sum(point.more for point in points)
    yield f"It is told {less} times to give memory, and {more} times to take some."
    if any(point.distress for point in points):
        yield "It is in distress at times."


def _about_host(points: Sequence[HostPoint]) -> Iterator[str]:
    least = [point.least for point in points if point.least is not None]
    if not points:
        yield "Nothing is known of it in this time."
    if least:
        yield f"At least {format_size(min(least))} are available."
    if points:
        last = points[-1]
        yield f"{last.guests} guests may have {format_size(last.maxima)} together."
