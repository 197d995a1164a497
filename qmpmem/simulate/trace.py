"""Runs written down to be drawn. Pure."""

from typing import Final

from qmpmem.records import Record
from qmpmem.simulate.host import Host
from qmpmem.units import Bytes

POINTS: Final = 500
"""Most points: a screen does not show more."""


class Point(Record, frozen=True):
    """One moment of one guest that runs."""

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
    """The host's memory."""
    names: tuple[str, ...]
    maxima: tuple[Bytes, ...]
    """The maxima of the guests."""
    times: list[float]
    available: list[float]
    guests: tuple[list[Point | None], ...]
    """The points of each guest; None: it does not run."""


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
            points.append(
                Point(size=guest.maximum - guest.balloon, used=guest.anon, wanted=guest.wanted)
                if guest.is_up(time)
                else None
            )
