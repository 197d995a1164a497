"""decide(): one round, from what was seen to what is to be done.

Rules of this file:
    Pure. The same snapshot, history and configuration give the same plan, in any order of guests.
    An error while one guest is assessed freezes that guest, and no other.
"""

from collections.abc import Mapping
from typing import Final

from qmpmem.model.config import Config
from qmpmem.model.observation import Snapshot
from qmpmem.model.round import Explanation, HostState, Plan, SetBalloon, severity
from qmpmem.policy import (
    allocation,
    cache,
    demand,
    goals,
    host,
    ksm,
    progress,
    reach,
    reclaim,
    shares,
)
from qmpmem.policy.cases import Case, Depth, Round
from qmpmem.policy.commands import Move
from qmpmem.policy.judgement_cache import MANY, Keeper
from qmpmem.policy.reclaim import Tier
from qmpmem.policy.shares import Claim
from qmpmem.policy.state import GuestTrend, History
from qmpmem.records import Record, replace
from qmpmem.units import Bytes, format_size

GAP: Final = 3.0
"""Seconds without a round, or two periods, after which all counters are void: the agent was stopped
meanwhile."""
DEBT_PERCENT: Final = 25
"""Percent of what merging saves for which there must be cover."""
CHEAP_PART: Final = 2
"""Divisor of the free swap that gives what the host gains by it at least, where that is compressed
memory. It holds what is swapped out in a third of its size (kernel: admin-guide/blockdev/zram)."""
EASE: Final = host.SOFT_ENDS
"""Reserves up to which a short host takes memory back: with so many it is short no more."""
EXPOSED: Final = 2
"""Times what is free that guests may touch unasked: they do not all do so at once."""
PLENTY: Final = 2.75
"""Reserves that stay available where memory that no guest needs is given out. SLACK begins at 2.5:
a host that gave out all down to there would ask for the same memory back, and so on for ever."""


class Shortage(Record, frozen=True):
    """How short of memory the host is."""

    state: HostState
    reserve: Bytes
    uncovered: int
    """Bytes that nothing would cover if guests wrote to a part of what is merged."""
    thrashes: bool


def decide(snapshot: Snapshot, history: History, config: Config) -> tuple[Plan, History]:
    """Decide on one round.

    Args:
        snapshot: what was seen.
        history: what the round before left; `History()` at the start.
        config: what the administrator wants.

    Returns:
        What is to be done, and the history for the next round.
    """
    history = _void_after_a_pause(snapshot, history, config)
    keeper = Keeper(history.kept, config, snapshot.time, is_worth=len(snapshot.guests) >= MANY)
    cases, frozen = _assess_all(snapshot, history, keeper)
    trend, reserve = host.follow(snapshot, history.host, config, _uses(cases, snapshot, config))
    debt = ksm.debt(snapshot.ksm)
    uncovered = _uncovered(snapshot, cases, reserve, debt)
    state = host.at_least(trend.state, "SOFT") if uncovered else trend.state
    budget = _budget(snapshot, reserve)
    cases = _entitle(cases, config, budget)
    short = Shortage(state=state, reserve=reserve, uncovered=uncovered, thrashes=trend.thrashes)
    now = _round(snapshot, cases, short, config)
    keeper.begin(now)
    wanted = {case.reading.id: keeper.goal(case) for case in cases}
    sizes = allocation.allocate(cases, wanted, now)
    decided = {case.reading.id: keeper.move(case, sizes[case.reading.id]) for case in cases}
    pinch = host.measure(snapshot, history.host, config, reserve)
    calm = pinch is not None and history.host.time is not None and not pinch.swapping
    tier = reclaim.decide(cases, now, config, calm=calm)
    cases = [
        replace(case, trend=tier.trends[case.id]) if case.reading.id in tier.trends else case
        for case in cases
    ]
    turn = ksm.govern(snapshot, history.ksm, config, trend.state)
    known = {case.reading.id: _remember(case, decided[case.reading.id], now) for case in cases}
    said = (*turn.warnings, *_warnings(cases, frozen), *_last_words(cases, now))
    fresh, warned = _say_once(said, history)
    plan = Plan(
        state=state,
        reason=host.explain(pinch, state),
        reserve=reserve,
        budget=budget,
        spare=Bytes(now.spare),
        debt=debt,
        balloons=_commands(cases, decided),
        ksm=turn.action,
        reclaims=tuple(tier.steps.values()),
        guests=(
            *(_with_tier(said, tier) for said in _explain_all(cases, decided, keeper, config)),
            *frozen,
        ),
        warnings=fresh,
    )
    kept = {**{guest: history.guests[guest] for guest in _unseen(frozen, history)}, **known}
    return plan, History(host=trend, guests=kept, ksm=turn.trend, warned=warned, kept=keeper.memo())


def _void_after_a_pause(snapshot: Snapshot, history: History, config: Config) -> History:
    """Return the history without counters after a pause of the agent: no rate spans the gap.

    What a guest uses counts until its next report: a host on which the agent runs slowly is one
    that thrashes, and the agent has to act there.
    """
    last = history.host.time
    pause = max(GAP, 2 * config.period)
    if last is None or 0 <= snapshot.time - last <= pause:
        return history
    return replace(
        history,
        host=replace(history.host, time=None, uses=(), calm_since=None),
        guests={
            guest: replace(
                trend,
                counters=None,
                swapping=0,
                phase=None if trend.shrinking else trend.phase,
            )
            for guest, trend in history.guests.items()
        },
    )


def _uses(cases: list[Case], snapshot: Snapshot, config: Config) -> Mapping[str, int]:
    """Return what guests that did not just start use: only that counts for bursts."""
    return {
        case.reading.id: int(case.trend.used)
        for case in cases
        if case.trend.used is not None and snapshot.time - case.trend.born >= config.grace
    }


def _assess_all(
    snapshot: Snapshot, history: History, keeper: Keeper
) -> tuple[list[Case], list[Explanation]]:
    cases: list[Case] = []
    frozen: list[Explanation] = []
    for reading in sorted(snapshot.guests, key=lambda guest: guest.id):
        try:
            pin = snapshot.requests.pins.get(reading.id)
            before = history.guests.get(reading.id)
            cases.append(keeper.assess(reading, before, pin))
        except Exception as error:  # noqa: BLE001 - the one boundary: a guest must not stop the rest
            reason = f"frozen: {type(error).__name__}: {error}"
            frozen.append(
                Explanation(guest=reading.id, name=reading.name, verdict="frozen", reason=reason)
            )
    return cases, frozen


def _uncovered(snapshot: Snapshot, cases: list[Case], reserve: Bytes, debt: Bytes) -> int:
    """Return what is missing to cover a part of what merging saves: it could be needed at once."""
    available = host.available_of(snapshot.host)
    if not debt or available is None:
        return 0
    gives = sum(
        max(0, case.held - case.demand.wanted)
        for case in cases
        if case.verdict in reach.MOVABLE and case.demand.known
    )
    cover = available - reserve + (snapshot.host.swap_free or 0) + gives
    return max(0, debt * DEBT_PERCENT // 100 - cover)


def _budget(snapshot: Snapshot, reserve: Bytes) -> Bytes:
    """Return what guests may hold altogether: what they hold, and what is spare.

    What they hold is what the host really gave, less what is merged. The size of a balloon does not
    count for it: memory that was never touched is available already, and would count twice.
    """
    available = host.available_of(snapshot.host)
    held = sum(
        min(guest.actual or guest.cost or 0, guest.cost or guest.actual or 0)
        for guest in snapshot.guests
    )
    debt, kept = ksm.debt(snapshot.ksm), _kept(snapshot)
    return Bytes(max(0, held - debt + (available or 0) - reserve - kept))


def _kept(snapshot: Snapshot) -> int:
    """Return what is kept for guests that are about to start, less what they have touched."""
    if not snapshot.requests.leases:
        return 0
    costs = {guest.id: guest.cost or 0 for guest in snapshot.guests}
    return sum(
        max(0, lease.size - (costs.get(lease.guest, 0) if lease.guest else 0))
        for lease in snapshot.requests.leases
        if lease.until > snapshot.time
    )


def _entitle(cases: list[Case], config: Config, budget: Bytes) -> list[Case]:
    """Share the budget out among the guests that are managed; others keep what they have."""
    fixed = [case for case in cases if case.verdict == "exempt"]
    held = sum(min(case.reading.actual or 0, case.reading.cost or 0) for case in fixed)
    claims = [_claim(case) for case in cases if case.verdict != "exempt"]
    entitled = shares.entitlements(claims, budget - held, config.idle_tax)
    return [
        replace(
            case,
            entitlement=entitled.get(case.reading.id, case.reading.actual or case.limits.maximum),
        )
        for case in cases
    ]


def _claim(case: Case) -> Claim:
    return Claim(guest=case.reading.id, limits=case.limits, active=case.active)


def _round(snapshot: Snapshot, cases: list[Case], short: Shortage, config: Config) -> Round:
    """Work out what holds for all guests in this round."""
    reserve = short.reserve
    available = host.available_of(snapshot.host)
    granted = sum([case.trend.granted for case in cases if case.trend.phase is not None])
    kept = _kept(snapshot)
    base = host.base_reserve(snapshot.host, config)
    free = available or 0
    wants = severity(short.state) >= severity("SOFT")
    swaps = bool(snapshot.host.swap_free)
    eases: dict[Depth, float] = {
        "idle": EASE * reserve if wants else reserve if kept else 0,
        "modest": host.SOFT_BEGINS * base,
        "bare": _bare(snapshot, short, base),
        "minimum": 0 if swaps else host.CRITICAL_BEGINS * base,
    }
    untouched = sum([max(0, case.actual - (case.reading.cost or 0)) for case in cases])
    return Round(
        now=snapshot.time,
        state=short.state,
        spare=0 if available is None else free - reserve - granted - kept,
        margin=max(0, reserve - base),
        base=base,
        swap=snapshot.host.swap_free or 0,
        swap_total=snapshot.host.swap_total or snapshot.host.swap_free or 0,
        cheap=(snapshot.host.swap_free or 0) // CHEAP_PART if snapshot.host.swap_fast else 0,
        lacks={
            depth: short.uncovered * (depth == "idle") + int(max(0, ease + kept - free))
            for depth, ease in eases.items()
        },
        last=int(max(0, host.CRITICAL_BEGINS * base - free)),
        easy=int(free - granted - kept - EASE * reserve),
        plenty=int(free - granted - kept - PLENTY * reserve),
        filled=sum([goals.filled(case) for case in cases if case.trend.shrinking]),
        exposed=untouched // EXPOSED - (free - reserve - kept),
        hold=snapshot.requests.hold or available is None,
        tax=config.idle_tax,
        grace=config.grace,
        thrashes=short.thrashes,
        acute="distress" in [case.verdict for case in cases],
    )


def _bare(snapshot: Snapshot, short: Shortage, base: int) -> float:
    """Return what the host must have available before guests may keep page cache that pays.

    What the host swaps meanwhile costs it as much, and more where tasks wait for that.
    """
    if not snapshot.host.swap_free or short.thrashes:
        return host.HARD_BEGINS * base
    waits = short.state == "CRITICAL" and (snapshot.host.some or 0) >= demand.WAITS
    return host.CRITICAL_BEGINS * base if waits and not snapshot.host.swap_fast else 0


def _remember(case: Case, move: Move, now: Round) -> GuestTrend:
    trend = case.trend
    if move.target is None:
        return trend
    if move.kind == "cache" and move.target > case.actual:
        trend = replace(trend, cache=cache.note_growth(trend, now.now))
    if move.kind == "revoke":
        tried = move.bound == "demand"
        trend = replace(trend, tried=now.now) if tried else replace(trend, revoked=now.now)
    return progress.note_sent(trend, case.reading.actual, case.reading.cost, move.target, now.now)


def _commands(cases: list[Case], decided: Mapping[str, Move]) -> tuple[SetBalloon, ...]:
    """Return the commands, shrinks first, so that what they free is there before others grow."""
    found = [
        (move.target - case.actual, case.id, move)
        for case in cases
        for move in [decided[case.reading.id]]
        if move.target is not None
    ]
    ordered = sorted(found, key=lambda entry: (entry[0] > 0, entry[1]))
    return tuple(
        SetBalloon(guest=guest, target=move.target, reason=move.reason, kind=move.kind)
        for _, guest, move in ordered
        if move.target is not None
    )


def _explain_all(
    cases: list[Case], decided: Mapping[str, Move], keeper: Keeper, config: Config
) -> list[Explanation]:
    found: list[Explanation] = []
    for case in cases:
        move = decided[case.reading.id]
        found.append(keeper.said(case, move) or keeper.say(move, _explain(case, move, config)))
    return found


def _explain(case: Case, move: Move, config: Config) -> Explanation:
    move = _with_ceiling(case, move, config)
    habit = demand.habit(case.reading)
    if case.reading.maximum is None and case.trend.actual is None:
        # Its size is not known, so no figure that follows from it is right.
        return Explanation(
            guest=case.id,
            name=case.reading.name,
            verdict=case.verdict,
            reason=move.reason,
            kind=move.kind,
            bound=move.bound,
        )
    return Explanation(
        guest=case.id,
        name=case.reading.name,
        verdict=case.verdict,
        reason=move.reason,
        kind=move.kind,
        bound=move.bound,
        actual=case.reading.actual,
        used=case.demand.used,
        working=case.demand.working,
        headroom=case.demand.headroom,
        cache=case.demand.cache or None,
        demand=case.demand.wanted,
        usual=None if habit is None else habit.usual,
        entitlement=case.entitlement,
        minimum=case.limits.minimum,
        maximum=case.limits.maximum,
        shares=case.limits.shares,
        active=case.active,
        price=allocation.price(case, config.idle_tax),
        reclaimable=Bytes(reach.reclaimable(case, case.demand.wanted)),
        wanted=move.wanted,
        target=move.target,
    )


def _with_tier(said: Explanation, tier: Tier) -> Explanation:
    """Add to an explanation what is reclaimed of the guest's cgroup, or why nothing is."""
    note, step = tier.notes.get(said.guest), tier.steps.get(said.guest)
    if note is None:
        return said
    size = None if step is None else step.size
    return replace(said, reason=f"{said.reason}; {note}".lstrip("; "), reclaim=size)


def _with_ceiling(case: Case, move: Move, config: Config) -> Move:
    """Add to a move's reason that the guest's own cgroup keeps it below what it could have."""
    ceiling, own = case.reading.ceiling, case.reading.maximum
    if ceiling is None or own is None or ceiling >= config.limits(case.id, own).maximum:
        return move
    most = format_size(ceiling)
    return replace(move, reason=f"{move.reason}; its cgroup lets it have no more than {most}")


def _warnings(cases: list[Case], frozen: list[Explanation]) -> tuple[str, ...]:
    odd = ("uncooperative", "ineffective", "suspect", "implausible")
    return (
        *(
            f"guest {case.id}: {case.verdict}: {case.reason}"
            for case in cases
            if case.verdict in odd
        ),
        *(
            f"guest {case.id}: another program moves its balloon"
            for case in cases
            if case.trend.foreign >= 2
        ),
        *(f"guest {each.guest}: {each.reason}" for each in frozen),
    )


def _last_words(cases: list[Case], now: Round) -> tuple[str, ...]:
    """Return the warning that a short host has nothing left to take, where that is so."""
    if now.state != "CRITICAL" or now.lacks["idle"] <= 0 or not cases:
        return ()
    # A guest that may give later could still help, and so could one that was not looked at yet.
    later = ("normal", "grace", "distress", "stalled")
    if any(
        reach.reclaimable(case, reach.kept(case)) > progress.band(case.limits)
        for case in cases
        if case.verdict in later or case.reading.actual is None
    ):
        return ()
    return ("the host is short of memory, and no guest can give any more",)


def _say_once(
    warnings: tuple[str, ...], history: History
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the new warnings, and all of this round: one that passed is new when it comes back."""
    present = frozenset(warnings)
    return tuple(sorted(present - history.warned)), present


def _unseen(frozen: list[Explanation], history: History) -> list[str]:
    return [each.guest for each in frozen if each.guest in history.guests]
