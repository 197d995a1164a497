"""The library on real guests with Linux in them: what we say happens, the guest confirms."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from launchers.guest.errors import ChannelError
from qmpmem import Guest
from qmpmem.errors import ConfigError, NotReached
from qmpmem.guests.guest import find
from qmpmem.model import bounds, sanitise
from qmpmem.units import MIB, Bytes
from qmpmem.wire import commands
from qmpmem.wire.qmp import connect
from tests.rig.command import PROGRAM, called, plain_environment
from tests.rig.guests import RunningGuest, boot
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(90)]

LAUNCHER = str(Path(__file__).resolve().parents[3] / "launchers" / "kvm")
MAXIMUM = Bytes(512 * MIB)
HALF = Bytes(256 * MIB)


class Booted(NamedTuple):
    """A guest that was started through the launcher, and where it is registered."""

    inside: RunningGuest
    run: Path

    def open(self) -> Guest:
        return Guest("g1", run=self.run)


@contextmanager
def booted(memory: str = "512M", *extra: str) -> Iterator[Booted]:
    with short_directory() as directory:
        run = directory / "guests"
        environ = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DEFAULTS": "/proc/nonexistent"}
        with boot(
            [LAUNCHER], memory=memory, extra=["-name", "g1", *extra], environ=environ
        ) as inside:
            yield Booted(inside, run)


@pytest.fixture(scope="module")
def shared() -> Iterator[Booted]:
    """A guest for the tests that give back what they took."""
    with booted() as guest:
        yield guest


@pytest.fixture
def guest(shared: Booted) -> Iterator[Booted]:
    yield shared
    shared.inside.check("eat stop")
    asyncio.run(_restore(shared))


@pytest.fixture(scope="module")
def second() -> Iterator[Booted]:
    """A guest for the tests that have it start again; the last of them ends it."""
    with booted("256M") as guest:
        yield guest


async def _restore(guest: Booted) -> None:
    async with guest.open() as opened:
        await opened.set(await opened.maximum())
        await opened.wait(await opened.maximum(), timeout=patient(30))


async def test_memory_that_is_taken_is_gone_in_the_guest_and_comes_back(guest: Booted) -> None:
    before = await asyncio.to_thread(guest.inside.meminfo, "MemAvailable")
    async with guest.open() as opened:
        await opened.set(HALF)
        assert await opened.wait(HALF, timeout=patient(30)) == HALF
        squeezed = await asyncio.to_thread(guest.inside.meminfo, "MemAvailable")
        assert 246 <= before - squeezed <= 266
        await opened.set(MAXIMUM)
        await opened.wait(MAXIMUM, timeout=patient(30))
    # Pages that are being reported free are taken out of the free lists for a moment.
    await asyncio.to_thread(
        until, lambda: guest.inside.meminfo("MemAvailable") >= before - 10, what="it is back"
    )


async def test_the_report_is_what_the_guest_sees_and_polling_is_left_as_it_was(
    guest: Booted,
) -> None:
    async with guest.open() as opened:
        seen = await opened.snapshot()
    assert seen.stats is not None
    assert seen.stats.consistent
    assert seen.stats.total is not None
    assert seen.stats.available is not None
    total = await asyncio.to_thread(guest.inside.meminfo, "MemTotal")
    available = await asyncio.to_thread(guest.inside.meminfo, "MemAvailable")
    assert abs(seen.stats.total // MIB - total) <= 1
    assert abs(seen.stats.available // MIB - available) <= 10
    assert seen.stats.age is not None
    assert seen.stats.age < 2
    async with connect(find("g1", guest.run).record.socket, guest="g1") as session:
        device = await commands.find_balloon(session)
        assert device is not None
        assert await commands.polling_interval(session, device) == 0


async def test_polling_that_another_client_set_up_is_left_alone(guest: Booted) -> None:
    async with connect(find("g1", guest.run).record.socket, guest="g1") as session:
        device = await commands.find_balloon(session)
        assert device is not None
        await commands.set_polling_interval(session, device, 7)
    async with guest.open() as opened:
        assert (await opened.snapshot()).stats is not None
    async with connect(find("g1", guest.run).record.socket, guest="g1") as session:
        assert await commands.polling_interval(session, device) == 7
        await commands.set_polling_interval(session, device, 0)


async def test_a_balloon_on_its_way_says_so_in_events(guest: Booted) -> None:
    async with guest.open() as opened:
        await opened.set(HALF)
        async with asyncio.timeout(patient(20)):
            async for event in opened.events():
                if event.event == "BALLOON_CHANGE" and event.data["actual"] == HALF:
                    break


async def test_a_refused_target_changes_nothing(guest: Booted) -> None:
    async with guest.open() as opened:
        for odd in (MAXIMUM + 4096, 100 * MIB, 0, -4096):
            with pytest.raises(ConfigError):
                await opened.set(Bytes(odd))
        assert await opened.actual() == MAXIMUM


async def test_cache_and_free_memory_go_but_what_the_guest_uses_stays(guest: Booted) -> None:
    await asyncio.to_thread(guest.inside.check, "eat random 200")
    async with guest.open() as opened:
        await opened.set(Bytes(320 * MIB))
        await opened.wait(Bytes(320 * MIB), timeout=patient(30))
    assert "held" in await asyncio.to_thread(guest.inside.check, "eat status")


def test_the_command_line_waits_until_the_guest_is_there(guest: Booted) -> None:
    ran = called("set", "g1", "256M", "--wait", run=guest.run)
    assert (ran.code, ran.out) == (0, "g1: 256 MiB\n")
    assert json.loads(called("list", "--json", run=guest.run).out)[0]["actual"] == HALF
    text = "set g* 300M\nwait g* 300M 20s\nget g1\n"
    results = called("script", "-", run=guest.run, text=text).out.splitlines()
    assert json.loads(results[2])["guest"]["actual"] == 300 * MIB


def test_watching_shows_a_line_for_each_look(guest: Booted) -> None:
    environ = plain_environment() | {"QMPMEM_RUN_DIR": str(guest.run)}
    with subprocess.Popen(
        [PROGRAM, "stats", "g1", "--watch", "0.1"], env=environ, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline().split() for _ in range(4)]
        child.terminate()
    assert b" ".join(lines[0]) == b"ACTUAL USED AVAILABLE CACHE SWAP-IN SWAP-OUT MAJFLT RSS"
    assert [line[0] for line in lines[1:]] == [b"512"] * 3


async def test_a_guest_without_the_driver_stays_where_it_is_and_that_is_said(
    second: Booted,
) -> None:
    device = "/sys/bus/virtio/drivers/virtio_balloon"
    await asyncio.to_thread(
        second.inside.check, f"cd {device}; echo virtio* >unbind; test ! -e virtio0"
    )
    async with second.open() as opened:
        await opened.set(Bytes(200 * MIB))
        with pytest.raises(NotReached, match="at 256 MiB after"):
            await opened.wait(Bytes(200 * MIB), timeout=0.5)
        # The driver reported once when it was loaded; what it said then is shown with its age.
        first = (await opened.snapshot()).stats
        later = (await opened.snapshot()).stats
        assert first is not None
        assert later is not None
        assert later.last_update == first.last_update
        await opened.set(Bytes(256 * MIB))
    await asyncio.to_thread(second.inside.check, f"echo virtio0 >{device}/bind")


async def test_a_guest_in_need_takes_its_memory_back_and_lives(guest: Booted) -> None:
    async with guest.open() as opened:
        await opened.set(Bytes(192 * MIB))
        await opened.wait(Bytes(192 * MIB), timeout=patient(30))
        # More than it has left: deflate-on-oom comes before the OOM killer.
        await asyncio.to_thread(guest.inside.check, "eat random 300")
        assert "held" in await asyncio.to_thread(guest.inside.check, "eat status")
        assert await opened.actual() > 300 * MIB


async def test_a_guest_that_restarts_is_still_ours(second: Booted) -> None:
    async with second.open() as opened:
        await opened.set(Bytes(160 * MIB))
        await opened.wait(Bytes(160 * MIB), timeout=patient(30))
        with_restart = asyncio.create_task(_next(opened, "RESET"))
        with pytest.raises(ChannelError):
            await asyncio.to_thread(second.inside.execute, "reboot -f")
        await asyncio.wait_for(with_restart, timeout=patient(30))
        await opened.set(Bytes(256 * MIB))
        await asyncio.to_thread(second.inside.wait_until_up)
        assert await asyncio.to_thread(second.inside.meminfo, "MemTotal") > 200
        for size in (160 * MIB, 256 * MIB):
            await opened.set(Bytes(size))
            await opened.wait(Bytes(size), timeout=patient(30))


async def test_programs_that_the_guest_killed_and_waits_for_memory_are_counted(
    guest: Booted,
) -> None:
    async with guest.open() as opened:
        before = (await opened.snapshot()).stats
        if before is None or before.oom_kills is None or before.alloc_stalls is None:
            pytest.skip("this QEMU, or the guest's kernel, does not count them")
        assert (await asyncio.to_thread(guest.inside.execute, "eat random 700")).code == 137
        after = before
        async with asyncio.timeout(patient(30)):
            while after.oom_kills == before.oom_kills:  # each look waits for a new report
                after = (await opened.snapshot()).stats or before
    assert after.consistent
    assert after.oom_kills == before.oom_kills + 1
    assert (after.alloc_stalls or 0) > before.alloc_stalls


async def test_after_a_reset_nothing_of_before_is_reported(second: Booted) -> None:
    path = find("g1", second.run).record.socket
    async with connect(path, guest="g1") as session:
        device = await commands.find_balloon(session)
        assert device is not None
        before = await commands.guest_stats(session, device)
        assert before.stats["stat-total-memory"] != sanitise.NOT_REPORTED
        await session.change("stop")
        await session.change("system_reset")
        reported = await commands.guest_stats(session, device)
    try:
        async with second.open() as opened:
            seen = await opened.snapshot()
        ran = await asyncio.to_thread(called, "stats", "g1", run=second.run)
    finally:
        async with connect(path, guest="g1") as session:
            await session.change("cont")
        await asyncio.to_thread(second.inside.wait_until_up)
    if reported.stats["stat-total-memory"] != sanitise.NOT_REPORTED:
        pytest.skip("this QEMU keeps what was reported before a reset")
    assert seen.state in {"paused", "prelaunch"}
    assert seen.stats is None or (seen.stats.consistent and seen.stats.total is None)
    assert (ran.code, "contradict" in ran.out) == (0, False)
    async with second.open() as opened:
        again = (await opened.snapshot()).stats
        assert again is not None
        assert again.total is not None


async def test_what_linux_reports_of_itself_is_never_called_a_contradiction(
    guest: Booted,
) -> None:
    await _report_at_both_ends(guest)


async def test_nor_is_it_in_a_small_guest() -> None:
    with booted("160M") as guest:
        await _report_at_both_ends(guest)


async def _report_at_both_ends(guest: Booted) -> None:
    async with guest.open() as opened:
        maximum = await opened.maximum()
        for target in (maximum, bounds.floor(maximum)):
            await opened.set(target)
            await opened.wait(target, timeout=patient(30))
            seen = await opened.snapshot()
            assert seen.stats is not None
            assert seen.stats.consistent
            assert seen.stats.free is not None


def test_a_guest_that_ended_is_gone_from_the_list(second: Booted) -> None:
    assert second.inside.poweroff() == 0
    until(lambda: json.loads(called("list", "--json", run=second.run).out) == [])
    assert not (second.run / "g1").exists()


async def _next(guest: Guest, name: str) -> None:
    async for event in guest.events():
        if event.event == name:
            return
