"""What a policy must never do, whatever the world is like: laws as functions over rounds of a run.

Theory of operation:
    A law looks at one round, with what the policy remembered before it, and says in a line what is
    wrong. Some laws ask the policy again, about a world that differs in one point; they are tried
    on some of the rounds only. A breach names the seed, so that `world(seed)` shows it again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Final

import msgspec

from qmpmem.model import bounds
from qmpmem.model.config import Config, Limits
from qmpmem.model.observation import GuestReading, Snapshot
from qmpmem.model.round import STATES, Explanation, Kind, Plan, SetBalloon, Tick
from qmpmem.policy import History, decide
from qmpmem.policy.demand import waits
from qmpmem.policy.host import available_of, total_of
from qmpmem.policy.state import Growing, GuestTrend
from qmpmem.records import Record, replace
from qmpmem.simulate.policy_table import RIVALS, Policy
from qmpmem.simulate.random_worlds import Bounds, chance
from qmpmem.simulate.run import Run
from qmpmem.simulate.spec import World
from qmpmem.units import MIB, PAGE, Bytes
from tests.rig.readings import changed

ASKED_AGAIN: Final = 0.01
"""The part of the rounds in which the policy is asked about other worlds too."""

DOWN: Final = {"SLACK": 5, "BALANCED": 5, "SOFT": 5, "HARD": 10, "CRITICAL": 25}
"""Percent of the maximum a second."""
REVOKED: Final = 2
"""Likewise, of what is revoked."""
LEAST_DOWN: Final = 16 * MIB
"""A second, however small the guest is."""
STEPS: Final = 2
"""Seconds for which a step counts at the most."""
STRIDE: Final = 4
"""A part of the maximum: so much free memory goes into the balloon at once."""
REPEATED: Final = 5.0
"""Seconds after which a guest that went elsewhere may be told the same again."""
SHARP: Final = frozenset(("HARD", "CRITICAL"))
SHORT: Final = frozenset(("SOFT", "HARD", "CRITICAL"))
LACKED: Final = 30.0
"""Seconds. On 600 hosts 133 guests lacked memory: half of them for one round, 99 % for 8 s at most,
which is what the slowest take: an inflation that turns out to be stuck, and the next donor."""
CRITICAL: Final = 45.0
"""Seconds. On 600 hosts CRITICAL came 1019 times: 99 % ended within 12 s, the longest took 28.5 s,
where pressure fell slowly (PSI is averaged over 10 s); of 400 others one took a little longer."""
HOARDED: Final = 60.0
"""Seconds. On 600 hosts 75 guests had too much while another lacked: 13 s at the most; on one of
400 others 30 s, where it was one guest's turn after the other's."""
GAVE: Final = 10.0
"""Seconds in which a guest that gave something counts as one that gives."""
TRIED: Final = 8
"""A part of what a guest has: given beside what there is plenty of, to see whether that helps."""
SWAYS: Final = 30.0
"""Seconds in which what was taken is not given back."""
READS: Final = MIB
"""Bytes a second that a guest reads again."""
CRITICAL_ENDS: Final = 0.6
"""Reserves available with which CRITICAL ends."""
MOVABLE: Final = frozenset(("normal", "grace", "distress"))
"""Verdicts of guests whose balloons do as they are told."""
NEW: Final = 5.0
"""Seconds after which a short host takes from a new guest as from any other."""
REPORTS: Final = 2
"""So many make a guest known."""
BOOTS: Final = 60.0
"""Seconds after its QEMU started in which a guest whose driver says nothing is about to boot."""
COOL: Final = 60.0
"""Seconds for which a guest keeps what it was given, unless the host is in need."""
LEFT: Final = 75
"""Percent of its maximum that are left to a guest that cannot take memory back by itself."""
PLENTY: Final = 2.75
"""Reserves that stay available when memory is handed out that no guest needs."""
THRASHES: Final = 20
"""Percent of time in which all tasks wait: the host bears no more swapping."""
GRANTED: Final = 30.0
"""Seconds in which a guest touches what it was given."""
LACKS: Final = 0.85
"""Of its entitlement: a guest that suffers with less lacks memory."""


class Seen(Record, frozen=True, dict=True, gc=True):
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

    def changes(self) -> Sequence["Change"]:
        """Every command of the round, with the guest it is for."""
        return self._changes if self.plan.balloons else ()

    def said(self) -> Sequence[tuple[Explanation, GuestReading]]:
        """What is said of every guest, and what is seen of it."""
        return self._said

    @cached_property
    def _said(self) -> Sequence[tuple[Explanation, GuestReading]]:
        readings = {reading.id: reading for reading in self.snapshot.guests}
        return tuple([(said, readings[said.guest]) for said in self.plan.guests])

    @cached_property
    def _changes(self) -> Sequence["Change"]:
        words = {said.guest: (said, reading) for said, reading in self._said}
        return tuple(
            [self._change(command, *words[command.guest]) for command in self.plan.balloons]
        )

    def _change(self, command: SetBalloon, said: Explanation, reading: GuestReading) -> "Change":
        return Change(
            command=command,
            reading=reading,
            said=said,
            limits=self.world.config.limits(reading.id, reading.maximum or PAGE),
            plan=self.plan,
            trend=self.after.guests[reading.id],
            time=self.snapshot.time,
        )


class Change(Record, frozen=True):
    """One command."""

    command: SetBalloon
    reading: GuestReading
    said: Explanation
    limits: Limits
    plan: Plan
    trend: GuestTrend
    """What is remembered of the guest after the round."""
    time: float

    @property
    def sees_untouched(self) -> bool:
        """Whether it rests on what the host sees, as the guest does not report yet."""
        return self.kind == "position" and self.trend.reports < REPORTS

    @property
    def starts(self) -> bool:
        """Whether the guest has just started, is put to its minimum, and can take memory back."""
        up, able = self.reading.up, bool(self.reading.deflates) and self.trend.reports < REPORTS
        is_new = self.reading.began == "seen" and up is not None and up < BOOTS
        return self.kind == "position" and able and is_new

    @property
    def size(self) -> int:
        """How far it goes, from what the guest has; negative: down."""
        return self.command.target - (self.reading.actual or 0)

    @property
    def takes(self) -> bool:
        """Whether the guest is to have less; less by a part of a page is the same size.

        A guest that is on its way down and is told to stop earlier is to have more.
        """
        return self.size <= -PAGE and not self.stops

    @property
    def stops(self) -> bool:
        """Whether the guest is on its way down, and is to go less far."""
        told = self.trend.told
        before = None if told is None else told.before
        return self.kind == "stay" and before is not None and before < self.command.target

    @property
    def kind(self) -> Kind:
        """Why."""
        return self.command.kind

    @property
    def suffers(self) -> bool:
        """Whether it is for a guest that suffers, whatever is said of its balloon."""
        return self.kind == "rescue" or suffers(self.said, self.reading)

    @property
    def held(self) -> int:
        """What of the guest's memory the host really holds."""
        return held(self.reading)

    def __str__(self) -> str:
        has = (self.reading.actual or 0) / MIB
        numbers = " ".join(
            f"{name} {(size or 0) / MIB:.0f}"
            for name, size in (
                ("held", self.held),
                ("used", self.said.used),
                ("W", self.said.working),
                ("C", self.said.cache),
                ("H", self.said.headroom),
                ("D", self.said.demand),
                ("E", self.said.entitlement),
            )
        )
        return (
            f"{self.reading.id} {has:.0f} -> {self.command.target / MIB:.0f} MiB, {self.kind}: "
            f"{self.said.verdict} {self.said.bound} ({self.command.reason}), {numbers}, "
            f"{self.plan.state}"
        )


def little(size: int) -> int:
    """Return how much is little to have available: a tenth, in a large guest a fortieth."""
    return min(size // 10, max(64 * MIB, size // 40))


def held(reading: GuestReading) -> int:
    """Return what of a guest's memory the host really holds, in memory or in its swap."""
    has = reading.actual or 0
    return has if reading.cost is None else min(has, reading.cost + (reading.swap or 0))


def suffers(said: Explanation, reading: GuestReading) -> bool:
    """Whether a guest is in distress, or next to nothing is available in it."""
    if said.verdict == "distress":
        return True
    left = (reading.actual or 0) - (said.used or 0)
    return said.used is not None and left < little(reading.actual or 0) // 2


def fair(said: Explanation) -> int:
    """Return what a guest may have before others have their share."""
    return max(said.entitlement or 0, said.minimum or 0)


def band(maximum: int) -> int:
    """Return how far off is still there."""
    return max(8 * MIB, maximum // 200)


Law = Callable[[Seen], Iterator[str]]


def within_limits(seen: Seen) -> Iterator[str]:
    """1: minimum ≤ target ≤ maximum ≤ what it was started with; on the way there, nearer to it."""
    for change in seen.changes():
        low, high, target = change.limits.minimum, change.limits.maximum, change.command.target
        has = change.reading.actual or 0
        if not min(low, has) <= target <= max(high, has) or target > (change.reading.maximum or 0):
            yield f"{change}: not within {low / MIB:.0f}..{high / MIB:.0f} MiB"


def in_use_is_left(seen: Seen) -> Iterator[str]:
    """2: what is in use, and headroom, is left to every guest, unless it is revoked.

    In use is what was in use during the last minutes, page cache that pays included. In SOFT it is
    what is in use now, with the least headroom; in HARD page cache does not count; in CRITICAL only
    the minimum does. Nothing at all is taken from a guest that suffers.
    """
    for change in seen.changes():
        if not change.takes or change.kind not in ("take", "position"):
            continue
        if change.command.target < min(_least(change), change.limits.maximum) - PAGE:
            yield f"{change}: below {_least(change) / MIB:.0f} MiB, which are in use"
        if change.said.verdict == "distress":
            yield f"{change}: taken from a guest that suffers"


def _least(change: Change) -> int:
    """Return what a guest uses, and room beside that."""
    said, state = change.said, change.plan.state
    if change.starts:
        return 0
    if said.used is None or change.sees_untouched:
        return change.held  # the host has seen what it never touched
    trend, limits, working = change.trend, change.limits, said.working or 0
    cache = trend.cache.kept if change.time < trend.cache.until else 0
    room = max(working * limits.headroom_percent // 100, little(limits.maximum))
    now = said.used + min(room, little(said.used))
    match state:
        case "CRITICAL" if change.kind == "take":
            return 0
        case "HARD" if change.kind == "take":
            return now
        case "SOFT" if change.kind == "take":
            return now + cache
        case _:
            return working + cache + room


def revoked_is_only_what_is_beyond_a_share(seen: Seen) -> Iterator[str]:
    """2: memory is revoked only from a guest above its entitlement, and not below that."""
    for change in seen.changes():
        if change.kind != "revoke":
            continue
        if change.command.target < fair(change.said) - PAGE:
            yield f"{change}: below its share"
        if change.reading.deflates is False:
            yield f"{change}: revoked from a guest that cannot take it back"


def a_guest_that_cannot_take_back_keeps_most(seen: Seen) -> Iterator[str]:
    """2: a guest without deflate-on-oom keeps three quarters of its maximum."""
    for change in seen.changes():
        most = change.limits.maximum * LEFT // 100
        asked = change.takes and change.kind not in ("pin", "cap")
        if asked and change.reading.deflates is False and change.command.target < most - PAGE:
            yield f"{change}: less than {LEFT} %"


def only_what_is_there_is_given(seen: Seen) -> Iterator[str]:
    """3: guests grow out of what is spare.

    Spare is what is available less the reserve and what was granted and is not touched yet. A guest
    whose page cache pays may have the margin against bursts, one that suffers also half the
    reserve, and a quarter of the host's free swap while the host bears that. Releases do not wait.
    """
    host = seen.snapshot.host
    available, base = available_of(host) or 0, _base(seen)
    granted = sum(_granted(seen, reading) for reading in seen.snapshot.guests)
    spare = available - seen.plan.reserve - granted
    margin = seen.plan.reserve - base
    hurt = base // 2 + (0 if (host.full or 0.0) >= THRASHES else (host.swap_free or 0) // 4)
    pools = {"calm": spare, "cached": spare + margin, "hurt": spare + margin + hurt}
    given = dict.fromkeys(pools, 0)
    for change in seen.changes():
        if change.size > 0 and change.kind != "release":
            member = "hurt" if change.suffers else "cached" if change.said.cache else "calm"
            given[member] += change.size
    total = 0
    for member, pool in pools.items():
        total += given[member]
        if given[member] and total > max(0, pool) + PAGE * len(seen.plan.guests):
            yield f"{total / MIB:.0f} MiB given to {member} and less, of {pool / MIB:.0f} MiB"


def _granted(seen: Seen, reading: GuestReading) -> int:
    """Return what a guest was given and has not touched, before this round."""
    trend = seen.before.guests.get(reading.id)
    return 0 if trend is None or trend.epoch != reading.epoch else _untouched(reading, trend, seen)


def _untouched(reading: GuestReading, trend: GuestTrend, seen: Seen) -> int:
    match trend.phase:
        case Growing(granted=granted, cost=cost, first=first):
            if trend.raised is None or seen.snapshot.time - trend.raised > GRANTED:
                return 0
            return max(0, granted - (max(cost, reading.cost or 0) - first))
        case _:
            return 0


def beyond_its_share_comes_last(seen: Seen) -> Iterator[str]:
    """4: no guest is given more than its share while another that needs it has less than that.

    Guests that suffer have more to draw on; they are compared with one another.
    """
    waiting = [
        (said.guest, suffers(said, reading))
        for said, reading in seen.said()
        if said.bound == "spare"
        and said.kind not in ("cache", "habit", "plenty")
        and (said.target or said.actual or 0) + band(said.maximum or 0)
        < min(said.wanted or 0, fair(said))
    ]
    for change in seen.changes():
        beyond = fair(change.said) + band(change.limits.maximum)
        if change.size <= 0 or change.kind == "release" or change.command.target <= beyond:
            continue
        if change.reading.actual is not None and change.said.cache and not change.suffers:
            continue  # the margin is for it, too
        others = [guest for guest, hurt in waiting if hurt or not change.suffers]
        if others:
            yield f"{change}: while {others} wait for their shares"


def steps_are_small(seen: Seen) -> Iterator[str]:
    """5: a guest goes down a step a second from what it has touched; nothing is said twice.

    What is free in it may go into its balloon at once, up to a quarter of its maximum.
    """
    for change in seen.changes():
        trend = seen.before.guests.get(change.reading.id)
        same = trend is not None and trend.epoch == change.reading.epoch
        told = trend.told if trend is not None and same else None
        plugged = trend is not None and trend.maximum != change.reading.maximum
        seconds = 1.0 if told is None else min(float(STEPS), seen.snapshot.time - told.at)
        if change.takes and change.command.target < _farthest(change, seconds) - PAGE:
            yield f"{change}: further than {_farthest(change, seconds) / MIB:.0f} MiB"
        if told is None:
            continue
        strayed = abs(change.size) >= 8 * MIB and seen.snapshot.time - told.at >= REPEATED
        again = told.target == change.command.target and not strayed
        if again and not (plugged or change.kind == "release"):
            yield f"{change}: said again"
        pause = 0.225 if change.plan.state in SHARP else 0.9
        if seen.snapshot.time - told.at < pause - 1e-6:
            yield f"{change}: {seen.snapshot.time - told.at:.2f} s after the last command"


def _farthest(change: Change, seconds: float) -> float:
    most, has = change.limits.maximum, change.reading.actual or 0
    start = min(has, change.held + LEAST_DOWN)  # the least that a slow guest is asked for
    match change.kind:
        case "position" if change.starts:
            return 0
        case "position":
            return has - most // STRIDE
        case "revoke":
            return start - max(LEAST_DOWN, most * REVOKED // 100) * seconds
        case _:
            return start - max(LEAST_DOWN, most * DOWN[change.plan.state] // 100) * seconds


def small_changes_are_not_worth_it(seen: Seen) -> Iterator[str]:
    """5: a change within the dead band is not told, but to the very maximum, or by an operator."""
    for change in seen.changes():
        most = change.limits.maximum
        exact = change.kind in ("pin", "release", "cap") or change.command.target >= most
        stays = change.size == 0 or change.kind == "stay"
        if not (exact or stays) and abs(change.size) < band(most) - PAGE:
            yield f"{change}: less than {band(most) / MIB:.0f} MiB"


def a_guest_that_suffers_is_served_first(seen: Seen) -> Iterator[str]:
    """4: no guest is given memory while one that suffers below its share waits for some."""
    waiting = [
        said.guest
        for said, reading in seen.said()
        if said.bound == "spare"
        and suffers(said, reading)
        and (said.target or said.actual or 0) + band(said.maximum or 0)
        < min(said.wanted or 0, fair(said))
    ]
    for change in seen.changes():
        calm = change.kind != "release" and not change.suffers and not change.said.cache
        if waiting and calm and change.size >= band(change.limits.maximum):
            yield f"{change}: while {waiting} suffer"


def plenty_is_left(seen: Seen) -> Iterator[str]:
    """3: what no guest needs is handed out only as long as there is plenty."""
    if seen.plan.state != "SLACK":
        return
    granted = sum(_granted(seen, reading) for reading in seen.snapshot.guests)
    more = [change for change in seen.changes() if change.kind in ("cache", "habit", "plenty")]
    given = sum(max(0, change.size - _tried(change)) for change in more)
    plenty = (available_of(seen.snapshot.host) or 0) - granted - PLENTY * seen.plan.reserve
    if given > max(0, plenty) + PAGE * len(more):
        yield f"{given / MIB:.0f} MiB handed out of {plenty / MIB:.0f} MiB"


def _tried(change: Change) -> int:
    """Return what a guest that reads files again is given in any case where it is spare."""
    has = change.reading.actual or 0
    return max(little(has), has // TRIED) if change.kind == "cache" else 0


def a_guest_that_does_not_play_along_is_left(seen: Seen) -> Iterator[str]:
    """6: nothing is asked of a guest that did not move, took back what it gave, or was moved."""
    for change in seen.changes():
        if not change.takes:
            continue
        trend, now = change.trend, change.time
        for what, holds in (
            ("it did not move when it was asked to", now < trend.rest_until),
            ("it did not move three times", len(trend.stalls) >= 3),
            ("its balloon frees nothing", trend.ineffective),
            ("another program moves it", now - _or_never(trend.foreign_at) < COOL),
            ("it costs more than it has", now - _or_later(trend.suspect_since, now) >= 30),
        ):
            if holds:
                yield f"{change}: {what}"


def _or_never(moment: float | None) -> float:
    return float("-inf") if moment is None else moment


def _or_later(moment: float | None, now: float) -> float:
    return now if moment is None else moment


def a_guest_that_grows_is_left(seen: Seen) -> Iterator[str]:
    """8: nothing is asked of a guest whose use goes up, unless the host is in need."""
    for change in seen.changes():
        trend, most = change.trend, change.limits.maximum
        grows = (trend.used or 0.0) - trend.fast > max(band(most), most * 5 // 100)
        asked = change.takes and change.kind in ("take", "position") and not change.starts
        if grows and asked and seen.plan.state not in SHARP:
            yield f"{change}: {((trend.used or 0) - trend.fast) / MIB:.0f} MiB more in 10 s"


def what_is_not_known_is_not_taken(seen: Seen) -> Iterator[str]:
    """7: no inflation on what is unknown, stale, exempt, or not running.

    What a new guest never touched the host has seen by itself, and one that has just started and
    takes back what it needs may start small.
    """
    for change in seen.changes():
        if not change.takes:
            continue
        reading = change.reading
        is_recent = reading.age is not None and reading.age <= 30
        known = reading.stats.available is not None and is_recent
        touched = change.kind == "position" and change.command.target >= (reading.cost or 0)
        if not (known or touched or change.starts):
            yield f"{change}: taken, and not known"
        if (
            reading.exempt
            or reading.state != "running"
            or reading.implausible
            or reading.actual is None
        ):
            yield f"{change}: taken, and its balloon is not to be moved"
        if change.said.verdict not in MOVABLE:
            yield f"{change}: taken from a guest that is {change.said.verdict}"


def a_new_guest_gives_only_what_is_free(seen: Seen) -> Iterator[str]:
    """7: a guest that started or was reset just now gives what is free, or was never touched.

    In HARD and CRITICAL one that reports and is up for 5 s gives like any other. One that has just
    started and takes back what it needs (deflate-on-oom) is put to its minimum.
    """
    for change in seen.changes():
        trend = change.trend
        age = seen.snapshot.time - trend.born
        if not change.takes or (age >= seen.world.config.grace and trend.reports >= REPORTS):
            continue
        if change.plan.state in SHARP and age >= NEW and trend.reports >= REPORTS:
            continue
        reading = change.reading
        free = min((reading.actual or 0) - (reading.stats.free or 0), reading.cost or 0)
        if change.kind != "position" or not (change.starts or change.command.target >= free - PAGE):
            yield f"{change}: {age:g} s old, {trend.reports} reports"


def what_was_given_is_kept(seen: Seen) -> Iterator[str]:
    """8: what a guest was given is not asked back within a minute, unless the host is in need."""
    if seen.plan.state in SHARP:
        return
    for change in seen.changes():
        trend = change.trend
        if not change.takes or trend.raised is None or change.kind not in ("take", "position"):
            continue
        if seen.snapshot.time - trend.raised < COOL - 1e-6:
            yield f"{change}: it was given memory {seen.snapshot.time - trend.raised:.1f} s ago"


def holding_takes_nothing(seen: Seen) -> Iterator[str]:
    """While an operator holds, memory is given back, and not taken."""
    held = replace(seen.snapshot, requests=replace(seen.snapshot.requests, hold=True))
    yield from _taken(held, seen, "held, and taken")


def a_pause_voids_what_was_counted(seen: Seen) -> Iterator[str]:
    """After a pause of ours, what guests counted meanwhile is no sign of distress now."""
    snapshot = seen.snapshot
    guests = tuple(
        reading
        if reading.age is None
        else changed(
            reading, age=0.0, major_faults=1 << 50, oom_kills=1 << 20, swap_in=Bytes(1 << 50)
        )
        for reading in snapshot.guests
    )
    later = replace(snapshot, time=snapshot.time + 100, guests=guests)
    plan, _ = decide(later, seen.before, seen.world.config)
    for said in plan.guests:
        if said.verdict == "distress":
            yield f"{said.guest}: in distress by what it counted in 100 s"


def _going(before: History, guest: str) -> int | None:
    """Return the size that a guest on its way down was told; None: it is on none."""
    trend = before.guests.get(guest)
    return trend.target if trend is not None and trend.shrinking else None


def _taken(snapshot: Snapshot, seen: Seen, why: str) -> Iterator[str]:
    sizes = {reading.id: reading.actual or 0 for reading in snapshot.guests}
    for command in decide(snapshot, seen.before, seen.world.config)[0].balloons:
        going = _going(seen.before, command.guest)
        stops = going is not None and command.target > going  # it was to have less still
        if command.target <= sizes[command.guest] - PAGE and not stops:
            yield f"{why}: {command.guest} -> {command.target / MIB:.0f} MiB ({command.reason})"


def nothing_is_done_twice(seen: Seen) -> Iterator[str]:
    """10: when a plan is carried out, the same moment needs no other.

    But what was freed may be given then, or was promised to a guest that is asked to give instead;
    one that was slow may be let off, and one that was given some may show that it needs more: all
    of it out of what is left. Revocation goes on with the next guest: each gives so much a second;
    and in CRITICAL it follows for a guest that is left with less than its share.
    """
    targets = {command.guest: command.target for command in seen.plan.balloons}
    guests = [_moved(reading, targets.get(reading.id)) for reading in seen.snapshot.guests]
    freed = sum(map(held, seen.snapshot.guests)) - sum(map(held, guests))
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
    plan, after = decide(done, seen.after, seen.world.config)
    tick = replace(seen.tick, snapshot=done, plan=plan)
    yield from only_what_is_there_is_given(replace(seen, tick=tick, before=seen.after, after=after))
    given = sum(max(0, change.size) for change in seen.changes())
    freed += max(0, _promised(seen.before) - _promised(seen.after))
    takes = ("revoke", "take") if seen.plan.state == "CRITICAL" else ("revoke",)
    revokes = any(command.kind in takes for command in seen.plan.balloons)
    for command in plan.balloons:
        if revokes and command.kind == "revoke":
            continue
        told = seen.after.guests[command.guest].target or 0
        less = command.target < told
        let_off = command.kind == "stay"
        if (less and not given) or not (less or given or freed or let_off):
            yield f"again: {command.guest} -> {command.target / MIB:.0f} MiB ({command.reason})"


def _base(seen: Seen) -> int:
    """Return the reserve without what is kept against bursts."""
    return seen.world.config.reserve or bounds.reserve(total_of(seen.snapshot.host) or Bytes(0))


def _promised(history: History) -> int:
    return sum(trend.granted for trend in history.guests.values())


def _moved(reading: GuestReading, target: Bytes | None) -> GuestReading:
    """A guest that did as it was told: what it gave is free, what it got is not touched yet."""
    if target is None or reading.actual is None or reading.cost is None:
        return reading
    if target >= reading.actual:
        return replace(reading, actual=target)
    kept = Bytes(min(reading.cost, target))
    swap = Bytes(min(reading.swap or 0, target - kept))
    return replace(reading, actual=target, cost=kept, rss=kept, swap=swap)


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


def more_pressure_gives_no_guest_more(seen: Seen) -> Iterator[str]:
    """9: were the host shorter, no guest would get more, and all together would have no more."""
    host = seen.snapshot.host
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
        plan, _ = decide(shorter, seen.before, seen.world.config)
        if not _owed(seen, seen.plan) <= _owed(seen, plan):
            continue  # entitlements are smaller then, and others give less for them
        then = _targets(shorter, plan, seen.before)
        has = {reading.id: reading.actual or 0 for reading in seen.snapshot.guests}
        for guest, target in then.items():
            if target > max(now[guest], has[guest]) + 8 * MIB:
                yield (
                    f"{guest}: {target / MIB:.0f} MiB with {part:.0%} available, else "
                    f"{now[guest] / MIB:.0f}, {seen.plan.state}"
                )
        more = sum(then.values()) - sum(now.values())
        if more > 8 * MIB * len(then):
            yield f"{more / MIB:.0f} MiB more with {part:.0%} available, {seen.plan.state}"


def _owed(seen: Seen, plan: Plan) -> frozenset[tuple[str, str]]:
    """Return the guests that need more of what they are entitled to, and how they lack it."""
    guests = {reading.id: reading for reading in seen.snapshot.guests}
    sizes = {guest: reading.actual or 0 for guest, reading in guests.items()}
    needy = [said for said in plan.guests if said.kind in ("need", "rescue", "minimum")]
    below = [(said.guest, "needs") for said in needy if sizes[said.guest] < fair(said)]
    far = [(said.guest, "suffers") for said in needy if sizes[said.guest] < LACKS * fair(said)]
    swapped = [
        (said.guest, "waits")
        for said in plan.guests
        if (trend := seen.after.guests.get(said.guest)) is not None
        and waits(trend)
        and held(guests[said.guest]) - (guests[said.guest].swap or 0) < LACKS * fair(said)
    ]
    return frozenset((*below, *far, *swapped))


def _targets(snapshot: Snapshot, plan: Plan, before: History) -> Mapping[str, int]:
    """Where each guest goes now: by this plan, or still by its last command."""
    told = {command.guest: int(command.target) for command in plan.balloons}
    found: dict[str, int] = {}
    for reading in snapshot.guests:
        going = _going(before, reading.id)
        stays = reading.actual or 0
        found[reading.id] = told.get(reading.id, stays if going is None else min(stays, going))
    return found


def a_liar_moves_no_other_guest(seen: Seen) -> Iterator[str]:
    """4: nonsense from one guest changes what no other is taken for, or said to need."""
    if len(seen.snapshot.guests) < 2:
        return
    first, *rest = seen.snapshot.guests
    for nonsense in (
        changed(first, available=Bytes(0), free=Bytes(0), swap_in=Bytes(1 << 50)),
        changed(first, available=first.maximum, free=first.maximum, major_faults=1 << 50),
        changed(first, implausible=True, available=None, actual=None, age=None),
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
    """6: what goes wrong with one guest freezes that one, and no other."""
    able = [reading for reading in seen.snapshot.guests if reading.actual is not None]
    if not able:
        return
    first = able[0]
    rest = [reading for reading in seen.snapshot.guests if reading != first]
    broken = changed(first, available="x", swap_in="x")
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


def what_is_usual_takes_nothing(seen: Seen) -> Iterator[str]:
    """2: what guests are said to use usually, true or not, takes memory from none.

    Without it no guest is taken less far down, none that suffers is given more, and none is told to
    start with more.
    """
    bare = tuple(replace(reading, habit=None) for reading in seen.snapshot.guests)
    if bare == seen.snapshot.guests:
        return
    plan, _ = decide(replace(seen.snapshot, guests=bare), seen.before, seen.world.config)
    without = {change.guest: change.target for change in plan.balloons}
    for said, reading in seen.said():
        has = reading.actual
        if has is None or said.verdict == "frozen":
            continue
        goes = min(has, _going(seen.before, said.guest) or has)  # where it is told nothing new
        size, otherwise = said.target or goes, without.get(said.guest, goes)
        if size < min(has, otherwise):
            yield f"{said.guest} is taken to {size / MIB:.0f}, not {otherwise / MIB:.0f} MiB"
        if suffers(said, reading) and size < otherwise:
            yield f"{said.guest} suffers, and has {size / MIB:.0f}, not {otherwise / MIB:.0f} MiB"


COMMANDS: Final[Sequence[Law]] = (
    within_limits,
    in_use_is_left,
    revoked_is_only_what_is_beyond_a_share,
    a_guest_that_cannot_take_back_keeps_most,
    only_what_is_there_is_given,
    beyond_its_share_comes_last,
    a_guest_that_suffers_is_served_first,
    plenty_is_left,
    steps_are_small,
    small_changes_are_not_worth_it,
    what_is_not_known_is_not_taken,
    a_new_guest_gives_only_what_is_free,
    a_guest_that_does_not_play_along_is_left,
    a_guest_that_grows_is_left,
    what_was_given_is_kept,
)
"""Laws about what is commanded."""
SOMETIMES: Final[Sequence[Law]] = (
    nothing_is_done_twice,
    order_does_not_matter,
    written_down_decides_the_same,
    what_is_usual_takes_nothing,
    more_pressure_gives_no_guest_more,
    a_liar_moves_no_other_guest,
    a_mistake_freezes_one,
    holding_takes_nothing,
    a_pause_voids_what_was_counted,
)
"""Laws that ask the policy again."""


Lasting = Callable[[], Law]
"""Returns a law over the rounds of one run, which it is asked about in their order."""


class Spells:
    """For how long something holds: seconds for each name, until it ends.

    Attributes:
        ended: how long those lasted that are over.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = 0.0
        self.ended: list[float] = []

    def note(self, seen: Seen, holds: Mapping[str, bool]) -> dict[str, float]:
        """Count a round.

        Args:
            seen: the round.
            holds: for each name that goes on, whether its time counts now; others are over.

        Returns:
            Seconds that counted so far, by name.
        """
        passed, self._last = seen.snapshot.time - self._last, seen.snapshot.time
        over = self._seconds.keys() - holds.keys()
        self.ended += [self._seconds[name] for name in over]
        self._seconds = {
            name: self._seconds[name] + passed * counts if name in self._seconds else 0.0
            for name, counts in holds.items()
        }
        return self._seconds


def lacks(seen: Seen, said: Explanation, reading: GuestReading) -> bool:
    """Whether a guest suffers below its share, and was told nothing that it has not taken yet."""
    if said.verdict not in MOVABLE or said.used is None or not suffers(said, reading):
        return False
    has, told = reading.actual or 0, seen.after.guests[said.guest].target or 0
    return told < has + band(said.maximum or 0) and has < LACKS * fair(said)


def idle(seen: Seen, said: Explanation, reading: GuestReading) -> int:
    """Return what a guest has beyond what it wants, where it may be taken.

    It does not want more than it may have, and may use more all the same.
    """
    trend, now = seen.after.guests.get(said.guest), seen.snapshot.time
    if trend is None or said.verdict != "normal" or said.demand is None:
        return 0
    moments = (trend.raised, trend.hurt)
    if any(moment is not None and now - moment < COOL for moment in moments):
        return 0
    least = max(said.demand, said.used or 0)
    if reading.deflates is False:
        least = max(least, (said.maximum or 0) * LEFT // 100)
    more = held(reading) - max(least, said.minimum or 0)
    return more if more >= band(said.maximum or 0) else 0


def _idle(seen: Seen, but: str = "") -> int:
    """Return the idle memory of all guests but one."""
    return sum(idle(seen, said, reading) for said, reading in seen.said() if said.guest != but)


class NoGuestLacks:
    """9: a guest that suffers below 85 % of its share is given that within `LACKED` seconds.

    They count while there is so much beyond the reserve, or idle in other guests.
    """

    def __init__(self) -> None:
        self.spells = Spells()

    def __call__(self, seen: Seen) -> Iterator[str]:
        """Look at a round."""
        host = seen.snapshot.host
        granted = sum(trend.granted for trend in seen.after.guests.values())
        spare = max(0, (available_of(host) or 0) - seen.plan.reserve - granted)
        holds: dict[str, bool] = {}
        for said, reading in seen.said():
            if lacks(seen, said, reading):
                missing = LACKS * fair(said) - (reading.actual or 0)
                holds[said.guest] = spare + _idle(seen, said.guest) >= missing
        for guest, seconds in self.spells.note(seen, holds).items():
            if seconds > LACKED and holds[guest]:
                yield f"{guest} lacks memory for {seconds:g} s, and there is some"


class CriticalEnds:
    """10: CRITICAL ends within `CRITICAL` seconds while guests have idle memory that would do."""

    def __init__(self) -> None:
        self.spells = Spells()

    def __call__(self, seen: Seen) -> Iterator[str]:
        """Look at a round."""
        lack = CRITICAL_ENDS * _base(seen) - (available_of(seen.snapshot.host) or 0)
        # Where enough is available, pressure of the seconds before has yet to fade.
        holds = {"host": 0 < lack < _idle(seen)} if seen.plan.state == "CRITICAL" else {}
        for seconds in self.spells.note(seen, holds).values():
            if seconds > CRITICAL and holds["host"]:
                yield f"CRITICAL for {seconds:g} s, and {_idle(seen) / MIB:.0f} MiB are idle"


class NoGuestHoards:
    """11: no guest keeps more than its share for `HOARDED` seconds while another lacks memory.

    Unless its balloon does not move, or could not take memory back; or it does not report what it
    uses; or it has given, or was asked, of late. What it has and never touched is kept from no
    other guest.
    """

    def __init__(self) -> None:
        self.spells = Spells()
        self._gave: dict[str, tuple[float, int]] = {}

    def __call__(self, seen: Seen) -> Iterator[str]:
        """Look at a round."""
        lacking = {said.guest for said, reading in seen.said() if lacks(seen, said, reading)}
        holds: dict[str, bool] = {}
        for said, reading in seen.said():
            has = reading.actual or 0
            _, least = self._gave.get(said.guest, (0.0, has))
            if has < least - band(said.maximum or 0):
                self._gave[said.guest] = seen.snapshot.time, has
            elif has > least or said.guest not in self._gave:
                self._gave[said.guest] = self._gave.get(said.guest, (-HOARDED, 0))[0], has
            movable = said.verdict in MOVABLE and reading.deflates is not False
            if (
                movable
                and said.used is not None
                and held(reading) > fair(said) + band(said.maximum or 0)
                and lacking - {said.guest}
            ):
                trend = seen.after.guests[said.guest]
                gave = max(self._gave[said.guest][0], trend.lowered or -HOARDED)
                # It had nothing to give, or lacks memory itself: it waits for the host's swap.
                rests = seen.snapshot.time < trend.rest_until or waits(trend)
                holds[said.guest] = seen.snapshot.time - gave > GAVE and not rests
        for guest, seconds in self.spells.note(seen, holds).items():
            if seconds > HOARDED and holds[guest]:
                yield f"{guest} has more than its share for {seconds:g} s, and {lacking} lack"


class ResetReleases:
    """12: a guest that was reset has no target below its maximum a second later."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._since: dict[str, float] = {}

    def __call__(self, seen: Seen) -> Iterator[str]:
        """Look at a round."""
        now = seen.snapshot.time
        for reading in seen.snapshot.guests:
            before = seen.before.guests.get(reading.id)
            if before is not None and before.epoch != reading.epoch:
                if reading.began == "reset":
                    self._since[reading.id] = now
                else:  # another QEMU, which was told nothing
                    self._told.pop(reading.id, None)
        for change in seen.changes():
            self._told[change.reading.id] = change.command.target
        for reading in seen.snapshot.guests:
            since = self._since.get(reading.id)
            if since is None or reading.exempt or reading.state != "running":
                continue
            most = seen.world.config.limits(reading.id, reading.maximum or PAGE).maximum
            if self._told.get(reading.id, most) >= most - PAGE:
                del self._since[reading.id]
            elif now - since >= 1:
                yield f"{reading.id} is told {self._told[reading.id] / MIB:.0f} MiB after its reset"
                del self._since[reading.id]


class Taken(Record, frozen=True):
    """What was taken from a guest, and how it was then."""

    time: float
    target: int
    used: int
    state: int
    epoch: int
    kind: Kind
    free: int
    """What was available on the host."""


class NothingSways:
    """13: what is taken from a guest is not given back within 30 s without a new cause.

    A cause is that it uses more, by the dead band or a third of what was left to it, that it
    suffers, was reset, reads files again, that the host is shorter of memory, that it was in need
    then, and has so much more available now, that in need the guest was asked for what it uses, or
    that it is entitled to more than it was left.
    """

    def __init__(self) -> None:
        self._taken: dict[str, Taken] = {}

    def __call__(self, seen: Seen) -> Iterator[str]:
        """Look at a round."""
        for change in seen.changes():
            guest, now = change.reading.id, seen.snapshot.time
            taken = self._taken.get(guest)
            if change.takes and not change.starts:
                self._taken[guest] = _taken_now(change, seen)
            elif not change.takes and taken is not None and now - taken.time < SWAYS:
                more = change.command.target - max(taken.target, change.reading.actual or 0)
                if more >= band(change.limits.maximum) and not _has_cause(change, taken, seen):
                    yield f"{change}: {now - taken.time:g} s after {taken.target / MIB:.0f} MiB"


def _taken_now(change: Change, seen: Seen) -> Taken:
    return Taken(
        time=seen.snapshot.time,
        target=change.command.target,
        used=change.said.used or 0,
        state=STATES.index(seen.plan.state),
        epoch=change.reading.epoch,
        kind=change.kind,
        free=available_of(seen.snapshot.host) or 0,
    )


def _has_cause(change: Change, taken: Taken, seen: Seen) -> bool:
    hurt = change.trend.hurt
    left = max(0, taken.target - taken.used)
    return (
        change.kind in ("release", "pin", "cache", "stay")
        or change.reading.epoch != taken.epoch
        or (change.said.used or 0) - taken.used > min(band(change.limits.maximum), left // 3)
        or (hurt is not None and hurt >= taken.time)
        or (taken.kind == "revoke" and change.command.target <= fair(change.said))
        or change.trend.cache.rate >= READS
        or STATES.index(seen.plan.state) > taken.state
        or (STATES[taken.state] in SHARP and taken.target < taken.used)
        or (
            STATES[taken.state] in SHARP
            and (available_of(seen.snapshot.host) or 0) - taken.free >= change.size
        )
    )


LASTING: Final[Sequence[Lasting]] = (
    NoGuestLacks,
    CriticalEnds,
    NoGuestHoards,
    ResetReleases,
    NothingSways,
)
"""Laws over whole runs."""


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
    lasting = tuple(law() for law in LASTING)
    for seen in rounds(world(seed), policy):
        laws = (*(COMMANDS if seen.plan.balloons else ()), *lasting, *_drawn(random))
        for law in laws:
            for what in law(seen):
                time = seen.snapshot.time
                found.append(Breach(law=name_of(law), seed=seed, time=time, what=what))
    return found


def name_of(law: Callable[..., object]) -> str:
    """Return what a law is called."""
    return getattr(law, "__name__", type(law).__name__)


def _drawn(random: Random) -> Sequence[Law]:
    return SOMETIMES if random.random() < ASKED_AGAIN else ()


def try_seeds(seeds: Iterable[int]) -> list[Breach]:
    """Try all laws on some worlds; of each world and law one breach is enough."""
    return [breach for seed in seeds for breach in _first(try_seed(seed))]


def _first(breaches: list[Breach]) -> list[Breach]:
    """One of each law is enough to see what is wrong with a world."""
    return list({breach.law: breach for breach in reversed(breaches)}.values())
