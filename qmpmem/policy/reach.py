"""How far a guest may be shrunk: whether at all, down to where, and how far in one round."""

from collections.abc import Mapping
from typing import Final

from qmpmem.model.round import HostState, Verdict
from qmpmem.policy import behaviour, demand, progress
from qmpmem.policy.cases import Case, Depth, Round
from qmpmem.policy.state import Releasing
from qmpmem.units import MIB, PAGE, Bytes

DOWN_PERCENT: Final[Mapping[HostState, int]] = {
    "SLACK": 5,
    "BALANCED": 5,
    "SOFT": 5,
    "HARD": 10,
    "CRITICAL": 25,
}
"""Percent of its maximum that a guest is shrunk by a second. Proxmox takes 100 MiB in 10 s, which
is why bursts kill there."""
LEAST_STEP: Final = Bytes(16 * MIB)
"""Least that a guest is shrunk by a second, however small it is."""
STEPS: Final = 2
"""Most steps of a second by which a target may be below what the guest has touched."""
UNTOUCHED: Final = Bytes(96 * MIB)
"""Most of what a guest has beyond what the host holds for it that a step skips at once: nothing is
freed on that part of the way."""

NEW: Final = 60.0
"""Seconds after its QEMU started for which a guest is about to boot, or has just done so: where
many start at once, QEMU itself takes long to answer."""
COOL_AFTER_GROWTH: Final = 60.0
"""Seconds for which a guest that was given memory is not asked to give it back."""
TELLS: Final = 1.0
"""Seconds after a guest was told to give, from which on a report says what that cost it."""
GROWING_PERCENT: Final = 5
"""Percent of its maximum: a guest that uses so much more than in the 10 s before is growing."""

LEFT_PERCENT: Final = 75
"""Percent of its maximum that are left to a guest that cannot take memory back by itself. A guest
that used 115 of its 512 MiB, was left 179 and needed 250 more at once lost the program that asked
for them."""

MOVABLE: Final[frozenset[Verdict]] = frozenset({"normal"})
"""Verdicts of guests that may be asked to give memory."""

DEPTHS: Final[Mapping[HostState, tuple[Depth, ...]]] = {
    "SLACK": ("idle",),
    "BALANCED": ("idle",),
    "SOFT": ("idle", "modest"),
    "HARD": ("idle", "modest", "bare"),
    "CRITICAL": ("idle", "modest", "bare", "minimum"),
}
"""What is taken of guests in each state of the host, from the first to the last."""


def kept(case: Case) -> Bytes:
    """Return what is left to a guest in any case.

    Without deflate-on-oom a guest that suddenly needs memory kills programs before the agent knows
    of it, so it keeps room for that beforehand.
    """
    least = case.limits.minimum
    if case.reading.deflates is not False:
        return least
    room = case.limits.maximum * LEFT_PERCENT // 100
    return Bytes(max(least, room - room % PAGE))


def floor(case: Case, depth: Depth, now: Round) -> int:
    """Return the size below which a guest is not shrunk at a depth."""
    least = kept(case)
    wants = case.demand
    if depth == "minimum" and not is_growing(case):
        return least
    hurt = demand.was_in_distress(case.trend, now.now)
    moves = is_cooling(case, now) or is_growing(case)
    if depth == "idle" or hurt or (moves and not now.sharp):
        return max(least, wants.wanted)
    return max(least, wants.modest if depth == "modest" else wants.bare)


def reclaimable(case: Case, lowest: int) -> int:
    """Return the bytes that shrinking a guest to a size would really free.

    Pages that were never touched cost nothing, so ballooning them frees nothing.
    """
    return max(0, case.held - lowest)


def step(case: Case, now: Round) -> int:
    """Return the bytes by which a guest may be shrunk in a second."""
    size = max(LEAST_STEP, case.limits.maximum * DOWN_PERCENT[now.state] // 100)
    if case.trend.speed is not None:
        size = max(LEAST_STEP, min(size, int(2 * case.trend.speed)))
    return size


def lowest(case: Case, now: Round) -> int:
    """Return the lowest target that a guest may be told now, by the pace alone."""
    size = step(case, now)
    # A slow guest skips no more than a step: else what it holds would never be reached.
    return down(case, size, now, min(UNTOUCHED, size))


def down(case: Case, size: int, now: Round, untouched: int = UNTOUCHED) -> int:
    """Return how low a guest may be told to go now.

    Args:
        case: the guest.
        size: bytes by which it may be shrunk in a second.
        now: what holds for all.
        untouched: bytes beyond what the host holds for it that count as no part of the way.
    """
    told = case.trend.told
    seconds = 1.0 if told is None else min(float(STEPS), now.now - told.at)
    return min(case.actual, case.held + untouched) - int(size * seconds)


def held_back(case: Case, now: Round) -> str | None:
    """Return why a guest may not be asked to give memory now, or None where it may."""
    trend = case.trend
    hurts, hurt = demand.in_distress(trend, now.now), demand.was_in_distress(trend, now.now)
    # So that memory does not move to and fro. A pin that an operator sets is no such move.
    cooling = is_cooling(case, now) and not now.sharp
    pinned, tried = case.pin is not None, _is_tried(case)
    table = (
        (not is_movable(case, now), case.reason),
        (case.reading.actual is None, "it is not known what it has"),
        (isinstance(trend.phase, Releasing), "it was reset, and is given all it may have"),
        (now.hold, "all is held, or it is not known what is available"),
        (hurts, "it is short of memory"),
        (hurt and not (now.sharp or now.acute), f"it was short within {demand.RELIEF:.0f} s"),
        (not case.demand.known and not pinned, "it is not known what it uses"),
        (is_growing(case) and not pinned and not now.sharp, "it uses more and more"),
        (has_outgrown(case) and not pinned, "it took more since it last reported"),
        (tried and not (pinned or now.sharp), "it has not yet said what its last step cost"),
        (cooling and not pinned, f"it was given memory within {COOL_AFTER_GROWTH:.0f} s"),
    )
    return next((text for holds, text in table if holds), None)


def is_movable(case: Case, now: Round) -> bool:
    """Tell whether a guest's verdict lets it be asked to give: a host in need asks new ones."""
    if case.verdict == "grace":
        return may_give_early(case, now)
    return case.verdict in MOVABLE


def may_give_early(case: Case, now: Round) -> bool:
    """Tell whether a guest that has just started gives like any other: to a host in need."""
    return now.sharp and behaviour.is_settled(case.reading, case.trend, now.now)


def may_position(case: Case, now: Round) -> bool:
    """Tell whether what is free in a guest may go into its balloon, which costs it nothing.

    That holds for a guest that has just started as well: what it has not touched is no loss. One
    that ran before the agent did has its grace.
    """
    if case.pin is not None or now.hold or case.reading.deflates is False:
        return False
    if case.verdict != "normal" and not (case.verdict == "grace" and _was_new(case, now)):
        return False
    return not (is_growing(case) or has_outgrown(case) or is_cooling(case, now))


def _was_new(case: Case, now: Round) -> bool:
    """Tell whether a guest had just started when it was first seen.

    A guest that was reset does not count: it is to boot at the size that it had.
    """
    up, seen = case.reading.up, now.now - case.trend.born
    return case.reading.began == "seen" and up is not None and up - seen < NEW


def is_cooling(case: Case, now: Round) -> bool:
    """Tell whether a guest was given memory of late, or took it: it stays as it is then."""
    raised = case.trend.raised
    return raised is not None and now.now - raised < COOL_AFTER_GROWTH


def has_outgrown(case: Case) -> bool:
    """Tell whether the host sees that a guest took much memory since its last report.

    That may be page cache, which only the next report tells: until then the last one is out of
    date.
    """
    counters, cost = case.trend.counters, case.reading.cost
    if counters is None or counters.cost is None or cost is None:
        return False
    most = case.limits.maximum * GROWING_PERCENT // 100
    return cost - counters.cost > max(progress.band(case.limits), most)


def _is_tried(case: Case) -> bool:
    """Tell whether a guest has not reported since it gave memory: it may miss what it gave.

    What no report shows as free was page cache. How much of that the guest reads again shows only
    when it has done without for a while (senpai: take a little, see what it costs).
    """
    counters, lowered = case.trend.counters, case.trend.lowered
    return lowered is not None and counters is not None and counters.time < lowered + TELLS


def is_growing(case: Case) -> bool:
    """Tell whether a guest's use grows now: what it gave would have to be given back to it."""
    use = case.trend.used
    most = case.limits.maximum * GROWING_PERCENT // 100
    return use is not None and use - case.trend.fast > max(progress.band(case.limits), most)
