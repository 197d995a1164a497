"""What a short host reclaims of the cgroups of guests whose balloons give it nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model import obstacles
from qmpmem.model.config import Config, Rule
from qmpmem.model.guest import GuestStats
from qmpmem.model.observation import GuestReading, HostReading, OperatorRequests, Snapshot
from qmpmem.model.round import Plan
from qmpmem.policy import History, decide, progress, reclaim
from qmpmem.policy.cases import Case, Round
from qmpmem.policy.state import GuestTrend
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.readings import changed

GRACE: Final = 60.0
RESERVE: Final = 200
MINIMUM: Final = 300
Patch = pytest.MonkeyPatch


def mib(size: float) -> Bytes:
    """Return so many MiB in bytes."""
    return Bytes(int(size * MIB))


@dataclass
class World:
    """A host with one guest of 1 GiB that has no balloon, in a cgroup of its own. Sizes in MiB."""

    available: float = 100
    swap: float = 4000
    cost: float = 900
    hot: float = 400
    """What the guest touches all the time: what is reclaimed of it is read back."""
    locked: bool = False
    """Nothing comes free."""
    rules: tuple[Rule, ...] = (Rule(match="*", minimum=mib(MINIMUM)),)
    on: bool = True
    requests: OperatorRequests = field(default_factory=OperatorRequests)
    host: dict[str, object] = field(default_factory=dict[str, object])
    guest: dict[str, object] = field(default_factory=dict[str, object])
    others: tuple[GuestReading, ...] = ()
    time: float = 1000.0
    refaults: float = 0
    history: History = field(default_factory=History)

    def look(self) -> Snapshot:
        reading = GuestReading(
            id="a",
            state="running",
            maximum=Bytes(GIB),
            exempt=obstacles.NO_DEVICE,
            bare=True,
            way="reclaim",
            made=True,
            cost=mib(self.cost),
            refaults=mib(self.refaults),
            stalled=0,
        )
        host = HostReading(
            total=Bytes(8 * GIB),
            available=mib(self.available),
            swap_total=mib(4000 if self.swap else 0),
            swap_free=mib(self.swap),
            swap_in=Bytes(0),
        )
        return Snapshot(
            time=self.time,
            host=replace(host, **self.host),
            guests=(changed(reading, **self.guest), *self.others),
            requests=self.requests,
        )

    def step(self, seconds: float = 1.0) -> Plan:
        """Play one round; the host's kernel does as it is told at once."""
        config = Config(reserve=mib(RESERVE), grace=GRACE, rules=self.rules, reclaim=self.on)
        plan, self.history = decide(self.look(), self.history, config)
        for each in plan.reclaims:
            size = 0.0 if self.locked else each.size / MIB
            assert size <= self.swap
            self.cost -= size
            self.available += size
            self.swap -= size
        if self.cost < self.hot and not self.locked:
            missing = self.hot - self.cost
            self.refaults += missing
            self.cost += missing
            self.available -= missing
            self.swap += missing
        self.time += seconds
        return plan

    def settle(self) -> None:
        """Let the guest grow old, while the host has plenty."""
        short, self.available = self.available, 6000.0
        for seconds in (GRACE, GRACE, GRACE, 1.0):
            assert self.step(seconds).reclaims == ()
        self.available = short

    def play(self, seconds: int) -> list[Plan]:
        return [self.step() for _ in range(seconds)]


def settled(**more: object) -> World:
    world = World(**more)  # type: ignore[arg-type]
    world.settle()
    return world


def taken(plans: list[Plan]) -> list[float]:
    """Return what was reclaimed of the guest, round by round, in MiB."""
    return [sum(each.size for each in plan.reclaims) / MIB for plan in plans]


def test_a_short_host_reclaims_step_by_step_until_it_is_short_no_more() -> None:
    world = settled()
    plans = world.play(60)
    steps = [size for size in taken(plans) if size]
    assert max(steps) <= 2 * 0.06 * 1024 + 1
    assert world.available >= 1.55 * RESERVE, "no longer short"
    assert sum(steps) <= 1.6 * RESERVE - 100 + 1, "and no more than was lacking"
    begun = [number for number, plan in enumerate(plans) if plan.reclaims]
    assert min(b - a for a, b in pairwise(begun)) >= reclaim.PAUSE
    (first,) = (plan for plan in plans[: begun[0] + 1] if plan.reclaims)
    assert first.guests[0].reclaim == first.reclaims[0].size
    assert "reclaims" in first.guests[0].reason
    assert world.history.guests["a"].reclaim.rests == 0


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"available": 4000}, id="the host is not short"),
        pytest.param({"swap": 0}, id="no swap"),
        pytest.param({"swap": 950}, id="the swap is nearly full"),
        pytest.param({"cost": MINIMUM + 60, "hot": 0}, id="the guest has its minimum"),
        pytest.param({"on": False}, id="switched off"),
        pytest.param({"requests": OperatorRequests(hold=True)}, id="held"),
        pytest.param({"requests": OperatorRequests(pins={"a": Bytes(GIB)})}, id="pinned"),
        pytest.param({"rules": (Rule(match="a", managed=False),)}, id="not managed"),
        pytest.param({"rules": (Rule(match="a", reclaim=False),)}, id="not by its rule"),
        pytest.param({"host": {"available": None}}, id="it is not known what is available"),
        pytest.param({"host": {"full": 25.0, "some": 40.0}}, id="the host thrashes"),
        pytest.param({"guest": {"made": False}}, id="a cgroup that the launcher did not make"),
        pytest.param({"guest": {"way": None}}, id="no way"),
        pytest.param({"guest": {"state": "paused"}}, id="paused"),
        pytest.param({"guest": {"bare": False}}, id="exempt for another reason"),
        pytest.param({"guest": {"cost": None}}, id="it is not known what it costs"),
        pytest.param({"guest": {"maximum": None}}, id="its size is not known"),
        pytest.param({"guest": {"reclaiming": True}}, id="the step before is under way"),
    ],
)
def test_nothing_is_reclaimed(more: dict[str, object]) -> None:
    world = settled(**more)
    assert taken(world.play(30)) == [0] * 30


def test_a_host_that_swaps_in_reclaims_nothing() -> None:
    world = settled()
    read = 0
    assert world.step().reclaims, "before it does"
    for _ in range(30):
        read += 8 * MIB
        world.host = {"swap_in": Bytes(read)}
        assert world.step().reclaims == ()


def test_a_new_guest_is_left_alone() -> None:
    world = World()
    assert taken(world.play(int(GRACE) - 1)) == [0] * (int(GRACE) - 1)


def test_a_rule_allows_it_in_a_cgroup_that_was_found() -> None:
    rule = Rule(match="a", reclaim=True, minimum=mib(MINIMUM))
    world = settled(guest={"made": False}, rules=(rule,))
    assert sum(taken(world.play(30))) > 0


def silent(trend: GuestTrend) -> GuestTrend:
    return replace(trend, reports=0)


def uncooperative(trend: GuestTrend) -> GuestTrend:
    return replace(trend, reports=50, stalls=(995.0, 996.0, 997.0, 1240.0))


def stalled(trend: GuestTrend) -> GuestTrend:
    return replace(trend, reports=50, rest_until=1e6, backoff=reclaim.STALLS)


def stalled_once(trend: GuestTrend) -> GuestTrend:
    return replace(trend, reports=50, rest_until=1e6, backoff=1)


def stale(trend: GuestTrend) -> GuestTrend:
    return replace(trend, reports=50)


def ineffective(trend: GuestTrend) -> GuestTrend:
    return replace(trend, reports=50, ineffective=True)


@pytest.mark.parametrize(
    ("known", "age", "reclaims"),
    [
        (silent, None, True),
        (uncooperative, 0.5, True),
        (stalled, 0.5, True),
        (stalled_once, 0.5, False),
        (stale, 500.0, True),
        (ineffective, 0.5, True),
    ],
)
def test_a_guest_whose_balloon_gives_nothing(
    known: Callable[[GuestTrend], GuestTrend], age: float | None, *, reclaims: bool
) -> None:
    balloon: dict[str, object] = {
        "exempt": None,
        "bare": False,
        "actual": Bytes(GIB),
        "deflates": True,
        "available": mib(124),
        "age": age,
    }
    world = settled(guest=balloon, cost=900)
    trend = known(replace(world.history.guests["a"], born=0.0))
    world.history = replace(world.history, guests={"a": trend})
    assert bool(world.step().reclaims) is reclaims


def other(**more: object) -> GuestReading:
    """Return a guest with a balloon that has 600 MiB it does not use."""
    base = GuestReading(
        id="b",
        state="running",
        maximum=Bytes(GIB),
        actual=Bytes(GIB),
        deflates=True,
        cost=mib(1000),
        rss=mib(1000),
        stats=GuestStats(
            available=mib(800),
            free=mib(800),
            disk_caches=Bytes(0),
            swap_in=Bytes(0),
            major_faults=0,
        ),
        age=0.0,
    )
    return changed(base, **more)


@pytest.mark.parametrize(
    ("available", "reclaims"), [(800, False), (20, True)], ids=["it does", "it has nothing idle"]
)
def test_balloons_come_first(available: int, *, reclaims: bool) -> None:
    world = settled(others=(other(available=mib(available)),))
    assert bool(taken(world.play(4))[0]) is reclaims


def test_a_guest_that_reads_back_is_left_alone_for_longer_and_longer() -> None:
    world = settled(hot=880, available=0)
    at = [number for number, plan in enumerate(world.play(600)) if plan.reclaims]
    rests = [after - before for before, after in pairwise(at) if after - before > 9]
    assert rests[0] >= reclaim.REST - 1
    assert rests == sorted(rests)
    assert rests[-1] >= 3 * rests[0]
    assert world.refaults < 300, "of 600 s in which it was short"
    assert "read back" in world.history.guests["a"].reclaim.why


def test_why_nothing_is_reclaimed_is_said() -> None:
    world = settled(available=0)
    assert world.step().reclaims
    world.guest = {"stalled": 500_000}
    (said,) = world.step().guests
    assert "for now, because it waited for memory" in said.reason
    assert said.reclaim is None


def test_where_nothing_comes_free_it_is_not_tried_all_the_time() -> None:
    world = settled(locked=True)
    assert len([size for size in taken(world.play(600)) if size]) <= 5


def test_what_hurts_is_not_what_was_long_ago() -> None:
    world = settled(available=0)
    assert world.step().reclaims
    world.available = 4000
    world.play(15)
    world.guest = {"stalled": 50_000_000}
    world.available = 0
    assert sum(taken(world.play(60))) > 0


@given(
    world=st.fixed_dictionaries(
        {
            "available": st.integers(0, 600),
            "swap": st.integers(0, 4000),
            "cost": st.integers(64, 1100),
            "hot": st.integers(0, 900),
            "locked": st.booleans(),
        }
    ),
    minimum=st.integers(32, 1024),
)
def test_laws(world: dict[str, int], minimum: int) -> None:
    hot = min(world["hot"], world["cost"])
    _laws(
        settled(**world | {"hot": hot, "rules": (Rule(match="*", minimum=mib(minimum)),)}), minimum
    )


def _laws(world: World, minimum: int) -> None:
    for _ in range(90):
        before = replace(world.look())
        plan = world.step()
        size = sum(each.size for each in plan.reclaims)
        if not size:
            continue
        held = before.guests[0].cost or 0
        assert held - size >= min(minimum, 1024) * MIB, "its minimum"
        assert plan.state not in ("SLACK", "BALANCED"), "the host is short"
        assert size <= 1.6 * RESERVE * MIB - (before.host.available or 0) + 1, "what it lacks"
        assert (before.host.swap_free or 0) - size >= 1000 * MIB, "swap is left"


# Guards that make a scene go another way where they are switched off.


def _no_floor(patch: Patch) -> None:
    def room(case: Case) -> int:
        return case.reading.cost or 0

    patch.setattr(reclaim, "room", room)


def the_minimum_is_left() -> bool:
    world = settled(hot=0, available=0, cost=500)
    world.play(120)
    return world.cost >= MINIMUM


def _nothing_hurts(patch: Patch) -> None:
    def hurt(*_: object) -> None:
        return None

    patch.setattr(reclaim, "_hurt", hurt)


def a_guest_that_waits_is_left() -> bool:
    world = settled(available=0)
    world.step()
    world.guest = {"stalled": 500_000}
    return not any(taken(world.play(50)))


def _all_is_fruitful(patch: Patch) -> None:
    def is_fruitless(*_: object) -> bool:
        return False

    patch.setattr(reclaim, "_is_fruitless", is_fruitless)


def it_is_not_tried_in_vain() -> bool:
    return len([size for size in taken(settled(locked=True).play(300)) if size]) <= 5


def _no_pause(patch: Patch) -> None:
    patch.setattr(reclaim, "PAUSE", 0.0)


def steps_are_some_time_apart() -> bool:
    return len([size for size in taken(settled(available=0).play(6)) if size]) <= 2


def _balloons_give_nothing(patch: Patch) -> None:
    def lack(_: object, now: Round) -> int:
        return now.lacks["idle"]

    patch.setattr(reclaim, "_lack", lack)


def what_balloons_give_is_not_reclaimed() -> bool:
    return not any(taken(settled(others=(other(),)).play(4)))


def _boots_at_once(patch: Patch) -> None:
    patch.setattr(progress, "BOOTS", 0.0)


def a_driver_may_come_late() -> bool:
    world = World(guest={"exempt": None, "bare": False, "actual": Bytes(GIB)})
    return not any(taken(world.play(int(progress.BOOTS or GRACE + 30) - 1)))


@pytest.mark.parametrize(
    ("holds", "switch"),
    [
        (the_minimum_is_left, _no_floor),
        (a_guest_that_waits_is_left, _nothing_hurts),
        (it_is_not_tried_in_vain, _all_is_fruitful),
        (steps_are_some_time_apart, _no_pause),
        (what_balloons_give_is_not_reclaimed, _balloons_give_nothing),
        (a_driver_may_come_late, _boots_at_once),
    ],
)
def test_a_scene_goes_another_way_without_its_guard(
    holds: Callable[[], bool], switch: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    assert holds(), "with its guard"
    switch(monkeypatch)
    assert not holds(), "without its guard"
