"""What the programs inside a guest want: bytes over the seconds since the guest started. Pure."""

import math
from bisect import bisect_right

from qmpmem.records import Record
from qmpmem.units import Bytes


class Steady(Record, frozen=True, tag=True):
    """The same all the time."""

    size: Bytes

    def at(self, _: float) -> float:
        """Return how much is wanted at a time."""
        return self.size


class Bursty(Record, frozen=True, tag=True):
    """Little, and now and then much, all at once."""

    low: Bytes
    high: Bytes
    starts: tuple[float, ...]
    """When the bursts begin, in ascending order."""
    lasts: float

    def at(self, time: float) -> float:
        """Return how much is wanted at a time."""
        last = bisect_right(self.starts, time) - 1
        return self.high if last >= 0 and time - self.starts[last] < self.lasts else self.low


class Sine(Record, frozen=True, tag=True):
    """Rises and falls gently, as day and night do."""

    low: Bytes
    high: Bytes
    period: float
    phase: float = 0.0
    """The part of a period that it is ahead, 0 to 1."""

    def at(self, time: float) -> float:
        """Return how much is wanted at a time. It starts at the low end."""
        angle = (time / self.period + self.phase) * math.tau
        return self.low + (self.high - self.low) * (1 - math.cos(angle)) / 2


class Leaking(Record, frozen=True, tag=True):
    """More and more, until it is restarted."""

    start: Bytes
    speed: float
    """Bytes by which it grows a second."""
    most: Bytes
    """The size at which it is restarted."""

    def at(self, time: float) -> float:
        """Return how much is wanted at a time."""
        way = max(1.0, float(self.most - self.start))
        return self.start + (time * self.speed) % way


class Steps(Record, frozen=True, tag=True):
    """The sizes of a list, each from its time on."""

    points: tuple[tuple[float, Bytes], ...]
    """In ascending order of time; before the first, the first counts."""

    def at(self, time: float) -> float:
        """Return how much is wanted at a time."""
        wanted = self.points[0][1]
        for start, size in self.points:
            if start > time:
                break
            wanted = size
        return wanted


Load = Steady | Bursty | Sine | Leaking | Steps
