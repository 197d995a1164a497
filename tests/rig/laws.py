"""What a policy must never do, whatever the world is like: laws as functions over rounds of a run.

Theory of operation:
    A law looks at one round, with what the policy remembered before it, and says in a line what is
    wrong. Some laws ask the policy again, about a world that differs in one point; they are tried
    on some of the rounds only. A breach names the seed, so that `world(seed)` shows it again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Final

import msgspec

from qmpmem import bounds
from qmpmem.actions import Explanation, Plan, SetBalloon, Tick
from qmpmem.config import Config, Limits
from qmpmem.policy import History, decide
from qmpmem.policy.host import STATES, available_of, total_of
from qmpmem.records import Record, replace
from qmpmem.sight import GuestSight, HostSight, Snapshot
from qmpmem.simulate.loop import Run
from qmpmem.simulate.rivals import RIVALS, Policy
from qmpmem.simulate.spec import World
from qmpmem.simulate.worlds import Bounds, chance
from qmpmem.units import MIB, PAGE, Bytes

ASKED_AGAIN: Final = 0.02
"""The part of the rounds in which the policy is asked about other worlds too."""

DOWN: Final = {"SLACK": 5, "BALANCED": 5, "SOFT": 5, "HARD": 5, "CRITICAL": 10}
"""Percent of the maximum a second."""
UP: Final = 5
RESCUE: Final = 25
"""Percent of what is missing a second, in distress."""
LEAST_UP: Final = 32 * MIB
LEAST_DOWN: Final = 16 * MIB
SHARP: Final = frozenset(("HARD", "CRITICAL"))


class Seen(Record, frozen=True):
    """One round, and what the policy knew before it."""

    world: World
    tick: Tick
    before: History
    after: History

    @property
    def snapshot(self) -> Snapshot:
        return self.tick.snapshot

    @property
    def plan(self) -> Plan:
        return self.tick.plan

    def changes(self) -> Iterator["Change"]:
        """Every command of the round, with whom it is for."""
        sights = {sight.id: sight for sight in self.snapshot.guests}
        words = {said.guest: said for said in self.plan.guests}
        for command in self.plan.balloons:
            sight = sights[command.guest]
            limits = self.world.config.limits(sight.id, sight.maximum or PAGE)
            yield Change(
                command=command, sight=sight, said=words[sight.id], limits=limits, plan=self.plan
            )


class Change(Record, frozen=True):
    """One command."""

    command: SetBalloon
    sight: GuestSight
    said: Explanation
    limits: Limits
    plan: Plan

    @property
    def size(self) -> int:
        """How far it goes, from what the guest has; negative: down."""
        return self.command.target - (self.sight.actual or 0)

    @property
    def rescues(self) -> bool:
        """Whether it is for a guest that suffers, also where somebody else moved its balloon up."""
        return self.said.verdict == "distress" or (
            self.said.verdict == "foreign" and self.command.reason == "short of memory"
        )

    def __str__(self) -> str:
        has = (self.sight.actual or 0) / MIB
        return (
            f"{self.sight.id} {has:.0f} -> {self.command.target / MIB:.0f} MiB, {self.said.verdict}"
            f" {self.said.bound} ({self.command.reason}), W {(self.said.working or 0) / MIB:.0f}"
            f" D {(self.said.demand or 0) / MIB:.0f} E {(self.said.entitlement or 0) / MIB:.0f},"
            f" {self.plan.state}"
        )


Law = Callable[[Seen], Iterator[str]]


def within_limits(seen: Seen) -> Iterator[str]:
    """1: minimum ≤ target ≤ maximum ≤ what it was started with; on the way there, nearer to it."""
    for change in seen.changes():
        low, high, target = change.limits.minimum, change.limits.maximum, change.command.target
        has = change.sight.actual or 0
        if not min(low, has) <= target <= max(high, has) or target > (change.sight.maximum or 0):
            yield f"{change}: not within {low / MIB:.0f}..{high / MIB:.0f} MiB"


def in_use_is_left(seen: Seen) -> Iterator[str]:
    """2: what is in use, and 64 MiB, is left outside HARD; nothing is taken from who suffers.

    In use is what was in use during the last minutes; while another suffers, what is in use now.
    """
    acute = any(said.verdict == "distress" for said in seen.plan.guests)
    for change in seen.changes():
        if change.size >= 0:
            continue
        used = (change.said.used if acute else change.said.working) or 0
        least = min(used + 64 * MIB - PAGE, change.limits.maximum)
        if change.plan.state not in SHARP and change.command.target < least:
            yield f"{change}: below what is in use"
        if change.said.verdict == "distress" and change.plan.state != "CRITICAL":
            yield f"{change}: taken from who suffers"


def only_what_is_there_is_given(seen: Seen) -> Iterator[str]:
    """3: growth is at most what is measured to be spare; the reserve is not eaten by us."""
    given = sum(max(0, change.size) for change in seen.changes())
    spare = _spare(seen.snapshot.host, seen.world.config)
    if given > max(0, spare):
        yield f"{given / MIB:.0f} MiB given of {spare / MIB:.0f} MiB"


def beyond_its_share_comes_last(seen: Seen) -> Iterator[str]:
    """4: under pressure nobody gets more than its share while another gets less than that.

    Who suffers is not asked for its share: it is helped out of what is kept against bursts. Nor is
    who costs the host the same whatever its size.
    """
    if STATES.index(seen.plan.state) < STATES.index("SOFT"):
        return
    greedy = [
        change
        for change in seen.changes()
        if change.size > 8 * MIB
        and not change.rescues
        and change.said.verdict != "ineffective"
        and change.command.target
        > max(change.said.entitlement or 0, change.limits.minimum) + 8 * MIB
        and (change.sight.actual or 0) >= (change.said.entitlement or 0)
    ]
    waiting = [
        said.guest
        for said in seen.plan.guests
        if said.bound == "spare"
        and said.target is None
        and (said.actual or 0) + 16 * MIB < min(said.wanted or 0, said.entitlement or 0)
    ]
    for change in greedy:
        if waiting:
            yield f"{change}: while {waiting} wait for their shares"


def steps_are_small(seen: Seen) -> Iterator[str]:
    """5: a target is at most two steps away, nothing is said twice, nor too often."""
    for change in seen.changes():
        trend = seen.before.guests.get(change.sight.id)
        if change.command.reason.startswith("released"):
            continue  # an emergency release is absolute
        if abs(change.size) > _farthest(change) + PAGE:
            yield f"{change}: further than {_farthest(change) / MIB:.0f} MiB"
        if trend is None or trend.epoch != change.sight.epoch or trend.sent is None:
            continue
        if trend.target == change.command.target and trend.released is None:
            yield f"{change}: said again"
        pause = 0.2 if change.plan.state in SHARP else 0.9
        if seen.snapshot.time - trend.sent < pause - 1e-6:
            yield f"{change}: {seen.snapshot.time - trend.sent:.2f} s after the last command"


def _farthest(change: Change) -> int:
    most = change.sight.maximum or 0
    if change.size < 0:
        return 2 * max(LEAST_DOWN, most * DOWN[change.plan.state] // 100)
    up = max(LEAST_DOWN, most * UP // 100)
    if change.rescues:
        missing = max(0, (change.said.demand or 0) - (change.sight.actual or 0))
        up = max(up, LEAST_UP, missing * RESCUE // 100)
    return max(2 * up, min(128 * MIB, most * 5 // 100))


def what_is_not_known_is_not_taken(seen: Seen) -> Iterator[str]:
    """7: no inflation on what is unknown, stale, exempt, or not running."""
    for change in seen.changes():
        if change.size >= 0:
            continue
        sight = change.sight
        known = sight.available is not None and sight.age is not None and sight.age <= 30
        if not known or sight.exempt or sight.state != "running" or sight.implausible:
            yield f"{change}: taken, and not known"


def who_is_new_is_left_alone(seen: Seen) -> Iterator[str]:
    """7: nothing is taken from a guest that started, was reset or was resumed just now."""
    for change in seen.changes():
        trend = seen.before.guests.get(change.sight.id)
        same = trend is not None and trend.epoch == change.sight.epoch
        age = seen.snapshot.time - trend.born if trend is not None and same else 0.0
        if change.size < 0 and age < seen.world.config.grace - 1e-6:
            yield f"{change}: {age:g} s old"


def holding_takes_nothing(seen: Seen) -> Iterator[str]:
    """While an operator holds, memory is given back, and not taken."""
    held = replace(seen.snapshot, wishes=replace(seen.snapshot.wishes, hold=True))
    yield from _taken(held, seen, "held, and taken")


def a_pause_voids_what_was_seen(seen: Seen) -> Iterator[str]:
    """After a pause of ours, nothing is taken before there are new reports."""
    yield from _taken(replace(seen.snapshot, time=seen.snapshot.time + 100), seen, "after a pause")


def _taken(snapshot: Snapshot, seen: Seen, why: str) -> Iterator[str]:
    sizes = {sight.id: sight.actual or 0 for sight in snapshot.guests}
    for command in decide(snapshot, seen.before, seen.world.config)[0].balloons:
        if command.target < sizes[command.guest]:
            yield f"{why}: {command.guest} -> {command.target / MIB:.0f} MiB ({command.reason})"


def nothing_is_done_twice(seen: Seen) -> Iterator[str]:
    """10: when a plan is carried out, the same moment needs no other.

    But what was freed may be given then, or was promised to who is asked to give instead; who was
    slow may be let off, and who was given some may show that it needs more: out of what is left.
    """
    targets = {command.guest: command.target for command in seen.plan.balloons}
    guests = [_moved(sight, targets.get(sight.id)) for sight in seen.snapshot.guests]
    costs = (sum(sight.cost or 0 for sight in each) for each in (seen.snapshot.guests, guests))
    freed = next(costs) - next(costs)
    host = seen.snapshot.host
    done = replace(
        seen.snapshot,
        guests=tuple(guests),
        host=replace(
            host,
            available=None if host.available is None else Bytes(host.available + freed),
            headroom=None if host.headroom is None else Bytes(host.headroom + freed),
        ),
    )
    again, _ = decide(done, seen.after, seen.world.config)
    sizes = {sight.id: sight.actual or 0 for sight in guests}
    given = sum(max(0, change.size) for change in seen.changes())
    more = sum(max(0, each.target - sizes[each.guest]) for each in again.balloons)
    spare = _spare(done.host, seen.world.config)
    if more and given + more > max(0, spare):
        yield f"{given / MIB:.0f} MiB given, and {more / MIB:.0f} more, of {spare / MIB:.0f}"
    told = {guest: trend.target or 0 for guest, trend in seen.after.guests.items()}
    freed += max(0, _promised(seen.before) - _promised(seen.after))
    for command in again.balloons:
        less = command.target < told[command.guest]
        let_off = command.reason == "no longer asked to shrink"
        if (less and not given) or not (less or given or freed or let_off):
            yield f"again: {command.guest} -> {command.target / MIB:.0f} MiB ({command.reason})"


def _spare(host: HostSight, config: Config) -> int:
    """What there is beyond the reserve."""
    available, total = available_of(host), total_of(host)
    if available is None or total is None:
        return 0
    return available - (config.reserve or bounds.reserve(total))


def _promised(history: History) -> int:
    return sum(trend.granted for trend in history.guests.values())


def _moved(sight: GuestSight, target: Bytes | None) -> GuestSight:
    """A guest that did as it was told: what it gave is free, what it got is not touched yet."""
    if target is None or sight.actual is None or sight.cost is None:
        return sight
    kept = sight.cost if target >= sight.actual else Bytes(min(sight.cost, target))
    return replace(sight, actual=target, cost=kept, rss=kept)


def order_does_not_matter(seen: Seen) -> Iterator[str]:
    """11: guests in another order, the same plan."""
    turned = replace(seen.snapshot, guests=tuple(reversed(seen.snapshot.guests)))
    if decide(turned, seen.before, seen.world.config)[0] != seen.plan:
        yield "another order, another plan"


def written_down_decides_the_same(seen: Seen) -> Iterator[str]:
    """12: what is written down and read back decides the same."""
    snapshot = msgspec.json.decode(msgspec.json.encode(seen.snapshot), type=Snapshot)
    history = msgspec.json.decode(msgspec.json.encode(seen.before), type=History)
    config = msgspec.json.decode(msgspec.json.encode(seen.world.config), type=Config)
    if decide(snapshot, history, config) != (seen.plan, seen.after):
        yield "read back, another plan"


def more_pressure_gives_nobody_more(seen: Seen) -> Iterator[str]:
    """9: were the host shorter, nobody would get more, and all together would have no more."""
    host = seen.snapshot.host
    if any(command.reason.startswith("idle") for command in seen.plan.balloons):
        return  # asked for a little because nothing is short: where something is, others give
    for part in (0.8, 0.4):
        shorter = replace(
            seen.snapshot,
            host=replace(
                host,
                available=None if host.available is None else Bytes(int(host.available * part)),
                headroom=None if host.headroom is None else Bytes(int(host.headroom * part)),
            ),
        )
        now = _targets(seen.snapshot, seen.plan, seen.before)
        then = _targets(shorter, decide(shorter, seen.before, seen.world.config)[0], seen.before)
        has = {sight.id: sight.actual or 0 for sight in seen.snapshot.guests}
        for guest, target in then.items():
            if target > max(now[guest], has[guest]) + 8 * MIB:
                yield (
                    f"{guest}: {target / MIB:.0f} MiB with {part:.0%} available, else "
                    f"{now[guest] / MIB:.0f}, {seen.plan.state}"
                )
        more = sum(then.values()) - sum(now.values())
        if more > 8 * MIB * len(then):
            yield f"{more / MIB:.0f} MiB more with {part:.0%} available, {seen.plan.state}"


def _targets(snapshot: Snapshot, plan: Plan, before: History) -> Mapping[str, int]:
    """Where each guest goes now: by this plan, or still by its last command."""
    told = {command.guest: int(command.target) for command in plan.balloons}
    found: dict[str, int] = {}
    for sight in snapshot.guests:
        trend = before.guests.get(sight.id)
        going = None if trend is None or trend.asked_from is None else trend.target
        stays = sight.actual or 0
        found[sight.id] = told.get(sight.id, stays if going is None else min(stays, going))
    return found


def a_liar_moves_nobody(seen: Seen) -> Iterator[str]:
    """4: nonsense from one guest changes what nobody else is taken for, or said to need."""
    if len(seen.snapshot.guests) < 2:
        return
    first, *rest = seen.snapshot.guests
    for nonsense in (
        replace(first, available=Bytes(0), free=Bytes(0), swap_in=Bytes(1 << 50)),
        replace(first, available=first.maximum, free=first.maximum, major_faults=1 << 50),
        replace(first, implausible=True, available=None, actual=None, age=None),
    ):
        odd = replace(seen.snapshot, guests=(nonsense, *rest))
        plan, _ = decide(odd, seen.before, seen.world.config)
        own = {said.guest: said for said in plan.guests}
        for said in seen.plan.guests:
            if said.guest != first.id and _taken_for(own[said.guest]) != _taken_for(said):
                yield f"{first.id} lies, and {said.guest} is taken for {_taken_for(said)}"


def _taken_for(said: Explanation) -> tuple[object, ...]:
    return said.verdict, said.used, said.working, said.headroom, said.demand, said.minimum


def a_mistake_freezes_one(seen: Seen) -> Iterator[str]:
    """6: what goes wrong with one guest freezes that one, and nobody else."""
    able = [sight for sight in seen.snapshot.guests if sight.actual is not None]
    if not able:
        return
    first = able[0]
    rest = [sight for sight in seen.snapshot.guests if sight != first]
    broken = msgspec.structs.replace(first, available="x", swap_in="x")
    plan, history = decide(
        replace(seen.snapshot, guests=(broken, *rest)), seen.before, seen.world.config
    )
    verdicts = {said.guest: said.verdict for said in plan.guests}
    if verdicts[first.id] != "frozen" or any(each.guest == first.id for each in plan.balloons):
        yield f"{first.id} is {verdicts[first.id]}, and its numbers are no numbers"
    own = {said.guest: said for said in plan.guests}
    for said in seen.plan.guests:
        if said.guest != first.id and _taken_for(own[said.guest]) != _taken_for(said):
            yield f"{first.id} is broken, and {said.guest} is taken for something else"
    if history.guests.get(first.id) != seen.before.guests.get(first.id):
        yield f"{first.id} is frozen, and its history went on"


COMMANDS: Final[Sequence[Law]] = (
    within_limits,
    in_use_is_left,
    only_what_is_there_is_given,
    beyond_its_share_comes_last,
    steps_are_small,
    what_is_not_known_is_not_taken,
    who_is_new_is_left_alone,
)
"""Laws about what is commanded."""
SOMETIMES: Final[Sequence[Law]] = (
    nothing_is_done_twice,
    order_does_not_matter,
    written_down_decides_the_same,
    more_pressure_gives_nobody_more,
    a_liar_moves_nobody,
    a_mistake_freezes_one,
    holding_takes_nothing,
    a_pause_voids_what_was_seen,
)
"""Laws that ask the policy again."""
LAWS: Final = (*COMMANDS, *SOMETIMES)


class Breach(Record, frozen=True):
    """A law that was broken."""

    law: str
    seed: int
    time: float
    what: str

    def __str__(self) -> str:
        return f"{self.law}, seed {self.seed}, {self.time:g} s: {self.what}"


def world(seed: int) -> World:
    """The world of a seed."""
    return chance(Random(seed), Bounds())  # noqa: S311 - repeatable on purpose


def rounds(of: World, policy: Policy = decide) -> Iterator[Seen]:
    """Run a world, round by round."""
    run = Run(of, replace(RIVALS["ours"], start=lambda: policy))
    before = run.history
    for tick in run.ticks():
        yield Seen(world=of, tick=tick, before=before, after=run.history)
        before = run.history


def try_seed(seed: int, policy: Policy = decide) -> list[Breach]:
    """Try all laws on one world."""
    random = Random(-seed)  # noqa: S311 - repeatable on purpose
    found: list[Breach] = []
    for seen in rounds(world(seed), policy):
        laws = (*(COMMANDS if seen.plan.balloons else ()), *_drawn(random))
        for law in laws:
            time = seen.snapshot.time
            found += [
                Breach(law=law.__name__, seed=seed, time=time, what=what) for what in law(seen)
            ]
    return found


def _drawn(random: Random) -> Sequence[Law]:
    return SOMETIMES if random.random() < ASKED_AGAIN else ()


def try_seeds(seeds: Iterable[int]) -> list[Breach]:
    """Try all laws on some worlds; of each world and law one breach is enough."""
    return [breach for seed in seeds for breach in _first(try_seed(seed))]


def _first(breaches: list[Breach]) -> list[Breach]:
    """One of each law is enough to see what is wrong with a world."""
    return list({breach.law: breach for breach in reversed(breaches)}.values())
