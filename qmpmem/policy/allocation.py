"""From goals to sizes: which guests give and which get, within what each may be told.

Theory of operation:
    Growth comes out of what is measured to be spare. What is lacking, for the host or for guests
    that need more, is taken from the others: first what no guest uses, from the cheapest guests,
    then step by step what is in more use. Shrinks are sent first, and growth never rests on a
    promise: what is not there is not given (XAPI squeezed, Qubes qmemman: two phases).

    What no such step can cover is revoked from the guest that has most beyond its entitlement, down
    to that, whatever the guest reports (ESX: min-funding revocation):

        for                                     from
        a guest that suffers, or waits for      every guest
        the host, below its entitlement
        a host that thrashes, or has no swap    those that did not suffer of late
        left
        a host in CRITICAL                      those that show no need of it, as the host sees it

    A balloon below what a guest really uses is worse than the host's swap, so the last is a trial:
    where a guest suffers for it, it has its memory back, and is not tried again for ten minutes.
    Swap in compressed memory costs more than free memory and less than any trial: half of it is
    used up first.
"""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from qmpmem.model.round import Kind
from qmpmem.policy import behaviour, demand, progress, reach, shares
from qmpmem.policy.cases import Case, Depth, Round
from qmpmem.policy.goals import Goal, trial
from qmpmem.policy.reach import DEPTHS
from qmpmem.policy.shares import Claim
from qmpmem.records import replace
from qmpmem.units import MIB

EXACT: Final[frozenset[Kind]] = frozenset({"pin", "release"})
"""Kinds of goals that are carried out whatever other guests lack, unless the host is in
CRITICAL."""
TRIED_PART: Final = 8
"""Divisor of a guest's entitlement: a guest that has less than so much beyond it is not tried,
because entitlements move a little."""
UNNEEDED: Final[frozenset[Kind]] = frozenset({"cache", "habit", "plenty"})
"""Kinds of growth that a guest is given though its programs have what they need."""
CACHE_PART: Final = 4
"""Divisor of a guest's entitlement: page cache that pays keeps a guest from being tried up to so
much, because only the guest tells how large it is."""
LACKING_PERCENT: Final = 85
"""Percent of its entitlement: where a guest suffers with less, others give for it."""
REVOKED_PERCENT: Final = 2
"""Percent of a guest's maximum that is revoked from it a second."""
HANDED_PERCENT: Final = 15
"""Percent of what there is plenty of that is given a round to guests that do not need it. More
guests may be about to start."""
REVOKED: Final = 30.0
"""Seconds for which a guest gets no more than its entitlement after memory was revoked from it:
after that it may cost the host swap again, if it suffers."""
NEEDED: Final = 600.0
"""Seconds for which a guest counts as one that needs what it has, after it suffered for a
revocation."""
PIECES: Final = 4
"""Pieces into which what a guest can give is split: after each, the guest that is cheapest then is
asked."""
RESERVE_PART: Final = 2
"""Divisor of the reserve that gives how much of it a guest that suffers may have."""
SWAP_PART: Final = 4
"""Divisor of the host's free swap that gives how much of it a guest that suffers may cost."""


def allocate(cases: Sequence[Case], goals: Mapping[str, Goal], now: Round) -> dict[str, Goal]:
    """Return where each guest goes in this round.

    Args:
        cases: the guests, in the order of their ids.
        goals: where each should go by itself.
        now: what holds for all.
    """
    growing = [case for case in cases if goals[case.reading.id].size > case.actual]
    goals = {**goals, **{case.id: _without_revoked(case, goals[case.id], now) for case in growing}}
    growing = [case for case in growing if goals[case.id].size > case.actual]
    lacking = [case for case in growing if _is_lacking(case)]
    given = _give(growing, goals, now, blocked=bool(lacking) and now.short)
    dues = _dues(growing, goals, given, now)
    taken, freed = _take(cases, goals, dues, now)
    waiting = [case for case in cases if _missing_in_host(case)]
    owed = min(
        dues["modest"] + now.lacks["modest"] - freed,
        sum(_missing(case, goals, given) for case in lacking)
        + sum(_missing_in_host(case) for case in waiting),
    )
    spared = taken.keys() | {case.id for case in (*lacking, *waiting)}
    others = [case for case in cases if case.id not in spared]
    revoked = _revoke(others, owed, now)
    freed += sum(max(0, case.held - revoked[case.id].size) for case in others if case.id in revoked)
    others = [case for case in others if case.id not in revoked]
    if now.last > freed and (now.thrashes or now.swap < now.last):
        calm = [case for case in others if not demand.was_in_distress(case.trend, now.now)]
        revoked |= _revoke(calm, now.last - freed, now)
    elif now.state == "CRITICAL" and now.lacks["idle"] > freed + now.cheap:
        idle = [case for case in others if not _shows_need(case, now)]
        tried = _revoke(idle, now.lacks["idle"] - freed - now.cheap, now)
        revoked |= {name: replace(goal, bound="demand") for name, goal in tried.items()}
    decided = {**goals, **given, **taken}
    # What is free in a guest may go into its balloon at once, which may be more than is revoked.
    revoked = {name: goal for name, goal in revoked.items() if goal.size < decided[name].size}
    return {**decided, **revoked}


def _was_needed(case: Case, now: Round) -> bool:
    """Tell whether a guest suffered after a trial of whether it needs what it has."""
    tried, hurt = case.trend.tried, case.trend.hurt
    return tried is not None and hurt is not None and tried <= hurt and now.now - hurt < NEEDED


def _shows_need(case: Case, now: Round) -> bool:
    """Tell whether the host saw of late that a guest needs what it has beyond its entitlement."""
    return (
        _was_needed(case, now)
        or demand.was_in_distress(case.trend, now.now)
        or case.waits
        or case.trend.rest_until > 0  # it had nothing to give once
        or reach.is_cooling(case, now)
        or reach.is_growing(case)
        or case.held - case.fair - min(case.demand.cache, case.fair // CACHE_PART)
        < max(progress.band(case.limits), case.fair // TRIED_PART)
    )


def _missing_in_host(case: Case) -> int:
    """Return how much of a guest's entitlement the host swapped out, where it waits for that."""
    resident = case.held - (case.reading.swap or 0)
    if not case.waits or resident * 100 >= case.fair * LACKING_PERCENT:
        return 0
    return min(case.reading.swap or 0, case.fair - resident)


def _is_revoked(case: Case, now: Round) -> bool:
    revoked, tried = case.trend.revoked, case.trend.tried
    if revoked is not None and now.now - revoked < REVOKED:
        return True
    return tried is not None and now.now - tried < REVOKED and not _was_needed(case, now)


def _without_revoked(case: Case, goal: Goal, now: Round) -> Goal:
    """Return a guest's goal, within its entitlement for a while after a revocation."""
    most = max(case.actual, case.fair)
    if not _is_revoked(case, now) or goal.kind == "release" or goal.size <= most:
        return goal
    return replace(goal, size=most, bound="entitlement", due=min(goal.due, most - case.actual))


def _missing(case: Case, goals: Mapping[str, Goal], given: Mapping[str, Goal]) -> int:
    """Return what others have to give for a guest; 0 where that is not worth a command."""
    missing = goals[case.id].due - (given[case.id].size - case.actual)
    return missing if missing >= progress.band(case.limits) else 0


def _dues(
    growing: Sequence[Case], goals: Mapping[str, Goal], given: Mapping[str, Goal], now: Round
) -> dict[Depth, int]:
    """Return what guests miss, by the depth to which others are shrunk for it.

    What others do not use is taken for whatever a guest wants. What they used minutes ago is taken
    for what its programs need, up to its entitlement. Page cache that pays is taken only where the
    guest suffers.
    """
    dues: dict[Depth, int] = {"idle": 0, "modest": 0, "bare": 0, "minimum": 0}
    for case in growing:
        missing = _missing(case, goals, given)
        if goals[case.id].kind in UNNEEDED and now.state == "SLACK" and missing <= now.plenty:
            continue  # it is there, and given in the rounds to come
        fair = min(missing, max(0, case.fair - given[case.id].size))
        dues["idle"] += missing
        if goals[case.id].kind not in UNNEEDED:
            dues["modest"] += fair
            dues["bare"] += fair if case.suffers and (now.thrashes or not now.swap) else 0
    return dues


def _is_lacking(case: Case) -> bool:
    """Tell whether a guest suffers with less than it is entitled to."""
    return case.suffers and case.actual * 100 < case.fair * LACKING_PERCENT


def _allowance(case: Case, goal: Goal, now: Round) -> int:
    """Return what a guest's growth may come out of, that of all guests before it included.

    A guest that suffers is the burst for which the margin is kept, and more urgent than half the
    reserve. It may also cost the host swap, as long as the host does not thrash: the host knows
    better what is cold than a guest that is full.
    """
    if goal.kind in UNNEEDED:
        return min(now.spare, now.easy)
    if not case.suffers:
        return now.spare + (now.margin if case.demand.cache else 0)
    more = now.margin + now.base // RESERVE_PART
    more += 0 if now.thrashes else max(now.cheap, now.swap // SWAP_PART)
    return now.spare + more


def _give(
    growing: Sequence[Case], goals: Mapping[str, Goal], now: Round, *, blocked: bool
) -> dict[str, Goal]:
    """Return how far guests grow, most urgent first: to entitlements, to what is due, and beyond.

    Args:
        growing: the guests whose goals are above what they have.
        goals: where each should go.
        now: what holds for all.
        blocked: no growth beyond entitlements: another guest suffers below its own.
    """
    order = sorted(growing, key=lambda case: _urgency(case, goals[case.id], now))
    reached = {case.id: int(case.actual) for case in growing}
    used = 0
    plenty = max(0, now.plenty) * HANDED_PERCENT // 100
    for most in ("fair", "due", "size"):
        for case in order:
            goal, has = goals[case.id], reached[case.id]
            if most != "fair" and blocked and not _is_lacking(case):
                continue
            due = goal.size if most == "size" else case.actual + goal.due
            size = min(due, case.fair) if most == "fair" else due
            pool = _allowance(case, goal, now)
            if most == "size":
                pool = min(pool, now.spare, now.easy)
            if goal.kind == "release":
                size, pool = goal.size, goal.size + used
            if goal.kind in UNNEEDED and now.state == "SLACK":
                tried = trial(case) if goal.kind == "cache" else 0
                size = min(size, max(has + plenty, case.actual + tried))
            more = max(0, min(size - has, pool - used))
            used += more
            plenty -= more if goal.kind in UNNEEDED else 0
            reached[case.id] = has + more
    return {case.id: _reached(case, goals[case.id], reached[case.id]) for case in growing}


def _reached(case: Case, goal: Goal, size: int) -> Goal:
    if size >= goal.size:
        return goal
    return replace(goal, size=max(size, case.actual), bound="spare")


def _take(
    cases: Sequence[Case], goals: Mapping[str, Goal], dues: Mapping[Depth, int], now: Round
) -> tuple[dict[str, Goal], int]:
    """Return which guests give what is lacking, at each depth only as much as is worth that.

    Args:
        cases: the guests.
        goals: where each should go by itself.
        dues: bytes that growing guests miss, by depth.
        now: what holds for all.

    Returns:
        Where guests go, and the bytes that they free; nothing where nothing is lacking.
    """
    if now.last <= 0 and all(now.lacks[depth] + dues[depth] <= 0 for depth in dues):
        return {}, 0
    needed = now.short or dues["modest"] > 0
    depths: list[Depth] = [
        depth for depth in DEPTHS[now.state] if now.lacks[depth] + dues[depth] > 0
    ]
    able = [
        case
        for case in cases
        if _has_any(case, depths, now)
        and _may_give(case, goals[case.reading.id], now, needed=needed)
    ]
    sizes = {case.id: min(case.held, case.going) for case in able}
    freed = sum(case.held - sizes[case.id] for case in able)
    paced = {case.id: reach.lowest(case, now) for case in able}
    for depth in depths:
        left = now.lacks[depth] + dues[depth] - freed
        if left <= 0:
            continue
        lowest = {case.id: max(reach.floor(case, depth, now), paced[case.id]) for case in able}
        freed += _take_from_cheapest(able, sizes, lowest, left, now)
    givers = [
        case
        for case in able
        if sizes[case.id] < min(case.held, case.going, case.actual)
        and sizes[case.id] < goals[case.id].size  # else its own goal takes it there
    ]
    why = _why(now, now.lacks["idle"] + dues["idle"]) if givers else ""
    taken = {
        case.id: Goal(size=sizes[case.id], kind="take", bound="demand", reason=f"gives {why}")
        for case in givers
    }
    return taken, freed


def _take_from_cheapest(
    able: Sequence[Case], sizes: dict[str, int], lowest: Mapping[str, int], left: int, now: Round
) -> int:
    """Take what is lacking in pieces, each from the guest that pays least for what it has left.

    So equal guests give equally: the last of a guest's page cache is worth more than the first of
    the page cache of another.

    Args:
        able: the guests that may give.
        sizes: what each is to keep; brought up to what is taken here.
        lowest: the least that each keeps.
        left: the bytes that are lacking.
        now: what holds for all.

    Returns:
        The bytes that are taken.
    """
    taken = 0
    queue = [
        (*_order(case, sizes[case.id], now), number, case)
        for number, case in enumerate(able)
        if sizes[case.id] - lowest[case.id] >= _least_piece(case, sizes[case.id])
    ]
    heapify(queue)
    while queue and taken < left:
        *_, number, case = heappop(queue)
        room = sizes[case.id] - lowest[case.id]
        # At least what is worth a command: else the guest that is asked first gives nothing.
        least = progress.band(case.limits)
        piece = min(room, max(least, min(left - taken, 1 + room // PIECES)))
        sizes[case.id] -= piece
        taken += piece
        if piece < room:
            heappush(queue, (*_order(case, sizes[case.id], now), number, case))
    return taken


def _least_piece(case: Case, size: int) -> int:
    """Return the bytes from which on it is worth a command to have a guest give more."""
    return 1 if size < min(case.held, case.going) else progress.band(case.limits)


def _has_any(case: Case, depths: Sequence[Depth], now: Round) -> bool:
    """Tell whether a guest frees anything now, or holds more than the deepest depth leaves it."""
    held = case.held
    if case.going < held:
        return True
    return bool(depths) and held > reach.floor(case, depths[-1], now)


def _may_give(case: Case, goal: Goal, now: Round, *, needed: bool) -> bool:
    """Tell whether a guest gives: one that grows beyond its needs gives to a need elsewhere."""
    if goal.kind in EXACT and now.state != "CRITICAL":
        return False
    # What is only expected is given up for whatever another guest wants now.
    unneeded = goal.kind == "habit" or (goal.kind in UNNEEDED and needed)
    if goal.size > case.actual and not unneeded:
        return False
    return reach.held_back(case, now) is None


def _revoke(cases: Sequence[Case], lack: int, now: Round) -> dict[str, Goal]:
    """Return the goals of the guests that have most beyond their entitlements, full or not."""
    donors = [case for case in cases if case.pin is None and _is_revocable(case, now)]
    taken: dict[str, Goal] = {}
    for case in sorted(donors, key=lambda case: (-case.actual / max(1, case.fair), case.id)):
        if lack <= 0:
            break
        step = max(reach.LEAST_STEP, case.limits.maximum * REVOKED_PERCENT // 100)
        size = max(case.fair, reach.down(case, step, now))
        why = "gives beyond its share, which another lacks"
        taken[case.id] = Goal(size=size, kind="revoke", bound="entitlement", reason=why)
        lack -= max(0, case.held - size)
    return taken


def _is_revocable(case: Case, now: Round) -> bool:
    """Tell whether a guest has more than its share, and can take memory back by its own balloon."""
    if case.reading.deflates is False or now.hold or case.reading.actual is None:
        return False
    if case.verdict != "distress" and not reach.is_movable(case, now):
        return False
    if not behaviour.plays_along(case.trend, now.now):
        return False
    if now.now - case.trend.born < now.grace and not reach.may_give_early(case, now):
        return False
    if now.now < case.trend.rest_until:
        return False
    return case.actual - case.fair >= progress.band(case.limits) and case.demand.known


def _order(case: Case, size: int, now: Round) -> tuple[bool, float]:
    """Return a sort key: the cheapest give first, in need those above their entitlement."""
    return now.sharp and size <= case.entitlement, price(case, now.tax, size)


def _urgency(case: Case, goal: Goal, now: Round) -> tuple[bool, bool, bool, float, str]:
    """Return a sort key: guests that suffer first, those below their minimum, then by price."""
    below = case.actual < case.limits.minimum
    return (
        goal.kind != "release",
        not case.suffers,
        not below,
        -price(case, now.tax),
        case.id,
    )


def price(case: Case, tax: float, size: int | None = None) -> float:
    """Return what a guest pays for its memory: shares for each byte at its cost.

    Args:
        case: the guest.
        tax: the tax on idle memory, as a part: 0.75 is 75 %.
        size: its size, where that is not its present one; what it works with stays the same.
    """
    active = case.active
    if size is not None:
        active = shares.activity(int(active * case.actual), size)
    claim = Claim(guest=case.id, limits=case.limits, active=active)
    return shares.price(claim, case.actual if size is None else size, tax)


def _why(now: Round, lack: int) -> str:
    if now.short:
        return f"because the host is in {now.state}"
    return f"for others that lack {max(1, lack // MIB)} MiB"
