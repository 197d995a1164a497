"""Simulated guests and hosts: memory is neither made nor lost, and each kind is what it says."""

from collections.abc import Iterator
from random import Random

import pytest

from qmpmem.model.config import Config, KsmConfig
from qmpmem.model.observation import Snapshot
from qmpmem.model.round import Plan, SetBalloon, Tick
from qmpmem.policy import History
from qmpmem.records import replace
from qmpmem.simulate import qemu_reports
from qmpmem.simulate.guest import STEP, Guest
from qmpmem.simulate.guest_types import KINDS, LOADS, TRAITS, Range, make
from qmpmem.simulate.host import Host
from qmpmem.simulate.loads import Leaking, Sine, Steady, Steps
from qmpmem.simulate.policy_table import RIVALS, PolicyRow
from qmpmem.simulate.random_worlds import Bounds, chance
from qmpmem.simulate.results import measure
from qmpmem.simulate.run import Run
from qmpmem.simulate.spec import Contained, Driver, GuestSpec, HostSpec, Pause, Plug, Reboot, World
from qmpmem.units import GIB, MIB, PAGE, Bytes
from tests.rig.chance import some

PLAIN = GuestSpec(
    id="g", memory=Bytes(GIB), load=Steady(size=Bytes(200 * MIB)), free_page_reporting=False
)
ROOMY = HostSpec(memory=Bytes(8 * GIB), own=Steady(size=Bytes(300 * MIB)))


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - repeatable on purpose


def lived(spec: GuestSpec, seconds: float, host: HostSpec = ROOMY) -> tuple[Host, Guest]:
    """A host with one guest, some time after it started."""
    running = Host(host, (spec,))
    live(running, 0.0, seconds)
    return running, running.guests[0]


def live(host: Host, start: float, end: float) -> None:
    for step in range(int(start / STEP) + 1, int(end / STEP) + 1):
        host.step(step * STEP)


def steps_of(host: Host, seconds: float) -> Iterator[float]:
    for step in range(1, int(seconds / STEP) + 1):
        host.step(step * STEP)
        yield step * STEP


@pytest.mark.parametrize("seed", some(range(40), 8))
@pytest.mark.parametrize("rival", ["ours", "mom"])
def test_memory_is_neither_made_nor_lost(seed: int, rival: str) -> None:
    world = chance(seeded(seed), Bounds(usual=4, guests=8, longest=80))
    run = Run(world, RIVALS[rival])
    for _ in run.ticks():
        for guest in run.host.guests:
            parts = (guest.balloon, guest.anon, guest.cache, guest.dirty, guest.untouched)
            assert min(parts) >= -1, parts
            assert sum(parts) == pytest.approx(guest.maximum)
            assert -1 <= guest.hosted <= guest.anon + guest.cache + guest.dirty + 1
            assert guest.swapped <= guest.spec.swap + 1
        assert (run.host.reading().swap_free or 0) >= 0


@pytest.mark.parametrize("rival", list(RIVALS))
def test_the_same_world_gives_the_same_numbers(rival: str) -> None:
    bounds = Bounds(longest=80)
    first, again = (measure(chance(seeded(5), bounds), RIVALS[rival]) for _ in range(2))
    assert first == again


def test_a_command_is_carried_out_at_the_drivers_speed() -> None:
    host, guest = lived(PLAIN, 2)
    guest.tell(512 * MIB)
    live(host, 2, 3)
    assert guest.balloon == pytest.approx(300 * MIB)
    live(host, 3, 4)
    assert guest.balloon == pytest.approx(512 * MIB)


def test_ballooning_what_was_never_touched_frees_nothing() -> None:
    host, guest = lived(PLAIN, 2)
    before = guest.resident
    guest.tell(512 * MIB)
    live(host, 2, 6)
    assert guest.resident == pytest.approx(before)


def test_ballooning_what_was_touched_frees_it() -> None:
    host, guest = lived(replace(PLAIN, touches_all=True), 4)
    assert guest.resident > 1000 * MIB
    guest.tell(512 * MIB)
    live(host, 4, 8)
    assert guest.resident <= 512 * MIB


def test_a_balloon_that_frees_nothing_costs_as_much_as_before() -> None:
    driver = Driver(frees=False)
    host, guest = lived(replace(PLAIN, touches_all=True, driver=driver), 4)
    before = guest.resident
    guest.tell(512 * MIB)
    live(host, 4, 8)
    assert guest.resident == pytest.approx(before, rel=0.02)


def test_page_cache_grows_into_free_memory_and_goes_when_it_is_needed() -> None:
    host, guest = lived(replace(PLAIN, files=Bytes(4 * GIB)), 20)
    assert guest.cache > 700 * MIB
    guest.tell(400 * MIB)
    live(host, 20, 30)
    assert guest.cache < 160 * MIB
    assert guest.kills == 0


def test_free_page_reporting_gives_back_what_was_freed() -> None:
    load = Steps(points=((0.0, Bytes(800 * MIB)), (10.0, Bytes(100 * MIB))))
    spec = replace(PLAIN, load=load)
    _, plain = lived(spec, 30)
    _, reporting = lived(replace(spec, free_page_reporting=True), 30)
    assert plain.resident > 800 * MIB
    assert reporting.resident < 160 * MIB


GROWS = Steps(points=((0.0, Bytes(100 * MIB)), (10.0, Bytes(700 * MIB))))


def squeezed(spec: GuestSpec) -> Guest:
    """A guest that has 512 MiB and wants 750."""
    host, guest = lived(spec, 2)
    guest.tell(512 * MIB)
    live(host, 2, 30)
    return guest


def test_without_swap_a_guest_that_is_too_small_has_its_programs_killed() -> None:
    guest = squeezed(replace(PLAIN, load=GROWS, deflate_on_oom=False))
    assert guest.kills >= 1
    assert guest.lacked > 0


def test_with_swap_it_reads_the_same_pages_again_and_again() -> None:
    guest = squeezed(replace(PLAIN, load=GROWS, swap=Bytes(GIB)))
    assert guest.kills == 0
    assert guest.swap_in > 100 * MIB
    assert guest.faults > 1000
    assert guest.distress > 5


def test_with_deflate_on_oom_it_takes_back_what_it_needs_and_keeps_it() -> None:
    guest = squeezed(replace(PLAIN, load=GROWS, deflate_on_oom=True))
    assert guest.kills == 0
    assert guest.maximum - guest.balloon > 740 * MIB
    assert guest.goal == guest.balloon


def test_a_reset_shows_the_old_size_until_the_driver_is_back() -> None:
    spec = replace(PLAIN, events=(Reboot(at=10.0),))
    host, guest = lived(spec, 2)
    guest.tell(512 * MIB)
    live(host, 2, 11)
    assert (guest.epoch, guest.balloon) == (1, 0)
    assert guest.actual == pytest.approx(512 * MIB)
    live(host, 11, 30)
    assert guest.balloon == pytest.approx(512 * MIB)


def test_a_driver_that_has_nothing_to_move_leaves_the_old_size_shown() -> None:
    spec = replace(PLAIN, events=(Reboot(at=10.0),))
    host, guest = lived(spec, 2)
    guest.tell(512 * MIB)
    live(host, 2, 11)
    guest.tell(1024 * MIB)
    live(host, 11, 60)
    assert guest.balloon == 0
    assert guest.actual == pytest.approx(512 * MIB)
    guest.tell(1024 * MIB - PAGE)
    live(host, 60, 61)
    assert guest.actual == 1024 * MIB - PAGE


def test_plugged_memory_counts_at_once() -> None:
    _, guest = lived(replace(PLAIN, events=(Plug(at=5.0, size=Bytes(512 * MIB)),)), 6)
    assert guest.maximum == 1536 * MIB
    assert guest.actual == 1536 * MIB


def test_a_paused_guest_does_nothing_and_reports_nothing() -> None:
    spec = replace(PLAIN, load=GROWS, events=(Pause(at=5.0, lasts=20.0),))
    host, guest = lived(spec, 15)
    assert guest.anon < 200 * MIB
    assert qemu_reports.ask(guest, 15.0) is None
    assert qemu_reports.reading(guest, None, 15.0).state == "paused"
    live(host, 15, 30)
    assert guest.anon > 700 * MIB


@pytest.mark.parametrize(("says", "available"), [("high", 0), ("low", GIB)])
def test_liars_lie(says: str, available: int) -> None:
    _, guest = lived(replace(PLAIN, reports=says), 5)
    report = qemu_reports.ask(guest, 5.0)
    assert report is not None
    assert report.stats.available == available


def test_a_kill_in_a_container_is_counted_by_the_guest_alone() -> None:
    _, guest = lived(replace(PLAIN, modern=True, events=(Contained(at=3.0),)), 5)
    report = qemu_reports.ask(guest, 5.0)
    assert report is not None
    assert (report.stats.oom_kills, guest.kills, guest.unmet) == (1, 0, 0)


def test_programs_that_make_room_in_the_cache_are_counted_though_all_is_well() -> None:
    _, guest = lived(replace(PLAIN, load=GROWS, files=Bytes(4 * GIB), modern=True), 20)
    report = qemu_reports.ask(guest, 20.0)
    assert report is not None
    assert (report.stats.alloc_stalls or 0) > 0
    assert (guest.kills, guest.unmet) == (0, 0)


def test_a_guest_may_take_all_that_it_reads_for_swapping_in() -> None:
    _, guest = lived(replace(PLAIN, files=Bytes(100 * MIB), reports="pages"), 5)
    report = qemu_reports.ask(guest, 5.0)
    assert report is not None
    assert report.stats.swap_in == 100 * MIB
    assert (report.stats.free or 0) > 0


def test_what_an_honest_guest_says_is_what_it_has() -> None:
    _, guest = lived(replace(PLAIN, files=Bytes(100 * MIB)), 5)
    report = qemu_reports.ask(guest, 5.0)
    assert report is not None
    used = GIB - (report.stats.available or 0)
    assert used == pytest.approx(256 * MIB, rel=0.01)  # load, kernel, watermark


def test_a_host_with_swap_swaps_out_and_waiting_for_it_is_seen() -> None:
    small = HostSpec(
        memory=Bytes(GIB),
        own=Steady(size=Bytes(100 * MIB)),
        swap=Bytes(2 * GIB),
    )
    spec = replace(PLAIN, memory=Bytes(2 * GIB), load=Steady(size=Bytes(1200 * MIB)))
    host, guest = lived(spec, 30, small)
    assert host.swap_out > 200 * MIB
    assert host.swap_in > 0
    assert host.some > 10
    assert (host.kills, guest.kills) == (0, 0)
    assert guest.distress > 5


def test_a_host_without_swap_shows_no_pressure_until_it_is_full_and_then_kills() -> None:
    small = HostSpec(memory=Bytes(GIB), own=Steady(size=Bytes(100 * MIB)))
    leak = Leaking(start=Bytes(100 * MIB), speed=50.0 * MIB, most=Bytes(3 * GIB))
    host = Host(small, (replace(PLAIN, memory=Bytes(4 * GIB), load=leak),))
    seen = [(host.available(), host.some) for _ in steps_of(host, 40)]
    assert all(some == 0 for available, some in seen if available > 50 * MIB and some < 0.01)
    assert max(some for _, some in seen[:40]) == 0
    assert host.kills >= 1


def test_a_budget_is_as_tight_as_a_host() -> None:
    tight = replace(ROOMY, budget=Bytes(600 * MIB))
    spec = replace(PLAIN, load=Steady(size=Bytes(480 * MIB)))
    host, _ = lived(spec, 10, tight)
    reading = host.reading()
    assert reading.limit == 600 * MIB
    assert (reading.headroom or 0) < 60 * MIB
    assert (reading.available or 0) > 6 * GIB
    assert host.held <= 600 * MIB


def test_merging_finds_what_is_the_same() -> None:
    host = Host(replace(ROOMY, same=0.5), (PLAIN, replace(PLAIN, id="h")))
    live(host, 0, 4)
    before = host.available()
    assert host.ksm is not None
    host.ksm.set({"run": "1", "pages_to_scan": "20000", "no_such_file": "1"})
    live(host, 4, 60)
    assert host.available() - before > 60 * MIB
    assert (host.ksm.state(host.held).pages_sharing or 0) * 4096 <= host.ksm.merged


def test_only_a_cgroup_does_not_count_what_is_merged() -> None:
    world = World(
        host=replace(ROOMY, same=0.5),
        guests=(replace(PLAIN, cgroup=True), replace(PLAIN, id="h")),
        config=Config(ksm=KsmConfig(managed=True)),
        seconds=120.0,
    )
    *_, last = Run(world, RIVALS["ours"]).ticks()
    with_group, without = last.snapshot.guests
    assert with_group.rss == without.rss == without.cost
    assert (with_group.cost or 0) < 0.9 * (with_group.rss or 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_made_and_says_what_it_is(kind: str) -> None:
    span = Range(low=Bytes(100 * MIB), high=Bytes(500 * MIB))
    one, same = (make("x", kind, Bytes(GIB), span, seeded(3)) for _ in range(2))
    assert one == same
    assert ({**LOADS, **TRAITS}[kind].__doc__ or "").endswith(".")
    _, guest = lived(one, 20)
    assert guest.wanted > 0 or guest.is_paused(20)


@pytest.mark.parametrize(
    ("kind", "moved"), [("stuck", 0), ("flickering", 300), ("slow", 80), ("no-driver", 0)]
)
def test_drivers_move_as_much_as_they_say(kind: str, moved: int) -> None:
    span = Range(low=Bytes(100 * MIB), high=Bytes(100 * MIB))
    host, guest = lived(make("x", kind, Bytes(GIB), span, seeded(1)), 1)
    guest.tell(200 * MIB)
    live(host, 1, 21)
    assert guest.balloon == pytest.approx(moved * MIB, abs=2 * MIB)


def test_loads_are_what_they_say() -> None:
    low, high = Bytes(100), Bytes(300)
    sine = Sine(low=low, high=high, period=60.0)
    assert (sine.at(0), sine.at(30), sine.at(60)) == pytest.approx((100, 300, 100))
    leak = Leaking(start=low, speed=10.0, most=high)
    assert (leak.at(0), leak.at(10), leak.at(20)) == (100, 200, 100)
    steps = Steps(points=((5.0, low), (10.0, high)))
    assert (steps.at(0), steps.at(5), steps.at(10)) == (100, 100, 300)


def test_a_guest_that_starts_later_is_not_there_before() -> None:
    world = World(host=ROOMY, guests=(PLAIN, replace(PLAIN, id="late", starts=20.0)), seconds=30.0)
    seen = {tick.snapshot.time: tick.snapshot for tick in Run(world, RIVALS["static"]).ticks()}
    first, last = seen[min(seen)], seen[max(seen)]
    assert [len(each.guests) for each in (first, last)] == [1, 2]


def test_reports_age_and_come_again() -> None:
    world = World(host=ROOMY, guests=(PLAIN,), seconds=9.0)
    ages = [tick.snapshot.guests[0].age for tick in Run(world, RIVALS["static"]).ticks()]
    assert ages == [0, 1, 0, 1, 0, 1, 0, 1, 0]


def test_what_was_reported_before_a_reset_counts_no_more() -> None:
    spec = replace(PLAIN, events=(Reboot(at=4.0),))
    world = World(host=ROOMY, guests=(spec,), seconds=20.0)
    seen = [tick.snapshot.guests[0] for tick in Run(world, RIVALS["static"]).ticks()]
    assert {guest.age is None for guest in seen[4:10]} == {True}
    assert seen[-1].age is not None


def test_a_balloon_holds_whole_pages() -> None:
    _, guest = lived(replace(PLAIN, balloon=Bytes(100 * MIB + PAGE // 2)), 4)
    assert qemu_reports.reading(guest, None, 4.0).actual == 924 * MIB - PAGE


def read_between(spec: GuestSpec, size: int, seconds: float = 20.0) -> float:
    """MiB a second that a guest reads from its disks once it has been told a size."""
    host, guest = lived(spec, 30)
    guest.tell(size * MIB)
    live(host, 30, 40)
    before = guest.reads
    live(host, 40, 40 + seconds)
    return (guest.reads - before) / MIB / seconds


CACHED = replace(
    PLAIN, files=Bytes(600 * MIB), hot_files=Bytes(400 * MIB), rereads=100.0 * MIB, reads=50.0 * MIB
)


@pytest.mark.parametrize(
    ("spec", "size", "reads"),
    [
        (CACHED, 1024, 0),
        (CACHED, 700, 0),  # 700 - 248 in use, 5 kept free: all that is hot fits
        (CACHED, 453, 50),  # half of it does, but the disk is no faster
        (replace(CACHED, rereads=20.0 * MIB), 453, 10),
        (replace(PLAIN, files=Bytes(100 * GIB), reads=30.0 * MIB), 1024, 30),  # a stream
        (replace(PLAIN, files=Bytes(100 * GIB), reads=30.0 * MIB), 400, 30),
    ],
)
def test_reads_rise_where_the_cache_is_too_small_and_a_stream_stays_the_same(
    spec: GuestSpec, size: int, reads: float
) -> None:
    assert read_between(spec, size) == pytest.approx(reads, abs=1)


@pytest.mark.parametrize(("mapped", "faults"), [(False, 0), (True, 16)])
def test_only_mapped_files_are_read_by_major_faults(*, mapped: bool, faults: int) -> None:
    host, guest = lived(replace(CACHED, mapped=mapped), 30)
    guest.tell(453 * MIB)
    live(host, 30, 40)
    assert guest.faults / max(1, guest.reads / MIB - 600) == pytest.approx(faults, abs=1)


@pytest.mark.parametrize(
    ("more", "reads"), [({}, True), ({"swap_speed": 2000.0 * MIB, "zram": True}, False)]
)
def test_what_is_swapped_in_is_read_from_a_disk_but_not_from_zram(
    *, more: dict[str, object], reads: bool
) -> None:
    guest = squeezed(replace(PLAIN, load=GROWS, swap=Bytes(GIB), **more))
    assert guest.swap_in > 100 * MIB
    assert (guest.reads > 100 * MIB) is reads


def test_its_own_swap_may_be_faster_than_its_disks() -> None:
    spec = replace(PLAIN, load=GROWS, swap=Bytes(GIB), reads=10.0 * MIB)
    slow, fast = squeezed(spec), squeezed(replace(spec, swap_speed=500.0 * MIB))
    assert fast.swap_in > 10 * slow.swap_in


def test_a_reset_after_deflate_on_oom_brings_the_old_target_back() -> None:
    host, guest = lived(replace(PLAIN, load=GROWS, events=(Reboot(at=40.0),)), 2)
    guest.tell(512 * MIB)
    live(host, 2, 39)
    assert guest.maximum - guest.balloon > 740 * MIB
    live(host, 39, 56)
    assert guest.maximum - guest.balloon == pytest.approx(512 * MIB)


def test_a_guest_that_goes_on_after_a_pause_is_in_the_same_epoch_and_reports_anew() -> None:
    world = World(
        host=ROOMY, guests=(replace(PLAIN, events=(Pause(at=10.0, lasts=20.0),)),), seconds=40.0
    )
    seen = {round(tick.snapshot.time): tick.snapshot.guests[0] for tick in ticks_of(world)}
    assert (seen[9].epoch, seen[25].epoch, seen[31].epoch) == (0, 0, 0)
    assert (seen[25].state, seen[31].state) == ("paused", "running")
    assert (seen[25].age or 0) > 10
    assert (seen[31].age or 0) < 2


def ticks_of(world: World) -> Iterator[Tick]:
    return Run(world, RIVALS["static"]).ticks()


@pytest.mark.parametrize("cgroup", [True, False])
def test_a_cgroup_of_its_own_tells_how_long_a_guest_waits_for_the_host(*, cgroup: bool) -> None:
    small = HostSpec(memory=Bytes(GIB), own=Steady(size=Bytes(100 * MIB)), swap=Bytes(2 * GIB))
    needs = Steady(size=Bytes(1200 * MIB))
    spec = replace(PLAIN, memory=Bytes(2 * GIB), load=needs, cgroup=cgroup)
    *_, last = ticks_of(World(host=small, guests=(spec,), seconds=30.0))
    stalled = last.snapshot.guests[0].stalled
    assert stalled is None if not cgroup else 5e6 < (stalled or 0) <= 30e6


def test_memory_that_is_taken_and_given_back_at_once_is_counted() -> None:
    """A policy that sends a guest down and up: at 10, 20 and 60 s, and once more in the end."""
    sizes = {10: 800, 20: 900, 60: 800, 95: 700}

    def decide(snapshot: Snapshot, history: History, _: Config) -> tuple[Plan, History]:
        size = sizes.get(round(snapshot.time))
        command = SetBalloon(guest="g", target=Bytes((size or 0) * MIB), reason=f"to {size}")
        return Plan(balloons=(command,) if size else ()), history

    rival = PolicyRow(name="nervous", start=lambda: decide)
    report = measure(World(host=ROOMY, guests=(PLAIN,), seconds=100.0), rival)
    assert (report.commands, report.turns, report.late) == (4, 2, 2)
    assert (report.reversals, report.causes) == (1, {"to 800 -> to 900": 1})


def test_what_is_swapped_out_for_a_guest_makes_room_for_it() -> None:
    """No more than the host has is ever held."""
    small = HostSpec(
        memory=Bytes(GIB),
        own=Steady(size=Bytes(100 * MIB)),
        swap=Bytes(4 * GIB),
        swap_speed=50.0 * MIB,
    )
    leak = Leaking(start=Bytes(100 * MIB), speed=100.0 * MIB, most=Bytes(3 * GIB))
    host = Host(small, (replace(PLAIN, memory=Bytes(4 * GIB), load=leak, hot=0.1),))
    for _ in steps_of(host, 30):
        assert host.held <= (1024 - 100) * MIB
    assert host.swap_out > 500 * MIB


BURST = Steps(points=((0.0, Bytes(50 * MIB)), (10.0, Bytes(500 * MIB))))


@pytest.mark.parametrize(
    ("speed", "needs", "kills"),
    [
        (8, 100, 2),  # slow swap, though with room: reclaim frees nothing in time
        (50, 100, 0),
        (8, 5, 0),  # what needs little finds it
    ],
)
def test_a_host_whose_swap_is_slow_kills_although_it_has_room(
    speed: int, needs: int, kills: int
) -> None:
    host = Host(
        HostSpec(
            memory=Bytes(8 * GIB),
            own=Steady(size=Bytes(300 * MIB)),
            budget=Bytes(1200 * MIB),
            swap=Bytes(2 * GIB),
            swap_speed=speed * MIB,
        ),
        (
            replace(PLAIN, load=BURST, allocates=needs * MIB),
            *(
                replace(PLAIN, id=f"idle{number}", files=Bytes(220 * MIB), restarts=False)
                for number in range(2)
            ),
        ),
    )
    live(host, 0, 25)
    assert bool(host.kills) is bool(kills)
    assert sum(guest.lost for guest in host.guests) == host.kills <= kills
    assert not host.guests[0].lost


@pytest.mark.parametrize(("speed", "seconds"), [(300, 1), (20, 12)])
def test_deflate_on_oom_takes_its_time(speed: int, seconds: int) -> None:
    spec = replace(PLAIN, load=GROWS, driver=Driver(rescues=speed * MIB))
    host, guest = lived(spec, 2)
    guest.tell(512 * MIB)
    live(host, 2, 10 + seconds / 2)
    assert guest.anon < 740 * MIB
    live(host, 10 + seconds / 2, 12 + seconds)
    assert guest.anon > 740 * MIB


@pytest.mark.parametrize(("files", "comes_back"), [(100 * GIB, True), (740 * MIB, False)])
def test_a_stream_goes_round_in_its_cache_and_brings_back_what_the_host_swapped_out(
    *, files: int, comes_back: bool
) -> None:
    host = Host(
        replace(ROOMY, budget=Bytes(1700 * MIB), swap=Bytes(2 * GIB)),
        (
            replace(PLAIN, files=Bytes(files), reads=100.0 * MIB),
            replace(PLAIN, id="grows", load=GROWS),
        ),
    )
    live(host, 0, 60)
    assert host.swap_out > 50 * MIB
    assert (host.swap_in > 100 * MIB) is comes_back
    assert host.guests[0].unmet == 0


def test_a_day_is_remembered_by_a_policy_that_has_a_journal() -> None:
    """A guest that is idle but for one hour of the day: on the second day it is known."""
    day, hour = 480.0, 20.0
    points = ((0.0, Bytes(200 * MIB)), (9 * hour, Bytes(700 * MIB)), (10 * hour, Bytes(200 * MIB)))
    guest = replace(PLAIN, load=Steps(points=points))
    world = World(host=ROOMY, guests=(guest,), seconds=34.5 * hour, day=day)

    def known(world: World, policy: str) -> set[int]:
        readings = [tick.snapshot.guests[0] for tick in Run(world, RIVALS[policy]).ticks()]
        habits = [(at, reading.habit) for at, reading in enumerate(readings) if reading.habit]
        usual = [(at, each.usual) for at, each in habits if each.usual is not None]
        assert all(at >= 23 * hour for at, _ in usual)
        return {size // (100 * MIB) for _, size in usual}

    assert known(world, "ours") == {2, 7}
    assert known(world, "mom") == set()
    forgets = replace(world.config, journal=replace(world.config.journal, learn=False))
    assert known(replace(world, config=forgets), "ours") == set()
