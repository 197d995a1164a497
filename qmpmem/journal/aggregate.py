"""Rounds put together to rows: the host and its guests over a minute, an hour, or any span. Pure.

Theory of operation:
    `Aggregate` adds up rounds, or rows of a shorter span, in whole numbers, and returns one `Row`
    for each span in which there was a round. So an hour that is made of its minutes equals the hour
    that is made of its rounds, but for the rounding of a mean to a byte.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, cast

from qmpmem.journal.points import (
    Choice,
    Counts,
    GuestPoint,
    HostPoint,
    Row,
    every_guest,
    parts,
)
from qmpmem.model.observation import GuestReading, HostReading
from qmpmem.model.round import STATES, Explanation, Tick, severity
from qmpmem.units import Bytes

Number = TypeVar("Number", int, float)


class Aggregate:
    """Adds rounds, or rows of a shorter span, up to rows.

    Args:
        step: seconds that a row covers.
        choice: which guests are wanted.
    """

    def __init__(self, step: float, choice: Choice = every_guest) -> None:
        self.step = step
        self._choice = choice
        self._begin: float | None = None
        self._host = _Host()
        self._guests: dict[str, _Guest] = {}

    def add(self, tick: Tick) -> Row | None:
        """Add a round, and return the row that ended before it; None: none did."""
        wall = tick.snapshot.wall
        if wall is None:
            return None
        ended = self._go_to(wall)
        told = {} if tick.dry_run else {each.guest: each.target for each in tick.plan.balloons}
        said = {each.guest: each for each in tick.plan.guests}
        for reading in tick.snapshot.guests:
            if self._choice(reading.id, reading.name):
                self._guest(reading.id).add(reading, said.get(reading.id), told.get(reading.id))
        self._host.add(tick)
        return ended

    def take(self, row: Row) -> Row | None:
        """Add a row of a shorter span, and return the row that ended before it; None: none did."""
        ended = self._go_to(row.host.begin)
        for guest, point in row.guests.items():
            self._guest(guest).take(point)
        self._host.take(row.host)
        return ended

    def end(self) -> Row | None:
        """Return the row that has not ended yet; None: nothing was added."""
        if self._begin is None:
            return None
        row = Row(
            host=self._host.point(self._begin),
            guests={guest: each.point(guest) for guest, each in self._guests.items()},
        )
        self._begin, self._host, self._guests = None, _Host(), {}
        return row

    def _go_to(self, wall: float) -> Row | None:
        begin = span(wall, self.step)
        ended = self.end() if self._begin not in (None, begin) else None
        self._begin = begin
        return ended

    def _guest(self, guest: str) -> "_Guest":
        found = self._guests.get(guest)
        if found is None:
            found = self._guests[guest] = _Guest()
        return found


def span(wall: float, step: float) -> float:
    """Return when the span began in which a time is, in seconds since 1970."""
    return wall // step * step


def fold(ticks: Iterable[Tick], step: float, choice: Choice = every_guest) -> Iterator[Row]:
    """Put rounds together to rows of `step` seconds."""
    aggregate = Aggregate(step, choice)
    yield from (row for tick in ticks if (row := aggregate.add(tick)))
    last = aggregate.end()
    if last is not None:
        yield last


def regroup(rows: Iterable[Row], step: float) -> list[Row]:
    """Put rows together to rows of `step` seconds, oldest first, whatever order they come in."""
    aggregate = Aggregate(step)
    ordered = sorted(rows, key=lambda row: row.host.begin)
    found = [ended for row in ordered if (ended := aggregate.take(row))]
    last = aggregate.end()
    return found if last is None else [*found, last]


class _Mean:
    """A mean of whole numbers, with the least and the most of them."""

    __slots__ = ("count", "high", "low", "total")

    def __init__(self) -> None:
        self.count = self.total = 0
        self.low: int | None = None
        self.high: int | None = None

    def add(self, value: int | None) -> None:
        # This runs in every round for every guest, so it calls nothing.
        if value is None:
            return
        self.count += 1
        self.total += value
        if self.low is None or value < self.low:
            self.low = value
        if self.high is None or value > self.high:
            self.high = value

    def take(self, count: int, mean: int | None, low: int | None, high: int | None) -> None:
        if mean is None or count <= 0:
            return
        self.count += count
        self.total += count * mean
        self.low, self.high = _least(self.low, low), _most(self.high, high)

    def mean(self) -> Bytes | None:
        return Bytes(round(self.total / self.count)) if self.count else None


class _Guest:
    __slots__ = (
        "actual",
        "cache",
        "cost",
        "distress",
        "free",
        "less",
        "maximum",
        "more",
        "name",
        "rounds",
        "target",
        "used",
    )

    def __init__(self) -> None:
        self.rounds = self.less = self.more = self.distress = 0
        self.name: str | None = None
        self.maximum: Bytes | None = None
        self.target: Bytes | None = None
        self.actual, self.used, self.cache, self.free, self.cost = (_Mean() for _ in range(5))

    def add(self, reading: GuestReading, said: Explanation | None, target: Bytes | None) -> None:
        self.rounds += 1
        self.name = self.name if reading.name is None else reading.name
        self.maximum = self.maximum if reading.maximum is None else reading.maximum
        self.actual.add(reading.actual)
        self.cost.add(reading.rss if reading.cost is None else reading.cost)
        found = parts(reading, said)
        if found is not None:
            self.used.add(found.used)
            self.cache.add(found.cache)
            self.free.add(found.free)
        if said is not None and said.verdict == "distress":
            self.distress += 1
        if target is not None:
            is_less = reading.actual is not None and target < reading.actual
            self.less += is_less
            self.more += not is_less
            self.target = target

    def take(self, point: GuestPoint) -> None:
        self.rounds += point.rounds
        self.name = self.name if point.name is None else point.name
        self.maximum = self.maximum if point.maximum is None else point.maximum
        self.actual.take(point.sized, point.actual, point.lowest, point.highest)
        self.cost.take(point.costed, point.cost, None, None)
        self.used.take(point.reported, point.used, None, point.peak)
        self.cache.take(point.reported, point.cache, None, None)
        self.free.take(point.reported, point.free, None, None)
        self.target = self.target if point.target is None else point.target
        self.less += point.less
        self.more += point.more
        self.distress += point.distress

    def point(self, guest: str) -> GuestPoint:
        return GuestPoint(
            guest=guest,
            name=self.name,
            rounds=self.rounds,
            maximum=self.maximum,
            sized=self.actual.count,
            actual=self.actual.mean(),
            lowest=_bytes(self.actual.low),
            highest=_bytes(self.actual.high),
            reported=self.used.count,
            used=self.used.mean(),
            peak=_bytes(self.used.high),
            cache=self.cache.mean(),
            free=self.free.mean(),
            costed=self.cost.count,
            cost=self.cost.mean(),
            target=self.target,
            less=self.less,
            more=self.more,
            distress=self.distress,
        )


class _Host:
    def __init__(self) -> None:
        self.rounds = self.guests = self.maxima = 0
        self.states = [0] * len(STATES)
        self.total: Bytes | None = None
        self.reserve: Bytes | None = None
        self.swap: int | None = None
        self.some: float | None = None
        self.available, self.cost = _Mean(), _Mean()

    def add(self, tick: Tick) -> None:
        seen, guests = tick.snapshot.host, tick.snapshot.guests
        self.rounds += 1
        self.states[severity(tick.plan.state)] += 1
        is_narrow = seen.limit is not None and seen.headroom is not None
        total = seen.limit if is_narrow else seen.total
        self.total = self.total if total is None else total
        self.reserve = tick.plan.reserve
        self.available.add(seen.headroom if is_narrow else seen.available)
        self.swap = _most(self.swap, _swapped(seen))
        self.some = _most(self.some, seen.some)
        self.guests = max(self.guests, len(guests))
        self.maxima = max(self.maxima, sum(each.maximum or 0 for each in guests))
        self.cost.add(_cost(guests))

    def take(self, point: HostPoint) -> None:
        self.rounds += point.rounds
        self.states = [mine + other for mine, other in zip(self.states, point.states, strict=True)]
        self.total = self.total if point.total is None else point.total
        self.reserve = self.reserve if point.reserve is None else point.reserve
        self.available.take(point.sized, point.available, point.least, None)
        self.swap = _most(self.swap, point.swap)
        self.some = _most(self.some, point.some)
        self.guests = max(self.guests, point.guests)
        self.maxima = max(self.maxima, point.maxima)
        self.cost.take(point.costed, point.cost, None, None)

    def point(self, begin: float) -> HostPoint:
        return HostPoint(
            begin=begin,
            rounds=self.rounds,
            states=cast("Counts", tuple(self.states)),
            total=self.total,
            reserve=self.reserve,
            sized=self.available.count,
            available=self.available.mean(),
            least=_bytes(self.available.low),
            swap=_bytes(self.swap),
            some=self.some,
            guests=self.guests,
            maxima=Bytes(self.maxima),
            costed=self.cost.count,
            cost=self.cost.mean(),
        )


def _swapped(seen: HostReading) -> int | None:
    if seen.swap_total is None or seen.swap_free is None:
        return None
    return max(0, seen.swap_total - seen.swap_free)


def _cost(guests: Sequence[GuestReading]) -> int | None:
    costs = [each.rss if each.cost is None else each.cost for each in guests]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _bytes(value: int | None) -> Bytes | None:
    return None if value is None else Bytes(value)


def _least(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)


def _most(one: Number | None, other: Number | None) -> Number | None:
    return one if other is None else other if one is None else max(one, other)
