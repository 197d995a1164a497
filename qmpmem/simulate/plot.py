"""Runs as a picture: a column for each policy, a panel for the host and for each guest. Pure.

Rules of this file:
    SVG by hand: a few lines and areas need no library. Shapes carry a class, and the style sheet at
    the top is the one place where colours stand; it has its own for a dark background.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from qmpmem.records import Record
from qmpmem.simulate.host import Host
from qmpmem.units import Bytes, format_size

WIDTH: Final = 420
HEIGHT: Final = 64
GAP: Final = 26
MARGIN: Final = 24
TOP: Final = 70
POINTS: Final = 500
"""More than this nobody can see."""

STYLE: Final = """
text { font: 11px sans-serif; fill: #333 }
.title { font-size: 14px; font-weight: bold }
.frame { fill: none; stroke: #bbb }
.free { fill: #8bc48b }
.used { fill: #7aa6d8 }
.lacking { fill: #e07a5f }
.size { fill: none; stroke: #333; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  svg { background: #1b1b1b }
  text { fill: #ddd }
  .size { stroke: #eee }
  .frame { stroke: #555 }
}
"""


class Point(Record, frozen=True):
    """One moment of one guest."""

    size: float
    """What it has."""
    used: float
    """What its programs hold in memory."""
    wanted: float
    """What they want."""


class Trace(Record, frozen=True):
    """One run: columns of equal length."""

    policy: str
    seconds: float
    memory: Bytes
    """The host's."""
    names: tuple[str, ...]
    maxima: tuple[Bytes, ...]
    """Of the guests."""
    times: list[float]
    available: list[float]
    guests: tuple[list[Point], ...]


class Recorder:
    """Writes a run down: call `note` after each round."""

    def __init__(self, policy: str, host: Host, seconds: float) -> None:
        specs = [guest.spec for guest in host.guests]
        self._host = host
        self._every = seconds / POINTS
        self.trace = Trace(
            policy=policy,
            seconds=seconds,
            memory=host.spec.memory,
            names=tuple(spec.id for spec in specs),
            maxima=tuple(spec.most for spec in specs),
            times=[],
            available=[],
            guests=tuple([] for _ in specs),
        )

    def note(self, time: float) -> None:
        """Take a sample, where the last is old enough."""
        trace = self.trace
        if trace.times and time - trace.times[-1] < self._every:
            return
        trace.times.append(time)
        trace.available.append(self._host.available())
        for points, guest in zip(trace.guests, self._host.guests, strict=True):
            is_up = guest.is_up(time)
            points.append(
                Point(
                    size=guest.maximum - guest.balloon if is_up else 0.0,
                    used=guest.anon,
                    wanted=guest.wanted if is_up else 0.0,
                )
            )


def draw(traces: Sequence[Trace]) -> str:
    """Draw runs of the same scenario side by side."""
    rows = 1 + max((len(trace.names) for trace in traces), default=0)
    width = MARGIN + len(traces) * (WIDTH + MARGIN)
    height = TOP + rows * (HEIGHT + GAP)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<style>{STYLE}</style>",
            *_legend(),
            *(line for number, trace in enumerate(traces) for line in _column(trace, number)),
            "</svg>\n",
        )
    )


def _legend() -> Iterator[str]:
    entries = (
        ("size", "what it has"),
        ("used", "in use"),
        ("lacking", "wanted, and not there"),
        ("free", "available on the host"),
    )
    for number, (name, words) in enumerate(entries):
        x = MARGIN + number * 150
        yield f'<rect class="{name}" x="{x}" y="10" width="12" height="10"/>'
        yield f'<text x="{x + 18}" y="19">{words}</text>'


def _column(trace: Trace, number: int) -> Iterator[str]:
    x = MARGIN + number * (WIDTH + MARGIN)
    yield f'<text class="title" x="{x}" y="42">{trace.policy}</text>'
    yield f'<text x="{x + WIDTH}" y="42" text-anchor="end">{trace.seconds:g} s</text>'
    frame = Frame(x=x, y=TOP, seconds=trace.seconds, most=trace.memory)
    yield from frame.border("host")
    yield frame.area("free", trace.times, trace.available)
    for row, name in enumerate(trace.names, start=1):
        points = trace.guests[row - 1]
        y = TOP + row * (HEIGHT + GAP)
        frame = Frame(x=x, y=y, seconds=trace.seconds, most=trace.maxima[row - 1])
        yield from frame.border(name)
        yield frame.area("lacking", trace.times, [point.wanted for point in points])
        covered = [min(point.used, point.wanted) for point in points]
        yield frame.area("used", trace.times, covered)
        yield frame.line("size", trace.times, [point.size for point in points])


class Frame(Record, frozen=True):
    """Where a panel is, and what its edges stand for."""

    x: int
    y: int
    seconds: float
    most: Bytes

    def border(self, name: str) -> Iterator[str]:
        """Draw the frame, with what it shows above it."""
        yield f'<rect class="frame" x="{self.x}" y="{self.y}" width="{WIDTH}" height="{HEIGHT}"/>'
        yield f'<text x="{self.x}" y="{self.y - 5}">{name}, {format_size(self.most)}</text>'

    def area(self, name: str, times: Sequence[float], values: Sequence[float]) -> str:
        """Fill what is below a curve."""
        if not times:
            return ""
        bottom = self.y + HEIGHT
        ends = f"{self._x(times[-1])},{bottom} {self._x(times[0])},{bottom}"
        return f'<polygon class="{name}" points="{self._points(times, values)} {ends}"/>'

    def line(self, name: str, times: Sequence[float], values: Sequence[float]) -> str:
        """Draw a curve."""
        return f'<polyline class="{name}" points="{self._points(times, values)}"/>'

    def _points(self, times: Sequence[float], values: Sequence[float]) -> str:
        pairs = zip(times, values, strict=True)
        return " ".join(f"{self._x(time)},{self._y(value)}" for time, value in pairs)

    def _x(self, time: float) -> str:
        return f"{self.x + WIDTH * min(1.0, time / self.seconds):.1f}"

    def _y(self, value: float) -> str:
        return f"{self.y + HEIGHT * (1 - min(1.0, max(0.0, value / max(1, self.most)))):.1f}"
