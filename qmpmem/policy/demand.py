"""What a guest works with, what it wants, and whether it suffers.

Theory of operation:
    What a guest says counts at each report, and nothing counts between two: what the host sees a
    guest touch meanwhile may be page cache as well.

Sources: ESX (Waldspurger, OSDI'02, 5.3): of several averages the largest counts, so that demand
rises at once and falls slowly. Headroom of 20 %: Hyper-V's memory buffer, oVirt MOM; Neon: a third.
"""

from typing import Final

from qmpmem.model.config import LEAST_HEADROOM, Limits
from qmpmem.model.observation import GuestReading, Habit
from qmpmem.policy import habits
from qmpmem.policy.state import Counters, GuestTrend, Stalls
from qmpmem.records import Record, replace
from qmpmem.units import GIB, MIB, Bytes

FAST: Final = 10.0
"""Seconds over which `used` is averaged for what a guest cannot do without."""
SLOW: Final = 120.0
"""Seconds over which `used` is averaged for what a guest works with."""

OVERHEAD: Final = Bytes(64 * MIB)
"""What QEMU may hold beside the guest's memory: a guest uses no more than is resident or in swap,
and this."""

SWAPPING: Final = Bytes(MIB)
"""Bytes a second: a guest with little available that reads back more from its swap is short."""
SWAPPING_PART: Final = 1024
"""Divisor of what a large guest has, which gives the bytes a second that it must read back from its
swap to be short."""
FAULTS: Final = 50
"""Major faults a second: a guest with little available that has more reads its programs again and
again."""
FAULTS_PER_GIB: Final = 10
"""Major faults a second for each GiB that a large guest has, from which on it counts as short."""
LITTLE_PART: Final = 10
"""Divisor of what a guest has: with less available, swapping, faults and kills count as
distress."""
LITTLE_LARGE: Final = 40
"""Divisor of what a large guest has, as far as that gives more than 64 MiB: with less available,
swapping, faults and kills count as distress."""
COLLAPSE_PERCENT: Final = 60
"""Percent of what a guest used while it was full: where it uses less at the next report, its kernel
killed a program."""
SHARP_REPORTS: Final = 2
"""Reports in a row with much swapping from which on a guest is in distress: one alone may be a
program that wakes up."""

SAME_REPORT: Final = 0.1
"""Seconds between the times of two reports, as their ages give them: with less it is one report."""

BURST_MEMORY: Final = 900.0
"""Seconds for which a guest that has grown at once keeps room to do so again, where the host has
room. Most growth that comes again comes within a quarter of an hour, or the next day."""

STARTS: Final = 60.0
"""Seconds for which a guest counts as starting."""

WAITS: Final = 10.0
"""Percent of the time in which a task of a guest's own cgroup waits for memory: the guest waits for
the host. A host that waits as much is in HARD."""
WAITED: Final = 10.0
"""Seconds over which the time is averaged that a guest waits for the host (as PSI's avg10)."""

STALLS_READ: Final = 3.0
"""Seconds within which the time that a guest waits for the host is read again for sure."""

SUFFERS: Final = 10.0
"""Seconds for which a guest counts as in distress after each sign of it."""
RELIEF: Final = 60.0
"""Seconds after distress for which nothing is taken from a guest."""
BOOST: Final = 0.5
"""Part of its headroom that a guest has in addition after distress, fading over `BOOST_SECONDS`."""
BOOST_SECONDS: Final = 600.0
"""Seconds until the additional headroom has faded."""


class Demand(Record, frozen=True):
    """What a guest wants. Sizes are what it has altogether, not what is available in it."""

    used: Bytes | None
    working: Bytes
    """W: what it worked with in the last minutes."""
    needs: Bytes
    """What it uses now and used within some seconds: it cannot do with less."""
    headroom: Bytes
    """H: room above what it works with."""
    least: Bytes
    """The headroom that it keeps where others suffer."""
    cache: Bytes
    """Page cache that pays."""
    wanted: Bytes
    """D: what it works with, the page cache that pays, and headroom."""
    eased: Bytes
    """As `wanted`, with room to grow as it grew of late: what it keeps while nothing is short."""
    habitual: Bytes
    """What it usually wants at this hour; where that is not known, as `wanted`."""
    foreseen: Bytes
    """What it keeps while nothing is short: as `eased`, or the most that it used at this hour."""
    modest: Bytes
    """What it keeps where others suffer: what it used minutes ago is forgotten, and its headroom is
    small."""
    bare: Bytes
    """As `modest`, without page cache."""
    distress: bool
    known: bool
    """Whether a report tells what it uses."""
    starving: bool = False
    """Whether next to nothing is available in it."""


def little(size: int) -> Bytes:
    """Return below how many bytes little is available in a guest of a size."""
    return Bytes(min(size // LITTLE_PART, max(LEAST_HEADROOM, size // LITTLE_LARGE)))


def available(reading: GuestReading) -> Bytes | None:
    """Return what a guest reports that it could give up; where that is not known, what is free."""
    return reading.stats.free if reading.stats.available is None else reading.stats.available


def used(reading: GuestReading) -> Bytes | None:
    """Return what a guest uses: what it has less what it could give up.

    It cannot use more than the host ever gave it, whatever it says.
    """
    could = available(reading)
    if reading.actual is None or could is None:
        return None
    claimed = min(max(0, reading.actual - could), reading.actual)
    if reading.rss is not None:
        claimed = min(claimed, reading.rss + (reading.swap or 0) + OVERHEAD)
    return Bytes(claimed)


def follow(reading: GuestReading, trend: GuestTrend, now: float) -> GuestTrend:
    """Bring a guest's trend up to this round: counters and averages at each new report."""
    if reading.age is None:
        return trend
    reported = now - reading.age
    before = trend.counters
    if before is not None and reported - before.time < SAME_REPORT:
        return trend
    seconds = 0.0 if before is None else reported - before.time
    trend = _count(reading, trend, reported, now)
    now_used = used(reading)
    if now_used is None:
        return trend
    if before is not None and _collapsed(reading, trend, now_used):
        # The averages stay at the peak: what was killed is started again.
        peak = trend.used or 0.0
        return replace(trend, used=float(now_used), fast=peak, slow=peak, hurt=now)
    return _average(trend, float(now_used), seconds, now)


def follow_stalls(reading: GuestReading, trend: GuestTrend, now: float) -> GuestTrend:
    """Bring up to this round how long a guest waits for the host, which no guest can forge.

    The cgroups of guests are read every other second: between two readings the total stays.
    """
    before, total = trend.waiting, reading.stalled
    if total is None or before is None or total < before.total:
        seen = None if total is None else Stalls(time=now, total=total)
        return trend if seen == before else replace(trend, waiting=seen)
    seconds = min(now - before.time, STALLS_READ)
    if seconds <= 0 or (total == before.total and (seconds < STALLS_READ or not before.percent)):
        return trend
    percent = min(100.0, (total - before.total) / seconds / 10_000)  # µs a second
    smooth = round(_decay(before.percent, percent, seconds / WAITED), 1)
    return replace(trend, waiting=Stalls(time=now, total=total, percent=smooth))


def waits(trend: GuestTrend) -> bool:
    """Tell whether a guest waits for memory of the host: the host swapped out part of what it uses.

    A larger target would not bring that back: only a host that is less short does.
    """
    return trend.waiting is not None and trend.waiting.percent >= WAITS


def estimate(reading: GuestReading, trend: GuestTrend, limits: Limits, now: float) -> Demand:
    """Return what a guest wants. Without a report it wants what it has."""
    now_used = used(reading)
    suffers = in_distress(trend, now)
    if now_used is None or trend.used is None or reading.actual is None:
        has = reading.actual or limits.maximum
        wanted = _within(has, limits)
        return Demand(
            used=None,
            working=has,
            needs=has,
            headroom=Bytes(0),
            least=Bytes(0),
            cache=Bytes(0),
            wanted=wanted,
            eased=wanted,
            habitual=wanted,
            foreseen=wanted,
            modest=wanted,
            bare=wanted,
            distress=suffers,
            known=False,
        )
    needs = Bytes(int(max(now_used, trend.fast)))
    working = Bytes(int(max(needs, trend.slow)))
    cache = trend.cache.kept if now < trend.cache.until else Bytes(0)
    room = _headroom(working, limits, trend, now)
    least = Bytes(min(room, little(needs) * 5 // 4))
    wanted = _within(working + cache + room, limits)
    eased = _within(working + cache + max(room, _burst(trend, now)), limits)
    known = habit(reading)
    habitual, peak = wanted, Bytes(0)
    if known is not None and known.usual is not None:
        habitual = roomy(known.usual, limits)
        peak = _within(max(known.peak or 0, known.usual) + least, limits)
    return Demand(
        used=now_used,
        working=working,
        needs=needs,
        headroom=room,
        least=least,
        cache=cache,
        wanted=wanted,
        eased=eased,
        habitual=habitual,
        foreseen=max(eased, habitual, peak),
        modest=_within(needs + cache + least, limits),
        bare=_within(needs + least, limits),
        distress=suffers,
        known=True,
        starving=reading.actual - now_used < little(reading.actual) // 2,
    )


def habit(reading: GuestReading) -> Habit | None:
    """Return what is known of a guest's habits, where it had its present maximum then."""
    known = reading.habit
    if known is None or reading.maximum is None:
        return None
    return known if habits.is_same(known.maximum, reading.maximum) else None


def roomy(size: int, limits: Limits) -> Bytes:
    """Return a size that is used, with headroom, within the limits."""
    return _within(size + _room(size, limits), limits)


def in_distress(trend: GuestTrend, now: float) -> bool:
    """Tell whether a guest suffers, or did within the last `SUFFERS` seconds."""
    return trend.hurt is not None and now - trend.hurt < SUFFERS


def was_in_distress(trend: GuestTrend, now: float) -> bool:
    """Tell whether a guest suffered so lately that nothing is taken from it."""
    return trend.hurt is not None and now - trend.hurt < RELIEF


def _within(size: int, limits: Limits) -> Bytes:
    return Bytes(min(max(size, limits.minimum), limits.maximum))


def _collapsed(reading: GuestReading, trend: GuestTrend, used_now: int) -> bool:
    """Tell whether a guest that had next to nothing left uses far less all at once.

    Most guests do not report when their kernel kills (QEMU before 9.2, Linux before 6.12). What a
    killed program had is free then. What the guest touched since the last report and turns out to
    be files is not.
    """
    if trend.used is None or trend.actual is None:
        return False
    if reading.stats.oom_kills is not None or reading.stats.alloc_stalls is not None:
        return False
    if reading.deflates or (trend.maximum is not None and trend.actual >= trend.maximum):
        return False  # its balloon would have deflated first; or no more memory could have helped
    if (
        reading.stats.free is not None
        and reading.stats.free * 100 < (trend.used - used_now) * COLLAPSE_PERCENT
    ):
        return False
    was_full = trend.actual - trend.used < little(trend.actual)
    return was_full and used_now * 100 < trend.used * COLLAPSE_PERCENT


def _average(trend: GuestTrend, value: float, seconds: float, now: float) -> GuestTrend:
    if trend.used is None:
        return replace(trend, used=value, fast=value, slow=value)
    # What a guest takes when it starts, and how fast, is no sign of what it takes later.
    starts = now - trend.born < STARTS
    grew = 0.0 if starts else value - trend.slow
    known = _burst(trend, now)
    return replace(
        trend,
        used=value,
        fast=_decay(trend.fast, value, seconds / FAST),
        slow=_decay(trend.slow, value, seconds / (FAST if starts else SLOW)),
        burst=max(grew, known),
        burst_at=now if grew >= known else trend.burst_at,
    )


def _burst(trend: GuestTrend, now: float) -> int:
    """Return how far a guest's use grew at once of late."""
    return int(trend.burst) if now - trend.burst_at < BURST_MEMORY else 0


def _decay(average: float, value: float, share: float) -> float:
    """Return an average moved towards a value; implicit, so that a long pause cannot overshoot."""
    return average + (value - average) * share / (1 + share)


def _room(size: int, limits: Limits) -> int:
    return max(size * limits.headroom_percent // 100, little(limits.maximum))


def _headroom(working: Bytes, limits: Limits, trend: GuestTrend, now: float) -> Bytes:
    room = _room(working, limits)
    if trend.hurt is None or now - trend.hurt >= BOOST_SECONDS:
        return Bytes(room)
    fading = 1 - (now - trend.hurt) / BOOST_SECONDS
    return Bytes(int(room * (1 + BOOST * fading)))


def _count(reading: GuestReading, trend: GuestTrend, reported: float, now: float) -> GuestTrend:
    before = trend.counters
    counters = Counters(
        time=reported,
        swap_in=reading.stats.swap_in,
        major_faults=reading.stats.major_faults,
        oom_kills=reading.stats.oom_kills,
        alloc_stalls=reading.stats.alloc_stalls,
        reads=reading.reads,
        reads_waited=reading.reads_waited,
        caches=reading.stats.disk_caches,
        cost=reading.cost,
    )
    if before is None:
        return replace(trend, counters=counters, reports=trend.reports + 1, reported=now)
    seconds = reported - before.time
    has = reading.actual or 0
    swaps = growth(before.swap_in, reading.stats.swap_in) / seconds >= max(
        SWAPPING, has // SWAPPING_PART
    )
    in_a_row = trend.swapping + 1 if swaps else 0
    hurts = _is_low(reading) and (_hurts(reading, before, seconds) or in_a_row >= SHARP_REPORTS)
    return replace(
        trend,
        counters=counters,
        reports=trend.reports + 1,
        swapping=in_a_row,
        hurt=now if hurts else trend.hurt,
    )


def _is_low(reading: GuestReading) -> bool:
    could = available(reading)
    return could is not None and reading.actual is not None and could < little(reading.actual)


def _hurts(reading: GuestReading, before: Counters, seconds: float) -> bool:
    faults = growth(before.major_faults, reading.stats.major_faults) / seconds
    many = max(FAULTS, FAULTS_PER_GIB * (reading.actual or 0) // GIB)
    return (
        growth(before.oom_kills, reading.stats.oom_kills) > 0
        or growth(before.alloc_stalls, reading.stats.alloc_stalls) > 0
        or faults >= many
    )


def growth(before: int | None, after: int | None) -> int:
    """Return how far a counter went; 0 for one that went back, because it began anew."""
    return 0 if before is None or after is None else max(0, after - before)
