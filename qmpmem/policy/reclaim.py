"""The second tier: a short host reclaims memory of guests whose balloons give it none.

Theory of operation:
    A guest without a balloon, without a driver for it, or with a driver that does not do as it is
    told, keeps all it ever touched. Where it has a cgroup of its own, the host's kernel can swap
    out what the guest used least lately, without its help (kernel: admin-guide/cgroup-v2,
    memory.reclaim).

    What is reclaimed too much is read back, which costs the guest time. So it is reclaimed in small
    steps, and the result of each is looked at before the next. Where the guest waits for memory, it
    reads back what was just taken, or nothing comes free, it is left alone for a while (as senpai
    does; TMO, ASPLOS'22: waits for memory and refaults tell what a workload can do without).

Rules of this file:
    Pure. Balloons come first: only what they do not give is reclaimed.
    A host that cannot swap reclaims nothing. A host that reads back from swap itself reclaims
    nothing either.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from qmpmem.model.config import Config
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import Reclaim, Verdict
from qmpmem.policy import reach
from qmpmem.policy.cases import Case, Round
from qmpmem.policy.state import GuestTrend, ReclaimTrend
from qmpmem.records import Record, replace
from qmpmem.units import MIB, PAGE, Bytes, format_size

VERDICTS: Final[frozenset[Verdict]] = frozenset({"uncooperative", "ineffective", "stale"})
"""Verdicts of guests whose balloons give nothing, or of which it is not known what they could give.
"""
STALLS: Final = 2
"""Stalls in a row after which a guest counts as one that has stalled for long."""
PAUSE: Final = 3.0
"""Seconds between two steps: by then it is known what the last one did (`agent.cgroup_usage` reads
all cgroups within 2 s)."""
STEP_PERCENT: Final = 6
"""Percent of the maximum that a step reclaims; twice as much in HARD and CRITICAL, and half as much
after each rest."""
LEAST_STEP: Final = Bytes(4 * MIB)
"""Least size of a step: less is not worth one."""
SWAP_KEPT: Final = 4
"""Divisor of the host's swap that gives what stays free of it: what a burst needs."""
OVERHEAD: Final = Bytes(64 * MIB)
"""What a guest's cgroup holds beside its memory: QEMU itself, 62 MiB measured. That counts as in
use, so that the minimum is left of the guest's memory alone."""
WATCHED: Final = 10.0
"""Seconds after a step for which what the guest suffers counts as caused by it."""
STALL_PERCENT: Final = 1.0
"""Percent of the time: a guest that waits more for memory after a step suffers. glib's lowest
warning is at 3.5 %, TMO aims at 0.1 % over minutes; a round sees a few seconds."""
REFAULTS: Final = Bytes(MIB)
"""Bytes a second: a guest that reads back more of what was just reclaimed suffers."""
YIELD_PERCENT: Final = 25
"""Percent of a step that must come free: less does where memory is locked, or the cgroup may not
swap."""
REST: Final = 60.0
"""Seconds for which nothing is reclaimed of a guest that suffered, or of which nothing came free;
twice as long after each rest that follows."""
LONGEST_REST: Final = 900.0
"""Most seconds for which nothing is reclaimed of such a guest: `REST` is doubled up to here."""


class Tier(Record, frozen=True):
    """What is reclaimed in one round."""

    steps: Mapping[str, Reclaim]
    trends: Mapping[str, GuestTrend]
    """The trends of guests of which something new is to be remembered, brought up to this round."""
    notes: Mapping[str, str]
    """One phrase for people about each guest of which there is something to tell."""


def decide(cases: Sequence[Case], now: Round, config: Config, *, calm: bool) -> Tier:
    """Decide what the host reclaims.

    Args:
        cases: the guests.
        now: what holds for all.
        config: what the administrator wants.
        calm: whether it is known that the host does not read back from swap what it took too much
            of.
    """
    able = [case for case in cases if _is_able(case, now, config)]
    # Of most guests nothing was ever reclaimed.
    some = [*able, *(case for case in cases if case.trend.reclaim.at is not None)]
    trends = {case.id: _follow(case, now.now) for case in some}
    steps: dict[str, Reclaim] = {}
    if able and calm and not now.thrashes:
        steps = _share_out(able, trends, _lack(cases, now), now)
    known = {
        case.id: _note(case.reading, trends[case.id], steps.get(case.id), now.now) for case in some
    }
    notes = {case.id: _say(known[case.id], steps.get(case.id), now.now) for case in able}
    return Tier(
        steps=steps,
        trends={
            case.id: replace(case.trend, reclaim=known[case.id])
            for case in some
            if known[case.id] is not case.trend.reclaim
        },
        notes={guest: note for guest, note in notes.items() if note},
    )


def room(case: Case) -> int:
    """Return what may be reclaimed of a guest: what it holds beyond its minimum."""
    return (case.reading.cost or 0) - case.limits.minimum - OVERHEAD


def _share_out(
    able: Sequence[Case], trends: Mapping[str, ReclaimTrend], lack: int, now: Round
) -> dict[str, Reclaim]:
    """Reclaim what the host lacks: first from the guests that hold most beyond their share."""
    left = min(lack, now.swap - now.swap_total // SWAP_KEPT)
    steps: dict[str, Reclaim] = {}
    for case in sorted(able, key=lambda case: (case.fair - (case.reading.cost or 0), case.id)):
        size = _whole(min(left, room(case), _step(case, trends[case.id], now)))
        if size < LEAST_STEP or not _is_due(case, trends[case.id], now.now):
            continue
        why = f"because the host is in {now.state} and its balloon gives nothing"
        steps[case.id] = Reclaim(guest=case.id, size=size, reason=f"reclaimed {why}")
        left -= size
    return steps


def _lack(cases: Sequence[Case], now: Round) -> int:
    """Return what a short host lacks beyond what balloons still give of what guests do not use."""
    if not now.short or now.hold:
        return 0
    gives = sum(
        reach.reclaimable(case, reach.floor(case, "idle", now))
        for case in cases
        if reach.held_back(case, now) is None
    )
    return now.lacks["idle"] - gives


def _is_able(case: Case, now: Round, config: Config) -> bool:
    """Tell whether memory of a guest's cgroup may be reclaimed at all."""
    reading = case.reading
    if reading.way is None or reading.state != "running":
        return False
    if reading.cost is None or reading.maximum is None:
        return False
    if case.pin is not None or case.suffers or now.now - case.trend.born < config.grace:
        return False
    if not config.may_reclaim(case.id, reading.name, made=reading.made):
        return False
    # One that did not move for long may have no driver any more.
    has_stalled = case.verdict == "stalled" and case.trend.backoff >= STALLS
    return reading.bare or case.verdict in VERDICTS or has_stalled


def _step(case: Case, trend: ReclaimTrend, now: Round) -> int:
    percent = STEP_PERCENT * (2 if now.sharp else 1)
    return max(LEAST_STEP, (case.limits.maximum * percent // 100) >> trend.rests)


def _is_due(case: Case, trend: ReclaimTrend, now: float) -> bool:
    if case.reading.reclaiming:
        return False
    return now >= trend.rest_until and (trend.at is None or now - trend.at >= PAUSE * 0.9)


def _follow(case: Case, now: float) -> ReclaimTrend:
    """Return the trend after the last step: a guest that suffers, or that gave nothing, rests."""
    trend, reading = case.trend.reclaim, case.reading
    if trend.at is None:
        return trend
    seconds = now - trend.at
    why = _hurt(trend, reading, max(1.0, seconds))
    if why is None and seconds >= PAUSE * 0.9 and _is_fruitless(trend, reading):
        why = "nothing of it came free"
    if why is not None:
        rest = min(LONGEST_REST, REST * 2**trend.rests)
        return replace(trend, at=None, rest_until=now + rest, rests=trend.rests + 1, why=why)
    if seconds <= WATCHED:
        return trend
    calm = now - trend.rest_until >= LONGEST_REST
    return replace(trend, at=None, rests=0 if calm else trend.rests)


def _hurt(trend: ReclaimTrend, reading: GuestReading, seconds: float) -> str | None:
    """Return how a guest suffers since the last step; None: it does not."""
    if _risen(trend.stalled, reading.stalled) > seconds * STALL_PERCENT * 10_000:
        return "it waited for memory"
    if _risen(trend.refaults, reading.refaults) > seconds * REFAULTS:
        return "it read back what was reclaimed"
    return None


def _is_fruitless(trend: ReclaimTrend, reading: GuestReading) -> bool:
    if trend.cost is None or reading.cost is None or reading.reclaiming:
        return False
    return trend.cost - reading.cost < trend.asked * YIELD_PERCENT // 100


def _risen(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else max(0, after - before)


def _note(
    reading: GuestReading, trend: ReclaimTrend, step: Reclaim | None, now: float
) -> ReclaimTrend:
    if step is None:
        return trend
    return replace(
        trend,
        asked=step.size,
        at=now,
        cost=reading.cost,
        stalled=reading.stalled,
        refaults=reading.refaults,
    )


def _say(trend: ReclaimTrend, step: Reclaim | None, now: float) -> str:
    if step is not None:
        return f"the host reclaims {format_size(step.size)} of its cgroup"
    if now < trend.rest_until:
        return f"nothing is reclaimed of its cgroup for now, because {trend.why}"
    return ""


def _whole(size: int) -> Bytes:
    return Bytes(max(0, size - size % PAGE))
