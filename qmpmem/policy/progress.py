"""What a guest was told, and how far it has come towards it.

Theory of operation:
    A guest is on its way down, has memory that it was given and has not touched, is being released,
    or none of these: its phase. A command begins a phase, and what the balloon does ends it.
"""

from typing import Final

from qmpmem.model.config import Limits
from qmpmem.model.observation import GuestReading
from qmpmem.policy import cache, demand
from qmpmem.policy.state import Growing, GuestTrend, Phase, Releasing, Shrinking, Told
from qmpmem.records import replace
from qmpmem.units import MIB, PAGE, Bytes

STALL: Final = 5.0
"""Seconds within which a guest that was asked for memory must have moved."""
LEAST_MOVE: Final = Bytes(4 * MIB)
"""Least that a guest must give within `STALL` seconds: less is no movement."""
LEAST_MOVE_PERCENT: Final = 10
"""Percent of what a guest was asked for that it must give within `STALL` seconds: less is no
movement."""
WILLING: Final = Bytes(16 * MIB)
"""Bytes a second: a guest that gives so much moves, however much it was asked for. Without KVM,
drivers reach some 300 MiB a second, and tens of GiB take minutes."""
REST: Final = 60.0
"""Seconds for which a guest is not asked after a stall; twice as long after each that follows."""
SPENT: Final = 10.0
"""Seconds for which a guest is not asked after a stall where next to nothing is available in it: it
may have something to give again as soon as one of its programs ends."""
LONGEST_REST: Final = 900.0
"""Most seconds for which a guest is not asked after a stall: `REST` is doubled up to here."""
BOOTS: Final = 120.0
"""Seconds for which a guest that never reported may have no driver yet: its firmware and its kernel
start first."""
STALL_MEMORY: Final = 600.0
"""Seconds for which a stall is counted."""

OVERHEAD: Final = Bytes(256 * MIB)
"""What a QEMU process may cost beside the guest's memory: devices, and TCG's translations."""
SUSPECT_PERCENT: Final = 5
"""Percent above what a guest has and `OVERHEAD`: a guest that costs more took back what it gave."""

TRIAL: Final = Bytes(128 * MIB)
"""Least size of a shrink that tells whether it frees anything."""
YIELD_PERCENT: Final = 25
"""Percent of a shrink that the host must gain: where less is freed, the balloon does nothing."""
FRUITLESS: Final = 2
"""Shrinks in a row that freed nothing, after which a guest's balloon is ineffective."""

UNDER_WAY: Final = 5.0
"""Seconds for which a guest may go on towards its target before the last. Its driver reads the
target only between two batches, and the size that is known of the guest is some time old."""
GRANT_MEMORY: Final = 30.0
"""Seconds for which what a guest was given counts as granted: what it has not touched by then
counts as any other idle memory."""


def note_sent(
    trend: GuestTrend, has: Bytes | None, cost: Bytes | None, target: Bytes, now: float
) -> GuestTrend:
    """Remember what a guest is told.

    Args:
        trend: what is remembered of it.
        has: its size; None: not known.
        cost: what it costs the host.
        target: what it is told.
        now: when.
    """
    stops = trend.shrinking and trend.target is not None and trend.target < target
    trend = replace(trend, told=Told(target=target, at=now, before=trend.target))
    if has is None or isinstance(trend.phase, Releasing):
        return replace(trend, raised=now) if isinstance(trend.phase, Releasing) else trend
    if target < has and stops:
        return trend  # it is on its way down still, and not as far
    if target < has:
        going = trend.phase if trend.shrinking else Shrinking(start=has, since=now, cost=cost)
        noted = cache.note_shrink(trend, now)
        return replace(trend, phase=going, lowered=now, cache=noted)
    if target == has:  # to stay is no growth: it may be asked again as soon as others lack
        return replace(trend, phase=None)
    return replace(trend, phase=_grown(trend, has, cost or Bytes(0), target), raised=now)


def unmade(trend: GuestTrend, before: GuestTrend | None) -> GuestTrend:
    """Return the trend where the command of a round was not sent to the guest.

    Args:
        trend: as the round left it.
        before: as the round before left it; None: there was none.
    """
    was = before or GuestTrend(epoch=trend.epoch, born=trend.born)
    return replace(
        trend,
        told=was.told,
        phase=was.phase,
        lowered=was.lowered,
        raised=was.raised,
        revoked=was.revoked,
        cache=replace(trend.cache, smaller=was.cache.smaller, larger=was.cache.larger),
    )


def _grown(trend: GuestTrend, has: Bytes, cost: Bytes, target: Bytes) -> Growing:
    match trend.phase:
        case Growing(granted=granted) as phase if trend.granted and trend.told is not None:
            # What it has not taken up yet is granted already.
            promised = max(has, trend.told.before or has)
            more = max(0, target - promised)
            return replace(phase, granted=Bytes(granted + more))
        case _:
            return Growing(granted=Bytes(target - has), cost=cost, first=cost)


def follow(reading: GuestReading, trend: GuestTrend, limits: Limits, now: float) -> GuestTrend:
    """Bring what a guest was told up to what its balloon did."""
    trend = _follow_maximum(reading, trend)
    if trend.actual is None or reading.actual is None:
        trend = replace(trend, phase=None) if trend.shrinking else trend
    else:
        trend = _watch_hands(reading, reading.actual, trend, limits, now)
        trend = _watch_progress(reading.actual, reading.cost, trend, now)
        trend = _watch_cost(reading.actual, reading.cost, trend, now)
    stalls = trend.stalls and tuple(at for at in trend.stalls if now - at < STALL_MEMORY)
    phase = _touched(reading, trend, now)
    if phase is trend.phase and stalls == trend.stalls:
        return trend  # of thousands of guests nearly all: a copy would cost as much as the rest
    return replace(trend, phase=phase, stalls=stalls)


def band(limits: Limits) -> Bytes:
    """Return the dead band: a size that is off by less counts as reached."""
    return Bytes(max(8 * MIB, limits.maximum // 200))


def relief(reading: GuestReading, limits: Limits) -> Bytes:
    """Return the target of a guest that does not move: a little above its size, to stay there."""
    more = min(128 * MIB, limits.maximum * 5 // 100)
    return Bytes(min(limits.maximum, (reading.actual or limits.maximum) + more))


def _touched(reading: GuestReading, trend: GuestTrend, now: float) -> Phase | None:
    """Return the phase with what a guest may still touch now (Qubes qmemman counts it as used)."""
    match trend.phase:
        case Growing() as phase:
            if trend.raised is None or now - trend.raised > GRANT_MEMORY:
                return None
            if reading.cost is None or reading.cost <= phase.cost:
                return phase
            return replace(phase, cost=reading.cost)
        case phase:
            return phase


def _follow_maximum(reading: GuestReading, trend: GuestTrend) -> GuestTrend:
    """Move what is remembered with a maximum that changed: memory was plugged in, or put online.

    The balloon stays as large as it is. So QEMU, which keeps a target as the size of the balloon,
    moves the targets by as much.
    """
    if None in (reading.maximum, trend.maximum) or reading.maximum == trend.maximum:
        return trend
    more = (reading.maximum or 0) - (trend.maximum or 0)

    def moved(size: Bytes) -> Bytes:
        return Bytes(max(PAGE, size + more))

    told, phase = trend.told, trend.phase
    if told is not None:
        before = None if told.before is None else moved(told.before)
        told = replace(told, target=moved(told.target), before=before)
    match phase:
        case Shrinking(start=start):
            phase = replace(phase, start=moved(start))
        case Releasing(size=size):
            phase = replace(phase, size=moved(size))
        case _:
            pass
    actual = None if trend.actual is None else moved(trend.actual)
    return replace(trend, actual=actual, told=told, phase=phase)


def _watch_hands(
    reading: GuestReading, has: Bytes, trend: GuestTrend, limits: Limits, now: float
) -> GuestTrend:
    """Notice a balloon that moved without a command of ours."""
    before = trend.actual
    slack = band(limits)
    if (
        before is None
        or abs(has - before) <= slack
        or _is_explained(has, before, trend, slack, now)
    ):
        return trend
    if has > before and not trend.reports:
        return trend  # its driver starts: until then QEMU shows the size before that
    if has > before and _deflated(reading, before, trend):
        # deflate-on-oom: it took memory back in need. Asking again would have the driver inflate
        # and deflate in turn without end (Firecracker #4324). QEMU still has the old target, and
        # the guest would go back there by itself. So that target stays known until the guest is
        # told to stay.
        return replace(trend, phase=None if trend.shrinking else trend.phase, raised=now)
    return replace(
        trend,
        told=Told(target=has, at=now),
        phase=None,
        foreign=trend.foreign + 1,
        foreign_at=now,
        foreign_up=has > before,
    )


def _deflated(reading: GuestReading, before: Bytes, trend: GuestTrend) -> bool:
    """Tell whether a guest deflated its own balloon: by its device, or by signs in its report."""
    if reading.deflates is not None:
        return reading.deflates
    return trend.hurt is not None or (trend.used is not None and trend.used > before * 0.8)


def _is_explained(has: Bytes, before: Bytes, trend: GuestTrend, slack: Bytes, now: float) -> bool:
    """Tell whether a size is between where the guest was and where it was told to go, lately."""
    if trend.told is None:
        return False
    ends = [before, trend.told.target]
    if trend.told.before is not None and now - trend.told.at < UNDER_WAY:
        ends.append(trend.told.before)
    return min(ends) - slack <= has <= max(ends) + slack


def _watch_progress(has: Bytes, cost: Bytes | None, trend: GuestTrend, now: float) -> GuestTrend:
    """Notice a guest that does not give what it is asked for, and learn how fast others do."""
    phase, target = trend.phase, trend.target
    if not isinstance(phase, Shrinking) or target is None:
        return trend
    ask, moved, seconds = phase.start - target, phase.start - has, now - phase.since
    if has <= target + LEAST_MOVE:
        return _learn_yield(has, cost, replace(trend, backoff=0, phase=None), phase)
    if not trend.reports and now - trend.born < BOOTS:
        # Its driver is not there yet. It will do as it is told when it is.
        return replace(trend, phase=Shrinking(start=has, since=now, cost=cost))
    if seconds < STALL:
        return trend
    if moved >= max(LEAST_MOVE, min(ask * LEAST_MOVE_PERCENT // 100, int(WILLING * seconds))):
        on = Shrinking(start=has, since=now, cost=cost)
        return replace(trend, speed=moved / seconds, phase=on)
    return _note_stall(has, trend, now)


def _note_stall(has: Bytes, trend: GuestTrend, now: float) -> GuestTrend:
    spent = _is_spent(has, trend)
    rest = min(LONGEST_REST, (SPENT if spent else REST) * 2**trend.backoff)
    return replace(
        trend,
        phase=None,
        stalls=trend.stalls if spent else (*trend.stalls, now),
        backoff=trend.backoff + 1,
        rest_until=now + rest,
    )


def _is_spent(has: Bytes, trend: GuestTrend) -> bool:
    """Tell whether a guest gave what it could: its report shows next to nothing available."""
    return trend.used is not None and has - trend.used < demand.little(has)


def _learn_yield(has: Bytes, cost: Bytes | None, trend: GuestTrend, ask: Shrinking) -> GuestTrend:
    """Notice a balloon that frees nothing: passed-through devices, huge pages, shared memory."""
    moved = ask.start - has
    if cost is None or ask.cost is None or moved < TRIAL:
        return trend
    freed = ask.cost - cost
    if freed * 100 >= moved * YIELD_PERCENT or cost <= has + OVERHEAD:
        return replace(trend, fruitless=0)
    fruitless = trend.fruitless + 1
    return replace(trend, fruitless=fruitless, ineffective=fruitless >= FRUITLESS)


def _watch_cost(has: Bytes, cost: Bytes | None, trend: GuestTrend, now: float) -> GuestTrend:
    """Notice a guest that costs more than it has: it took back what its balloon gave."""
    shrank = trend.lowered is not None
    too_much = cost is not None and cost > (has + OVERHEAD) * (100 + SUSPECT_PERCENT) // 100
    if not (shrank and too_much):
        return trend if trend.suspect_since is None else replace(trend, suspect_since=None)
    return trend if trend.suspect_since is not None else replace(trend, suspect_since=now)
