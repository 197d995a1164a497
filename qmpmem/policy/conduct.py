"""Guests that do not play along: what they are called, and what is remembered of it.

Theory of operation:
    A guest is judged by what its balloon and its cost do, which the host sees, and by what it says
    only where that is its own loss. Progress is a rate: "any movement at all" would let one that
    gives a page every five seconds pass for willing (XAPI squeezed's known hole). The Linux driver
    retries a failed inflation five times a second for ever, so a guest that does not move is told
    to stay about where it is.
"""

from typing import Final

from qmpmem.actions import Verdict
from qmpmem.config import Limits
from qmpmem.policy import demand
from qmpmem.policy.history import GuestTrend
from qmpmem.records import Record, replace
from qmpmem.sight import GuestSight
from qmpmem.units import MIB, PAGE, Bytes

STALL: Final = 5.0
"""Seconds in which something must have moved."""
LEAST_MOVE: Final = Bytes(4 * MIB)
"""In `STALL`: less, of a large ask, is no movement."""
LEAST_MOVE_PERCENT: Final = 10
"""Of what it was asked for: likewise."""
REST: Final = 60.0
"""Seconds without asking after a stall; twice as long after each that follows."""
LONGEST_REST: Final = 900.0
"""Seconds; `REST` is doubled up to here."""
STALL_MEMORY: Final = 600.0
"""Seconds in which stalls are counted."""
STALLS: Final = 3
"""In `STALL_MEMORY`: such a guest is not counted on."""

OVERHEAD: Final = Bytes(256 * MIB)
"""What a QEMU process may cost beside the guest's memory: devices, and TCG's translations."""
SUSPECT_PERCENT: Final = 5
"""Above what it has and `OVERHEAD`: a guest that costs more took back what it gave."""
SUSPECT_AFTER: Final = 30.0
"""Seconds for which it must cost so much."""

TRIAL: Final = Bytes(128 * MIB)
"""A shrink must be so large to tell whether it frees anything."""
YIELD_PERCENT: Final = 25
"""Of a trial's size: where less is freed, the balloon does nothing."""
FRUITLESS: Final = 2
"""Trials in a row that freed nothing."""

UNDER_WAY: Final = 5.0
"""Seconds that a guest may go on towards the target before the last: its driver looks up between
two batches, and what is said here of its size is some time old."""

STALE_POLLS: Final = 3
"""Reports that may stay out before a guest counts as silent."""
SLOWEST_POLL: Final = 10.0
"""Seconds between two reports, at the most."""
FOREIGN_REST: Final = 60.0
"""Seconds in which a balloon is left alone that somebody else moved."""


class Judgement(Record, frozen=True):
    """What a guest is to us now."""

    verdict: Verdict
    reason: str


def begin(sight: GuestSight, now: float, released: Bytes | None = None) -> GuestTrend:
    """Start with a guest of which nothing is known.

    Args:
        sight: what is seen of it.
        now: when.
        released: what it is given at once; after a reset QEMU still has the old target, to which
            the next boot would be squeezed (CloudStack #7430).
    """
    return GuestTrend(
        epoch=sight.epoch,
        born=now,
        time=now,
        maximum=sight.maximum,
        actual=sight.actual,
        cost=sight.cost,
        released=None if sight.actual == released else released,
    )


def follow(sight: GuestSight, trend: GuestTrend | None, limits: Limits, now: float) -> GuestTrend:
    """Bring a guest's trend up to this round."""
    if trend is None:
        return demand.follow(sight, begin(sight, now), now)
    if trend.epoch != sight.epoch:
        # Of a guest that just started nothing is known yet, nor is there an old target.
        whole = None if sight.maximum is None else limits.maximum
        return demand.follow(sight, begin(sight, now, whole), now)
    trend = _follow_maximum(sight, trend)
    if trend.actual is None or sight.actual is None:
        trend = replace(trend, asked_from=None)
    else:
        trend = _watch_hands(sight.actual, trend, limits, now)
        trend = _watch_progress(sight.actual, sight.cost, trend, now)
        trend = _watch_cost(sight.actual, sight.cost, trend, now)
    if not sight.implausible and not is_stale(sight):
        trend = demand.follow(sight, trend, now)
    return replace(
        trend,
        time=now,
        maximum=sight.maximum,
        actual=sight.actual,
        cost=sight.cost,
        granted=_untouched(sight, trend, now),
        granted_cost=Bytes(max(trend.granted_cost, sight.cost or 0)),
        stalls=trend.stalls and tuple(time for time in trend.stalls if now - time < STALL_MEMORY),
        released=None if sight.actual == trend.released else trend.released,
    )


def judge(sight: GuestSight, trend: GuestTrend, limits: Limits, grace: float) -> Judgement:
    """Say what a guest is to us: the first line of the table that holds."""
    now = trend.time
    table: tuple[tuple[Verdict, bool, str], ...] = (
        ("exempt", not limits.managed, "not managed, by configuration"),
        ("exempt", sight.exempt is not None, sight.exempt or ""),
        ("exempt", sight.state != "running", f"it is {sight.state}"),
        ("implausible", sight.implausible or sight.actual is None, "its numbers cannot be true"),
        ("ineffective", trend.ineffective, "what its balloon takes is not freed"),
        (
            "foreign",
            _since(trend.foreign_at, now) < FOREIGN_REST,
            "somebody else moves its balloon",
        ),
        ("distress", demand.in_distress(trend, now), "it is short of memory"),
        ("grace", now - trend.born < grace or trend.reports < 2, "it was seen first not long ago"),
        ("uncooperative", len(trend.stalls) >= STALLS, "it does not give what it is asked for"),
        ("stalled", now < trend.rest_until, "it did not move when it was asked to"),
        ("suspect", _is_suspect(trend, now), "it costs more than it has"),
        ("stale", is_stale(sight), "it does not report what it uses"),
    )
    for verdict, holds, reason in table:
        if holds:
            return Judgement(verdict=verdict, reason=reason)
    return Judgement(verdict="normal", reason="")


def _since(moment: float | None, now: float) -> float:
    return float("inf") if moment is None else now - moment


def _is_suspect(trend: GuestTrend, now: float) -> bool:
    return trend.suspect_since is not None and now - trend.suspect_since >= SUSPECT_AFTER


def is_stale(sight: GuestSight) -> bool:
    """Whether a guest's report is too old to rest on, or there is none."""
    return sight.age is None or sight.age > STALE_POLLS * SLOWEST_POLL


def relief(sight: GuestSight, limits: Limits) -> Bytes:
    """Say where a guest that does not move is told to stay: a little above where it is."""
    more = min(128 * MIB, limits.maximum * 5 // 100)
    return Bytes(min(limits.maximum, (sight.actual or limits.maximum) + more))


def note_sent(trend: GuestTrend, target: Bytes, now: float) -> GuestTrend:
    """Remember what a guest is told."""
    has = trend.actual
    if has is None:
        return replace(trend, target=target, sent=now, before=trend.target)
    if target < has:
        asked = trend.asked_from is not None
        return replace(
            trend,
            target=target,
            sent=now,
            before=trend.target,
            shrunk=now,
            granted=Bytes(0),
            asked_from=trend.asked_from if asked else has,
            asked_at=trend.asked_at if asked else now,
            asked_cost=trend.asked_cost if asked else trend.cost,
        )
    if target == has:  # to stay is no gift: it may be asked again as soon as others lack
        return replace(trend, target=target, sent=now, before=trend.target, asked_from=None)
    fresh = trend.granted == 0
    promised = max(has, trend.target or has)  # what it has not taken up yet is granted already
    return replace(
        trend,
        target=target,
        sent=now,
        before=trend.target,
        grown=now,
        asked_from=None,
        granted=Bytes(target - has if fresh else trend.granted + max(0, target - promised)),
        granted_cost=(trend.cost or Bytes(0)) if fresh else trend.granted_cost,
    )


GRANT_MEMORY: Final = 30.0
"""Seconds in which a guest touches what it was given, or it counts as any other idle memory."""


def _untouched(sight: GuestSight, trend: GuestTrend, now: float) -> Bytes:
    """What of its growth of late a guest may still touch (Qubes qmemman counts it as used)."""
    if trend.granted == 0 or trend.grown is None or now - trend.grown > GRANT_MEMORY:
        return Bytes(0)
    touched = max(0, (sight.cost or trend.granted_cost) - trend.granted_cost)
    return Bytes(max(0, trend.granted - touched))


def band(limits: Limits) -> Bytes:
    """Say how far off is still there: the dead band."""
    return Bytes(max(8 * MIB, limits.maximum // 200))


def _follow_maximum(sight: GuestSight, trend: GuestTrend) -> GuestTrend:
    """Move what is remembered with a maximum that changed: memory was plugged in, or put online.

    The balloon stays as large as it is, and so do the targets, which QEMU keeps as its size.
    """
    if None in (sight.maximum, trend.maximum) or sight.maximum == trend.maximum:
        return trend
    more = (sight.maximum or 0) - (trend.maximum or 0)

    def moved(size: Bytes | None) -> Bytes | None:
        return None if size is None else Bytes(max(PAGE, size + more))

    return replace(
        trend,
        actual=moved(trend.actual),
        target=moved(trend.target),
        before=moved(trend.before),
        asked_from=moved(trend.asked_from),
        released=moved(trend.released),
    )


def _watch_hands(has: Bytes, trend: GuestTrend, limits: Limits, now: float) -> GuestTrend:
    """Notice a balloon that moved, and it was not us."""
    before = trend.actual
    slack = band(limits)
    if before is None or abs(has - before) <= slack or _is_explained(has, before, trend, slack):
        return trend
    if has > before and (trend.hurt is not None or _is_tight(trend, before)):
        # deflate-on-oom: it took memory back in need. Asking again would have the driver inflate
        # and deflate in turn without end (Firecracker #4324). QEMU still has the old target, to
        # which it would go back by itself, so that stays known until it is told to stay.
        return replace(trend, asked_from=None, hurt=now)
    return replace(
        trend,
        target=has,
        asked_from=None,
        foreign=trend.foreign + 1,
        foreign_at=now,
        foreign_up=has > before,
        granted=Bytes(0),
    )


def _is_explained(has: Bytes, before: Bytes, trend: GuestTrend, slack: Bytes) -> bool:
    """Whether a size is between where the guest was and where it was told to go, lately."""
    if trend.target is None:
        return False
    ends = [before, trend.target]
    if trend.before is not None and trend.time - (trend.sent or 0.0) < UNDER_WAY:
        ends.append(trend.before)
    return min(ends) - slack <= has <= max(ends) + slack


def _is_tight(trend: GuestTrend, before: Bytes) -> bool:
    return trend.used is not None and trend.used > before * 0.8


def _watch_progress(has: Bytes, cost: Bytes | None, trend: GuestTrend, now: float) -> GuestTrend:
    """Notice a guest that does not give what it is asked for, and learn how fast others do."""
    start, target = trend.asked_from, trend.target
    if start is None or target is None:
        return trend
    ask, moved, seconds = start - target, start - has, now - trend.asked_at
    if has <= target + LEAST_MOVE:
        return _learn_yield(has, cost, replace(trend, backoff=0, asked_from=None), start)
    if seconds < STALL:
        return trend
    if moved >= max(LEAST_MOVE, ask * LEAST_MOVE_PERCENT // 100):
        speed = moved / seconds
        return replace(trend, speed=speed, asked_from=has, asked_at=now, asked_cost=cost)
    rest = min(LONGEST_REST, REST * 2**trend.backoff)
    return replace(
        trend,
        asked_from=None,
        stalls=(*trend.stalls, now),
        backoff=trend.backoff + 1,
        rest_until=now + rest,
    )


def _learn_yield(has: Bytes, cost: Bytes | None, trend: GuestTrend, start: Bytes) -> GuestTrend:
    """Notice a balloon that frees nothing: passed-through devices, huge pages, shared memory."""
    moved = start - has
    if cost is None or trend.asked_cost is None or moved < TRIAL:
        return trend
    freed = trend.asked_cost - cost
    if freed * 100 >= moved * YIELD_PERCENT or cost <= has + OVERHEAD:
        return replace(trend, idle_yield=0)
    fruitless = trend.idle_yield + 1
    return replace(trend, idle_yield=fruitless, ineffective=fruitless >= FRUITLESS)


def _watch_cost(has: Bytes, cost: Bytes | None, trend: GuestTrend, now: float) -> GuestTrend:
    """Notice a guest that costs more than it has: it takes back what its balloon gave."""
    shrank = trend.shrunk is not None
    too_much = cost is not None and cost > (has + OVERHEAD) * (100 + SUSPECT_PERCENT) // 100
    if not (shrank and too_much):
        return replace(trend, suspect_since=None)
    return trend if trend.suspect_since is not None else replace(trend, suspect_since=now)
