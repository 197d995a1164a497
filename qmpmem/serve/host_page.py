"""One round as what the page shows: the answer people come for, and a row for each guest. Pure.

Rules of this file:
    What is not known is None here and a dash on the page. A number that is old is not shown as one:
    the page says how long the guest is silent.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low
from typing import Final, Literal

from qmpmem.feed.records import Round
from qmpmem.ksm import verdict as merging
from qmpmem.model import names
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import Explanation, HostState, Verdict
from qmpmem.records import Record
from qmpmem.units import GIB, Bytes

POLLS: Final = 3
"""Reports that may be missing before a guest counts as silent."""
EVERY: Final = 10.0
"""Seconds between two reports where the interval is not known: the longest interval there is."""
USUAL: Final = Bytes(2 * GIB)
"""The size of a guest that there may be room for, where there is no guest yet."""

Sort = Literal["attention", "name", "current", "maximum", "used", "cost"]

URGENCY: Final[Sequence[Verdict]] = (
    "distress",
    "stalled",
    "uncooperative",
    "implausible",
    "suspect",
    "ineffective",
    "stale",
    "frozen",
    "foreign",
    "grace",
    "exempt",
    "normal",
)
"""The verdicts in the order in which guests are sorted by urgency: those that suffer or disobey
first."""


class Bar(Record, frozen=True):
    """What a guest's maximum is made of; the parts add up to it."""

    used: Bytes
    cache: Bytes
    """Bytes that the guest could give up, which hold cache, mostly."""
    free: Bytes
    balloon: Bytes
    maximum: Bytes
    target: Bytes | None
    """The size in bytes that the guest is told to have now."""


class Row(Record, frozen=True):
    """One guest."""

    id: str
    name: str
    state: str
    verdict: Verdict | None
    """What the agent decided about the guest; None: no agent decided."""
    reason: str
    actual: Bytes | None
    maximum: Bytes | None
    used: Bytes | None
    cost: Bytes | None
    target: Bytes | None
    silent: float | None
    """Seconds since the guest's last report, where that is too long ago."""
    waits: bool
    """Whether the guest has not reported yet."""
    pin: Bytes | None
    bar: Bar | None


class FreeRoom(Record, frozen=True):
    """What there is room for."""

    size: Bytes
    """Bytes of a guest as most are here."""
    now: int
    """How many such guests there is room for, without taking from any other."""
    could: int
    """How many such guests there is room for, with what the others could give."""


class HostPage(Record, frozen=True):
    """One round."""

    wall: float
    problem: str | None
    """Why the round is not from an agent."""
    state: HostState | None
    reason: str
    available: Bytes | None
    reserve: Bytes | None
    budget: Bytes | None
    held: Bytes
    """Bytes that all guests have."""
    total: Bytes | None
    some: float | None
    full: float | None
    swap_used: Bytes | None
    swap_total: Bytes | None
    saved: Bytes | None
    profit: Bytes | None
    merges: str | None
    """The verdict on merging, in a word or two."""
    hold: bool
    dry_run: bool
    leased: Bytes
    room: FreeRoom | None
    rows: Mapping[str, Row]
    """The row of each guest, by its id."""


def overview(seen: Round) -> HostPage:
    """Work out what the page shows of a round."""
    snapshot, plan = seen.snapshot, seen.plan
    host, ksm = snapshot.host, snapshot.ksm
    said = {} if plan is None else {each.guest: each for each in plan.guests}
    pins = snapshot.requests.pins
    rows = {each.id: row(each, said.get(each.id), pins.get(each.id)) for each in snapshot.guests}
    swap = (host.swap_total, host.swap_free)
    return HostPage(
        wall=seen.wall,
        problem=seen.problem,
        state=None if plan is None else plan.state,
        reason="" if plan is None else plan.reason,
        available=host.available
        if host.headroom is None
        else _least(host.available, host.headroom),
        reserve=None if plan is None else plan.reserve,
        budget=None if plan is None else plan.budget,
        held=Bytes(sum(each.actual or 0 for each in snapshot.guests)),
        total=host.total,
        some=host.some,
        full=host.full,
        swap_used=None if swap[0] is None or swap[1] is None else Bytes(swap[0] - swap[1]),
        swap_total=host.swap_total,
        saved=None if ksm is None else merging.saved(ksm),
        profit=None if ksm is None else merging.profit(ksm),
        merges=None if ksm is None else merging.judge(ksm).word,
        hold=snapshot.requests.hold,
        dry_run=seen.dry_run,
        leased=Bytes(sum(each.size for each in snapshot.requests.leases)),
        room=None if plan is None else _room(rows.values(), plan.spare, plan.guests),
        rows=rows,
    )


def row(reading: GuestReading, said: Explanation | None, pin: Bytes | None) -> Row:
    """Work out what the page shows of a guest."""
    silent = is_silent(reading)
    used = None if silent or reading.age is None else used_of(reading)
    target = None if said is None else said.target
    return Row(
        id=reading.id,
        name=names.label(reading.id, reading.name),
        state=reading.state,
        verdict=None if said is None else said.verdict,
        reason="" if said is None else said.reason,
        actual=reading.actual,
        maximum=reading.maximum,
        used=used,
        cost=reading.rss if reading.cost is None else reading.cost,
        target=None if target == reading.actual else target,
        silent=reading.age if silent else None,
        waits=reading.age is None and reading.state == "running",
        pin=pin,
        bar=None if used is None else bar(reading, target),
    )


def is_silent(reading: GuestReading) -> bool:
    """Tell whether the last report of a guest is too old to be shown."""
    return reading.age is not None and reading.age > POLLS * (reading.every or EVERY)


def used_of(reading: GuestReading) -> Bytes | None:
    """Return what a guest cannot give up without swapping; None: it is not known."""
    if reading.actual is None or reading.stats.available is None or reading.implausible:
        return None
    return Bytes(max(0, reading.actual - reading.stats.available))


def bar(reading: GuestReading, target: Bytes | None = None) -> Bar | None:
    """Divide a guest's maximum; None: what it uses is not known."""
    used = used_of(reading)
    if used is None or reading.actual is None or reading.maximum is None or reading.maximum <= 0:
        return None
    actual = min(reading.actual, reading.maximum)
    used = Bytes(min(used, actual))
    rest = actual - used
    free = min(rest, reading.stats.free or 0)
    return Bar(
        used=used,
        cache=Bytes(rest - free),
        free=Bytes(free),
        balloon=Bytes(reading.maximum - actual),
        maximum=reading.maximum,
        target=target,
    )


def order(rows: Sequence[Row], by: Sort) -> list[Row]:
    """Sort guests; what is not known comes last."""
    named = sorted(rows, key=lambda each: (each.name.lower(), each.id))
    if by == "name":
        return named
    if by == "attention":
        return sorted(named, key=_urgency)
    read = {"current": "actual"}.get(by, by)
    return sorted(
        named,
        key=lambda each: -1 if getattr(each, read) is None else getattr(each, read),
        reverse=True,
    )


def _urgency(each: Row) -> tuple[int, float]:
    place = len(URGENCY) if each.verdict is None else URGENCY.index(each.verdict)
    pressure = 0.0 if each.used is None or not each.actual else each.used / each.actual
    return place, -pressure


def _room(rows: Iterable[Row], spare: Bytes | None, said: Sequence[Explanation]) -> FreeRoom | None:
    if spare is None:
        return None
    maxima = sorted(each.maximum for each in rows if each.maximum)
    size = Bytes(median_low(maxima)) if maxima else USUAL
    could = spare + sum(each.reclaimable or 0 for each in said)
    return FreeRoom(size=size, now=max(0, spare // size), could=max(0, could // size))


def _least(available: Bytes | None, headroom: Bytes) -> Bytes:
    return headroom if available is None else Bytes(min(available, headroom))
