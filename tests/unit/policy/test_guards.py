"""Guards of the policy, each with a scene that goes another way where the guard is switched off.

Guards that hosts made by chance show are in tests/unit/policy/test_laws.py.
"""

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from qmpmem.model.config import Config, Rule
from qmpmem.model.guest import GuestStats
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import (
    GuestReading,
    Habit,
    HostReading,
    Lease,
    OperatorRequests,
    Snapshot,
)
from qmpmem.model.round import Explanation, Plan
from qmpmem.policy import (
    History,
    allocation,
    behaviour,
    commands,
    decide,
    demand,
    engine,
    goals,
    habits,
    host,
    progress,
)
from qmpmem.policy.behaviour import Judgement
from qmpmem.policy.cases import Case
from qmpmem.policy.state import Counters, GuestTrend, HostTrend, Stalls, Told
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, PAGE, Bytes
from tests.rig.readings import changed

Patch = pytest.MonkeyPatch
NOW: Final = 1000.0
RESERVE: Final = 100


def mib(size: float) -> Bytes:
    """Return so many MiB in bytes."""
    return Bytes(int(size * MIB))


def guest(name: str, has: float, used: float, **more: object) -> GuestReading:
    """Return a guest of 1 GiB that has touched all it has. Sizes in MiB."""
    seen = GuestReading(
        id=name,
        state="running",
        up=NOW,
        maximum=Bytes(GIB),
        actual=mib(has),
        deflates=True,
        rss=mib(has),
        cost=mib(has),
        stats=GuestStats(
            available=mib(has - used),
            free=mib(has - used),
            disk_caches=Bytes(0),
            swap_in=Bytes(0),
            major_faults=0,
        ),
        reads=Bytes(0),
        age=0.0,
    )
    return changed(seen, **more)


def trend(used: float, **more: object) -> GuestTrend:
    """Return what is remembered of a guest that has used the same for long. Size in MiB."""
    size = float(mib(used))
    known = GuestTrend(
        epoch=0,
        born=0.0,
        reports=100,
        counters=Counters(
            time=NOW - 1,
            swap_in=Bytes(0),
            major_faults=0,
            reads=Bytes(0),
            caches=Bytes(0),
        ),
        used=size,
        fast=size,
        slow=size,
        maximum=Bytes(GIB),
    )
    return replace(known, **more)


def decided(
    guests: Mapping[GuestReading, GuestTrend],
    available: float,
    *,
    swap: float = 0,
    rules: tuple[Rule, ...] = (),
    **more: object,
) -> Plan:
    """Return one round's plan for a host of 8 GiB with a reserve of 100 MiB. Sizes in MiB."""
    seen = HostReading(total=Bytes(8 * GIB), available=mib(available), swap_free=mib(swap))
    snapshot = replace(Snapshot(time=NOW, host=seen, guests=tuple(guests)), **more)
    known = {
        reading.id: each if each.actual else replace(each, actual=reading.actual)
        for reading, each in guests.items()
    }
    history = History(host=HostTrend(time=NOW - 1), guests=known)
    return decide(snapshot, history, Config(reserve=mib(RESERVE), rules=rules))[0]


def about(plan: Plan, name: str) -> Explanation:
    """Return what a plan says of a guest."""
    return next(said for said in plan.guests if said.guest == name)


def target(plan: Plan, name: str) -> int | None:
    """Return what a guest is told, in MiB."""
    found = about(plan, name).target
    return None if found is None else found // MIB


# Each scene says whether its guard holds.


def bursts_are_kept_for() -> bool:
    """What guests took at once is kept for another time."""
    before = HostTrend(
        time=NOW - 1, uses=((NOW - 1, mib(500)),), settled=frozenset(("a",)), state="BALANCED"
    )
    seen = HostReading(total=Bytes(8 * GIB), available=mib(4000))
    snapshot = Snapshot(time=NOW, host=seen, guests=(guest("a", 1000, 800),))
    history = History(host=before, guests={"a": trend(500, actual=mib(1000))})
    plan, _ = decide(snapshot, history, Config(reserve=mib(RESERVE)))
    return plan.reserve >= mib(RESERVE + 290)


def _no_burst(patch: Patch) -> None:
    patch.setattr(host, "BURST_PERCENT", 0)


def debt_is_covered() -> bool:
    """What merging saves may come back: with no cover for it the host is short, and takes."""
    ksm = KsmState(run=1, page_size=PAGE, pages_sharing=int(31 * GIB) // PAGE)
    plan = decided({guest("a", 1000, 200): trend(200)}, 400, ksm=ksm)
    return plan.state in ("SOFT", "HARD", "CRITICAL") and bool(plan.balloons)


def _debt_is_nothing(patch: Patch) -> None:
    patch.setattr(engine, "_uncovered", lambda *_: 0)


def leases_are_kept() -> bool:
    """What is kept for a guest that is about to start is not given to another."""
    lease = Lease(id="next", owner="test", size=mib(300), until=NOW + 60)
    requests = OperatorRequests(leases=(lease,))
    plan = decided({guest("a", 500, 470): trend(470)}, RESERVE + 300, requests=requests)
    return about(plan, "a").bound == "spare" and target(plan, "a") is None


def _leases_are_nothing(patch: Patch) -> None:
    patch.setattr(engine, "_kept", lambda _: 0)


def a_killed_program_is_noticed() -> bool:
    """A guest that was full and uses far less all at once lost a program."""
    reading = guest("a", 800, 200, deflates=None)
    plan = decided({reading: trend(790, actual=mib(800))}, 2000)
    return about(plan, "a").verdict == "distress"


def _no_collapse(patch: Patch) -> None:
    patch.setattr(demand, "_collapsed", lambda *_: False)


def faults_are_distress() -> bool:
    """A guest with little available that reads its programs again and again suffers."""
    reading = guest("a", 500, 480, major_faults=1000)
    return about(decided({reading: trend(480)}, 2000), "a").verdict == "distress"


def swapping_is_distress() -> bool:
    """Likewise one that reads back from its swap in two reports."""
    reading = guest("a", 500, 480, swap_in=mib(20))
    return about(decided({reading: trend(480, swapping=1)}, 2000), "a").verdict == "distress"


def _no_distress(patch: Patch) -> None:
    patch.setattr(demand, "in_distress", lambda *_: False)


def another_hand_is_noticed() -> bool:
    """A balloon that moved without a command is left alone."""
    reading = guest("a", 700, 300, deflates=False)
    plan = decided({reading: trend(300, actual=mib(900))}, 50)
    return about(plan, "a").verdict == "foreign"


def _hands_are_not_watched(patch: Patch) -> None:
    patch.setattr(progress, "_watch_hands", lambda _, __, known, *___: known)


def free_memory_goes_into_the_balloon() -> bool:
    """Where guests could touch more than there is, what is free in them is taken beforehand."""
    reading = guest("a", 1024, 200, cost=mib(300), rss=mib(300))
    return about(decided({reading: trend(200)}, 400), "a").kind == "position"


def _nothing_is_positioned(patch: Patch) -> None:
    rules = tuple(rule for rule in goals._RULES if rule is not goals._position)
    patch.setattr(goals, "_RULES", rules)


def a_guest_that_took_back_is_left() -> bool:
    """A guest that costs more than it has gives nothing."""
    reading = guest("a", 600, 200, cost=mib(1000), rss=mib(1000))
    known = trend(200, lowered=NOW - 200, suspect_since=NOW - 100)
    return target(decided({reading: known}, 50), "a") is None


def _none_is_suspect(patch: Patch) -> None:
    _hide(patch, "suspect")


def a_balloon_without_effect_is_released() -> bool:
    """A guest whose balloon frees nothing is given all its memory."""
    known = trend(200, ineffective=True)
    return target(decided({guest("a", 600, 200): known}, 50), "a") == 1024


def _none_is_ineffective(patch: Patch) -> None:
    _hide(patch, "ineffective")


def old_reports_take_nothing() -> bool:
    """A guest that does not report any more gives nothing on what it said long ago."""
    return target(decided({guest("a", 900, 200, age=31.0): trend(200)}, 50), "a") is None


def _none_is_stale(patch: Patch) -> None:
    _hide(patch, "stale")


def a_paused_guest_is_left() -> bool:
    """Nothing is asked of a guest that does not run."""
    reading = guest("a", 900, 200, state="paused")
    return target(decided({reading: trend(200)}, 50), "a") is None


def _none_is_exempt(patch: Patch) -> None:
    _hide(patch, "exempt")


def _hide(patch: Patch, verdict: str) -> None:
    real = behaviour.judge

    def judge(*seen: object) -> Judgement:
        found: Judgement = real(*seen)  # type: ignore[arg-type]
        return replace(found, verdict="normal") if found.verdict == verdict else found

    patch.setattr(behaviour, "judge", judge)


def a_guest_that_suffers_is_first() -> bool:
    """What is spare goes to the guest in distress, though another pays more for its memory."""
    calm, hurt = guest("a", 300, 285), guest("b", 330, 322)
    known = {calm: trend(285), hurt: trend(322, hurt=NOW - 1)}
    plan = decided(known, RESERVE + 20)
    return (target(plan, "b") or 0) > 330 and target(plan, "a") is None


def _none_is_urgent(patch: Patch) -> None:
    real = allocation._urgency
    patch.setattr(allocation, "_urgency", lambda *case: real(*case)[2:])


def a_share_comes_before_more() -> bool:
    """What is spare goes to the guest below its entitlement before the one above it."""
    rules = (
        Rule(match="a", minimum=mib(128), shares=1000),
        Rule(match="b", minimum=mib(850), shares=1000),
    )
    known = {guest("a", 330, 325): trend(325), guest("b", 900, 890): trend(890)}
    plan = decided(known, RESERVE + 30, rules=rules)
    a, b = about(plan, "a"), about(plan, "b")
    assert (a.entitlement or 0) < 330 * MIB
    assert (b.entitlement or 0) > 900 * MIB
    return target(plan, "a") is None and (target(plan, "b") or 0) > 900


def _no_entitlement(patch: Patch) -> None:
    patch.setattr(Case, "fair", property(lambda case: case.limits.maximum))


def what_is_beyond_a_share_is_revoked() -> bool:
    """A guest that says it is full gives what it has beyond its entitlement to one that suffers."""
    hoards, lacks = guest("a", 1000, 1000), guest("b", 400, 396)
    rules = (Rule(match="a", shares=500), Rule(match="b", shares=4000))
    plan = decided({hoards: trend(1000), lacks: trend(396)}, 0, rules=rules)
    return about(plan, "a").kind == "revoke" and (target(plan, "a") or 1000) < 1000


def _nothing_is_revoked(patch: Patch) -> None:
    patch.setattr(allocation, "_revoke", lambda *_: {})


RICH: Final = (Rule(match="a", shares=500), Rule(match="b", shares=4000))


def what_is_beyond_a_share_is_tried() -> bool:
    """A host in CRITICAL that can swap takes from one that shows no need beyond its entitlement."""
    known = {guest("a", 1000, 1000): trend(1000), guest("b", 400, 200): trend(200)}
    plan = decided(known, 10, swap=1000, rules=RICH)
    return plan.state == "CRITICAL" and (target(plan, "a") or 1000) < 1000


def _nothing_is_tried(patch: Patch) -> None:
    patch.setattr(allocation, "_shows_need", lambda *_: True)


def a_trial_that_hurt_is_not_repeated() -> bool:
    """A guest that suffered for a trial keeps its memory for ten minutes."""
    hurt = trend(1000, tried=NOW - 301, hurt=NOW - 300)
    known = {guest("a", 1000, 1000): hurt, guest("b", 400, 200): trend(200)}
    return (target(decided(known, 10, swap=1000, rules=RICH), "a") or 1000) >= 1000


def _trials_are_forgotten(patch: Patch) -> None:
    patch.setattr(allocation, "_was_needed", lambda *_: False)


def one_that_waits_for_the_host_is_helped() -> bool:
    """Others give for a guest whose entitlement is in the host's swap, and that waits for it."""
    waits = guest("b", 900, 880, cost=mib(400), rss=mib(400), swap=mib(500), stalled=10**7)
    waiting = Stalls(time=NOW - 1, total=9 * 10**6, percent=50.0)
    full = trend(1000, raised=NOW - 5)  # for the host alone it would be left
    known = {guest("a", 1000, 1000): full, waits: trend(880, waiting=waiting)}
    return (target(decided(known, 90, swap=1000, rules=RICH), "a") or 1000) < 1000


def _none_waits(patch: Patch) -> None:
    patch.setattr(demand, "waits", lambda _: False)


def a_claim_ends_where_it_is_not_used() -> bool:
    """A guest that says that all is in use, and suffers, touches what it has, or has no more.

    So one that claims that again and again has its headroom beyond what the host sees it use.
    """
    claims = guest("a", 700, 700, cost=mib(350), rss=mib(350))
    known = {claims: trend(400, hurt=NOW - 1, raised=NOW), guest("b", 400, 200): trend(200)}
    return (target(decided(known, RESERVE - 10, swap=4000, rules=RICH), "a") or 700) <= 700


def _claims_are_believed(patch: Patch) -> None:
    patch.setattr(demand, "OVERHEAD", Bytes(GIB))


def a_full_guest_grows_fast() -> bool:
    """A guest that is full has a quarter of its maximum at once, though another suffers."""
    known = {
        guest("a", 300, 298): trend(298),
        guest("b", 400, 200): trend(200, hurt=NOW - 1),
    }
    return (target(decided(known, 4000), "a") or 0) >= 300 + 256


def _full_guests_grow_slowly(patch: Patch) -> None:
    patch.setattr(goals, "LEAP_PART", 1024)


def a_starving_guest_may_have_of_the_reserve() -> bool:
    """A guest with next to nothing available does not wait for what is spare."""
    plan = decided({guest("a", 500, 498): trend(498)}, RESERVE - 20, swap=1000)
    return (target(plan, "a") or 0) > 500


def _none_starves(patch: Patch) -> None:
    real = demand.estimate
    patch.setattr(demand, "estimate", lambda *seen: replace(real(*seen), starving=False))


def a_shrink_is_not_undone_at_once() -> bool:
    """A guest that gave a moment ago is given more only where little is available in it."""
    known = trend(430, lowered=NOW - 5)
    return target(decided({guest("a", 471, 430): known}, 2000), "a") is None


def _no_cooling(patch: Patch) -> None:
    patch.setattr(goals, "COOL", 0.0)


def commands_are_some_time_apart() -> bool:
    """A guest is told something new once a second, while the host is not in need."""
    told = Told(target=mib(500), at=NOW - 0.3)
    return target(decided({guest("a", 500, 480): trend(480, told=told)}, 2000), "a") is None


def _any_time(patch: Patch) -> None:
    patch.setattr(commands, "_is_due", lambda *_: True)


def plenty_is_left() -> bool:
    """What no guest needs is handed out above 2.75 reserves, where SLACK begins at 2.5."""
    reading = guest("a", 500, 380, reads=None, free=mib(4))
    return target(decided({reading: trend(380)}, 2.6 * RESERVE), "a") is None


def _plenty_is_nothing(patch: Patch) -> None:
    patch.setattr(engine, "PLENTY", 0.0)


def what_is_missing_is_given_at_once() -> bool:
    """A guest that needs more has it in one round, where it is spare."""
    return (target(decided({guest("a", 500, 490): trend(490)}, 4000), "a") or 0) >= 588


def _slow_growth(patch: Patch) -> None:
    real = allocation._reached

    def reached(case: Case, goal: goals.Goal, size: int) -> goals.Goal:
        return real(case, goal, min(size, case.actual + case.limits.maximum // 100))

    patch.setattr(allocation, "_reached", reached)


def expecting(name: str, has: float, **more: object) -> GuestReading:
    """Return a guest of 1 GiB that uses 100 MiB, and usually uses 500 MiB at this hour."""
    habit = Habit(maximum=Bytes(GIB), usual=mib(500), peak=mib(700))
    return replace(guest(name, has, 100), **({"habit": habit} | more))


def what_is_usual_comes_out_of_plenty() -> bool:
    """With 250 MiB available there is nothing to give beforehand; with 2 GiB there is."""
    few, many = (
        target(decided({expecting("a", 400): trend(100)}, available), "a")
        for available in (250, 2048)
    )
    return few is None and many is not None and many > 400


def _habits_are_needs(patch: Patch) -> None:
    def habit(case: Case, _: object) -> goals.Goal | None:
        size = case.demand.habitual
        if size <= case.actual:
            return None
        due = size - case.actual
        return goals.Goal(size=size, kind="need", bound="demand", reason="x", due=due)

    patch.setattr(goals, "_RULES", (habit, *goals._RULES))


def what_is_usual_is_of_its_size() -> bool:
    """What it used when it could have four times as much does not hold."""
    other = Habit(maximum=Bytes(4 * GIB), usual=mib(900))
    plan = decided({expecting("a", 400, habit=other): trend(100)}, 2048)
    return target(plan, "a") is None and about(plan, "a").usual is None


def _any_size_is_its_own(patch: Patch) -> None:
    patch.setattr(habits, "is_same", lambda *_: True)


def what_was_most_stays_in_no_need() -> bool:
    """A short host takes what is free, whatever was used at this hour on other days."""
    known = expecting("a", 900, cost=mib(200), rss=mib(200))
    others = {known: trend(100), guest("b", 1000, 900): trend(900)}
    short, calm = (target(decided(others, available), "a") for available in (110, 240))
    return short is not None and calm is not None and short < 700 <= calm


def _always_foreseen(patch: Patch) -> None:
    real = demand.estimate

    def estimate(*given: object) -> demand.Demand:
        found = real(*given)  # type: ignore[arg-type]
        return replace(found, eased=found.foreseen)

    patch.setattr(demand, "estimate", estimate)


SCENES: Final[tuple[tuple[Callable[[], bool], Callable[[Patch], None]], ...]] = (
    (bursts_are_kept_for, _no_burst),
    (debt_is_covered, _debt_is_nothing),
    (leases_are_kept, _leases_are_nothing),
    (a_killed_program_is_noticed, _no_collapse),
    (faults_are_distress, _no_distress),
    (swapping_is_distress, _no_distress),
    (another_hand_is_noticed, _hands_are_not_watched),
    (free_memory_goes_into_the_balloon, _nothing_is_positioned),
    (a_guest_that_took_back_is_left, _none_is_suspect),
    (a_balloon_without_effect_is_released, _none_is_ineffective),
    (old_reports_take_nothing, _none_is_stale),
    (a_paused_guest_is_left, _none_is_exempt),
    (a_guest_that_suffers_is_first, _none_is_urgent),
    (a_share_comes_before_more, _no_entitlement),
    (what_is_beyond_a_share_is_revoked, _nothing_is_revoked),
    (what_is_beyond_a_share_is_tried, _nothing_is_tried),
    (a_trial_that_hurt_is_not_repeated, _trials_are_forgotten),
    (one_that_waits_for_the_host_is_helped, _none_waits),
    (a_claim_ends_where_it_is_not_used, _claims_are_believed),
    (a_full_guest_grows_fast, _full_guests_grow_slowly),
    (a_starving_guest_may_have_of_the_reserve, _none_starves),
    (a_shrink_is_not_undone_at_once, _no_cooling),
    (commands_are_some_time_apart, _any_time),
    (plenty_is_left, _plenty_is_nothing),
    (what_is_missing_is_given_at_once, _slow_growth),
    (what_is_usual_comes_out_of_plenty, _habits_are_needs),
    (what_is_usual_is_of_its_size, _any_size_is_its_own),
    (what_was_most_stays_in_no_need, _always_foreseen),
)


@pytest.mark.parametrize(("holds", "switch"), SCENES)
def test_a_scene_goes_another_way_without_its_guard(
    holds: Callable[[], bool], switch: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    assert holds(), "with its guard"
    switch(monkeypatch)
    assert not holds(), "without its guard"
