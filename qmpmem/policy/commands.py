"""Whether a goal is worth a command now: the only filter between sizes and commands."""

from typing import Final

from qmpmem.model.round import Bound, Kind
from qmpmem.policy import progress, reach
from qmpmem.policy.cases import GROWABLE, Case, Round
from qmpmem.policy.goals import Goal
from qmpmem.policy.state import Releasing
from qmpmem.records import Record
from qmpmem.units import PAGE, Bytes

EXACT: Final[frozenset[Kind]] = frozenset({"pin", "release", "cap"})
"""Kinds of goals that are carried out to the byte: an operator may wait for just that size."""
PAUSE: Final = 1.0
"""Seconds between two commands to a guest; a quarter of that while the host is in need."""
REPEAT: Final = 5.0
"""Seconds after which a guest that is not where it was told to go is told the same again."""


class Move(Record, frozen=True):
    """Where one guest goes."""

    guest: str
    wanted: Bytes
    """Where it should go, before steps."""
    target: Bytes | None
    """What it is told; None: it is told nothing."""
    kind: Kind
    bound: Bound
    reason: str


def command(case: Case, goal: Goal, now: Round) -> Move:
    """Return the command that takes a guest to its goal, where that is worth one."""
    size, bound = _paced(case, goal, now)
    size -= size % PAGE
    target: Bytes | None = None
    if not _is_due(case, now):
        bound = "step"
    elif goal.kind == "release" or (size != case.actual and _is_worth(case, goal, size)):
        target = _within(case, size)
    elif size != case.actual:
        bound = "dead band"
    if target is None and _is_due(case, now) and _is_pressed(case):
        # A driver that cannot inflate tries five times a second for ever: it is told to stay.
        target, bound = case.actual, "actual"
    if target is not None and _is_told(case, target, now):
        target = None
    return Move(
        guest=case.id,
        wanted=_within(case, goal.size),
        target=target,
        kind=goal.kind,
        bound=bound,
        reason=goal.reason,
    )


def _paced(case: Case, goal: Goal, now: Round) -> tuple[int, Bound]:
    """Return a goal's size, a shrink cut down to a step; what is free in a guest may go at once."""
    if goal.size >= case.actual or goal.kind in ("position", "take", "revoke", "stay"):
        return goal.size, goal.bound
    least = reach.lowest(case, now)
    return (goal.size, goal.bound) if goal.size >= least else (least, "step")


def _within(case: Case, size: int) -> Bytes:
    """Return a target within a guest's limits: all targets go through here.

    A guest that is outside its limits goes towards them.
    """
    low, high = min(case.limits.minimum, case.actual), max(case.limits.maximum, case.actual)
    most = case.reading.maximum
    return Bytes(max(PAGE, min(max(size, low), high if most is None else min(high, most))))


def _is_due(case: Case, now: Round) -> bool:
    """Tell whether a guest may be told something again."""
    told = case.trend.told
    pause = PAUSE / 4 if now.sharp else PAUSE
    return told is None or now.now - told.at >= pause * 0.9


def _is_worth(case: Case, goal: Goal, size: int) -> bool:
    """Tell whether a change is large enough to tell the guest of it."""
    exact = goal.kind in EXACT and size == goal.size - goal.size % PAGE
    if exact or size >= case.limits.maximum > case.actual:
        return True  # else a guest that takes back a little each second would stay where it is
    start = case.actual
    told = case.trend.target
    if goal.kind == "stay":
        return told is not None and size - told >= progress.band(case.limits)
    if size < case.actual:
        start = Bytes(min(start, case.going))  # what counts is how much further it goes
    if size > case.actual and case.trend.granted and told is not None:
        start = Bytes(max(start, told))
    return abs(size - start) >= progress.band(case.limits) and (size > start) == (
        size > case.actual
    )


def _is_pressed(case: Case) -> bool:
    """Tell whether QEMU still has a target below a guest's size that is not asked for any more."""
    told = case.trend.target
    if told is None or case.trend.shrinking or _is_released(case):
        return False
    if case.verdict not in GROWABLE:  # it is left alone, or it is not known what it has
        return False
    return told < case.actual - progress.band(case.limits)


def _is_told(case: Case, target: Bytes, now: Round) -> bool:
    """Tell whether a guest was told this already; a release is repeated until it is confirmed."""
    told = case.trend.told
    if told is None or told.target != target or case.reading.refused is not None:
        return False
    if now.now - told.at < REPEAT:
        return True
    strayed = not case.trend.shrinking and abs(target - case.actual) >= progress.band(case.limits)
    return not (strayed or (_is_released(case) and target != case.actual))


def _is_released(case: Case) -> bool:
    return isinstance(case.trend.phase, Releasing)
