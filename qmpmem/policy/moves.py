"""From wishes to targets: who grows, who gives, how far in one round.

Theory of operation:
    First what each guest should have by itself (`wish`), then who gives for those who lack and for
    the host (`take`), cheapest first, then growth out of what is measured to be spare (`give`).
    Shrinks are sent first, and growth never waits on a promise: what is not there is not given
    (XAPI squeezed, Qubes qmemman: two phases).

    A target is never further away than two steps (Proxmox), so a guest that is stuck owes little.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from qmpmem.actions import Bound, HostState, Verdict
from qmpmem.config import LEAST_HEADROOM, Limits
from qmpmem.policy import conduct, demand, shares
from qmpmem.policy.demand import Demand
from qmpmem.policy.history import GuestTrend
from qmpmem.policy.host import STATES
from qmpmem.policy.shares import Claim
from qmpmem.records import Record, replace
from qmpmem.sight import GuestSight
from qmpmem.units import MIB, PAGE, Bytes

DOWN_PERCENT: Final[Mapping[HostState, int]] = {
    "SLACK": 2,
    "BALANCED": 2,
    "SOFT": 2,
    "HARD": 5,
    "CRITICAL": 10,
}
"""Of the maximum, a second. Proxmox takes 100 MiB in 10 s, which is why bursts kill there."""
UP_PERCENT: Final = 5
"""Of the maximum, a second."""
DONOR_PERCENT: Final = 5
"""A second, from guests with idle memory for one that lacks it: who waits must not wait long."""
LEAST_STEP: Final = Bytes(16 * MIB)
"""A second, in either direction, however small the guest is."""
DISTRESS_PERCENT: Final = 25
"""Of what is missing, a second."""
LEAST_RESCUE: Final = Bytes(32 * MIB)
"""A second, for a guest in distress."""
STEPS: Final = 2
"""How far a target may be away."""

COOL_AFTER_SHRINK: Final = 10.0
"""Seconds in which a guest that gave is not given more, unless it starves."""
COOL_AFTER_GROWTH: Final = 60.0
"""Seconds in which a guest that was given memory is not asked for it back."""
STARVING_PERCENT: Final = 90
"""Of what it has is in use: no cool-down holds it back."""

GROWING_PERCENT: Final = 5
"""Of its maximum: a guest that uses so much more than in the 10 s before is growing."""

PROBE: Final = 60.0
"""Seconds between two small shrinks of an idle guest (senpai: probe until something hurts)."""
PROBE_PERMILLE: Final = 15
"""Of the maximum: how much an idle guest is asked for."""

PLENTY: Final = 2.75
"""Reserves that stay available when what nobody needs is handed out: SLACK begins at 2.5, and a
host that is short of it again would ask for the same memory in turn, for ever."""
EASE: Final = 1.25
"""Reserves that shall be available: where SOFT begins."""

LEFT_PERCENT: Final = 75
"""Of its maximum: left to a guest that cannot take memory back by itself. One that used 115 of its
512 MiB, was left 179 and needed 250 more at once lost the program that asked for them."""

MOVABLE: Final[frozenset[Verdict]] = frozenset({"normal"})
"""Who may be asked to give."""
GROWABLE: Final[frozenset[Verdict]] = frozenset(
    {"normal", "grace", "distress", "stalled", "uncooperative", "ineffective", "suspect", "stale"}
)
"""Who may be given more: a release harms nobody but the host, and that is measured."""


class Case(Record, frozen=True):
    """One guest, with all that was worked out about it."""

    sight: GuestSight
    trend: GuestTrend
    limits: Limits
    verdict: Verdict
    reason: str
    demand: Demand
    entitlement: Bytes
    active: float
    pin: Bytes | None = None

    @property
    def id(self) -> str:
        """Whose case it is."""
        return self.sight.id

    @property
    def actual(self) -> Bytes:
        """What it has; its maximum where that is not known."""
        return self.limits.maximum if self.sight.actual is None else self.sight.actual


class Move(Record, frozen=True):
    """Where one guest shall go."""

    guest: str
    wanted: Bytes
    target: Bytes | None
    bound: Bound
    reason: str
    reclaimable: Bytes = Bytes(0)


class Round(Record, frozen=True):
    """What holds for all guests in this round."""

    now: float
    state: HostState
    spare: int
    """Bytes that may be given: available, less the reserve and what was granted already."""
    lack: int
    """Bytes that the host lacks to be at ease."""
    margin: int
    """What is kept against bursts; a guest in distress is one."""
    hold: bool
    tax: float
    calm: bool
    """Nothing hurts: the host does not stall at all."""
    plenty: int = 0
    """Bytes that may be given to who does not need them, and there is still plenty."""
    acute: bool = False
    """Some guest suffers now, and can be helped."""


def plan(cases: Sequence[Case], now: Round) -> list[Move]:
    """Decide on every guest. The order of the cases does not matter."""
    ordered = sorted(cases, key=lambda case: case.id)
    now = replace(now, acute=any(case.verdict == "distress" for case in ordered))
    wishes = {case.id: wish(case, now) for case in ordered}
    growing = [case for case in ordered if wishes[case.id].wanted > case.actual]
    missing = sum(_missing(case, wishes[case.id]) for case in growing)
    moves = dict(wishes)
    lack = now.lack + max(0, missing - max(0, now.spare))
    moves.update(take(ordered, moves, lack, now))
    moves.update(give(growing, moves, now))
    return [moves[case.id] for case in ordered]


def wish(case: Case, now: Round) -> Move:
    """Say where a guest should go by itself, were it alone. The first that holds."""
    if case.verdict not in GROWABLE:
        return _help(case, now) or _stay(case, "hands off", case.reason)
    for rule in (_release, _relieve, _pin, _cap, _rescue, _fill, _grow, _probe, _let_go):
        move = rule(case, now)
        if move is not None:
            return move
    return _stay(case, "none", case.reason or "it has what it needs")


def _help(case: Case, now: Round) -> Move | None:
    """Give more to a guest whose balloon somebody else let out, where it uses that up.

    It may have been the guest itself, between two reports: to wait a minute could starve it.
    """
    if case.verdict != "foreign" or not case.trend.foreign_up or case.pin is not None:
        return None
    return _rescue(case, now) or _grow(case, now)


def _release(case: Case, _: Round) -> Move | None:
    """Emergencies are absolute: nothing relative to a size that may be stuck, or a lie."""
    if case.trend.released is None and case.verdict != "ineffective":
        return None
    return _move(case, case.limits.maximum, "maximum", "released: it shall have all of it")


def _pin(case: Case, now: Round) -> Move | None:
    if case.pin is None:
        return None
    pin = Bytes(min(max(case.pin, case.limits.minimum), case.limits.maximum))
    held = held_back(case, now) if pin < case.actual else None
    if held is not None:
        return _stay(case, "hands off", f"pinned by an operator; gives nothing now: {held}")
    move = _move(case, pin, "pin", "pinned by an operator")
    return move if pin >= case.actual else _shorten(case, move, now)


def _relieve(case: Case, now: Round) -> Move | None:
    """A driver that cannot inflate tries five times a second for ever: ask for nothing.

    Likewise where we were stopped meanwhile, and an old target is not ours to stand by any more.
    """
    target = case.trend.target
    if target is None or case.trend.asked_from is not None or not is_due(case, now):
        return None
    if target >= case.actual - conduct.band(case.limits):
        return None
    move = _move(case, conduct.relief(case.sight, case.limits), "leash", "it may stay as it is")
    return replace(move, target=case.actual)


def _cap(case: Case, now: Round) -> Move | None:
    """An administrator may allow less than a guest was started with: it goes there step by step."""
    if case.actual <= case.limits.maximum or not may_shrink(case, now):
        return None
    less = _move(case, case.limits.maximum, "maximum", "it has more than it may have")
    return _shorten(case, less, now)


def _rescue(case: Case, _: Round) -> Move | None:
    """More than it seems to want, as long as each report says that it still hurts."""
    if not case.demand.distress:
        return None
    hurt, grown = case.trend.hurt, case.trend.grown
    still = hurt is not None and (grown is None or hurt > grown)
    more = max(case.demand.wanted, case.actual + rescue(case) if still else 0)
    return _move(case, more, "demand", "short of memory") if more > case.actual else None


def _grow(case: Case, now: Round) -> Move | None:
    short = case.limits.minimum - case.actual
    wanted = case.demand.modest if is_harsh(now) else case.demand.wanted
    if case.demand.known and wanted > max(case.actual, case.limits.minimum):
        return _move(case, wanted, "demand", "it needs more")
    if short >= conduct.band(case.limits):
        return _move(case, case.limits.minimum, "minimum", "below its minimum")
    return None


def _fill(case: Case, now: Round) -> Move | None:
    if now.state != "SLACK" or case.entitlement <= case.actual or now.plenty <= 0:
        return None
    wanted = max(case.entitlement, case.demand.wanted)
    return _move(case, wanted, "entitlement", "there is plenty")


def _probe(case: Case, now: Round) -> Move | None:
    if not is_probed(case, now):
        return None
    idle = max(case.demand.wanted, kept(case))
    less = max(idle, case.actual - case.limits.maximum * PROBE_PERMILLE // 1000)
    move = _move(case, less, "demand", "idle: asked for a little")
    return replace(move, target=_whole(move.wanted)) if is_due(case, now) else move


def _let_go(case: Case, now: Round) -> Move | None:
    """A guest that is still on its way down, and nobody needs that any more."""
    target = case.trend.target
    if target is None or case.trend.asked_from is None or not is_due(case, now):
        return None
    if target >= case.actual - conduct.band(case.limits):
        return None
    # A host that is short yet asks again in the next round: what is idle anyway may go on.
    if is_short(now) and target >= case.demand.wanted:
        return None
    # The host sees what it gave sooner than the guest says so. To take that for a guest that has
    # nothing to give would hand it back, and ask for it again, for ever.
    freed = (case.trend.asked_cost or 0) - (case.sight.cost or 0)
    if freed >= case.trend.asked_from - target - conduct.band(case.limits):
        return None
    move = _move(case, case.actual, "none", "no longer asked to shrink")
    return replace(move, target=case.actual)


def take(
    cases: Sequence[Case], moves: Mapping[str, Move], lack: int, now: Round
) -> dict[str, Move]:
    """Have guests give what is lacking, cheapest first; in CRITICAL all of them at once.

    Also in CRITICAL what is idle is taken before what is in use, where that is enough.
    """
    taken: dict[str, Move] = {}
    if lack <= 0:
        return taken
    all_at_once = now.state == "CRITICAL"
    depth = _depth(cases, lack, now)
    for case in sorted(cases, key=lambda case: _order(case, now)):
        if lack <= 0 and not all_at_once:
            break
        if not may_shrink(case, now) or moves[case.id].wanted > case.actual:
            continue
        if case.pin is not None and now.state != "CRITICAL":
            continue
        floor = lowest(case, depth, now)
        frees = reclaimable(case, floor)
        if frees <= 0:
            continue
        # At least what is worth a command: else who is asked first gives nothing, and others do.
        amount = frees if all_at_once else min(frees, max(lack, conduct.band(case.limits)))
        held = _held(case)
        wanted = Bytes(max(floor, held - amount))
        move = _move(case, wanted, "demand", f"gives {_why(now, lack)}")
        taken[case.id] = _shorten(case, replace(move, reclaimable=Bytes(frees)), now)
        target = taken[case.id].target or _going(case)
        lack -= 0 if target is None else max(0, held - target)
    return taken


def _depth(cases: Sequence[Case], lack: int, now: Round) -> HostState:
    """Say to which state's floor guests are taken."""
    if now.state != "CRITICAL":
        return now.state
    idle = sum(
        reclaimable(case, lowest(case, "HARD", now)) for case in cases if may_shrink(case, now)
    )
    return "HARD" if idle >= lack else "CRITICAL"


def give(growing: Sequence[Case], moves: Mapping[str, Move], now: Round) -> dict[str, Move]:
    """Have guests grow out of what is spare: who suffers first, then who pays most.

    What a guest wants beyond its entitlement comes out of what is left when all have theirs.
    """
    pool = now.spare + now.margin
    plenty = max(0, now.plenty)
    given: dict[str, Move] = {}
    order = sorted(growing, key=lambda case: _urgency(case, now))
    reached = {case.id: int(case.actual) for case in growing}
    for is_fair in (True, False):
        for case in order:
            move = moves[case.id]
            goal: int = min(move.wanted, _fair(case)) if is_fair else move.wanted
            if move.bound == "entitlement":
                goal = min(goal, max(_needed(case), reached[case.id] + plenty))
            spare = max(0, pool if case.demand.distress else pool - now.margin)
            most = min(goal, case.actual + stride(case, now), reached[case.id] + spare)
            if most > reached[case.id]:
                pool -= most - reached[case.id]
                plenty -= max(0, most - max(reached[case.id], _needed(case)))
                reached[case.id] = most
    for case in order:
        given[case.id] = _finish(case, moves[case.id], reached[case.id], now)
    return given


def kept(case: Case) -> Bytes:
    """Say what is left to a guest in any case.

    Without deflate-on-oom a guest that suddenly needs memory ends programs before we hear of it, so
    it keeps room for that beforehand.
    """
    least = case.limits.minimum
    if case.sight.deflates is not False:
        return least
    room = case.limits.maximum * LEFT_PERCENT // 100
    return Bytes(max(least, room - room % PAGE))


def lowest(case: Case, state: HostState, now: Round) -> Bytes:
    """Say below which size a guest is not taken in this state of the host.

    Where somebody suffers, what a guest used minutes ago is no reason to keep it; where it suffered
    itself not long ago, its larger headroom is.
    """
    floor = kept(case)
    if state == "CRITICAL":
        return floor
    if not case.demand.known:
        return Bytes(max(floor, case.limits.maximum * demand.UNKNOWN_PERCENT // 100))
    if demand.was_in_distress(case.trend, now.now):
        wants = Bytes(case.demand.needs + case.demand.headroom)
    elif is_harsh(now):
        wants = Bytes(case.demand.needs + LEAST_HEADROOM)
    else:
        wants = case.demand.wanted
    return Bytes(max(floor, wants - wants % PAGE))


def reclaimable(case: Case, floor: Bytes) -> int:
    """Say what taking a guest down to a floor would really free.

    Pages that were never touched cost nothing, so ballooning them frees nothing.
    """
    return max(0, _held(case) - floor)


def may_shrink(case: Case, now: Round) -> bool:
    """Whether a guest may be asked to give now."""
    return held_back(case, now) is None


def held_back(case: Case, now: Round) -> str | None:
    """Say why a guest may not be asked to give now; None: it may."""
    time, trend = now.now, case.trend
    critical = now.state == "CRITICAL"
    harsh = critical or now.state == "HARD"
    hurts, hurt = demand.in_distress(trend, time), demand.was_in_distress(trend, time)
    # So that memory does not sway; where an operator sends it, that is no swaying.
    cooling = trend.grown is not None and time - trend.grown < COOL_AFTER_GROWTH
    free = harsh or case.pin is not None
    table = (
        (case.verdict not in MOVABLE, case.reason),
        (case.sight.actual is None, "it is not known what it has"),
        (now.hold, "all is held, or it is not known what is available"),
        (hurts and not critical, "it is short of memory"),
        (hurt and not (critical or now.acute), f"it was short within {demand.RELIEF:.0f} s"),
        (not case.demand.known, "it is not known what it uses"),
        (_is_growing(case) and not harsh, "it uses more and more"),
        (cooling and not free, f"it was given memory within {COOL_AFTER_GROWTH:.0f} s"),
    )
    return next((text for holds, text in table if holds), None)


def _is_growing(case: Case) -> bool:
    """Whether a guest's use goes up right now: what it gave would have to be given back to it."""
    use = case.trend.used
    most = case.limits.maximum * GROWING_PERCENT // 100
    return use is not None and use - case.trend.fast > max(conduct.band(case.limits), most)


def is_short(now: Round) -> bool:
    """Whether the host wants memory back."""
    return STATES.index(now.state) >= STATES.index("SOFT")


def is_harsh(now: Round) -> bool:
    """Whether the host or a guest is in such need that the others have to be modest."""
    return now.acute or now.state in ("HARD", "CRITICAL")


def is_probed(case: Case, now: Round) -> bool:
    """Whether an idle guest is asked for a little, though nothing is short yet."""
    if now.state != "BALANCED" or not now.calm or not may_shrink(case, now):
        return False
    last = max(case.trend.probed or case.trend.born, case.trend.shrunk or 0.0)
    return max(case.demand.wanted, kept(case)) < case.actual and now.now - last >= PROBE


def step(case: Case, state: HostState) -> Bytes:
    """Say how far a guest may be moved down in a second."""
    percent = max(DOWN_PERCENT[state], DONOR_PERCENT)
    size = max(LEAST_STEP, case.limits.maximum * percent // 100)
    if case.trend.speed is not None:
        size = max(LEAST_STEP, min(size, int(2 * case.trend.speed)))
    return Bytes(size)


def rescue(case: Case) -> Bytes:
    """Say how far a guest in distress is moved up in a second."""
    missing = max(0, case.demand.wanted - case.actual)
    return Bytes(max(LEAST_RESCUE, missing * DISTRESS_PERCENT // 100, _climb(case)))


def stride(case: Case, now: Round) -> int:
    """Say how far a guest may be moved up now."""
    if case.trend.released is not None or case.verdict == "ineffective":
        return int(case.limits.maximum)
    each = rescue(case) if case.demand.distress else _climb(case)
    return _paced(each, case, now)


def _climb(case: Case) -> Bytes:
    return Bytes(max(LEAST_STEP, case.limits.maximum * UP_PERCENT // 100))


def _paced(each: int, case: Case, now: Round) -> int:
    """Turn bytes a second into bytes for this round, by the time since the last command."""
    sent = case.trend.sent
    seconds = 1.0 if sent is None else min(float(STEPS), now.now - sent)
    return int(each * seconds)


def _fair(case: Case) -> Bytes:
    """What a guest may take before others have theirs: its entitlement."""
    return Bytes(max(case.entitlement, case.limits.minimum))


def _needed(case: Case) -> int:
    """What a guest asks for by itself."""
    return case.demand.wanted if case.demand.known else case.limits.minimum


def _held(case: Case) -> int:
    """What of a guest's memory the host really holds."""
    cost = case.sight.cost
    return case.actual if cost is None else min(case.actual, cost)


def _order(case: Case, now: Round) -> tuple[bool, float, str]:
    """Who gives first: in HARD who has more than it is entitled to, then the cheapest."""
    within = now.state == "HARD" and case.actual <= case.entitlement
    claim = Claim(guest=case.id, limits=case.limits, active=case.active)
    return within, shares.price(claim, case.actual, now.tax), case.id


def _urgency(case: Case, now: Round) -> tuple[bool, bool, float, str]:
    """Who is given first: who suffers, who is below its minimum, who pays most."""
    claim = Claim(guest=case.id, limits=case.limits, active=case.active)
    price = shares.price(claim, case.actual, now.tax)
    return not case.demand.distress, case.actual >= case.limits.minimum, -price, case.id


def _is_starving(case: Case) -> bool:
    return case.demand.known and case.demand.working * 100 > case.actual * STARVING_PERCENT


def _shorten(case: Case, move: Move, now: Round) -> Move:
    """Cut a shrink down to a step, and leave it where it is not worth a command."""
    each = _paced(step(case, now.state), case, now)
    least = case.actual - min(each, STEPS * step(case, now.state))
    target = max(move.wanted, min(least, _under_way(case, now)))
    bound: Bound = "step" if target > move.wanted else move.bound
    # An operator's word is kept to the byte: somebody may wait for just that size.
    urgent = now.state == "CRITICAL" or move.bound == "pin"
    small = case.actual - target < conduct.band(case.limits) and not urgent
    going = _going(case)
    if going is not None and move.bound != "pin":
        small |= going - target < conduct.band(case.limits)
    if small or not is_due(case, now):
        return replace(move, target=None, bound="dead band" if small else "step")
    return replace(move, target=_whole(target), bound=bound)


def _going(case: Case) -> Bytes | None:
    """Say where a guest is on its way down to; None: it is not."""
    return None if case.trend.asked_from is None else case.trend.target


def _under_way(case: Case, now: Round) -> int:
    """Where a guest is going already: a nearer target now would only have it turn round."""
    target = case.trend.target
    if target is None or case.trend.asked_from is None:
        return case.actual
    return max(target, case.actual - STEPS * step(case, now.state))


def _finish(case: Case, move: Move, reached: int, now: Round) -> Move:
    """Turn what a guest may grow to into a command, where it is worth one."""
    growth = reached - case.actual
    if move.bound == "leash":
        return replace(move, target=max(_whole(reached), case.actual))
    cooling = case.trend.shrunk is not None and now.now - case.trend.shrunk < COOL_AFTER_SHRINK
    urgent = case.demand.distress or _is_starving(case) or case.actual < case.limits.minimum
    urgent |= _is_growing(case)  # its last report is seconds old, and it may be full by the next
    free = urgent or move.bound in ("maximum", "pin")
    if cooling and not free:
        return replace(move, target=None, bound="cool-down")
    if growth < conduct.band(case.limits) and reached < move.wanted:
        short = growth <= 0 or _limit(case, reached, now) == "spare"
        return replace(move, target=None, bound="spare" if short else "dead band")
    if not _is_worth(case, move, reached):
        return replace(move, target=None, bound="dead band")
    # What it was promised stays so: a nearer target would only have it turn round.
    promised = case.trend.granted > 0 and (case.trend.target or 0) >= reached
    if growth <= 0 or promised or not is_due(case, now):
        return replace(move, target=None, bound="step")
    bound: Bound = move.bound if reached >= move.wanted else _limit(case, reached, now)
    return replace(move, target=_whole(reached), bound=bound)


def _missing(case: Case, move: Move) -> int:
    """What others have to give for a guest; nothing where it would not be told of so little."""
    goal = min(move.wanted, _fair(case))
    return goal - case.actual if _is_worth(case, move, goal) else 0


def _is_worth(case: Case, move: Move, goal: int) -> bool:
    """Whether a growth is worth a command; the last bit of all it may have, or of a pin, is."""
    full = goal >= case.limits.maximum or move.bound == "pin"
    grows = goal - case.actual >= conduct.band(case.limits)
    return grows or case.demand.distress or full


def _limit(case: Case, reached: int, now: Round) -> Bound:
    return "step" if reached >= case.actual + stride(case, now) - PAGE else "spare"


def is_due(case: Case, now: Round) -> bool:
    """Whether a guest may be told something again: once a second, four times in need."""
    pause = 0.25 if now.state in ("HARD", "CRITICAL") else 1.0
    return case.trend.sent is None or now.now - case.trend.sent >= pause * 0.9


def _move(case: Case, wanted: int, bound: Bound, reason: str) -> Move:
    size = Bytes(min(max(wanted, 0), case.limits.maximum))
    return Move(guest=case.id, wanted=size, target=None, bound=bound, reason=reason)


def _stay(case: Case, bound: Bound, reason: str) -> Move:
    return Move(guest=case.id, wanted=case.actual, target=None, bound=bound, reason=reason)


def _why(now: Round, lack: int) -> str:
    if is_short(now):
        return f"because the host is in {now.state}"
    return f"for others that lack {max(1, lack // MIB)} MiB"


def _whole(size: int) -> Bytes:
    return Bytes(size - size % PAGE)
