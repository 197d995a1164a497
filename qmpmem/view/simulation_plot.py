"""Simulated runs as a figure: a column for each policy, a panel for each guest. Pure."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from qmpmem.simulate.trace import Point, Trace
from qmpmem.units import format_size
from qmpmem.view import svg
from qmpmem.view.figure import Area, Column, Figure, Line, Panel

WIDTH: Final = 460
"""Pixels of a column."""
HEIGHT: Final = 64
"""Pixels of a panel."""


def plot(traces: Sequence[Trace]) -> str:
    """Draw runs of the same scenario side by side, as SVG."""
    options = svg.Options(width=WIDTH * max(1, len(traces)), height=HEIGHT)
    return svg.draw(figure(traces), options)


def figure(traces: Sequence[Trace]) -> Figure:
    """Return what a plot of runs shows."""
    seconds = max((trace.seconds for trace in traces), default=1.0)
    policies = ", ".join(trace.policy for trace in traces)
    return Figure(
        title="Simulated memory of a host and its guests",
        description=f"A column for each policy: {policies}. {seconds:g} seconds.",
        begin=0.0,
        end=max(1.0, seconds),
        clock="seconds",
        gap="not running",
        columns=tuple(Column(title=trace.policy, panels=tuple(_panels(trace))) for trace in traces),
    )


def _panels(trace: Trace) -> Iterator[Panel]:
    times = [0.0, *trace.times[1:], max([trace.seconds, *trace.times[-1:]])]
    spans = tuple(pairwise(times))
    yield Panel(
        title=f"host, {format_size(trace.memory)}",
        unit="bytes",
        top=float(trace.memory),
        spans=spans,
        areas=(Area(name="free", label="available on the host", values=tuple(trace.available)),),
    )
    for name, maximum, points in zip(trace.names, trace.maxima, trace.guests, strict=True):
        covered = [None if point is None else min(point.used, point.wanted) for point in points]
        yield Panel(
            title=f"{name}, {format_size(maximum)}",
            unit="bytes",
            top=max([float(maximum), *(_most(point) for point in points)]),
            spans=spans,
            areas=(
                Area(name="used", label="used", values=tuple(covered)),
                Area(
                    name="lacking",
                    label="wanted, and not there",
                    values=tuple(_lacking(point) for point in points),
                ),
            ),
            lines=(
                Line(
                    name="actual",
                    label="actual",
                    values=tuple(None if point is None else point.size for point in points),
                ),
            ),
        )


def _lacking(point: Point | None) -> float | None:
    return None if point is None else max(0.0, point.wanted - point.used)


def _most(point: Point | None) -> float:
    return 0.0 if point is None else max(point.wanted, point.size)
