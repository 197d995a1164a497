"""What adds up over rounds: commands, decisions, how long rounds took, what each guest was told.

Rules of this file:
    Pure: a round and what there was before it make what there is after it. All combinations of
    labels are there from the start, at 0, so that the first event is a rise that rate() sees.
"""

from bisect import bisect_left
from collections.abc import Mapping
from itertools import product
from typing import Final, Literal, get_args

import msgspec

from qmpmem.model.round import Bound, Outcome, Tick
from qmpmem.records import Record, replace
from qmpmem.units import Bytes

Direction = Literal["grow", "shrink"]
Result = Literal["done", "refused"]

_DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
_RESULTS: Final[tuple[Result, ...]] = get_args(Result)
_BOUNDS: Final[tuple[Bound, ...]] = get_args(Bound)

BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 1.0, 5.0)
"""Upper bounds of the buckets of a round's length, in seconds; one more bucket has no bound. A
quiet round takes some ms, and the shortest pause between two rounds is 250 ms."""


class Told(Record, frozen=True):
    """What a guest was told last."""

    epoch: int
    target: Bytes
    direction: Direction
    """The direction of the command that is under way, or was last."""


class Totals(Record, frozen=True):
    """Sums over all rounds since the agent began."""

    rounds: int = 0
    durations: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    """How many rounds are in each bucket; none is counted twice."""
    seconds: float = 0.0
    """The length of all rounds together; in seconds."""
    commands: Mapping[tuple[Direction, Result], int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(product(_DIRECTIONS, _RESULTS), 0)
    )
    decisions: Mapping[Bound, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(_BOUNDS, 0)
    )
    warnings: int = 0
    reclaimed: int = 0
    """Bytes that guests' cgroups gave back."""
    told: Mapping[str, Told] = {}
    """By guest: what it was told last."""


def follow(totals: Totals, tick: Tick) -> Totals:
    """Return the sums after one more round."""
    outcomes = [each for each in tick.outcomes if each.guest is not None]
    return replace(
        totals,
        rounds=totals.rounds + 1,
        durations=_durations(totals.durations, tick.seconds),
        seconds=totals.seconds + (tick.seconds or 0.0),
        # Of commands of the round before: those of this one are still under way.
        commands=_commands(totals, outcomes),
        decisions=_decisions(totals.decisions, tick),
        warnings=totals.warnings + len(tick.plan.warnings),
        reclaimed=totals.reclaimed + sum(each.reclaimed or 0 for each in outcomes),
        told=_told(totals.told, tick),
    )


def _durations(before: tuple[int, ...], seconds: float | None) -> tuple[int, ...]:
    if seconds is None:
        return before
    place = bisect_left(BUCKETS, seconds)
    return (*before[:place], before[place] + 1, *before[place + 1 :])


def _commands(totals: Totals, outcomes: list[Outcome]) -> Mapping[tuple[Direction, Result], int]:
    counts = dict(totals.commands)
    for each in outcomes:
        known = totals.told.get(each.guest or "")
        if each.reclaimed is None and known is not None:
            counts[known.direction, "done" if each.done else "refused"] += 1
    return counts


def _decisions(before: Mapping[Bound, int], tick: Tick) -> Mapping[Bound, int]:
    counts = dict(before)
    bounds: dict[str, Bound] = {each.guest: each.bound for each in tick.plan.guests}
    for change in tick.plan.balloons:
        bound: Bound = bounds.get(change.guest, "none")
        counts[bound] += 1
    return counts


def _told(before: Mapping[str, Told], tick: Tick) -> Mapping[str, Told]:
    """Forget guests that have ended or begun anew, and add what was told in this round."""
    readings = {each.id: each for each in tick.snapshot.guests}
    known = {
        guest: told
        for guest, told in before.items()
        if guest in readings and readings[guest].epoch == told.epoch
    }
    for change in tick.plan.balloons:
        reading = readings.get(change.guest)
        if reading is not None and not tick.dry_run:
            direction: Direction = "grow" if change.target >= (reading.actual or 0) else "shrink"
            told = Told(epoch=reading.epoch, target=change.target, direction=direction)
            known[change.guest] = told
    return known
