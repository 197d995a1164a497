"""decide(): one round, from what was seen to what to do.

Rules of this file:
    Pure. The same snapshot, history and configuration give the same plan, in any order of guests.
    What goes wrong while one guest is judged freezes that guest, and nobody else.
"""

from collections.abc import Mapping
from typing import Final

from qmpmem import bounds
from qmpmem.actions import Explanation, HostState, Plan, SetBalloon
from qmpmem.config import Config, Limits
from qmpmem.policy import conduct, demand, host, ksm, moves, shares
from qmpmem.policy.conduct import Judgement
from qmpmem.policy.history import GuestTrend, History
from qmpmem.policy.moves import Case, Move, Round
from qmpmem.policy.shares import Claim
from qmpmem.records import Record, replace
from qmpmem.sight import GuestSight, Snapshot
from qmpmem.units import PAGE, Bytes, format_size

GAP: Final = 3.0
"""Seconds without a round (or two periods) after which all samples are void: we were stopped."""
DEBT_PERCENT: Final = 25
"""Of what merging saves, there must be cover for so much."""
CALM: Final = 0.5
"""Percent of time that tasks may wait while nothing hurts."""


class Judged(Record, frozen=True):
    """One guest, before it is known what the others want."""

    sight: GuestSight
    trend: GuestTrend
    limits: Limits
    judgement: Judgement
    demand: demand.Demand
    active: float


def decide(snapshot: Snapshot, history: History, config: Config) -> tuple[Plan, History]:
    """Decide on one round.

    Args:
        snapshot: what was seen.
        history: what the round before left; `History()` at the start.
        config: what the administrator wants.

    Returns:
        What to do, and what to give to the next round.
    """
    history = _void_after_a_pause(snapshot, history, config)
    trend, reserve = host.follow(
        snapshot, history.host, config, _settled(snapshot, history, config)
    )
    judged, frozen = _judge_all(snapshot, history, config)
    debt = ksm.debt(snapshot.ksm)
    state = _state(snapshot, trend.state, judged, reserve, debt)
    cases = _entitle(snapshot, judged, config, reserve)
    now = _round(snapshot, cases, state, reserve, config)
    decided = {move.guest: move for move in moves.plan(cases, now)}
    turn = ksm.govern(snapshot, history.ksm, config, state)
    known = {case.id: _remember(case, decided[case.id], now) for case in cases}
    said = (*turn.warnings, *_warnings(cases, frozen), *_last_words(cases, now))
    fresh, warned = _say_once(said, history)
    plan = Plan(
        state=state,
        reason=host.explain(host.measure(snapshot, history.host, config, reserve), state),
        reserve=reserve,
        budget=Bytes(_budget(snapshot, reserve)),
        spare=Bytes(now.spare),
        debt=debt,
        balloons=_commands(cases, decided),
        ksm=turn.action,
        guests=(*(_explain(case, decided[case.id], config) for case in cases), *frozen),
        warnings=fresh,
    )
    kept = {**{guest: history.guests[guest] for guest in _unseen(frozen, history)}, **known}
    return plan, History(host=trend, guests=kept, ksm=turn.trend, warned=warned)


def _void_after_a_pause(snapshot: Snapshot, history: History, config: Config) -> History:
    """After a pause of our own all samples are void: nobody shrinks before two new reports."""
    last = history.host.time
    pause = max(GAP, 2 * config.period)
    if last is None or 0 <= snapshot.time - last <= pause:
        return history
    return replace(
        history,
        host=replace(history.host, time=None, costs=(), calm_since=None),
        guests={
            guest: replace(trend, reports=0, counters=None, asked_from=None, swapping=0)
            for guest, trend in history.guests.items()
        },
    )


def _settled(snapshot: Snapshot, history: History, config: Config) -> frozenset[str]:
    """Name the guests that did not start just now."""
    return frozenset(
        guest
        for guest, trend in history.guests.items()
        if snapshot.time - trend.born >= config.grace
    )


def _judge_all(
    snapshot: Snapshot, history: History, config: Config
) -> tuple[list[Judged], list[Explanation]]:
    judged: list[Judged] = []
    frozen: list[Explanation] = []
    for sight in sorted(snapshot.guests, key=lambda guest: guest.id):
        try:
            judged.append(_judge(sight, history.guests.get(sight.id), config, snapshot.time))
        except Exception as error:  # noqa: BLE001 - the one boundary: a guest must not stop the rest
            reason = f"frozen: {type(error).__name__}: {error}"
            frozen.append(
                Explanation(guest=sight.id, name=sight.name, verdict="frozen", reason=reason)
            )
    return judged, frozen


def _judge(sight: GuestSight, before: GuestTrend | None, config: Config, now: float) -> Judged:
    maximum = sight.maximum or (before.actual if before and before.actual else PAGE)
    limits = _within_reach(config.limits(sight.id, maximum, sight.name), sight)
    trend = conduct.follow(sight, before, limits, now)
    wants = demand.estimate(sight, trend, limits, now)
    judgement = conduct.judge(sight, trend, limits, config.grace)
    if sight.maximum is None and judgement.verdict != "exempt":
        judgement = Judgement(verdict="implausible", reason="its size is not known")
    return Judged(
        sight=sight,
        trend=trend,
        limits=limits,
        judgement=judgement,
        demand=wants if not sight.implausible else replace(wants, known=False),
        active=shares.activity(wants.working, sight.actual or maximum),
    )


def _within_reach(limits: Limits, sight: GuestSight) -> Limits:
    """Keep limits to what is possible: by the balloon, and by the guest's own cgroup.

    A guest that has more than its group lets it have keeps that; it is only not given more.
    """
    if sight.ceiling is not None and sight.ceiling < limits.maximum:
        has = limits.maximum if sight.actual is None else min(sight.actual, limits.maximum)
        most = Bytes(max(sight.ceiling, has))
        limits = replace(limits, maximum=most, minimum=min(limits.minimum, most))
    if not sight.beyond or sight.maximum is None:
        return limits
    least = min(bounds.floor(sight.maximum, sight.beyond), limits.maximum)
    return replace(limits, minimum=Bytes(max(limits.minimum, least)))


def _state(
    snapshot: Snapshot, state: HostState, judged: list[Judged], reserve: Bytes, debt: Bytes
) -> HostState:
    """The host's state; at least SOFT where nothing covers what merging owes."""
    available = host.available_of(snapshot.host)
    if not debt or available is None:
        return state
    gives = sum(_can_give(each) for each in judged)
    cover = available - reserve + (snapshot.host.swap_free or 0) + gives
    return host.at_least(state, "SOFT") if cover * 100 < debt * DEBT_PERCENT else state


def _can_give(each: Judged) -> int:
    if each.judgement.verdict not in moves.MOVABLE or not each.demand.known:
        return 0
    held = min(each.sight.actual or 0, each.sight.cost or each.sight.actual or 0)
    return max(0, held - max(each.limits.minimum, each.demand.wanted))


def _budget(snapshot: Snapshot, reserve: Bytes) -> int:
    """What guests may hold altogether: what they hold, and what is available beyond the reserve.

    What they hold is what the host really gave, less what is merged, and not their balloons' word:
    memory that was never touched is available already, and would count twice.
    """
    available = host.available_of(snapshot.host)
    held = sum(
        min(guest.actual or guest.cost or 0, guest.cost or guest.actual or 0)
        for guest in snapshot.guests
    )
    return max(0, held - ksm.debt(snapshot.ksm) + (available or 0) - reserve - _kept(snapshot))


def _kept(snapshot: Snapshot) -> int:
    """What is kept for guests that are about to start, less what they have touched by now."""
    costs = {guest.id: guest.cost or 0 for guest in snapshot.guests}
    return sum(
        max(0, lease.size - (costs.get(lease.guest, 0) if lease.guest else 0))
        for lease in snapshot.wishes.leases
        if lease.until > snapshot.time
    )


def _entitle(
    snapshot: Snapshot, judged: list[Judged], config: Config, reserve: Bytes
) -> list[Case]:
    """Share the budget out among those whose memory can be moved; others keep what they have."""
    fixed = [each for each in judged if each.judgement.verdict == "exempt"]
    held = sum(min(each.sight.actual or 0, each.sight.cost or 0) for each in fixed)
    claims = [
        Claim(guest=each.sight.id, limits=each.limits, active=each.active)
        for each in judged
        if each.judgement.verdict != "exempt"
    ]
    budget = _budget(snapshot, reserve) - held
    entitled = shares.entitlements(claims, budget, config.idle_tax)
    return [
        Case(
            sight=each.sight,
            trend=each.trend,
            limits=each.limits,
            verdict=each.judgement.verdict,
            reason=each.judgement.reason,
            demand=each.demand,
            entitlement=entitled.get(each.sight.id, each.sight.actual or each.limits.maximum),
            active=each.active,
            pin=snapshot.wishes.pins.get(each.sight.id),
        )
        for each in judged
    ]


def _round(
    snapshot: Snapshot, cases: list[Case], state: HostState, reserve: Bytes, config: Config
) -> Round:
    available = host.available_of(snapshot.host)
    granted = sum(case.trend.granted for case in cases)
    kept = _kept(snapshot)
    spare = 0 if available is None else available - reserve - granted - kept
    eases = int(moves.EASE * reserve) + kept
    short = host.STATES.index(state) >= host.STATES.index("SOFT")
    lack = max(0, eases - (available or 0)) if short or kept else 0
    return Round(
        now=snapshot.time,
        state=state,
        spare=spare,
        plenty=int((available or 0) - granted - kept - moves.PLENTY * reserve),
        margin=max(0, reserve - host.base_reserve(snapshot.host, config)),
        lack=lack,
        hold=snapshot.wishes.hold or available is None,
        tax=config.idle_tax,
        calm=(snapshot.host.some or 0.0) < CALM,
    )


def _remember(case: Case, move: Move, now: Round) -> GuestTrend:
    trend = case.trend
    if move.reason.startswith("idle") and move.target is not None:
        trend = replace(trend, probed=now.now)
    if case.sight.oom_kills and _was_killed(case):
        trend = replace(trend, released=case.limits.maximum)
    if move.target is None or _is_told(case, move.target):
        return trend
    return conduct.note_sent(trend, move.target, now.now)


def _was_killed(case: Case) -> bool:
    """Whether the guest's kernel killed a program in this round."""
    return case.trend.hurt == case.trend.time and case.demand.distress


def _commands(cases: list[Case], decided: Mapping[str, Move]) -> tuple[SetBalloon, ...]:
    """Shrinks first, so that what they free is there before others grow."""
    found = [
        (move.target - case.actual, case.id, move)
        for case in cases
        for move in [decided[case.id]]
        if move.target is not None and not _is_told(case, move.target)
    ]
    ordered = sorted(found, key=lambda entry: (entry[0] > 0, entry[1]))
    return tuple(
        SetBalloon(guest=guest, target=move.target, reason=move.reason)
        for _, guest, move in ordered
        if move.target is not None
    )


def _is_told(case: Case, target: Bytes) -> bool:
    """Whether a guest was told so already; a release is repeated until it is confirmed."""
    return (
        case.trend.target == target and case.trend.released is None and (case.sight.refused is None)
    )


def _explain(case: Case, move: Move, config: Config) -> Explanation:
    claim = Claim(guest=case.id, limits=case.limits, active=case.active)
    move = _with_ceiling(case, move, config)
    if case.sight.maximum is None and case.trend.actual is None:
        # Nothing that follows from its size says anything.
        return Explanation(
            guest=case.id,
            name=case.sight.name,
            verdict=case.verdict,
            reason=move.reason,
            bound=move.bound,
        )
    return Explanation(
        guest=case.id,
        name=case.sight.name,
        verdict=case.verdict,
        reason=move.reason,
        bound=move.bound,
        actual=case.sight.actual,
        used=case.demand.used,
        working=case.demand.working,
        headroom=case.demand.headroom,
        demand=case.demand.wanted,
        entitlement=case.entitlement,
        minimum=case.limits.minimum,
        maximum=case.limits.maximum,
        shares=case.limits.shares,
        active=case.active,
        price=shares.price(claim, case.actual, config.idle_tax),
        reclaimable=move.reclaimable,
        wanted=move.wanted,
        target=move.target,
    )


def _with_ceiling(case: Case, move: Move, config: Config) -> Move:
    """Say that a guest's own cgroup keeps it below what it could have."""
    ceiling, own = case.sight.ceiling, case.sight.maximum
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
            f"guest {case.id}: somebody else moves its balloon"
            for case in cases
            if case.trend.foreign >= 2
        ),
        *(f"guest {each.guest}: {each.reason}" for each in frozen),
    )


def _last_words(cases: list[Case], now: Round) -> tuple[str, ...]:
    """Say that there is nobody left to take from, and still not enough."""
    if now.state != "CRITICAL" or now.lack <= 0 or not cases:
        return ()
    # Who may give later is not counted out; who is no more to be had than his last bit is.
    later = ("normal", "grace", "distress", "stalled")
    if any(
        moves.reclaimable(case, moves.kept(case)) > conduct.band(case.limits)
        for case in cases
        if case.verdict in later
    ):
        return ()
    return ("the host is short of memory, and no guest can give any more",)


def _say_once(
    warnings: tuple[str, ...], history: History
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Leave out what was said already; what has passed may be said again when it comes back."""
    present = frozenset(warnings)
    return tuple(sorted(present - history.warned)), present


def _unseen(frozen: list[Explanation], history: History) -> list[str]:
    return [each.guest for each in frozen if each.guest in history.guests]
