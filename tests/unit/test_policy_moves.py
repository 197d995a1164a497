"""decide(), in a loop closed by hand: guests that do as they are told, at once."""

from collections.abc import Iterator, Mapping

import pytest

from qmpmem.actions import Explanation, Plan
from qmpmem.config import Config, Rule
from qmpmem.policy import History, conduct, decide
from qmpmem.policy.moves import LEAST_STEP, STEPS
from qmpmem.records import replace
from qmpmem.sight import GuestSight, HostSight, Lease, Snapshot, Wishes
from qmpmem.units import GIB, MIB, Bytes

MAXIMUM = Bytes(GIB)
CONFIG = Config(reserve=Bytes(200 * MIB), grace=5.0)


class World:
    """A host and its guests. Sizes in MiB.

    A guest has touched all it has unless `touched` says less; its balloon moves at once.
    """

    def __init__(self, total: int, used: Mapping[str, int], config: Config = CONFIG) -> None:
        self.total = total
        self.used = dict(used)
        self.actual = dict.fromkeys(used, 1024)
        self.more: dict[str, dict[str, object]] = {name: {} for name in used}
        self.config = config
        self.history = History()
        self.time = 0.0
        self.wishes = Wishes()
        self.kept = 0
        """Taken by others on the host."""
        self.stuck: set[str] = set()
        """Whose balloons do not move."""

    @property
    def available(self) -> int:
        return max(0, self.total - self.kept - sum(self.actual.values()))

    def sight(self, name: str) -> GuestSight:
        size = Bytes(self.actual[name] * MIB)
        seen = GuestSight(
            id=name,
            state="running",
            maximum=MAXIMUM,
            actual=size,
            rss=size,
            cost=size,
            available=Bytes(max(0, self.actual[name] - self.used[name]) * MIB),
            age=0.5,
            swap_in=Bytes(0),
            oom_kills=0,
        )
        return replace(seen, **self.more[name])

    def look(self) -> Snapshot:
        host = HostSight(total=Bytes(self.total * MIB), available=Bytes(self.available * MIB))
        guests = tuple(self.sight(name) for name in self.used)
        return Snapshot(time=self.time, host=host, guests=guests, wishes=self.wishes)

    def step(self) -> Plan:
        self.time += 1
        plan, self.history = decide(self.look(), self.history, self.config)
        for change in plan.balloons:
            if change.guest not in self.stuck:
                self.actual[change.guest] = change.target // MIB
        return plan

    def run(self, seconds: int) -> list[Plan]:
        return [self.step() for _ in range(seconds)]


def told(plans: list[Plan]) -> set[str]:
    return {change.guest for plan in plans for change in plan.balloons}


def about(plan: Plan, guest: str) -> Explanation:
    return next(each for each in plan.guests if each.guest == guest)


def moves(plans: list[Plan], guest: str) -> Iterator[int]:
    for plan in plans:
        for change in plan.balloons:
            if change.guest == guest:
                yield change.target // MIB


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


def test_growth_never_eats_the_reserve() -> None:
    world = World(1500, {"a": 700, "b": 700})
    world.actual = {"a": 500, "b": 500}
    for _ in range(100):
        world.step()
        assert world.available >= 200 - 1


def test_nobody_is_taken_below_its_minimum() -> None:
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
    world.run(400)
    assert world.actual["a"] >= 1024 * percent // 100
    if total == 900:
        assert world.actual["a"] <= 1024 * percent // 100 + 1
    assert world.actual["b"] >= 358


def test_an_operator_may_pin_it_lower_all_the_same() -> None:
    world = World(4000, {"a": 10})
    world.more["a"] = {"deflates": False}
    world.wishes = Wishes(pins={"a": Bytes(400 * MIB)})
    world.run(200)
    assert world.actual["a"] == 400


def test_a_guest_is_not_given_more_than_its_own_cgroup_lets_it_have() -> None:
    world = World(16_000, {"a": 100, "b": 100})
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
    assert world.actual["a"] == 1024


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


def test_nobody_is_taken_below_what_it_works_with_while_others_have_more() -> None:
    world = World(1500, {"busy": 600, "idle": 50})
    for _ in range(100):
        world.step()
        assert world.actual["busy"] >= 600


def test_a_target_is_never_far_away() -> None:
    world = World(2200, {"a": 100, "b": 100})
    world.run(10)
    world.kept = 1000
    before = dict(world.actual)
    for _ in range(30):
        plan = world.step()
        most = max(LEAST_STEP, MAXIMUM // 10) * STEPS // MIB
        for change in plan.balloons:
            assert abs(change.target // MIB - before[change.guest]) <= most + 1
        before = dict(world.actual)


def test_a_guest_in_need_grows_faster() -> None:
    def grown(more: dict[str, object]) -> int:
        world = World(8000, {"a": 100})
        world.actual["a"] = 400
        world.run(6)
        world.used["a"] = 395
        world.more["a"] = more
        world.run(2)
        return world.actual["a"]

    assert grown({"oom_kills": 1}) > grown({}) > 400


def test_without_a_report_nothing_is_taken() -> None:
    world = World(1000, {"mute": 100})
    world.more["mute"] = {"available": None, "age": None}
    assert told(world.run(300)) == set()


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


def test_who_is_asked_first_gives_all_of_a_small_lack() -> None:
    """Else the next one is asked as well, for what the first was too small to be told."""
    world = World(2304, {"cheap": 100, "dear": 600})
    world.run(10)
    world.kept = world.available - 250 + 3
    assert told(world.run(3)) == {"cheap"}


def test_nobody_is_squeezed_for_one_that_is_not_helped() -> None:
    world = World(1964, {"odd": 100, "plain": 600})
    world.actual["plain"] = 750
    for kills in range(60):
        world.more["odd"] = {"exempt": "vfio", "oom_kills": kills}
        assert world.step().state == "SOFT"
        assert world.actual["plain"] >= 720


def test_what_others_say_does_not_matter() -> None:
    """One guest's nonsense changes nobody's decision but its own."""
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
    world.wishes = Wishes(pins={"a": Bytes(512 * MIB)})
    world.run(60)
    assert world.actual["a"] == 512
    world.wishes = Wishes(pins={"a": Bytes(10 * MIB)})
    world.run(200)
    assert world.actual["a"] == CONFIG.limits("a", MAXIMUM).minimum // MIB
    world.wishes = Wishes()
    world.run(60)
    assert world.actual["a"] == 1024


@pytest.mark.parametrize("sizes", [(1020, 1017, 1019), (600, 604, 598), (777,)])
def test_a_pin_is_reached_to_the_byte_however_near_it_is(sizes: tuple[int, ...]) -> None:
    world = World(16_000, {"a": 100})
    world.run(10)
    for size in sizes:
        world.wishes = Wishes(pins={"a": Bytes(size * MIB)})
        world.run(90)
        assert world.actual["a"] == size


def test_a_pinned_guest_gives_only_in_the_last_need() -> None:
    world = World(2600, {"a": 100, "b": 700})
    world.run(10)
    world.wishes = Wishes(pins={"a": Bytes(1024 * MIB)})
    world.kept = 400  # HARD, and b could give a little
    assert told(world.run(60)) == {"b"}
    world.kept = 620  # CRITICAL
    world.run(60)
    assert world.actual["a"] < 1024


def test_a_pin_does_not_wait_until_a_guest_has_cooled_down() -> None:
    world = World(16_000, {"a": 100})
    for size in (600, 900, 500):  # each much less than a minute after the last
        world.wishes = Wishes(pins={"a": Bytes(size * MIB)})
        world.run(30)
        assert world.actual["a"] == size


def test_what_holds_up_a_pin_is_said() -> None:
    world = World(16_000, {"a": 100, "b": 100})
    world.run(10)
    world.wishes = Wishes(pins={"a": Bytes(500 * MIB)}, hold=True)
    assert "all is held" in about(world.run(5)[-1], "a").reason
    world.wishes = Wishes(pins={"a": Bytes(500 * MIB)})
    world.run(30)
    world.wishes = Wishes(pins={"a": Bytes(900 * MIB)})
    world.kept = 16_000 - 500 - 1024 - 205  # 5 MiB to give
    last = world.step()
    assert (about(last, "a").bound, about(last, "a").target) == ("spare", None)


def test_hold_takes_nothing_and_still_gives() -> None:
    world = World(2200, {"a": 100, "b": 100})
    world.actual["b"] = 120
    world.wishes = Wishes(hold=True)
    world.kept = 300
    plans = world.run(60)
    assert world.actual["a"] == 1024
    assert list(moves(plans, "b"))[-1] >= CONFIG.limits("b", MAXIMUM).minimum // MIB - 1


def test_a_lease_makes_room_and_is_not_given_away() -> None:
    world = World(3000, {"a": 100, "b": 100})
    world.run(10)
    lease = Lease(id="l", owner="root", size=Bytes(1200 * MIB), until=1e9)
    world.wishes = Wishes(leases=(lease,))
    world.run(100)
    assert world.available >= 1400
    world.used["a"] = 900
    world.run(60)
    assert world.available >= 1399


def test_an_unmanaged_guest_is_never_told_anything() -> None:
    config = replace(CONFIG, rules=(Rule(match="db*", managed=False),))
    world = World(1500, {"db1": 100, "web": 100}, config)
    assert told(world.run(100)) == {"web"}


def test_after_a_pause_of_our_own_nobody_shrinks_at_once() -> None:
    world = World(2600, {"a": 100, "b": 100})
    world.run(20)
    world.time += 600
    world.kept = 600
    assert world.step().balloons == ()
    assert told(world.run(5)) != set()


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
    assert world.actual["a"] == 1024


def test_an_idle_guest_is_asked_for_a_little_before_anything_is_short() -> None:
    world = World(1350, {"a": 100})
    plans = world.run(400)
    assert plans[-1].state == "BALANCED"
    assert all(plan.state == "BALANCED" for plan in plans)
    steps = list(moves(plans, "a"))
    assert 15 <= 1024 - steps[0] <= 16
    assert len(steps) <= 400 / 60


def test_who_gives_idle_memory_is_not_sent_back_by_a_moment_without_lack() -> None:
    world = World(2300, {"a": 100, "b": 100})
    world.run(20)  # idle, and in nobody's way
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
    world.kept = 60
    world.stuck = set()
    assert told(world.run(3)) >= asked


def test_to_be_told_to_stay_is_no_gift_after_which_nothing_is_taken() -> None:
    world = World(2300, {"a": 100, "b": 100})
    world.run(20)
    [trend] = {trend for name, trend in world.history.guests.items() if name == "a"}
    stays = conduct.note_sent(trend, Bytes(1024 * MIB), world.time)
    assert (stays.grown, stays.asked_from, stays.target) == (None, None, 1024 * MIB)
    grows = conduct.note_sent(trend, Bytes(1100 * MIB), world.time)
    assert grows.grown == world.time


def test_who_uses_more_and_more_is_not_asked_before_the_host_is_in_need() -> None:
    world = World(2300, {"grows": 100, "idle": 100})
    world.run(20)
    world.kept, world.stuck = 80, {"idle"}  # so that there is a lack, again and again
    plans: list[Plan] = []
    for _ in range(4):
        world.used["grows"] += 60
        plans.append(world.step())
    assert {plan.state for plan in plans} == {"SOFT"}
    assert told(plans) == {"idle"}
    assert about(plans[-1], "grows").target is None
    assert "grows" in told(world.run(60))  # it uses no more than before: asked like any other


def test_who_grows_fast_is_not_held_back_because_it_gave_just_now() -> None:
    world = World(2300, {"gave": 100, "other": 100})
    world.run(20)
    world.kept = 100
    world.run(4)
    has = world.actual["gave"]
    assert has < 1024
    assert about(world.step(), "gave").bound != "cool-down"
    world.kept = -2000  # others went: there is plenty by now
    has = world.actual["gave"]
    world.used["gave"] = has * 86 // 100  # it wants more than it has, and is not full yet
    plan = world.step()
    assert (about(plan, "gave").target or 0) > has * MIB


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
        world.wishes = Wishes(pins={"g": Bytes(pin * MIB)})
    world.actual["g"] += moved
    assert about(world.step(), "g").verdict == "foreign"
    world.used["g"] = world.actual["g"] - 10
    plans = world.run(5)
    assert {about(plan, "g").verdict for plan in plans} == {"foreign"}
    assert (list(moves(plans, "g")) != []) == is_helped
