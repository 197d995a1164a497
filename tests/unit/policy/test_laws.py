"""The laws of the policy: each fails where its guard is gone, and hosts that once broke one do not.

Hosts made by chance, other ones in each run, are in tests/system/policy/test_chance.py.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, cast

import pytest

from qmpmem.configuration.files import read_file
from qmpmem.model.config import Config, Limits
from qmpmem.model.observation import GuestReading, Snapshot
from qmpmem.model.round import Explanation
from qmpmem.policy import (
    allocation,
    behaviour,
    commands,
    demand,
    engine,
    goals,
    host,
    progress,
    reach,
)
from qmpmem.policy.behaviour import Judgement
from qmpmem.policy.cases import Case, Round
from qmpmem.policy.commands import Move
from qmpmem.policy.demand import Demand
from qmpmem.policy.goals import Goal
from qmpmem.policy.judgement_cache import Keeper
from qmpmem.policy.state import CacheTrend, GuestTrend, History
from qmpmem.records import replace
from qmpmem.simulate import scenario
from qmpmem.simulate.guest_types import Range, make
from qmpmem.simulate.loads import Steady, Steps
from qmpmem.simulate.policy_table import RIVALS
from qmpmem.simulate.results import ResultsCounter
from qmpmem.simulate.spec import GuestSpec, HostSpec, World
from qmpmem.units import GIB, MIB, PAGE, Bytes, Share
from tests.rig import chance, laws

if TYPE_CHECKING:
    from tests.rig.laws import Law

pytestmark = pytest.mark.timeout(120)

SCENARIOS: Final = Path(__file__).parents[2] / "data" / "scenarios"


@pytest.mark.parametrize(
    ("law", "seed"),
    [
        (laws.in_use_is_left, 56),  # what the host had swapped out counted as never touched
        (laws.ResetReleases, 97),
        # A small guest lacked less than is worth a command.
        (laws.NoGuestLacks, 948_468_996_000_067),
        # The law took using up what little was left for no cause.
        (laws.NothingSways, 948_468_996_000_213),
        # What was revoked was given back out of the reserve.
        (laws.NothingSways, 948_468_996_000_823),
        # The law took a balloon that was let out for memory that the host gave.
        (laws.NoGuestHoards, 7_000_298),
        # The law took what a guest uses beyond the most it may have for idle.
        (laws.CriticalEnds, 7_000_353),
        # Beyond the most it may have, a guest was told each small step, and never a worthwhile one.
        (laws.CriticalEnds, 8_000_210),
        # The law took pressure that had yet to fade for a lack of memory.
        (laws.CriticalEnds, 9_000_358),
        # Memory was revoked from a guest that had just started and suffered.
        (laws.a_new_guest_gives_only_what_is_free, 8_000_631),
        # A little less than plenty gave page cache more than a little more than it.
        (laws.more_pressure_gives_no_guest_more, 948_468_996_000_887),
        # What a guest gave for the host replaced its own way down, which went lower.
        (laws.more_pressure_gives_no_guest_more, 140_512_546_000_887),
        # A guest in distress that takes back what it gives had memory revoked from it.
        (laws.a_guest_that_does_not_play_along_is_left, 140_512_546_000_826),
        # The law took what a guest could not give in need for a sway.
        (laws.NothingSways, 140_512_546_000_914),
        (laws.NothingSways, 13_000_055),
        (laws.nothing_is_done_twice, 140_512_546_000_621),
        # Where entitlements are smaller, a guest lacked its share no more, and held back no other.
        (laws.more_pressure_gives_no_guest_more, 748_414_854_000_905),
        (laws.more_pressure_gives_no_guest_more, 362_445_802_000_395),
        # The same, of a guest whose memory was in the host's swap.
        (laws.more_pressure_gives_no_guest_more, 48_207_785_001_534),
        # A guest that had memory revoked down to its entitlement has what that grew by.
        (laws.NothingSways, 362_445_802_000_201),
        # What a guest gave was less than what is worth a command, and counted as given.
        (laws.nothing_is_done_twice, 362_445_802_001_772),
        # A slow guest was never asked for what it held, being asked for what it had not touched.
        (laws.CriticalEnds, 79_496),
        # A guest took back as much as each of its small steps down: none was seen to fail.
        (laws.CriticalEnds, 362_445_802_002_338),
        # What was revoked replaced what went into the balloon at once, which was more.
        (laws.more_pressure_gives_no_guest_more, 77_491),
        (laws.more_pressure_gives_no_guest_more, 77_829),
        # A guest whose balloon does not move has been asked all the same.
        (laws.NoGuestHoards, 362_445_802_003_575),
        (laws.NoGuestHoards, 362_445_802_001_955),
        # The law took a guest that never reports for one that may give: it was new for ever.
        (laws.NoGuestHoards, 303_339_421_000_259),
        # To stop on the way down takes nothing.
        (laws.holding_takes_nothing, 362_445_802_000_776),
        # One on its way to less than the most it may have was told to stop at that.
        (laws.more_pressure_gives_no_guest_more, 471_375_183_000_010),
        # A guest that was to stop where it was got no command, and went on.
        (laws.more_pressure_gives_no_guest_more, 976_810_052_000_543),
        # A guest that is told nothing new goes on to what it was told.
        (laws.what_is_usual_takes_nothing, 659_501_868_000_458),
    ],
)
def test_hosts_that_once_broke_it(law: Callable[..., object], seed: int) -> None:
    assert not _notices(law, seed)


@pytest.mark.parametrize("seed", chance.some(range(12), 4))
def test_constant_demand_settles(seed: int) -> None:
    """8: where no guest wants anything new, none is told anything after two minutes."""
    random = Random(seed)  # noqa: S311 - repeatable on purpose
    sizes = [Bytes(random.choice((512, 1024, 2048)) * MIB) for _ in range(random.randint(1, 5))]
    guests = tuple(
        make(f"g{number}", "steady", size, _half_used(size, random), random)
        for number, size in enumerate(sizes)
    )
    used = sum(guest.load.at(0) + guest.kernel for guest in guests)
    memory = Bytes(int(1.2 * used + random.random() * (sum(sizes) - used)) + 400 * MIB)
    world = World(
        host=HostSpec(memory=memory, own=Steady(size=Bytes(150 * MIB))),
        guests=tuple(replace(guest, files=Bytes(guest.memory // 4)) for guest in guests),
        config=Config(grace=10.0),
        seconds=400.0,
    )
    late = [seen for seen in laws.rounds(world) if seen.snapshot.time > 120]
    assert not [str(change) for seen in late for change in seen.changes()]


@pytest.mark.parametrize(
    ("state", "memory", "more"),
    [
        ("SLACK", 3300, {}),
        ("BALANCED", 2700, {}),
        ("SOFT", 2500, {}),
        ("HARD", 2400, {}),
        ("CRITICAL", 2250, {"swap": 1000}),
        ("SLACK", 3300, {"hot": 100}),
        ("SOFT", 2700, {"hot": 100}),
        ("HARD", 2500, {"hot": 100}),
        ("CRITICAL", 2300, {"hot": 100}),
        ("HARD", 2360, {"guest_swap": 500}),
    ],
)
def test_constant_demand_settles_in_each_state(
    state: str, memory: int, more: dict[str, int]
) -> None:
    """8: no command a minute, however short of memory the host is."""
    guests = tuple(
        GuestSpec(
            id=f"g{number}",
            memory=Bytes(GIB),
            load=_little(300 + 60 * number),
            files=Bytes(200 * MIB),
            hot_files=Bytes(more.get("hot", 0) * MIB),
            swap=Bytes(more.get("guest_swap", 0) * MIB),
        )
        for number in range(4)
    )
    swap = Bytes(more.get("swap", 0) * MIB)
    world = World(
        host=HostSpec(memory=Bytes(memory * MIB), own=_little(150), swap=swap),
        guests=guests,
        config=Config(grace=10.0, reserve=Bytes(300 * MIB)),
        seconds=300.0,
    )
    *_, last = late = [seen for seen in laws.rounds(world) if seen.snapshot.time > 240]
    assert last.plan.state == state
    assert not [str(change) for seen in late for change in seen.changes()]


def _half_used(size: Bytes, random: Random) -> Range:
    low = Bytes(int(size * random.uniform(0.1, 0.6)))
    return Range(low=low, high=low)


class Outcome:
    """How a scenario ends."""

    def __init__(self, name: str) -> None:
        source = read_file(SCENARIOS / f"squeeze-{name}.toml")
        self.world = scenario.read(source, Config())
        counter = ResultsCounter(self.world, RIVALS["ours"])
        ticks = list(counter.ticks())
        last = ticks[-1]
        self.sizes = {guest.id: round((guest.actual or 0) / MIB) for guest in last.snapshot.guests}
        self.verdicts = {
            said.guest: {
                each.verdict
                for tick in ticks
                for each in tick.plan.guests
                if each.guest == said.guest
            }
            for said in last.plan.guests
        }
        self.met = self._met([tick.snapshot for tick in ticks])
        self.report = counter.report()

    def _met(self, snapshots: list[Snapshot]) -> float | None:
        """Seconds until the request had its memory, beside the reserve."""
        request = self.world.request
        if request is None:
            return None
        needs = request.size + (self.world.config.reserve or 0)
        times = [each.time for each in snapshots if (each.host.available or 0) >= needs]
        return next((time - request.at for time in times if time > request.at), None)


@pytest.mark.parametrize(("name", "seconds"), [("a", 30), ("b", 40), ("e", 40), ("g", 20)])
def test_a_request_is_met(name: str, seconds: float) -> None:
    outcome = Outcome(name)
    assert outcome.met is not None
    assert outcome.met <= seconds


@pytest.mark.parametrize("name", ["c", "d"])
def test_a_request_that_cannot_be_met_takes_no_guest_below_its_minimum(name: str) -> None:
    outcome = Outcome(name)
    assert outcome.met is None
    for rule in outcome.world.config.rules:
        assert not isinstance(rule.minimum, Share)
        assert outcome.sizes[rule.match] >= (rule.minimum or 0) / MIB


def test_the_one_that_is_stuck_is_named() -> None:
    verdicts = Outcome("d").verdicts
    assert "stalled" in verdicts["sticky"]
    assert "stalled" not in verdicts["willing"]


def test_a_guest_that_stops_a_little_short_is_not_stuck() -> None:
    """Scenario g."""
    assert all("stalled" not in found for found in Outcome("g").verdicts.values())


def test_a_guest_that_cannot_grow_keeps_no_other_from_it() -> None:
    """Scenario h."""
    sizes = Outcome("h").sizes
    assert sizes["limited"] == 1500
    assert sizes["willing"] > 1650


Patch = pytest.MonkeyPatch


def _least_is_nothing(patch: Patch) -> None:
    patch.setattr(reach, "kept", lambda *_: Bytes(0))
    patch.setattr(commands, "_within", lambda _, size: Bytes(max(PAGE, size)))


def _leaps_down(patch: Patch) -> None:
    patch.setattr(reach, "step", lambda *_: Bytes(1 << 50))


def _revokes_at_once(patch: Patch) -> None:
    patch.setattr(allocation, "REVOKED_PERCENT", 100)


def _again_and_again(patch: Patch) -> None:
    patch.setattr(commands, "_is_told", lambda *_: False)


def _no_dead_band(patch: Patch) -> None:
    patch.setattr(progress, "band", lambda *_: Bytes(0))


def _no_reserve(patch: Patch) -> None:
    patch.setattr(host, "base_reserve", lambda *_: Bytes(0))


def _every_guest_gives(patch: Patch) -> None:
    patch.setattr(reach, "held_back", lambda case, _: "" if case.reading.actual is None else None)


def _no_cooling(patch: Patch) -> None:
    patch.setattr(reach, "is_cooling", lambda *_: False)


def _nothing_grows(patch: Patch) -> None:
    patch.setattr(reach, "is_growing", lambda _: False)


def _cache_is_worthless(patch: Patch) -> None:
    real = demand.estimate

    def estimate(reading: GuestReading, trend: GuestTrend, limits: Limits, now: float) -> Demand:
        return real(reading, replace(trend, cache=CacheTrend()), limits, now)

    patch.setattr(demand, "estimate", estimate)


def _all_deflate(patch: Patch) -> None:
    patch.setattr(reach, "LEFT_PERCENT", 0)


def _none_is(verdict: str) -> Callable[[Patch], None]:
    def switch(patch: Patch) -> None:
        real = behaviour.judge

        def judge(*seen: object) -> Judgement:
            found: Judgement = real(*seen)  # type: ignore[arg-type]
            return replace(found, verdict="normal") if found.verdict == verdict else found

        patch.setattr(behaviour, "judge", judge)

    switch.__name__ = f"_none_is_{verdict}"
    return switch


def _stalls_pass(patch: Patch) -> None:
    _none_is("stalled")(patch)
    _none_is("uncooperative")(patch)


def _forget(patch: Patch, rule: object) -> None:
    patch.setattr(goals, "_RULES", tuple(each for each in goals._RULES if each is not rule))


def _nothing_is_released(patch: Patch) -> None:
    _forget(patch, goals._release)


def _grants_are_forgotten(patch: Patch) -> None:
    patch.setattr(GuestTrend, "granted", property(lambda _: 0))


def _no_headroom(patch: Patch) -> None:
    patch.setattr(demand, "_headroom", lambda *_: Bytes(0))
    patch.setattr(demand, "little", lambda _: Bytes(0))


def _pauses_pass(patch: Patch) -> None:
    patch.setattr(engine, "_void_after_a_pause", lambda _, history, __: history)


def _holds_pass(patch: Patch) -> None:
    real = engine._round

    def round_(*seen: object) -> Round:
        found: Round = real(*seen)  # type: ignore[arg-type]
        return replace(found, hold=False)

    patch.setattr(engine, "_round", round_)


def _slow_growth(patch: Patch) -> None:
    real = commands.command

    def command(case: Case, goal: Goal, now: Round) -> Move:
        most = case.actual + case.limits.maximum // 100
        return real(case, replace(goal, size=min(goal.size, most)), now)

    patch.setattr(commands, "command", command)


def _mistakes_pass(patch: Patch) -> None:
    def assess_all(
        snapshot: Snapshot, history: History, keeper: Keeper
    ) -> tuple[list[Case], list[Explanation]]:
        readings = sorted(snapshot.guests, key=lambda reading: reading.id)
        known = history.guests
        return [keeper.assess(reading, known.get(reading.id), None) for reading in readings], []

    patch.setattr(engine, "_assess_all", assess_all)


def _habits_are_due(patch: Patch) -> None:
    """What is usual is taken from others, as what a guest needs now is."""
    real = goals._habit

    def habit(case: Case, now: Round) -> goals.Goal | None:
        found = real(case, replace(now, state="SLACK", plenty=1))
        return found and replace(found, kind="need", due=found.size - case.actual)

    _forget(patch, real)
    patch.setattr(goals, "_RULES", (habit, *goals._RULES))


GUARDS: Final[tuple[tuple[Callable[[Patch], None], Callable[..., object], int], ...]] = (
    (_least_is_nothing, laws.within_limits, 1),
    (_leaps_down, laws.steps_are_small, 2),
    (_revokes_at_once, laws.steps_are_small, 1),
    (_again_and_again, laws.steps_are_small, 23),
    (_no_dead_band, laws.small_changes_are_not_worth_it, 1),
    (_no_reserve, laws.only_what_is_there_is_given, 2),
    (_every_guest_gives, laws.what_is_not_known_is_not_taken, 0),
    (_every_guest_gives, laws.in_use_is_left, 8),
    (_no_cooling, laws.what_was_given_is_kept, 12),
    (_nothing_grows, laws.a_guest_that_grows_is_left, 2),
    (_cache_is_worthless, laws.in_use_is_left, 2),
    (_all_deflate, laws.a_guest_that_cannot_take_back_keeps_most, 0),
    (_none_is("grace"), laws.a_new_guest_gives_only_what_is_free, 2),
    (_stalls_pass, laws.a_guest_that_does_not_play_along_is_left, 0),
    (_none_is("foreign"), laws.a_guest_that_does_not_play_along_is_left, 47),
    (_nothing_is_released, laws.ResetReleases, 6),
    (_grants_are_forgotten, laws.only_what_is_there_is_given, 2),
    (_no_headroom, laws.in_use_is_left, 2),
    (_pauses_pass, laws.a_pause_voids_what_was_counted, 0),
    (_holds_pass, laws.holding_takes_nothing, 0),
    (_slow_growth, laws.NoGuestLacks, 37),
    (_habits_are_due, laws.what_is_usual_takes_nothing, 47),
)
"""What is switched off, the law that must notice, and the first host on which it does."""

HOSTS: Final = range(100)
"""Where to look for another host when the policy has changed, and the first one shows nothing."""


@pytest.mark.parametrize(("switch", "law", "seed"), GUARDS)
def test_a_law_notices_that_its_guard_is_gone(
    switch: Callable[[Patch], None], law: Callable[..., object], seed: int, monkeypatch: Patch
) -> None:
    for host_seed in (seed, *HOSTS):
        with monkeypatch.context() as patch:
            switch(patch)
            notices = _notices(law, host_seed)
        if notices and not _notices(law, host_seed):
            return
    pytest.fail(f"{laws.name_of(law)} notices nothing on any host")


def _notices(law: Callable[..., object], seed: int) -> bool:
    asked = cast("Law", law() if law in laws.LASTING else law)
    return any(True for seen in laws.rounds(laws.world(seed)) for _ in asked(seen))


def test_without_its_boundary_one_mistake_stops_all(monkeypatch: Patch) -> None:
    _mistakes_pass(monkeypatch)
    rounds = laws.rounds(laws.world(1))
    with pytest.raises(TypeError):
        [list(laws.a_mistake_freezes_one(seen)) for seen in rounds]


def test_reading_files_is_no_distress() -> None:
    files = Bytes(4 * GIB)
    reads = GuestSpec(id="reads", memory=Bytes(2 * GIB), load=_little(200), files=files)
    world = World(host=HostSpec(memory=Bytes(8 * GIB), own=_little(300)), guests=(reads,))
    found = {said.verdict for seen in laws.rounds(world) for said in seen.plan.guests}
    assert "distress" not in found


def test_a_host_is_not_left_in_critical_while_a_guest_has_more_than_its_share() -> None:
    liar = GuestSpec(
        id="liar",
        memory=Bytes(2 * GIB),
        load=_little(200),
        reports="high",
        touches_all=True,
        free_page_reporting=False,
    )
    steps = Steps(points=((0.0, Bytes(300 * MIB)), (100.0, Bytes(1500 * MIB))))
    honest = GuestSpec(id="honest", memory=Bytes(2 * GIB), load=steps, swap=Bytes(GIB))
    world = World(
        host=HostSpec(memory=Bytes(3300 * MIB), own=_little(200), swap=Bytes(2 * GIB)),
        guests=(liar, honest),
        config=Config(grace=20.0),
        seconds=200.0,
    )
    *_, last = laws.rounds(world)
    assert last.plan.state != "CRITICAL"


def _little(mib: int) -> Steady:
    return Steady(size=Bytes(mib * MIB))
