"""What the agent makes of memory that no balloon frees, and of memory that is plugged in."""

from collections.abc import Callable

import pytest

from qmpmem.units import MIB
from tests.rig.agent_scenarios import is_seen, play
from tests.rig.fakeguest import FakeGuest, FakeHost
from tests.rig.invariants import Watched

LATER = 90.0
"""Seconds within which what a guest has is looked at again."""


def exempt(seen: Watched, guest: str) -> str:
    reading = seen.reading(guest)
    return "" if reading is None or reading.exempt is None else reading.exempt


def pass_a_device(guest: FakeGuest) -> None:
    guest.passed = ["vfio-pci"]


def pass_a_disk(guest: FakeGuest) -> None:
    guest.disks = ["raw", "nvme"]


def encrypt(guest: FakeGuest) -> None:
    guest.confidential = "/objects/sev0"


def pin(guest: FakeGuest) -> None:
    guest.costs = "VmPin:\t524288 kB\n"


def lock(guest: FakeGuest) -> None:
    guest.costs = "VmLck:\t524288 kB\n"


def use_huge_pages(guest: FakeGuest) -> None:
    guest.costs = "HugetlbPages:\t2048 kB\n"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (pass_a_device, "vfio-pci"),
        (pass_a_disk, "nvme"),
        (encrypt, "encrypted"),
        (pin, "pinned"),
        (lock, "locked"),
        (use_huge_pages, "huge pages"),
    ],
)
def test_what_stands_against_a_balloon_is_seen_later_too(
    change: Callable[[FakeGuest], None], part: str
) -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a", "b"))
        assert not exempt(seen, "a")
        change(host.guests["a"])
        await seen.until(lambda: part in exempt(seen, "a"), seconds=LATER)
        shown = seen.agent.guests["a"].snapshot(None)
        assert shown.unmovable is not None
        assert part in shown.unmovable
        assert f"a balloon frees nothing: {shown.unmovable}" == shown.problem
        assert not exempt(seen, "b")

    play(scene, "a", "b")


def test_a_guest_whose_disks_are_too_much_to_tell_is_not_asked_of_them_again() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        guest = host.guests["a"]
        guest.disks = ["qcow2" * 100] * 1000  # a line of 500 KiB
        await seen.until(lambda: not is_seen(seen, "a"), seconds=LATER)
        await seen.until(lambda: is_seen(seen, "a"), seconds=LATER)
        asked = guest.commands.count("query-named-block-nodes")
        await seen.rounds(150)
        assert is_seen(seen, "a")
        assert guest.commands.count("query-named-block-nodes") == asked

    play(scene, "a")


def test_memory_that_is_not_online_is_not_the_guest_s_and_no_target_counts_on_it() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a", "b"))
        guest = host.guests["a"]
        guest.kept = 48
        guest.plug("dimm", 256)
        await seen.until(lambda: seen.agent.guests["a"].snapshot(None).offline == 256 * MIB)
        reading = seen.reading("a")
        assert reading is not None
        assert (reading.maximum, reading.actual) == (512 * MIB, 512 * MIB)
        host.total = 1100
        await seen.until(lambda: bool(guest.balloons), seconds=120)
        # QEMU counts the DIMM in; what is left to the guest is its target all the same.
        assert min(guest.balloons) >= (256 + 179) * MIB
        guest.online = 256
        await seen.until(lambda: seen.agent.guests["a"].snapshot(None).offline == 0, seconds=30)
        explained = seen.ticks[-1].plan.guests[0]
        assert explained.maximum == 768 * MIB
        assert explained.verdict != "foreign"

    play(scene, "a", "b", total=4096)


def test_virtio_mem_is_the_guest_s_and_no_balloon_takes_it() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        guest = host.guests["a"]
        guest.plug("virtio-mem", 512)
        guest.online = 512
        guest.event("MEMORY_DEVICE_SIZE_CHANGE", {"id": "v", "size": 512 * MIB, "qom-path": "/v"})
        await seen.until(lambda: _maximum(seen) == 1024 * MIB, seconds=30)
        reading = seen.reading("a")
        assert reading is not None
        assert (reading.actual, reading.beyond, reading.implausible) == (
            1024 * MIB,
            512 * MIB,
            False,
        )
        await seen.rounds(10)
        explained = seen.ticks[-1].plan.guests[0]
        assert explained.minimum == (512 + 179) * MIB + 204 * 1024
        assert explained.verdict == "normal"

    play(scene, "a")


def _maximum(seen: Watched) -> int | None:
    reading = seen.reading("a")
    return None if reading is None else reading.maximum
