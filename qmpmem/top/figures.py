"""A round as the figures that are shown: one record for each guest, one for the host. Pure.

Theory of operation:
    A screen, CSV and JSON are made of the same records, so none of them shows what another does
    not. Used, cache and free add up to what the guest has, and with the balloon to its maximum.
    Where the guest's report contradicts QEMU, its parts are not known.
"""

from collections.abc import Callable, Mapping
from typing import Final

from qmpmem.feed.records import Round
from qmpmem.ksm import verdict as ksm
from qmpmem.model.ksm import KsmState
from qmpmem.model.names import label
from qmpmem.model.observation import GuestReading, Lease
from qmpmem.model.round import Explanation, Verdict
from qmpmem.policy.host import available_of, total_of
from qmpmem.records import Record
from qmpmem.top.history import History
from qmpmem.units import Bytes

POLLS: Final = 3
"""Polls after which a report is old."""
EVERY: Final = 2.0
"""Seconds between two polls, where that is not known."""

RANK: Final[Mapping[str, int]] = {
    "distress": 0,
    "stalled": 1,
    "uncooperative": 2,
    "ineffective": 2,
    "unreachable": 2,
    "busy": 2,
    "suspect": 3,
    "implausible": 3,
    "stale": 3,
    "frozen": 3,
    "in-use": 4,
    "grace": 5,
    "normal": 6,
    "running": 6,
    "foreign": 7,
    "exempt": 7,
}
"""The order of verdicts: guests that suffer come first, then those that do not do as they are
told."""
DISOBEYS: Final = 4
_NO_REPORT: Final = frozenset({"exempt", "foreign", "unreachable", "busy", "in-use", "gone"})

Classes = Callable[[str, str | None], str | None]
"""Returns the class of a guest by its id and its name; None: it is not known."""


class Figures(Record, frozen=True):
    """What is shown of one guest. The field names are keys of ``qmpmem top --json``."""

    id: str
    name: str | None
    state: str
    """QEMU's run state, or why there is none."""
    verdict: Verdict | None
    """The agent's verdict; None: no agent judges it."""
    reason: str
    """One line: why it goes where it goes, or why something is missing."""
    maximum: Bytes | None = None
    actual: Bytes | None = None
    used: Bytes | None = None
    cache: Bytes | None = None
    free: Bytes | None = None
    balloon: Bytes | None = None
    target: Bytes | None = None
    """What it was last told to go to; None: it was told nothing that is known."""
    pin: Bytes | None = None
    cost: Bytes | None = None
    """What it costs the host."""
    swap: Bytes | None = None
    """How much of it the host has swapped out."""
    minimum: Bytes | None = None
    wants: Bytes | None = None
    entitled: Bytes | None = None
    bound: str | None = None
    kind: str | None = None
    """Its class in the configuration."""
    age: float | None = None
    """Seconds since its last report; None: there was none."""
    is_old: bool = False
    """Whether its report is older than three polls."""
    is_waiting: bool = False
    """Whether it runs, and has not reported yet."""

    @property
    def word(self) -> str:
        """Return the verdict, or the run state where there is none."""
        return self.verdict or self.state

    @property
    def rank(self) -> int:
        """Return its rank among guests that suffer; the lowest comes first."""
        rank = RANK.get(self.word, DISOBEYS)
        return rank if self.verdict is None else min(rank, RANK.get(self.state, rank))

    @property
    def suffers(self) -> bool:
        """Tell whether it suffers, or does not do as it is told."""
        return self.rank <= DISOBEYS

    @property
    def pressure(self) -> float | None:
        """Return what it uses, as a part of what it has."""
        return None if self.used is None or not self.actual else self.used / self.actual


class HostFigures(Record, frozen=True):
    """What is shown of the host. The field names are keys of ``qmpmem top --json``."""

    state: str | None = None
    """The host's state; None: no agent decides."""
    reason: str = ""
    total: Bytes | None = None
    """All memory of the host, or of the budget."""
    available: Bytes | None = None
    reserve: Bytes | None = None
    spare: Bytes | None = None
    debt: Bytes | None = None
    some: float | None = None
    full: float | None = None
    swap_used: Bytes | None = None
    swap_total: Bytes | None = None
    ksm_run: int | None = None
    ksm_saved: Bytes | None = None
    ksm_profit: Bytes | None = None
    hold: bool | None = None
    pins: int | None = None
    leases: tuple[Lease, ...] = ()
    clock: float = 0.0
    """The present time in seconds, by the clock of `Lease.until`."""

    @property
    def reserves(self) -> float | None:
        """Return what is available, in reserves."""
        return None if self.available is None or not self.reserve else self.available / self.reserve


class Shown(Record, frozen=True):
    """What is shown of a round. The field names are the keys of ``qmpmem top --json``."""

    time: float
    """Seconds since 1970."""
    source: str
    number: int | None
    dry_run: bool
    problem: str | None
    host: HostFigures
    guests: tuple[Figures, ...]


def shown(seen: Round, history: History, classes: Classes | None = None) -> Shown:
    """Return what is shown of a round.

    Args:
        seen: the round.
        history: what was before it.
        classes: returns the class of a guest.
    """
    told = {} if seen.plan is None else {each.guest: each for each in seen.plan.guests}
    return Shown(
        time=seen.wall,
        source=seen.source,
        number=seen.number,
        dry_run=seen.dry_run,
        problem=seen.problem,
        host=host_figures(seen, history.ksm),
        guests=tuple(
            guest_figures(each, told.get(each.id), seen, history, classes)
            for each in seen.snapshot.guests
        ),
    )


def guest_figures(
    reading: GuestReading,
    told: Explanation | None,
    seen: Round,
    history: History,
    classes: Classes | None = None,
) -> Figures:
    """Return what is shown of one guest."""
    used, cache, free = parts(reading)
    pin = seen.snapshot.requests.pins.get(reading.id)
    state = reading.state
    word = state if told is None else told.verdict
    runs = state == "running" and reading.actual is not None and reading.exempt is None
    return Figures(
        id=reading.id,
        name=reading.name,
        state=state,
        verdict=None if told is None else told.verdict,
        reason=_reason(reading, told, seen),
        maximum=reading.maximum,
        actual=reading.actual,
        used=used,
        cache=cache,
        free=free,
        balloon=_less(reading.maximum, reading.actual),
        target=history.target(reading.id, seen.wall),
        pin=pin,
        cost=reading.rss if reading.cost is None else reading.cost,
        swap=reading.swap,
        minimum=None if told is None else told.minimum,
        wants=None if told is None else told.demand,
        entitled=None if told is None else told.entitlement,
        bound=None if told is None or told.bound == "none" else told.bound,
        kind=None if classes is None else classes(reading.id, reading.name),
        age=reading.age,
        is_old=reading.age is not None and reading.age > POLLS * max(1.0, reading.every or EVERY),
        is_waiting=runs and reading.age is None and word not in _NO_REPORT,
    )


def parts(reading: GuestReading) -> tuple[Bytes | None, Bytes | None, Bytes | None]:
    """Divide what a guest has into what it uses, what it caches, and what is free.

    Used is what it cannot give up without swapping, as in `GuestView.used`. Each part is None
    where it is not known, or where the guest's report contradicts what it has.
    """
    actual, available, free = reading.actual, reading.stats.available, reading.stats.free
    if actual is None or available is None or reading.implausible or not 0 <= available <= actual:
        return None, None, None
    used = Bytes(actual - available)
    if free is None or free < 0:
        return used, None, None
    free = Bytes(min(free, available))
    return used, Bytes(available - free), free


def host_figures(seen: Round, merging: KsmState | None) -> HostFigures:
    """Return what is shown of the host.

    Args:
        seen: the round.
        merging: KSM as it was seen last; a round does not always look at it.
    """
    host, plan, requests = seen.snapshot.host, seen.plan, seen.snapshot.requests
    decided = plan is not None
    return HostFigures(
        state=None if plan is None else plan.state,
        reason="" if plan is None else plan.reason,
        total=total_of(host),
        available=available_of(host),
        reserve=None if plan is None else plan.reserve,
        spare=None if plan is None else plan.spare,
        debt=None if plan is None else plan.debt,
        some=host.some,
        full=host.full,
        swap_used=_less(host.swap_total, host.swap_free),
        swap_total=host.swap_total,
        ksm_run=None if merging is None else merging.run,
        ksm_saved=None if merging is None else ksm.saved(merging),
        ksm_profit=None if merging is None else ksm.profit(merging),
        hold=requests.hold if decided else None,
        pins=len(requests.pins) if decided else None,
        leases=requests.leases,
        clock=seen.snapshot.time,
    )


def called(guest: Figures) -> str:
    """Return what to call a guest in a sentence."""
    return label(guest.id, guest.name)


def _reason(reading: GuestReading, told: Explanation | None, seen: Round) -> str:
    if told is not None:
        return told.reason
    return seen.notes.get(reading.id, "" if reading.exempt is None else reading.exempt)


def _less(whole: Bytes | None, part: Bytes | None) -> Bytes | None:
    return None if whole is None or part is None else Bytes(max(0, whole - part))
