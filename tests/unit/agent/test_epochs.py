"""When a guest begins anew, and when only its last report is void."""

import pytest

from qmpmem.agent import epochs
from qmpmem.model.guest import GuestStats
from qmpmem.units import Bytes
from tests.rig.agent_scenarios import is_seen, play
from tests.rig.fakeguest import FakeGuest, FakeHost
from tests.rig.invariants import Watched

AWAY = (
    ("paused", "running", False),
    ("postmigrate", "running", False),
    ("finish-migrate", "running", False),
    ("save-vm", "running", False),
    ("suspended", "running", False),
    ("unreachable", "running", False),
    ("", "running", False),
    ("inmigrate", "inmigrate", False),
    ("inmigrate", "running", True),
    ("inmigrate", "paused", True),
    ("restore-vm", "running", True),
    ("prelaunch", "running", True),
    ("prelaunch", "inmigrate", False),
)


@pytest.mark.parametrize(("before", "state", "expected"), AWAY)
def test_a_guest_arrives_out_of_states_in_which_its_memory_was_elsewhere(
    before: str, state: str, *, expected: bool
) -> None:
    assert epochs.arrives(before, state) is expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, GuestStats(), False),
        (GuestStats(major_faults=5), None, False),
        (GuestStats(major_faults=5), GuestStats(major_faults=5), False),
        (GuestStats(major_faults=5), GuestStats(), False),
        (GuestStats(major_faults=5, minor_faults=5), GuestStats(minor_faults=4), True),
        (GuestStats(swap_in=Bytes(5)), GuestStats(swap_in=Bytes(4), major_faults=9), True),
    ],
)
def test_counters_that_went_back(
    before: GuestStats | None, after: GuestStats | None, *, expected: bool
) -> None:
    assert epochs.went_back(before, after) is expected


async def known(host: FakeHost, seen: Watched) -> FakeGuest:
    """Wait until the guest has reported more than once."""
    guest = host.guests["a"]
    guest.stats = {"stat-major-faults": 100, "stat-minor-faults": 100}
    await seen.until(lambda: is_seen(seen, "a") and age(seen) is not None)
    return guest


def age(seen: Watched) -> float | None:
    reading = seen.reading("a")
    return None if reading is None else reading.age


def life(seen: Watched) -> tuple[int, str]:
    reading = seen.reading("a")
    assert reading is not None
    return reading.epoch, reading.began


@pytest.mark.parametrize("event", ["RESUME", "WAKEUP"])
def test_a_guest_that_goes_on_is_in_the_same_epoch_with_its_last_report_void(event: str) -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = await known(host, seen)
        guest.reports = False
        guest.event(event)
        await seen.rounds(2)
        reading = seen.reading("a")
        assert reading is not None
        assert (reading.age, reading.stats.available) == (None, 412 << 20)
        guest.reports = True
        await seen.until(lambda: age(seen) is not None)
        await seen.rounds(20)
        assert life(seen) == (0, "seen")

    play(scene, "a")


def test_a_resume_keeps_the_order_that_was_on_its_way() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = await known(host, seen)
        watcher = seen.agent.guests["a"]
        guest.hang()
        await seen.rounds(1)
        watcher.order(300 << 20)  # type: ignore[arg-type]
        guest.event("RESUME")
        guest.go_on()
        await watcher.settled()
        assert guest.balloons == [300 << 20]

    play(scene, "a")


def test_a_reset_begins_anew_and_so_does_a_snapshot_that_was_loaded() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = await known(host, seen)
        guest.reset()
        await seen.until(lambda: life(seen) == (1, "reset"))
        await seen.until(lambda: age(seen) is not None)
        guest.event("STOP")
        guest.stats = {"stat-major-faults": 90, "stat-minor-faults": 100}
        guest.event("RESUME")
        await seen.until(lambda: life(seen) == (2, "arrived"))
        assert age(seen) is not None
        guest.stats = {"stat-major-faults": 80}  # without a pause: an odd guest, and no more
        await seen.rounds(30)
        assert life(seen) == (2, "arrived")

    play(scene, "a")


def test_a_snapshot_that_is_loaded_is_one_beginning_whichever_sign_comes_first() -> None:
    """Its run state is seen before its event is heard, with the report of before still there."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = await known(host, seen)
        guest.state = "restore-vm"
        guest.event("STOP")
        await seen.until(
            lambda: (now := seen.reading("a")) is not None and now.state == guest.state
        )
        guest.reports = False
        guest.state = "running"
        await seen.until(lambda: life(seen) == (1, "arrived"))
        guest.event("RESUME")
        await seen.rounds(2)
        guest.stats = {"stat-major-faults": 90, "stat-minor-faults": 100}
        guest.reports = True
        await seen.until(lambda: age(seen) is not None)
        await seen.rounds(20)
        assert life(seen) == (1, "arrived")

    play(scene, "a")


def test_one_that_is_loaded_after_the_first_report_counts_as_well() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        guest.stats = {"stat-major-faults": 100, "stat-minor-faults": 100}
        await seen.until(
            lambda: (reading := seen.reading("a")) is not None and reading.stats.major_faults == 100
        )
        assert age(seen) is None, "it has reported once"
        guest.event("RESUME")
        guest.stats = {"stat-major-faults": 90, "stat-minor-faults": 100}
        await seen.until(lambda: life(seen) == (1, "arrived"))

    play(scene, "a")


@pytest.mark.parametrize(
    ("state", "expected"),
    [("paused", (0, "seen")), ("inmigrate", (1, "arrived")), ("prelaunch", (1, "seen"))],
)
def test_a_migration_that_arrives_begins_anew_also_where_the_session_broke(
    state: str, expected: tuple[int, str]
) -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        guest.state = state
        guest.event("STOP")
        await seen.until(
            lambda: (reading := seen.reading("a")) is not None and reading.state == state
        )
        for line in tuple(guest.lines):
            line.close()
        await seen.until(
            lambda: (reading := seen.reading("a")) is not None and reading.state != state
        )
        guest.state = "running"
        await seen.until(lambda: is_seen(seen, "a"))
        assert life(seen) == expected

    play(scene, "a")


def test_a_report_that_was_cleared_is_none() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = await known(host, seen)
        guest.reports = False
        guest.last_update = None
        await seen.rounds(15)
        reading = seen.reading("a")
        assert reading is not None
        assert (reading.age, reading.stats.available) == (None, None)

    play(scene, "a")
