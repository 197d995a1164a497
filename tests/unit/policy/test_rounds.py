"""decide(), in a loop closed by hand: guests that do as they are told, at once."""

import pytest

from qmpmem.model.config import Rule
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import Lease, OperatorRequests
from qmpmem.policy import decide, progress
from qmpmem.policy.reach import DOWN_PERCENT, LEAST_STEP, STEPS
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from tests.rig.policy import CONFIG, World, about, limits, moves, told

MAXIMUM = Bytes(1024 * MIB)


def test_where_there_is_plenty_nothing_is_taken() -> None:
    world = World(16_000, {"a": 100, "b": 900})
    assert told(world.run(300)) == set()


def test_a_short_host_takes_from_the_idle_and_not_from_the_busy() -> None:
    world = World(2200, {"busy": 800, "idle": 100})
    plans = world.run(60)
    assert world.actual["idle"] < 1000
    assert world.actual["busy"] >= 900
    assert world.available >= 200
    assert plans[-1].balloons == ()


def test_a_burst_is_served_from_idle_neighbours() -> None:
    world = World(1900, {"burst": 100, "one": 100, "two": 100})
    world.actual = {"burst": 300, "one": 600, "two": 600}
    world.run(20)
    world.used["burst"] = 700
    plans = world.run(60)
    assert world.actual["burst"] >= 764
    assert max(len(plan.balloons) for plan in plans) <= 3
    assert all(world.actual[name] >= 164 for name in world.used)


def test_growth_never_eats_more_than_half_the_reserve_however_much_guests_suffer() -> None:
    world = World(1500, {"a": 700, "b": 700})
    world.actual = {"a": 500, "b": 500}
    for _ in range(100):
        world.step()
        assert world.available >= 200 // 2


def test_what_a_guest_wants_and_does_not_suffer_without_never_comes_out_of_the_reserve() -> None:
    world = World(1500, {"a": 430, "b": 430})
    world.actual = {"a": 500, "b": 500}
    world.run(60)
    assert told([world.step()]) == set()
    world.total = 1210
    for _ in range(100):
        world.step()
        assert world.available >= 200


def test_no_guest_is_taken_below_its_minimum() -> None:
    world = World(900, {"a": 10, "b": 10})
    world.run(200)
    least = CONFIG.limits("a", MAXIMUM).minimum // MIB
    assert min(world.actual.values()) >= least


@pytest.mark.parametrize("total", [900, 1900, 2300])
@pytest.mark.parametrize(("deflates", "percent"), [(True, 35), (None, 35), (False, 75)])
def test_what_cannot_take_memory_back_by_itself_is_left_more(
    total: int,
    deflates: bool | None,  # noqa: FBT001 - a column of the table
    percent: int,
) -> None:
    world = World(total, {"a": 10, "b": 10})
    world.more["a"] = {"deflates": deflates}
    world.run(150)
    assert world.actual["a"] >= 1024 * percent // 100
    if total == 900:
        assert world.actual["a"] <= 1024 * percent // 100 + 1 + progress.band(limits(1024)) // MIB
    assert world.actual["b"] >= 358


def test_an_operator_may_pin_it_lower_all_the_same() -> None:
    world = World(4000, {"a": 10})
    world.more["a"] = {"deflates": False}
    world.requests = OperatorRequests(pins={"a": Bytes(400 * MIB)})
    world.run(200)
    assert world.actual["a"] == 400


def test_a_guest_is_not_given_more_than_its_own_cgroup_lets_it_have() -> None:
    world = World(16_000, {"a": 2000, "b": 2000})
    world.actual = {"a": 400, "b": 400}
    world.more["a"] = {"ceiling": Bytes(600 * MIB)}
    plan = world.run(200)[-1]
    assert (world.actual["a"], world.actual["b"]) == (600, 1024)
    assert "its cgroup lets it have no more than 600 MiB" in about(plan, "a").reason
    assert "cgroup" not in about(plan, "b").reason


def test_a_guest_in_need_stays_within_its_cgroup_and_one_with_more_keeps_that() -> None:
    world = World(16_000, {"a": 590})
    world.actual = {"a": 600}
    world.more["a"] = {"ceiling": Bytes(512 * MIB)}
    for second in range(60):
        world.more["a"] = world.more["a"] | {"swap_in": Bytes(second * 64 * MIB)}
        world.step()
    assert world.actual["a"] == 600
    world.more["a"] = {"ceiling": Bytes(2048 * MIB)}
    world.run(60)
    assert 708 <= world.actual["a"] <= 1024


def test_memory_that_is_plugged_in_or_put_online_moves_nothing() -> None:
    world = World(16_000, {"a": 600})
    world.actual = {"a": 700}
    world.run(100)
    world.total += 256
    world.actual = {"a": world.actual["a"] + 256}
    world.more["a"] = {"maximum": Bytes((1024 + 256) * MIB)}
    plan = world.step()
    assert about(plan, "a").verdict == "normal"
    world.actual = {"a": world.actual["a"] - 256}
    assert about(world.step(), "a").verdict == "foreign"


def test_no_guest_is_taken_below_what_it_works_with_while_others_have_more() -> None:
    world = World(1500, {"busy": 600, "idle": 50})
    for _ in range(100):
        world.step()
        assert world.actual["busy"] >= 600


def test_a_target_is_never_far_away() -> None:
    world = World(2200, {"a": 100, "b": 100})
    world.run(10)
    states = set()
    for kept in (0, 100, 200, 300, 400, 600, 900):
        world.kept = kept
        for _ in range(3):
            before = dict(world.actual)
            plan = world.step()
            states.add(plan.state)
            most = max(LEAST_STEP, MAXIMUM * DOWN_PERCENT[plan.state] // 100) * STEPS // MIB
            for change in plan.balloons:
                assert before[change.guest] - change.target // MIB <= most + 1
    assert len(states) >= 3


def grown(more: dict[str, object], used: int = 395) -> int:
    """Return what a guest of 400 MiB has two seconds after it began to use so much."""
    world = World(8000, {"a": 100})
    world.actual["a"] = 400
    world.run(6)
    world.used["a"] = used
    world.more["a"] = more
    world.run(2)
    return world.actual["a"]


def test_a_guest_that_fills_up_is_given_more_and_more_at_once() -> None:
    assert grown({}) > 395 * 120 // 100
    assert grown({}, used=300) == 400
    assert grown({"oom_kills": 1}) > 395 * 120 // 100


def test_a_guest_in_distress_is_given_no_less_than_one_that_is_full() -> None:
    assert grown({"oom_kills": 1}) >= grown({})


def test_without_a_report_nothing_is_taken() -> None:
    world = World(1000, {"mute": 100})
    world.more["mute"] = {"available": None, "age": None}
    plans = world.run(300)
    assert told(plans) == set()
    (first,), (last,) = plans[0].guests, plans[-1].guests
    assert (first.verdict, last.verdict) == ("grace", "stale"), "it is not new for ever"
    assert last.reason == "it does not report what it uses"


@pytest.mark.parametrize(
    "more",
    [
        {"exempt": "vfio"},
        {"state": "paused"},
        {"implausible": True},
        {"actual": None},
        {"age": 99.0},
        {"state": "busy"},
    ],
)
def test_hands_off(more: dict[str, object]) -> None:
    world = World(2100, {"odd": 100, "plain": 100})
    world.run(3)
    world.more["odd"] = more
    plans = world.run(100)
    assert "odd" not in told(plans)
    assert "plain" in told(plans)


def test_a_balloon_that_does_not_move_is_told_to_stay_also_at_its_maximum() -> None:
    """The driver would try to inflate it five times a second for ever."""
    world = World(1200, {"odd": 100})
    world.stuck = {"odd"}
    plans = world.run(40)
    assert about(plans[-1], "odd").verdict == "stalled"
    first, *_, last = moves(plans, "odd")
    assert first < last == 1024


def test_a_guest_that_took_memory_back_in_need_is_told_to_keep_it() -> None:
    """QEMU has the old target, to which its driver would go back as soon as it can."""
    world = World(2100, {"eats": 100, "plain": 800})
    world.run(30)
    size = world.actual["eats"]
    assert size < 1000
    world.kept = world.available
    world.used["eats"] = size - 1
    assert "eats" not in told(world.run(1))
    world.used["eats"] = world.actual["eats"] = size + 60
    [told_it] = [each for each in world.step().balloons if each.guest == "eats"]
    assert told_it.target == (size + 60) * MIB


def test_the_guest_that_is_asked_first_gives_all_of_a_small_lack() -> None:
    """Else the next one is asked as well, for what the first was too small to be told."""
    world = World(2304, {"cheap": 100, "dear": 600})
    world.run(10)
    world.kept = world.available - 240
    world.run(3)
    assert world.step().state == "SOFT"
    world.kept += world.available - 320 + 3
    before = dict(world.actual)
    assert told([world.step()]) == {"cheap"}
    assert world.actual["cheap"] == before["cheap"] - 8


def test_no_guest_is_squeezed_for_one_that_is_not_helped() -> None:
    def plain(kills: int) -> list[int]:
        world = World(1964, {"odd": 100, "plain": 600})
        world.actual["plain"] = 750
        sizes = []
        for second in range(60):
            world.more["odd"] = {"exempt": "vfio", "oom_kills": second * kills}
            assert world.step().state == "SOFT"
            sizes.append(world.actual["plain"])
        return sizes

    assert plain(1) == plain(0)


def test_what_others_say_does_not_matter() -> None:
    """One guest's nonsense changes no decision but its own."""
    plain = World(2100, {"odd": 100, "plain": 100})
    mad = World(2100, {"odd": 100, "plain": 100})
    for world in (plain, mad):
        world.more["odd"] = {"exempt": "passed-through device"}
    mad.more["odd"] |= {"available": Bytes(1 << 60), "swap_in": Bytes(1 << 61), "age": -5.0}
    assert [plan.balloons for plan in plain.run(60)] == [plan.balloons for plan in mad.run(60)]


def test_an_exception_freezes_that_guest_only() -> None:
    world = World(2100, {"odd": 100, "plain": 100})
    world.more["odd"] = {"available": "much"}
    plans = world.run(60)
    assert about(plans[-1], "odd").verdict == "frozen"
    assert told(plans) == {"plain"}
    warned = next(plan for plan in plans if plan.warnings)
    assert warned.warnings[0].startswith("guest odd: frozen")


def test_a_pin_is_kept_within_limits() -> None:
    world = World(16_000, {"a": 100})
    world.requests = OperatorRequests(pins={"a": Bytes(512 * MIB)})
    world.run(60)
    assert world.actual["a"] == 512
    world.requests = OperatorRequests(pins={"a": Bytes(10 * MIB)})
    world.run(200)
    assert world.actual["a"] == CONFIG.limits("a", MAXIMUM).minimum // MIB
    world.requests = OperatorRequests()
    assert told(world.run(60)) == set()  # it has what it needs


@pytest.mark.parametrize("sizes", [(1020, 1017, 1019), (600, 604, 598), (777,)])
def test_a_pin_is_reached_to_the_byte_however_near_it_is(sizes: tuple[int, ...]) -> None:
    world = World(16_000, {"a": 100})
    world.run(10)
    for size in sizes:
        world.requests = OperatorRequests(pins={"a": Bytes(size * MIB)})
        world.run(90)
        assert world.actual["a"] == size


def test_a_pinned_guest_gives_only_in_the_last_need() -> None:
    world = World(2600, {"a": 100, "b": 700})
    world.run(10)
    world.requests = OperatorRequests(pins={"a": Bytes(1024 * MIB)})
    world.kept = 400  # HARD, and b could give a little
    assert told(world.run(60)) == {"b"}
    world.kept = 900  # CRITICAL, and b has given all it can
    assert world.run(60)[0].state == "CRITICAL"
    assert world.actual["a"] < 1024


def test_a_pin_does_not_wait_until_a_guest_has_cooled_down() -> None:
    world = World(16_000, {"a": 100})
    for size in (600, 900, 500):  # each much less than a minute after the last
        world.requests = OperatorRequests(pins={"a": Bytes(size * MIB)})
        world.run(30)
        assert world.actual["a"] == size


def test_what_holds_up_a_pin_is_said() -> None:
    world = World(16_000, {"a": 100, "b": 100})
    world.run(10)
    world.requests = OperatorRequests(pins={"a": Bytes(500 * MIB)}, hold=True)
    assert "all is held" in about(world.run(5)[-1], "a").reason
    world.requests = OperatorRequests(pins={"a": Bytes(500 * MIB)})
    world.run(30)
    world.requests = OperatorRequests(pins={"a": Bytes(900 * MIB)})
    world.kept = 16_000 - 500 - 1024 - 200  # nothing to give
    last = world.step()
    assert (about(last, "a").bound, about(last, "a").target) == ("spare", None)


def test_hold_takes_nothing_and_still_gives() -> None:
    world = World(2200, {"a": 100, "b": 100})
    world.actual["b"] = 120
    world.requests = OperatorRequests(hold=True)
    world.kept = 300
    plans = world.run(60)
    assert world.actual["a"] == 1024
    assert list(moves(plans, "b"))[-1] >= CONFIG.limits("b", MAXIMUM).minimum // MIB - 1


def test_a_lease_makes_room_and_is_not_given_away() -> None:
    world = World(3000, {"a": 100, "b": 100})
    world.run(10)
    lease = Lease(id="l", owner="root", size=Bytes(1200 * MIB), until=1e9)
    world.requests = OperatorRequests(leases=(lease,))
    world.run(100)
    assert world.available >= 1400
    world.used["a"] = 900
    world.run(60)
    assert world.available >= 1399


def test_an_unmanaged_guest_is_never_told_anything() -> None:
    config = replace(CONFIG, rules=(Rule(match="db*", managed=False),))
    world = World(1500, {"db1": 100, "web": 100}, config)
    assert told(world.run(100)) == {"web"}


@pytest.mark.parametrize("pause", [3.5, 600.0])
def test_after_a_pause_of_our_own_a_short_host_takes_at_once(pause: float) -> None:
    """On a host that thrashes the agent runs slowly: it acts on what it knows."""
    world = World(2600, {"a": 100, "b": 100})
    world.run(20)
    world.kept = 600
    plans = [world.step(pause) for _ in range(20)]
    assert told(plans[:2]) == {"a", "b"}
    assert world.available >= 320


def test_a_plan_that_was_carried_out_leaves_nothing_to_do() -> None:
    world = World(2100, {"a": 100, "b": 100})
    for _ in range(60):
        world.step()
        again, _ = decide(world.look(), world.history, world.config)
        assert again.balloons == ()


def test_shrinks_are_sent_first() -> None:
    world = World(1700, {"burst": 100, "one": 100, "two": 100})
    world.actual = {"burst": 300, "one": 600, "two": 600}
    world.run(20)
    world.used["burst"] = 900
    for _ in range(30):
        sizes = dict(world.actual)
        plan = world.step()
        grows = [change.target // MIB >= sizes[change.guest] for change in plan.balloons]
        assert grows == sorted(grows)


def test_after_a_reset_a_guest_gets_its_memory_back() -> None:
    world = World(2500, {"a": 100, "b": 100})
    world.actual = {"a": 400, "b": 400}
    world.run(10)
    world.more["a"] = {"epoch": 1}
    world.run(3)
    assert world.actual["a"] >= 1023


@pytest.mark.parametrize(("total", "state"), [(1350, "BALANCED"), (1800, "SLACK")])
def test_nothing_is_taken_before_anything_is_short(total: int, state: str) -> None:
    world = World(total, {"a": 100})
    plans = world.run(400)
    assert {plan.state for plan in plans} == {state}
    assert told(plans) == set()


def test_a_guest_that_gives_idle_memory_is_not_sent_back_by_a_moment_without_lack() -> None:
    world = World(2300, {"a": 100, "b": 100})
    world.run(20)  # idle, and in no other guest's way
    world.kept = 12
    world.stuck = {"a", "b"}
    first = world.step()
    assert first.state == "SOFT"
    asked = told([first])
    assert asked
    world.kept = 0  # for a moment there is just enough; the host is not at ease for that
    between = world.step()
    assert between.state == "SOFT"
    assert not told([between])
    assert {name for name, trend in world.history.guests.items() if trend.shrinking} == asked


def test_to_be_told_to_stay_is_no_gift_after_which_nothing_is_taken() -> None:
    world = World(2300, {"a": 100, "b": 100})
    world.run(20)
    [trend] = {trend for name, trend in world.history.guests.items() if name == "a"}
    has = Bytes(1024 * MIB)
    stays = progress.note_sent(trend, has, has, has, world.time)
    assert (stays.raised, stays.phase, stays.target) == (None, None, has)
    grows = progress.note_sent(trend, has, has, Bytes(1100 * MIB), world.time)
    assert grows.raised == world.time


def test_a_guest_that_uses_more_and_more_is_not_asked_before_the_host_is_in_need() -> None:
    world = World(2300, {"grows": 100, "idle": 100})
    world.run(20)
    world.kept, world.stuck = 80, {"idle"}  # so that there is a lack, again and again
    plans = []
    for _ in range(4):
        world.used["grows"] += 60
        plans.append(world.step())
    assert {plan.state for plan in plans} == {"SOFT"}
    assert told(plans) == {"idle"}
    assert about(plans[-1], "grows").target is None
    assert "grows" in told(world.run(60))  # it uses no more than before: asked like any other


@pytest.mark.parametrize(("percent", "grows"), [(93, False), (97, True)])
def test_a_guest_that_gave_just_now_is_given_back_only_what_it_lacks(
    *, percent: int, grows: bool
) -> None:
    world = World(2300, {"gave": 100, "other": 100})
    world.run(20)
    world.kept = 100
    world.run(4)
    world.kept = -4000  # others went: there is plenty by now
    has = world.actual["gave"]
    assert has < 1024
    world.used["gave"] = has * percent // 100  # it wants more than it has
    world.run(2)
    assert (world.actual["gave"] > has) == grows
    world.run(40)
    assert world.actual["gave"] > has


@pytest.mark.parametrize(
    ("moved", "pin", "is_helped"), [(80, None, True), (-80, None, False), (80, 680, False)]
)
def test_a_guest_that_may_have_helped_itself_is_given_what_it_lacks(
    *, moved: int, pin: int | None, is_helped: bool
) -> None:
    world = World(1000, {"g": 300})
    world.actual["g"] = 600
    world.run(20)
    assert world.actual["g"] == 600
    if pin is not None:
        world.requests = OperatorRequests(pins={"g": Bytes(pin * MIB)})
    world.actual["g"] += moved
    assert about(world.step(), "g").verdict == "foreign"
    world.used["g"] = world.actual["g"] - 10
    plans = world.run(5)
    assert {about(plan, "g").verdict for plan in plans} == {"foreign"}
    assert (list(moves(plans, "g")) != []) == is_helped


class TestShares:
    """A guest that says it is full keeps no more than its share where another one suffers."""

    def world(self, **more: object) -> World:
        world = World(2600, {"liar": 2000, "honest": 700}, maximum=2048)
        world.actual = {"liar": 1900, "honest": 720}
        world.more["liar"] = dict(more)
        world.run(10)
        return world

    def test_what_it_has_beyond_that_is_revoked(self) -> None:
        world = self.world()
        world.used["honest"] = 1400
        world.run(120)
        fair = about(world.step(), "honest").entitlement
        assert fair is not None
        assert world.actual["honest"] >= fair * 85 // 100 // MIB
        assert world.available >= 0

    def test_it_is_not_given_back_while_the_other_suffers(self) -> None:
        world = self.world()
        world.used["honest"] = 1400
        sizes = world.sizes("honest", 300)
        fair = about(world.step(), "honest").entitlement
        assert fair is not None
        assert min(sizes[200:]) >= fair * 95 // 100 // MIB

    def test_not_from_one_that_could_not_take_it_back(self) -> None:
        world = self.world(deflates=False)
        world.used["honest"] = 1400
        world.run(120)
        assert world.actual["liar"] >= 1900

    def test_nothing_is_revoked_where_all_have_what_they_need(self) -> None:
        world = World(2800, {"liar": 2000, "honest": 700}, maximum=2048)
        world.actual = {"liar": 1900, "honest": 720}
        assert "revoke" not in {change.kind for plan in world.run(200) for change in plan.balloons}


class TestOthersAreNotSqueezed:
    """What looks like distress, and is none, takes nothing from others."""

    @pytest.mark.parametrize("counter", ["swap_in", "oom_kills", "major_faults", "alloc_stalls"])
    def test_for_a_guest_in_which_much_is_available(self, counter: str) -> None:
        def sizes(each: int) -> list[dict[str, int]]:
            world = World(1900, {"odd": 300, "one": 500, "two": 500})
            world.actual = {"odd": 500, "one": 640, "two": 640}
            found = []
            for second in range(120):
                world.more["odd"] = {counter: Bytes(each * second)}
                world.step()
                found.append(dict(world.actual))
            return found

        each = 64 * MIB if counter == "swap_in" else 500
        assert sizes(each) == sizes(0)


def test_over_a_pause_of_our_own_no_rate_is_taken() -> None:
    """A counter that went up by much in ten minutes says nothing of the last second."""
    for pause, verdict in ((1.0, "distress"), (600.0, "normal")):
        world = World(2300, {"a": 560})
        world.actual["a"] = 700
        world.run(20)
        world.used["a"] = 690
        world.more["a"] = {"major_faults": 40_000}
        assert about(world.step(pause), "a").verdict == verdict


class TestDebt:
    """What merging saves can be lost at once."""

    def world(self, debt: int) -> World:
        world = World(3000, {"a": 100, "b": 100})
        world.ksm = KsmState(
            page_size=Bytes(4096),
            run=1,
            pages_sharing=debt * MIB // 4096,
        )
        return world

    @pytest.mark.parametrize(("debt", "gives"), [(0, False), (1000, False), (9000, True)])
    def test_where_it_is_not_covered_guests_give(self, debt: int, *, gives: bool) -> None:
        world = self.world(debt)
        plans = world.run(60)
        assert (told(plans) != set()) is gives
        if gives:
            assert plans[0].state == "SOFT"


@pytest.mark.parametrize("size", [256, 1024, 4096, 65536])
class TestAnySize:
    def world(self, size: int, percent: int, used: int = 30) -> World:
        """Return a host with so many percent of what its three guests may have together."""
        total = 3 * size * percent // 100
        config = replace(CONFIG, reserve=Bytes(size // 5 * MIB))
        return World(total, dict.fromkeys(("a", "b", "c"), size * used // 100), config, size)

    @pytest.mark.parametrize("percent", [75, 90, 105, 120, 300])
    def test_constant_demand_settles(self, size: int, percent: int) -> None:
        world = self.world(size, percent)
        world.run(90)
        assert told(world.run(60)) == set()
        assert world.available >= size // 5

    def test_a_burst_is_served_within_seconds(self, size: int) -> None:
        world = self.world(size, 90)
        world.run(90)
        world.used["a"] = size * 80 // 100
        world.run(10)
        assert world.actual["a"] >= size * 80 // 100

    def test_no_guest_is_left_full(self, size: int) -> None:
        world = self.world(size, 90)
        for percent in (30, 50, 70, 50, 30):
            for name in ("a", "b"):
                world.used[name] = size * percent // 100
            world.run(30)
            for name, used in world.used.items():
                assert world.actual[name] >= used + min(size // 20, 64)


class TestPositions:
    def world(self, free: int | None) -> World:
        world = World(4000, dict.fromkeys(("a", "b", "c", "d", "e", "f"), 200))
        for name in world.used:
            more: dict[str, object] = {"cost": Bytes(600 * MIB), "deflates": True}
            world.more[name] = more | ({} if free is None else {"free": Bytes(free * MIB)})
        world.kept = -4000
        return world

    def test_free_memory_goes_into_balloons_where_guests_could_touch_more_than_there_is(
        self,
    ) -> None:
        world = self.world(700)
        world.kept = -2800  # 600 MiB are there, and guests could touch 2400 more
        plans = world.run(20)
        assert {change.kind for plan in plans for change in plan.balloons} >= {"position"}
        assert all(world.actual[name] >= 200 + 64 for name in world.used)

    def test_not_where_all_could_be_touched(self) -> None:
        world = self.world(700)
        world.kept = -9000
        assert told(world.run(60)[10:]) == set()


def test_what_is_granted_or_kept_for_a_guest_that_starts_is_not_spare() -> None:
    world = World(4000, {"a": 395})
    world.actual["a"] = 400
    world.more["a"] = {"cost": Bytes(400 * MIB)}  # it touches nothing of what it is given
    before = world.step().spare
    assert before == (4000 - 400 - 200) * MIB
    world.run(5)
    given = world.actual["a"] - 400
    assert given > 0
    world.kept = -given
    assert world.step().spare == before - given * MIB
    lease = Lease(id="l", owner="root", size=Bytes(1000 * MIB), until=1e9)
    world.requests = OperatorRequests(leases=(lease,))
    assert world.step().spare == before - (given + 1000) * MIB


def test_while_a_guest_suffers_others_that_fill_up_are_given_what_they_need_only() -> None:
    def given(kills: int) -> int:
        world = World(3000, {"hurt": 1010, "fills": 300})
        world.actual["fills"] = 500
        world.run(1)
        world.kept = world.available - 600
        world.used["fills"] = 470
        world.more["hurt"] = {"oom_kills": kills}
        world.step()
        return world.actual["fills"]

    assert 500 < given(1) < given(0)
