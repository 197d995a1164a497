"""What a guest works with, what it wants, and whether it suffers.

Sources: ESX (Waldspurger, OSDI'02, 5.3): several averages, and the largest counts, so that demand
rises at once and falls slowly. Headroom of 20 %: Hyper-V's memory buffer, oVirt MOM; Neon: a third.
"""

from typing import Final

from qmpmem.config import LEAST_HEADROOM, MOST_HEADROOM, Limits
from qmpmem.policy.history import Counters, GuestTrend
from qmpmem.records import Record, replace
from qmpmem.sight import GuestSight
from qmpmem.units import MIB, Bytes

FAST: Final = 10.0
"""Seconds over which `used` is averaged: what a guest cannot do without."""
SLOW: Final = 120.0
"""Seconds over which `used` is averaged."""

OVERHEAD: Final = Bytes(64 * MIB)
"""What QEMU may have in swap or not yet touched beside the guest's memory."""

SWAPPING: Final = Bytes(MIB)
"""Bytes a second that a guest reads back from swap: it is short."""
FAULTS: Final = 50
"""Major faults a second, with little available: it reads its programs again and again."""
LITTLE_PERCENT: Final = 10
"""Of what it has: with less available, faults and stalls count as distress."""
COLLAPSE_PERCENT: Final = 60
"""Of what it used while it was full: less, from one report to the next, is a program killed."""
SHARP_REPORTS: Final = 2
"""One report with swapping may be a program that wakes up."""

SAME_REPORT: Final = 0.1
"""Seconds between two times of a report, as its age gives them: with less, it is the same one."""

RELIEF: Final = 60.0
"""Seconds without taking anything after distress."""
BOOST: Final = 0.5
"""More headroom after distress, fading over `BOOST_SECONDS`."""
BOOST_SECONDS: Final = 600.0
"""Seconds until the additional headroom has faded."""

UNKNOWN_PERCENT: Final = 75
"""A guest that does not report keeps so much of its maximum, but in the last need."""


class Demand(Record, frozen=True):
    """What a guest wants."""

    used: Bytes | None
    working: Bytes
    headroom: Bytes
    wanted: Bytes
    """D."""
    distress: bool
    known: bool
    """It rests on a report, not on the lack of one."""
    needs: Bytes = Bytes(0)
    """What it uses now and used within some seconds: it cannot do with less."""
    modest: Bytes = Bytes(0)
    """What it wants where others suffer: as `wanted`, but what it used minutes ago is forgotten."""


def used(sight: GuestSight) -> Bytes | None:
    """Say what a guest uses: what it has less what it could give up.

    It cannot use more than the host ever gave it, whatever it says.
    """
    if sight.actual is None or sight.available is None:
        return None
    claimed = min(max(0, sight.actual - sight.available), sight.actual)
    if sight.rss is not None:
        claimed = min(claimed, sight.rss + (sight.swap or 0) + OVERHEAD)
    return Bytes(claimed)


def used_by_now(sight: GuestSight, trend: GuestTrend) -> Bytes | None:
    """Say what a guest uses, with what the host saw it touch since its last report.

    A report may be ten seconds old, and a guest can fill a gigabyte in that time.
    """
    claimed, then = used(sight), trend.counters
    if claimed is None or sight.actual is None or then is None:
        return claimed
    touched = 0 if None in (sight.cost, then.cost) else (sight.cost or 0) - (then.cost or 0)
    return Bytes(min(sight.actual, claimed + max(0, touched)))


def follow(sight: GuestSight, trend: GuestTrend, now: float) -> GuestTrend:
    """Bring a guest's trend up to this round: counters at each new report, and averages."""
    if sight.age is not None:
        trend = _count(sight, trend, now - sight.age, now)
    now_used = used_by_now(sight, trend)
    if now_used is None:
        return trend
    if _collapsed(sight, trend, now_used):
        # Kept in mind as it was: what was killed is started again.
        peak = trend.used or 0.0
        return replace(trend, used=float(now_used), fast=peak, slow=peak, hurt=now)
    return _average(trend, float(now_used), max(0.0, now - trend.time))


def estimate(sight: GuestSight, trend: GuestTrend, limits: Limits, now: float) -> Demand:
    """Say what a guest wants. Without a report it wants what it has."""
    now_used = used_by_now(sight, trend)
    suffers = in_distress(trend, now)
    if now_used is None or trend.used is None:
        has = sight.actual or limits.maximum
        wanted = Bytes(min(max(has, limits.minimum), limits.maximum))
        return Demand(
            used=None,
            working=has,
            headroom=Bytes(0),
            wanted=wanted,
            distress=suffers,
            known=False,
            needs=has,
            modest=wanted,
        )
    needs = Bytes(int(max(now_used, trend.fast)))
    working = Bytes(int(max(needs, trend.slow)))
    room = _headroom(working, limits, trend, now)
    wanted = Bytes(min(max(working + room, limits.minimum), limits.maximum))
    less = needs + _headroom(needs, limits, trend, now)
    return Demand(
        used=now_used,
        working=working,
        headroom=room,
        wanted=wanted,
        distress=suffers,
        known=True,
        needs=needs,
        modest=Bytes(min(max(less, limits.minimum), limits.maximum)),
    )


def in_distress(trend: GuestTrend, now: float) -> bool:
    """Whether a guest suffers, or did within the last few reports."""
    return trend.hurt is not None and now - trend.hurt < RELIEF / 6


def was_in_distress(trend: GuestTrend, now: float) -> bool:
    """Whether a guest suffered so lately that nothing is taken from it."""
    return trend.hurt is not None and now - trend.hurt < RELIEF


def _collapsed(sight: GuestSight, trend: GuestTrend, used_now: int) -> bool:
    """Whether a guest that had next to nothing left uses far less all at once.

    Most guests do not report when their kernel kills (QEMU before 9.2, Linux before 6.12). What a
    killed program had is free then; what was touched since the last report and turns out to be
    files is not.
    """
    if trend.used is None or trend.actual is None:
        return False
    if sight.free is not None and sight.free * 100 < (trend.used - used_now) * COLLAPSE_PERCENT:
        return False
    was_full = trend.used * 100 >= trend.actual * (100 - LITTLE_PERCENT)
    return was_full and used_now * 100 < trend.used * COLLAPSE_PERCENT


def _average(trend: GuestTrend, value: float, seconds: float) -> GuestTrend:
    if trend.used is None:
        return replace(trend, used=value, fast=value, slow=value)
    return replace(
        trend,
        used=value,
        fast=_decay(trend.fast, value, seconds / FAST),
        slow=_decay(trend.slow, value, seconds / SLOW),
    )


def _decay(average: float, value: float, share: float) -> float:
    """Move an average towards a value; implicit, so that a long pause cannot overshoot."""
    return average + (value - average) * share / (1 + share)


def _headroom(working: Bytes, limits: Limits, trend: GuestTrend, now: float) -> Bytes:
    room = min(max(working * limits.headroom_percent // 100, LEAST_HEADROOM), MOST_HEADROOM)
    if trend.hurt is None:
        return Bytes(room)
    fading = max(0.0, 1 - (now - trend.hurt) / BOOST_SECONDS)
    return Bytes(int(room * (1 + BOOST * fading)))


def _count(sight: GuestSight, trend: GuestTrend, reported: float, now: float) -> GuestTrend:
    before = trend.counters
    seconds = None if before is None else reported - before.time
    if seconds is not None and seconds < SAME_REPORT:
        return trend
    counters = Counters(
        time=reported,
        swap_in=sight.swap_in,
        major_faults=sight.major_faults,
        oom_kills=sight.oom_kills,
        alloc_stalls=sight.alloc_stalls,
        cost=sight.cost,
    )
    if before is None or seconds is None:
        return replace(trend, counters=counters, reports=trend.reports + 1)
    swapping = _growth(before.swap_in, sight.swap_in) / seconds >= SWAPPING
    in_a_row = trend.swapping + 1 if swapping else 0
    hurts = _hurts(sight, before, seconds) or in_a_row >= SHARP_REPORTS
    return replace(
        trend,
        counters=counters,
        reports=trend.reports + 1,
        swapping=in_a_row,
        hurt=now if hurts else trend.hurt,
    )


def _hurts(sight: GuestSight, before: Counters, seconds: float) -> bool:
    faults = _growth(before.major_faults, sight.major_faults) / seconds
    is_low = (
        sight.available is not None
        and sight.actual is not None
        and (sight.available * 100 < sight.actual * LITTLE_PERCENT)
    )
    return (
        _growth(before.oom_kills, sight.oom_kills) > 0
        or (is_low and _growth(before.alloc_stalls, sight.alloc_stalls) > 0)
        or (is_low and faults >= FAULTS)
    )


def _growth(before: int | None, after: int | None) -> int:
    """How far a counter went; one that went back began anew, and says nothing."""
    return 0 if before is None or after is None else max(0, after - before)
