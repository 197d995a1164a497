"""The agent's rounds, with guests that are not there: what is seen, told, survived and said."""

import asyncio
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from qmpmem.agent.leases import Wanted
from qmpmem.model.config import Config
from qmpmem.model.round import SetBalloon, Tick
from qmpmem.records import replace
from qmpmem.units import MIB, PAGE, Bytes
from tests.rig.agent_scenarios import TIGHT, is_seen, play
from tests.rig.clock import VirtualLoop
from tests.rig.fakeguest import FakeGuest, FakeHost
from tests.rig.invariants import Watched
from tests.rig.memory import memory_directory


def test_guests_are_seen_and_left_alone_while_there_is_plenty() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a", "b"))
        await seen.rounds(100)
        assert seen.targets == []
        reading = seen.reading("a")
        assert reading is not None
        assert (reading.maximum, reading.actual) == (512 * MIB, 512 * MIB)
        assert reading.stats.available == 412 * MIB
        assert reading.age is not None
        assert reading.age < 11
        assert not host.guests["a"].balloons

    play(scene, "a", "b")


def test_what_a_guest_uses_is_what_it_used_when_it_reported() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.rounds(30)
        guest = host.guests["a"]
        guest.reports = False
        guest.have(300)
        guest.event("BALLOON_CHANGE", {"actual": 300 * MIB})
        await seen.rounds(2)
        reading = seen.reading("a")
        assert reading is not None
        assert (reading.actual, reading.stats.available) == (300 * MIB, 200 * MIB)
        shown = seen.agent.guests["a"].snapshot(None)
        assert (shown.actual, shown.used) == (300 * MIB, 100 * MIB)

    play(scene, "a")


def test_a_guest_that_was_not_seen_yet_is_nothing_that_is_known() -> None:
    async def scene(_: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        said = seen.ticks[0].plan.guests[0]
        assert (said.verdict, said.reason) == ("exempt", "the agent has not seen it yet")
        assert (said.entitlement, said.minimum, said.maximum, said.target) == (None,) * 4

    play(scene, "a")


def test_a_guest_that_hangs_from_the_beginning_is_said_to_be_unreachable() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        host.guests["a"].hang()
        await seen.until(lambda: is_seen(seen, "b"))
        await seen.until(lambda: not seen.agent.guests["a"].is_new)
        await seen.rounds(1)
        said = {each.guest: (each.verdict, each.reason) for each in seen.last.plan.guests}
        assert said["a"] == ("exempt", "it is unreachable")
        host.guests["a"].go_on()
        await seen.until(lambda: seen.verdict("a") == "grace", seconds=120)

    play(scene, "a", "b")


def test_a_guest_at_rest_is_asked_little() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.rounds(20)
        host.guests["a"].commands.clear()
        await seen.rounds(100)
        asked = len(host.guests["a"].commands)
        assert 30 <= asked <= 60, host.guests["a"].commands

    play(scene, "a")


def test_memory_moves_from_idle_guests_when_the_host_is_short() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
        host.total = 1100
        await seen.until(lambda: seen.targets, seconds=10)
        await seen.rounds(60)
        assert host.guests["a"].actual < 512 * MIB
        assert host.guests["b"].actual < 512 * MIB

    play(scene, "a", "b", total=4096)


def test_f51_a_new_agent_takes_only_what_is_free_for_a_minute() -> None:
    """A host that is short, and in no need; of what each guest has, a fifth was never touched."""

    async def scene(_: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a", "b"))
        start = seen.ticks[0].snapshot.time
        await seen.until(lambda: takes(seen), seconds=300)
        assert seen.last.snapshot.time - start >= 60
        assert {each.kind for each in seen.targets if each not in takes(seen)} <= {"position"}

    def takes(seen: Watched) -> list[SetBalloon]:
        return [each for each in seen.targets if each.kind in ("take", "revoke")]

    play(scene, "a", "b", total=1024 + 140, config=replace(TIGHT, grace=Config().grace))


def test_dry_run_decides_and_tells_no_guest() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: seen.targets, seconds=200)
        await seen.rounds(10)
        assert not host.guests["a"].balloons
        assert seen.last.dry_run
        # It does not take the guests for slow: nothing was sent to them.
        assert seen.last.plan.balloons
        assert {each.verdict for each in seen.last.plan.guests} == {"normal"}

    play(scene, "a", "b", total=1100, dry_run=True)


def test_f38_a_guest_that_is_reset_is_given_all_within_a_second() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        await seen.until(lambda: guest.actual < 480 * MIB, seconds=300)
        host.total = 4096
        await seen.rounds(8)
        for _ in range(20):
            guest.balloons.clear()
            guest.have(300)
            guest.reset()
            await asyncio.sleep(0.9)
            assert guest.balloons[:1] == [512 * MIB - PAGE]  # so that its driver has one to move
            await seen.rounds(3)
        assert all(target >= 512 * MIB - PAGE for target in guest.balloons)

    play(scene, "a", "b", total=1100)


def test_f17_a_storm_of_resets_is_no_storm_of_rounds() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.rounds(2)
        before = len(seen.ticks)
        for _ in range(300):
            host.guests["a"].event("RESET", {"guest": True})
            await asyncio.sleep(0.001)
        assert len(seen.ticks) - before <= 0.3 / 0.05 + 2

    play(scene, "a")


def test_balloons_that_move_do_not_hurry_the_agent() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.rounds(2)
        before = len(seen.ticks)
        for size in range(100):
            host.guests["a"].have(500 - size)
            host.guests["a"].event("BALLOON_CHANGE", {"actual": (500 - size) * MIB})
            await asyncio.sleep(0.1)
        assert len(seen.ticks) - before <= 11
        await seen.rounds(2)
        reading = seen.reading("a")
        assert reading is not None
        assert reading.actual == 401 * MIB

    play(scene, "a")


def test_f23_a_guest_that_hangs_is_not_counted_on_within_two_rounds_and_soon_back() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
        host.total = 1100
        await seen.until(lambda: guest.balloons, seconds=10)
        guest.hang()
        took = await seen.until(lambda: not is_seen(seen, "a"))
        assert took <= 4
        await seen.rounds(2)
        told = len(seen.targets), len(guest.balloons)
        mine = [change for change in seen.targets if change.guest == "a"]
        for length in (1, 30, 90):
            await asyncio.sleep(length)
            assert [change for change in seen.targets if change.guest == "a"] == mine
        guest.go_on()
        assert await seen.until(lambda: is_seen(seen, "a")) <= 2
        assert len(guest.balloons) <= told[1] + 1, "no burst"

    play(scene, "a", "b", total=4096)


def test_f26_fifty_of_two_hundred_hang_and_the_others_miss_no_round() -> None:
    names = [f"g{number}" for number in range(200)]

    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, *names))
        for name in names[:50]:
            host.guests[name].hang()
        await seen.rounds(10)
        before = len(seen.ticks)
        await seen.rounds(16)  # 4 s, as the host is short; by then all have reported again
        times = [tick.snapshot.time for tick in seen.ticks[before:]]
        gaps = [after - at for at, after in pairwise(times)]
        assert max(gaps) <= 1.1
        for tick in seen.ticks[before:]:
            states = {reading.id: reading for reading in tick.snapshot.guests}
            assert all(states[name].state == "running" for name in names[50:])
            assert all((states[name].age or 0) < 12 for name in names[50:])

    play(scene, *names)


def test_f45_guests_come_and_go_and_nothing_stays() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        for name in [f"n{number}" for number in range(50)]:
            await host.start(FakeGuest(name))
        names = list(host.guests)
        assert await seen.until(lambda: is_seen(seen, *names)) <= 5
        for name in names[1:]:
            host.end(name)
        await seen.until(lambda: len(seen.last.snapshot.guests) == 1)
        assert len(seen.agent.guests) == 1
        assert sorted(path.name for path in host.run.iterdir() if path.is_dir()) == ["a"]

    play(scene, "a")


def test_a_guest_that_took_anothers_id_begins_anew() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
        before = seen.reading("a")
        host.end("a")
        for path in (host.run / "a").iterdir():
            path.unlink()
        (host.run / "a").rmdir()
        await host.start(FakeGuest("a"))
        await seen.until(lambda: is_seen(seen, "a") and seen.reading("a") != before)
        after = seen.reading("a")
        assert before is not None
        assert after is not None
        assert after.epoch != before.epoch
        assert seen.verdict("a") == "grace"
        host.guests["a"].balloons.clear()
        await seen.rounds(10)
        assert len(host.guests["a"].balloons) <= 1

    play(scene, "a")


def test_pins_and_leases_end_with_their_guests_though_no_client_asks() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        requests = seen.agent.requests
        seen.agent.leases.reserve(Wanted(owner="me", size=Bytes(MIB), guest="new"), 600.0)
        await host.start(FakeGuest("new"))
        await seen.until(lambda: requests.in_force.leases[0].guest == "new", seconds=15)
        seen.agent.pins.pin(seen.agent.guests["new"].found.record, Bytes(400 * MIB))
        await seen.rounds(2)
        assert requests.in_force.pins == {"new": 400 * MIB}
        host.end("new")
        await seen.until(lambda: not requests.in_force.leases, seconds=15)
        assert requests.in_force.pins == {}

    play(scene, "a")


def test_f62_a_mistake_in_a_watcher_starts_that_watcher_over_and_is_said_once() -> None:
    async def scene(_: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a", "b"))

        async def broken(_session: object) -> None:
            raise ZeroDivisionError("a mistake")

        watcher = seen.agent.guests["a"]
        watcher._inquiry.look = broken  # type: ignore[method-assign, assignment]
        await seen.until(lambda: not is_seen(seen, "a"), seconds=15)
        assert is_seen(seen, "b")
        assert seen.agent.degraded_at is not None
        await seen.rounds(20)
        assert len(seen.agent.warnings) == 1
        assert "guest a: starting over" in seen.agent.warnings[0]
        del watcher._inquiry.look
        assert await seen.until(lambda: is_seen(seen, "a")) <= 3

    play(scene, "a", "b", may_degrade=True)


@pytest.mark.parametrize("part", ["_finder", "_surveyor"])
def test_f62_a_mistake_in_a_round_leaves_that_round_out(part: str) -> None:
    async def scene(_: FakeHost, seen: Watched) -> None:
        await seen.rounds(2)
        whole = getattr(seen.agent, part)
        said: list[str] = []
        seen.agent._notifier.tell = said.append  # type: ignore[method-assign, assignment]
        setattr(seen.agent, part, None)
        await asyncio.sleep(5)
        assert said == [], "systemd hears of completed rounds only"
        assert any("was left out" in warning for warning in seen.agent.warnings)
        setattr(seen.agent, part, whole)
        await seen.rounds(2)
        assert said[:2] == ["WATCHDOG=1", "WATCHDOG=1"]

    play(scene, "a", may_degrade=True)


def test_f62_a_listener_that_fails_stops_neither_the_agent_nor_another_listener() -> None:
    async def scene(_: FakeHost, seen: Watched) -> None:
        def broken(_: Tick) -> None:
            raise ZeroDivisionError("a mistake")

        seen.agent._publish = [broken, seen.publish]
        await seen.rounds(5)
        assert seen.agent.warnings == ["telling of a round: ZeroDivisionError: a mistake"]

    play(scene, "a", may_degrade=True)


def test_the_same_warning_is_given_once_a_minute_and_few_are_kept() -> None:
    async def scene(_: FakeHost, seen: Watched) -> None:
        for _second in range(90):
            seen.agent.warn("x")
            await asyncio.sleep(1)
        assert seen.agent.warnings == ["x", "x"]
        for number in range(1000):
            seen.agent.warn(f"{number}")
        assert len(seen.agent.warnings) == 100

    play(scene)


def test_what_a_guest_does_again_and_again_is_warned_of_once_a_minute() -> None:
    """I8, which all rounds are held against at the end."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        def is_taken_for(verdict: str) -> bool:
            return seen.verdict("a") == verdict

        for _ in range(10):
            await seen.until(partial(is_taken_for, "normal"))
            host.guests["a"].stats = {"stat-total-memory": 0}
            await seen.until(partial(is_taken_for, "implausible"))
            host.guests["a"].stats = {}
        assert any(tick.plan.warnings for tick in seen.ticks)

    play(scene, "a")


def test_f54_what_there_are_no_descriptors_for_is_said_and_left_alone() -> None:
    async def scene(_: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a", "b"))
        assert set(seen.agent.guests) == {"a", "b"}
        assert seen.agent.warnings == [
            "1 guests are not watched: there are no descriptors left for them"
        ]

    play(scene, "a", "b", "c", most=2)


def test_f57_a_hung_guest_holds_up_no_stop() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        await seen.until(lambda: guest.actual < 480 * MIB, seconds=300)
        guest.hang()
        host.guests["b"].balloons.clear()
        await seen.rounds(5)
        seen.agent.stop()
        seen.agent.stop()

    config = replace(TIGHT, on_stop="relax")
    play(scene, "a", "b", total=1100, config=config)


def test_a_stop_leaves_guests_with_room_and_their_polling_as_it_was() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        for guest in host.guests.values():
            guest.used = 300
        host.total = 1100
        await seen.until(lambda: host.guests["a"].actual < 500 * MIB, seconds=300)
        host.total = 4096
        await seen.rounds(2)
        seen.agent.stop()
        await asyncio.sleep(2)
        assert host.guests["a"].balloons[-1] == 512 * MIB
        assert host.guests["a"].polling == 0

    play(scene, "a", "b", total=4096, config=replace(TIGHT, on_stop="release"))


def test_f52_after_a_pause_of_its_own_the_agent_takes_nothing_on_old_reports() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
        await seen.rounds(10)
        for guest in host.guests.values():
            guest.reports = False
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop._jumping.now += 300
        host.total = 1100
        before = len(seen.targets)
        await seen.rounds(4)
        assert len(seen.targets) == before
        assert seen.verdict("a") == "stale"
        for guest in host.guests.values():
            guest.reports = True
        await seen.until(lambda: seen.targets[before:], seconds=10)

    play(scene, "a", "b", total=4096)


def test_f33_a_driver_that_stops_reporting_is_stale_within_three_periods() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
        host.guests["a"].reports = False
        assert await seen.until(lambda: seen.verdict("a") == "stale") <= 45
        host.guests["a"].balloons.clear()
        host.total = 1100
        await seen.rounds(60)
        assert not host.guests["a"].balloons
        assert host.guests["b"].balloons

    play(scene, "a", "b", total=4096)


def test_a_guest_whose_polling_another_client_turned_off_is_asked_again() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
        host.guests["a"].polling = 0
        await asyncio.sleep(45)
        reading = seen.reading("a")
        assert reading is not None
        assert reading.age is not None
        assert reading.age < 15

    play(scene, "a")


@pytest.mark.parametrize(
    "stats",
    [
        {"stat-available-memory": 600 * MIB},
        {"stat-total-memory": 0},
        {"stat-free-memory": 700 * MIB},
        dict.fromkeys(
            ("stat-available-memory", "stat-free-memory", "stat-total-memory"), (1 << 64) - 1
        ),
        {"stat-available-memory": -1, "stat-free-memory": -1},
        {"stat-available-memory": "12", "stat-free-memory": "12"},
    ],
    ids=["more than it has", "no total", "free above all", "none", "negative", "text"],
)
def test_f32_nothing_is_taken_on_numbers_that_cannot_be(stats: dict[str, object]) -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        host.guests["a"].stats = stats
        await seen.until(lambda: host.guests["b"].balloons, seconds=300)
        await seen.rounds(60)
        assert not host.guests["a"].balloons

    play(scene, "a", "b", total=1100)


def test_f34_a_balloon_that_does_not_move_is_let_go_and_the_other_pays() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        host.guests["a"].speed = 0.001
        await seen.until(lambda: seen.verdict("a") in ("stalled", "uncooperative"), seconds=300)
        before = len(host.guests["a"].balloons)
        await asyncio.sleep(50)
        assert len(host.guests["a"].balloons) <= before + 1

    play(scene, "a", "b", total=800)


def test_f40_no_balloon_is_seen_and_so_is_one_that_is_unplugged_and_plugged() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
        for _ in range(20):
            guest.balloon = False
            guest.event("DEVICE_DELETED", {"path": "/machine/peripheral/qmpmem0"})
            await seen.until(lambda: seen.verdict("a") == "exempt", seconds=12)
            reading = seen.reading("a")
            assert reading is not None
            assert reading.exempt == "no balloon device"
            assert not reading.implausible
            guest.balloon, guest.polling = True, 0
            await seen.until(lambda: seen.verdict("a") != "exempt", seconds=25)
        await asyncio.sleep(25)
        reading = seen.reading("a")
        assert reading is not None
        assert reading.age is not None, "it is polled again"
        assert not any("implausible" in warning for warning in seen.agent.warnings)

    play(scene, "a")


def test_f42_plugged_memory_is_known_before_the_next_target() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        await seen.until(lambda: is_seen(seen, "a"))
        guest.size = 1024
        guest.event("ACPI_DEVICE_OST", {"info": {}})
        await seen.rounds(2)
        reading = seen.reading("a")
        assert reading is not None
        assert reading.maximum == 1024 * MIB
        guest.size = 2048
        await asyncio.sleep(12)
        reading = seen.reading("a")
        assert reading is not None
        assert reading.maximum == 2048 * MIB, "without an event: every ten seconds"

    play(scene, "a")


@pytest.mark.parametrize("state", ["paused", "prelaunch", "inmigrate", "postmigrate"])
def test_f39_f48_nothing_is_taken_from_a_guest_that_does_not_run(state: str) -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        host.guests["a"].state = state
        await seen.until(lambda: host.guests["b"].balloons, seconds=300)
        await seen.rounds(100)
        assert not host.guests["a"].balloons
        host.guests["a"].state = "running"
        host.guests["a"].event("RESUME")
        host.guests["a"].balloons.clear()
        await asyncio.sleep(4)
        assert all(target == 512 * MIB for target in host.guests["a"].balloons)

    play(scene, "a", "b", total=1100)


def test_a_stopped_process_is_named_at_once() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        host.guests["a"].letter = "T"
        await seen.rounds(3)
        reading = seen.reading("a")
        assert reading is not None
        assert reading.exempt == "its process is stopped (state T)"

    play(scene, "a")


def test_an_order_that_was_not_told_in_time_is_dropped() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        guest, watcher = host.guests["a"], seen.agent.guests["a"]
        guest.hang()
        await asyncio.sleep(20)
        watcher.order(300 * MIB)  # type: ignore[arg-type]
        await watcher.settled()
        guest.go_on()
        await seen.rounds(10)
        assert 300 * MIB not in guest.balloons
        refused = [outcome for tick in seen.ticks for outcome in tick.outcomes if not outcome.done]
        assert refused

    play(scene, "a")


def test_while_a_budget_is_not_there_nothing_is_given_or_taken() -> None:
    """The host may be large; what is not ours of it is not handed out instead."""
    with memory_directory() as directory:
        group = directory / "group"

        async def scene(_: FakeHost, seen: Watched) -> None:
            await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
            await seen.rounds(30)
            assert seen.targets == []
            assert any(str(group) in each for each in seen.agent.warnings)
            await asyncio.to_thread(_limit, group, 1100 * MIB, 1000 * MIB)
            await seen.until(lambda: seen.targets, seconds=20)

        play(scene, "a", "b", total=1100, config=replace(TIGHT, budget=str(group)))


def _limit(group: Path, limit: int, usage: int) -> None:
    """Make a memory cgroup of version 2."""
    group.mkdir()
    for name, value in (("max", limit), ("high", "max"), ("current", usage), ("stat", "")):
        (group / f"memory.{name}").write_text(f"{value}\n")


def test_f43_a_leak_is_served_up_to_its_share_and_no_neighbour_goes_below_its_floor() -> None:
    """Row F43: 64 MiB a second, until the guest is full."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: all(seen.verdict(guest) == "normal" for guest in "abc"))
        leaking = host.guests["a"]
        while leaking.used < 480:
            leaking.used += 32
            await seen.rounds(2)  # four in a second, as the host is short
        await seen.until(lambda: leaking.actual >= 480 * MIB, seconds=120)
        floor = seen.agent.config.limits("b", Bytes(512 * MIB)).minimum
        assert all(change.target >= floor for change in seen.targets if change.guest != "a")
        assert sum(host.guests[guest].actual for guest in "bc") < 2 * 512 * MIB
        assert not seen.agent.degraded_at

    play(scene, "a", "b", "c", total=1280)
