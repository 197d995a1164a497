"""The points of a plot: what many rounds have in sum, in the mean, or at most. Pure.

Rules of this file:
    A value that no round knew is None, and is left out of a mean. A count tells of how many rounds
    a mean is, so that points can be put together to longer ones without loss.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from qmpmem.model.observation import GuestReading
from qmpmem.model.round import STATES, Explanation, HostState, Verdict
from qmpmem.policy.demand import available, used
from qmpmem.records import Record
from qmpmem.units import Bytes

Counts = tuple[int, int, int, int, int]
"""One number for each of `STATES`."""
SILENT: Final[frozenset[Verdict]] = frozenset({"stale", "implausible", "frozen"})
"""Verdicts of guests whose reports are not true, or no longer."""
GAP: Final = 30.0
"""Seconds without a round after which nothing is known, as in `episodes`."""
USUAL: Final = 1.9
"""Times the usual time between two points after which nothing is known. It is below 2: else a
single missing point would be no gap."""


Choice = Callable[[str, str | None], bool]
"""Tells whether a guest is wanted, by its id and its name."""


def every_guest(_guest: str, _name: str | None) -> bool:
    """Return True: every guest is wanted."""
    return True


def no_guest(_guest: str, _name: str | None) -> bool:
    """Return False: only the host is wanted."""
    return False


class Parts(Record, frozen=True):
    """What a guest does with what it has, in bytes; the sum is what it has."""

    used: Bytes
    """What it cannot give up without swapping."""
    cache: Bytes
    """What it could give up: mostly page cache."""
    free: Bytes


class GuestPoint(Record, frozen=True):
    """One guest over one span, in bytes; a mean is over the rounds in which the value was known."""

    guest: str
    """Its id."""
    name: str | None = None
    """What its owner called it last."""
    rounds: int = 0
    """Rounds in which it was there."""
    maximum: Bytes | None = None
    """What it could have at last."""
    sized: int = 0
    """Rounds in which `actual` was known."""
    actual: Bytes | None = None
    lowest: Bytes | None = None
    """The least of `actual`."""
    highest: Bytes | None = None
    """The most of `actual`."""
    reported: int = 0
    """Rounds in which `used`, `cache` and `free` were known."""
    used: Bytes | None = None
    peak: Bytes | None = None
    """The most of `used`."""
    cache: Bytes | None = None
    free: Bytes | None = None
    costed: int = 0
    """Rounds in which `cost` was known."""
    cost: Bytes | None = None
    """What it cost the host."""
    target: Bytes | None = None
    """What it was told last; None: it was told nothing."""
    less: int = 0
    """How often it was told to go to less than it had; a dry run tells nothing."""
    more: int = 0
    """How often it was told to go to more, or to stay."""
    distress: int = 0
    """Rounds in which it was in distress."""


class HostPoint(Record, frozen=True):
    """The host over one span, in bytes; a mean is over the rounds in which the value was known."""

    begin: float
    """Seconds since 1970."""
    rounds: int = 0
    states: Counts = (0, 0, 0, 0, 0)
    """Rounds in each of `STATES`."""
    total: Bytes | None = None
    """All memory at last: the budget's where one is narrower than the host; so for `available`."""
    reserve: Bytes | None = None
    """The reserve at last."""
    sized: int = 0
    """Rounds in which `available` was known."""
    available: Bytes | None = None
    least: Bytes | None = None
    """The least of `available`."""
    swap: Bytes | None = None
    """The most that was in swap."""
    some: float | None = None
    """The most of PSI some avg10, in percent."""
    guests: int = 0
    """The most guests that were there."""
    maxima: Bytes = Bytes(0)
    """The most that all guests together could have, as far as that was known."""
    costed: int = 0
    """Rounds in which the cost of every guest was known."""
    cost: Bytes | None = None
    """What all guests together cost."""

    @property
    def state(self) -> HostState | None:
        """Return the worst state of the span; None: there was no round."""
        known: list[HostState] = [
            state for state, count in zip(STATES, self.states, strict=True) if count
        ]
        return known[-1] if known else None


class Row(Record, frozen=True):
    """The host and its guests over one span."""

    host: HostPoint
    guests: Mapping[str, GuestPoint]
    """The guests by id."""


class Moment(Record, frozen=True):
    """One guest over one span that begins at a time."""

    begin: float
    """Seconds since 1970."""
    point: GuestPoint


class Series(Record, frozen=True):
    """What a plot shows: the host, or one guest on it."""

    begin: float
    """The begin of the time that was asked for, in seconds since 1970."""
    end: float
    step: float
    """Seconds that a point covers. Where there is no point, nothing is known."""
    host: tuple[HostPoint, ...] = ()
    """The points of the host, oldest first."""
    guest: str | None = None
    """The guest's id; None: this is the host's series."""
    name: str | None = None
    points: tuple[Moment, ...] = ()
    """The points of the guest, oldest first."""


def parts(reading: GuestReading, said: Explanation | None = None) -> Parts | None:
    """Return what a guest does with what it has; None: it does not report that, or not truly.

    Args:
        reading: what was seen of it.
        said: what was decided about it, where an agent decided.
    """
    could, uses = available(reading), used(reading)
    if reading.actual is None or could is None or uses is None or reading.implausible:
        return None
    if said is not None and said.verdict in SILENT:
        return None
    # What is available and not free is cache; what the guest never touched counts as free.
    rest = reading.actual - uses
    cache = 0 if reading.stats.free is None else min(rest, max(0, could - reading.stats.free))
    return Parts(used=uses, cache=Bytes(cache), free=Bytes(rest - cache))


def of_host(rows: Sequence[Row], begin: float, end: float, step: float) -> Series:
    """Return the host's series of some rows, oldest first."""
    return Series(begin=begin, end=end, step=step, host=tuple(row.host for row in rows))


def of_guest(rows: Sequence[Row], guest: str, begin: float, end: float, step: float) -> Series:
    """Return a guest's series of some rows, oldest first.

    Args:
        rows: rows of `step` seconds each.
        guest: its id.
        begin: when the time that is shown begins, in seconds since 1970.
        end: when that time ends, in seconds since 1970.
        step: seconds.
    """
    points = tuple(
        Moment(begin=row.host.begin, point=row.guests[guest]) for row in rows if guest in row.guests
    )
    return Series(
        begin=begin,
        end=end,
        step=step,
        host=tuple(row.host for row in rows),
        guest=guest,
        name=points[-1].point.name if points else None,
        points=points,
    )


def connected(times: Sequence[float], step: float) -> list[bool]:
    """Return for each point but the last whether something is known from it to the next.

    A gap is longer than `GAP`, and than what rounds that are far apart leave between them.

    Args:
        times: when points begin, in seconds since 1970, oldest first.
        step: seconds that each covers.
    """
    ways = [after - before for before, after in pairwise(times)]
    usual = sorted(ways)[len(ways) // 2] if ways else 0.0
    return [way <= max(step + GAP, USUAL * usual) for way in ways]
