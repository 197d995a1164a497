"""What policies of others have in common: turns, the guests that they may move, and a plan."""

from collections.abc import Mapping, Sequence

from qmpmem.model.config import Config
from qmpmem.model.observation import GuestReading, Snapshot
from qmpmem.model.round import Plan, SetBalloon
from qmpmem.records import Record
from qmpmem.units import PAGE, Bytes


class Turns:
    """Tells whether it is time to act: the first time is a period after the start.

    Args:
        period: seconds.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._last: float | None = None

    def is_due(self, now: float) -> bool:
        """Tell whether a period is over; then the next one begins."""
        if self._last is None:
            self._last = now
            return False
        if now - self._last < self._period:
            return False
        self._last = now
        return True


class Movable(Record, frozen=True):
    """A guest whose balloon can be moved, and its limits. Sizes in bytes."""

    id: str
    start: int | None
    """Its epoch, if its QEMU started then; None: it was reset, or arrived with its memory."""
    actual: int
    free: int | None
    minimum: int
    maximum: int
    shares: int


def movable(snapshot: Snapshot, config: Config) -> list[Movable]:
    """Return the guests that run, have a balloon and are managed."""
    found = (_movable(reading, config) for reading in snapshot.guests if reading.state == "running")
    return [each for each in found if each is not None]


def _movable(reading: GuestReading, config: Config) -> Movable | None:
    if reading.exempt is not None or reading.actual is None or reading.maximum is None:
        return None
    limits = config.limits(reading.id, reading.maximum)
    if not limits.managed:
        return None
    return Movable(
        id=reading.id,
        start=reading.epoch if reading.began == "seen" else None,
        actual=reading.actual,
        free=reading.stats.free,
        minimum=limits.minimum,
        maximum=limits.maximum,
        shares=limits.shares,
    )


class Starts:
    """Finds guests that have just started: QEMU remembers a target until it ends, over resets."""

    def __init__(self) -> None:
        self._seen: dict[str, int | None] = {}

    def new(self, guests: Sequence[Movable]) -> list[Movable]:
        """Return those that were not there before, or whose QEMU is another one."""
        found: list[Movable] = []
        for guest in guests:
            if guest.id not in self._seen or guest.start not in (None, self._seen[guest.id]):
                self._seen[guest.id] = guest.start
                found.append(guest)
        return found


def plan(snapshot: Snapshot, targets: Mapping[str, float], reason: str) -> Plan:
    """Return the commands that lead to these sizes, in bytes."""
    return Plan(
        balloons=tuple(
            SetBalloon(guest=guest.id, target=_whole(targets[guest.id]), reason=reason)
            for guest in snapshot.guests
            if guest.id in targets and _whole(targets[guest.id]) != guest.actual
        )
    )


def _whole(size: float) -> Bytes:
    return Bytes(int(size) // PAGE * PAGE)
