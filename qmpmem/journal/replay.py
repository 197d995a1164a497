"""The recorded past, decided again with other settings. Pure.

Theory of operation:
    What was seen follows from the decisions of then: a guest that would have been given more shows
    the same need again. So a replay tells where other settings would have decided otherwise, and
    not what would have followed from that; a simulation does.

    Both sides are decided anew, from the first round on and without what was before it, so that
    only the settings differ. What was available was seen within the budget of then. For a budget in
    bytes, or none, it is worked out anew. For another cgroup it is not known.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.model.config import Config
from qmpmem.model.observation import Snapshot
from qmpmem.model.round import HostState, Plan
from qmpmem.policy import History, decide
from qmpmem.records import Record, replace
from qmpmem.units import Bytes

EXAMPLES: Final = 20
"""Most differences that are kept one by one."""


class Side(Record, frozen=True):
    """What one set of settings decided about a guest, or about all."""

    shrinks: int = 0
    """Commands to give memory."""
    grows: int = 0
    lowest: Bytes | None = None
    """The lowest target."""
    asked: Bytes = Bytes(0)
    """The sum of what it was asked to give."""


class Difference(Record, frozen=True):
    """A round in which a guest would have been told something else."""

    time: float
    """Seconds since 1970."""
    guest: str
    then: Bytes | None
    """The target with the settings of then; None: it was told nothing."""
    now: Bytes | None
    """The target with the other settings; None: it is told nothing."""
    reason: str
    """The reason with the other settings."""
    name: str | None = None


class Guest(Record, frozen=True):
    """One guest, with the settings of then and the others."""

    guest: str
    then: Side
    now: Side
    rounds: int
    """Rounds in which it would have been told something else."""
    name: str | None = None


class Replay(Record, frozen=True):
    """What other settings would have decided."""

    rounds: int
    begin: float | None
    """Seconds since 1970."""
    end: float | None
    differs: int
    """Rounds in which any guest would have been told something else."""
    states: dict[str, dict[HostState, int]]
    """Rounds in each state of the host, ``then`` and ``now``."""
    guests: tuple[Guest, ...]
    examples: tuple[Difference, ...]


class _Tally:
    """Adds up one side."""

    def __init__(self) -> None:
        self.history = History()
        self.plan = Plan()
        self.states: Counter[HostState] = Counter()
        self.sides: dict[str, Side] = {}

    def decide(self, snapshot: Snapshot, config: Config) -> dict[str, Bytes]:
        """Decide a round, and return the target of each guest that is told one."""
        plan, self.history = decide(snapshot, self.history, config)
        self.plan = plan
        self.states[plan.state] += 1
        sizes = {each.id: each.actual for each in snapshot.guests}
        for change in plan.balloons:
            known = self.sides.get(change.guest, Side())
            self.sides[change.guest] = _told(known, change.target, sizes.get(change.guest))
        return {change.guest: change.target for change in plan.balloons}


def replay(
    rounds: Iterable[tuple[Snapshot, Config]],
    config: Config,
    *,
    told: Callable[[int], None] = lambda _: None,
) -> Replay:
    """Decide recorded rounds again.

    Args:
        rounds: what was seen, and the settings that held, oldest first.
        config: the other settings.
        told: called with the number of rounds that are done.

    Raises:
        ConfigError: as `within`.
    """
    then, now = _Tally(), _Tally()
    examples: list[Difference] = []
    counts: Counter[str] = Counter()
    called: dict[str, str | None] = {}
    done = differs = 0
    first: float | None = None
    last: float | None = None
    for snapshot, settings in rounds:
        before = then.decide(snapshot, settings)
        after = now.decide(within(snapshot, settings, config), config)
        others = [
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        ]
        counts.update(others)
        differs += bool(others)
        examples += [
            _difference(snapshot, name, before, after, now.plan)
            for name in sorted(others)[: EXAMPLES - len(examples)]
        ]
        called.update((each.id, each.name) for each in snapshot.guests)
        first, last = snapshot.wall if first is None else first, snapshot.wall
        done += 1
        told(done)
    names = sorted(then.sides.keys() | now.sides.keys())
    return Replay(
        rounds=done,
        begin=first,
        end=last,
        differs=differs,
        states={"then": dict(then.states), "now": dict(now.states)},
        guests=tuple(
            Guest(
                guest=name,
                then=then.sides.get(name, Side()),
                now=now.sides.get(name, Side()),
                rounds=counts[name],
                name=called.get(name),
            )
            for name in names
        ),
        examples=tuple(examples),
    )


def within(snapshot: Snapshot, then: Config, now: Config) -> Snapshot:
    """Return what would have been seen with another budget.

    Raises:
        ConfigError: the budget is a cgroup, and another one than then.
    """
    if then.budget == now.budget:
        return snapshot
    match now.budget:
        case None:
            limit = headroom = None
        case str() as path:
            text = f"budget: what the cgroup {path} had is not in the journal"
            raise ConfigError(text, hint="give a size, or the budget that was recorded")
        case limit:
            held = sum(guest.rss or 0 for guest in snapshot.guests)
            headroom = Bytes(max(0, limit - held))
    return replace(snapshot, host=replace(snapshot.host, limit=limit, headroom=headroom))


def _told(side: Side, target: Bytes, actual: Bytes | None) -> Side:
    less = max(0, (actual or target) - target)
    return Side(
        shrinks=side.shrinks + (less > 0),
        grows=side.grows + (less == 0),
        lowest=target if side.lowest is None else min(side.lowest, target),
        asked=Bytes(side.asked + less),
    )


def _difference(
    snapshot: Snapshot, name: str, before: dict[str, Bytes], after: dict[str, Bytes], plan: Plan
) -> Difference:
    said = next((each for each in plan.guests if each.guest == name), None)
    return Difference(
        time=snapshot.wall or 0.0,
        guest=name,
        then=before.get(name),
        now=after.get(name),
        reason="" if said is None else said.reason,
        name=None if said is None else said.name,
    )
