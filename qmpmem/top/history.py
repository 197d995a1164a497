"""What the last rounds tell of each guest: its plot, its last decisions, its target. Pure.

Theory of operation:
    A `History` takes rounds in, live ones as they come and recorded ones as they are read, and is
    asked for a time: so the screen of a past round shows what was known then. It keeps numbers, and
    not the rounds, which for 500 guests take megabytes each.
"""

from array import array
from bisect import bisect_right
from collections import deque
from typing import Final

from qmpmem.api.records import Decision
from qmpmem.feed.records import Round
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import Explanation
from qmpmem.records import Record
from qmpmem.units import Bytes

LENGTH: Final = 900
"""Rounds that are kept: a quarter of an hour of quiet ones."""
DECISIONS: Final = 40
"""Decisions that are kept for each guest."""
NO_KSM: Final[KsmState | None] = None
NONE: Final = -1
"""The number that stands for what is not known, in columns of numbers."""
GONE: Final = 60.0
"""Seconds after which a guest that is not there any more is forgotten."""


class Point(Record, frozen=True):
    """One guest in one round."""

    time: float
    """Seconds since 1970."""
    used: Bytes | None
    actual: Bytes | None
    target: Bytes | None
    """What it was last told."""


class _Column:
    """The numbers of one guest, oldest first."""

    def __init__(self) -> None:
        self.times = array("d")
        self.used = array("q")
        self.actual = array("q")
        self.target = array("q")
        self.up = 0.0
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS)

    def add(
        self, time: float, used: Bytes | None, actual: Bytes | None, told: Bytes | None
    ) -> None:
        before = self.target[-1] if self.target else NONE
        self.times.append(time)
        self.used.append(NONE if used is None else used)
        self.actual.append(NONE if actual is None else actual)
        self.target.append(before if told is None else told)
        if len(self.times) > LENGTH + LENGTH // 8:  # now and then: each costs a copy
            for numbers in (self.times, self.used, self.actual, self.target):
                del numbers[: len(numbers) - LENGTH]

    def point(self, index: int) -> Point:
        return Point(
            time=self.times[index],
            used=_known(self.used[index]),
            actual=_known(self.actual[index]),
            target=_known(self.target[index]),
        )


class History:
    """Keeps what rounds tell.

    Attributes:
        ksm: merging as it was last seen.
    """

    def __init__(self) -> None:
        self.ksm = NO_KSM
        self._guests: dict[str, _Column] = {}
        self._host = array("d")
        self._available = array("q")

    def add(self, seen: Round) -> None:
        """Take in a round that is later than all before it; another one is left out."""
        if self._host and seen.wall <= self._host[-1]:
            return
        self.ksm = seen.snapshot.ksm or self.ksm
        available = seen.snapshot.host.available
        self._host.append(seen.wall)
        self._available.append(NONE if available is None else available)
        if len(self._host) > LENGTH + LENGTH // 8:
            del self._host[: len(self._host) - LENGTH]
            del self._available[: len(self._available) - LENGTH]
        told = {} if seen.plan is None else {each.guest: each for each in seen.plan.guests}
        for reading in seen.snapshot.guests:
            self._add(reading, told.get(reading.id), seen)
        self._forget(seen)

    def span(self) -> tuple[float, float] | None:
        """Return when the first and the last round were, in seconds since 1970."""
        return (self._host[0], self._host[-1]) if self._host else None

    def target(self, guest: str, until: float) -> Bytes | None:
        """Return what a guest was told last, up to a time; None: nothing that is known."""
        column = self._guests.get(guest)
        index = _last(column.times, until) if column else -1
        return None if column is None or index < 0 else _known(column.target[index])

    def points(self, guest: str, since: float, until: float) -> list[Point]:
        """Return what is known of a guest in a time, oldest first; both ends belong to it."""
        column = self._guests.get(guest)
        if column is None:
            return []
        first, last = _last(column.times, since), _last(column.times, until)
        begin = first if first >= 0 and column.times[first] == since else first + 1
        return [column.point(index) for index in range(begin, last + 1)]

    def decisions(self, guest: str, until: float) -> list[Decision]:
        """Return the last decisions about a guest up to a time, oldest first."""
        column = self._guests.get(guest)
        return [] if column is None else [each for each in column.decisions if each.time <= until]

    def available(self, until: float, count: int) -> list[Bytes | None]:
        """Return what the host had available in the last rounds up to a time, oldest first."""
        last = _last(self._host, until) + 1
        return [_known(each) for each in self._available[max(0, last - count) : last]]

    def _add(self, reading: GuestReading, said: Explanation | None, seen: Round) -> None:
        column = self._guests.setdefault(reading.id, _Column())
        if reading.up is not None:
            if reading.up < column.up and column.target:
                column.target[-1] = NONE  # another QEMU, which was told nothing; a reset keeps it
            column.up = reading.up
        used = None
        if (
            reading.actual is not None
            and reading.stats.available is not None
            and not reading.implausible
        ):
            used = Bytes(max(0, reading.actual - reading.stats.available))
        target = None if said is None else said.target
        column.add(seen.wall, used, reading.actual, target)
        if said is not None and seen.plan is not None:
            before = column.decisions[-1].explanation if column.decisions else None
            if target is not None or before is None or before.verdict != said.verdict:
                column.decisions.append(
                    Decision(
                        time=seen.wall,
                        number=seen.number or 0,
                        state=seen.plan.state,
                        explanation=said,
                    )
                )

    def _forget(self, seen: Round) -> None:
        if len(self._guests) == len(seen.snapshot.guests):
            return
        here = {each.id for each in seen.snapshot.guests}
        for gone in [each for each in self._guests if each not in here]:
            if seen.wall - self._guests[gone].times[-1] > GONE:
                del self._guests[gone]


def _last(times: "array[float]", until: float) -> int:
    """Return the index of the last time that is not later; -1: none is."""
    return bisect_right(times, until) - 1


def _known(value: int) -> Bytes | None:
    return None if value == NONE else Bytes(value)
