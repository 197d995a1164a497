"""What an agent makes of a real guest that is paused, reset, or put back to a snapshot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent.loop import Surroundings
from qmpmem.model.observation import GuestReading
from qmpmem.units import MIB
from tests.rig.guests import ROOT, RunningGuest, boot
from tests.rig.invariants import Watched, watched
from tests.rig.launcher import Monitor, talking
from tests.rig.qemu import make_qcow2, short_directory
from tests.rig.waiting import until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

LAUNCHER: Final = str(ROOT / "launchers" / "kvm")


@asynccontextmanager
async def booted(run: Path, *words: str) -> AsyncIterator[RunningGuest]:
    """Boot a guest beside this loop, by way of the launcher."""
    context = boot([LAUNCHER], extra=["-name", "g", *words], environ={"QMPMEM_RUN_DIR": str(run)})
    guest = await asyncio.to_thread(context.__enter__)
    try:
        yield guest
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@asynccontextmanager
async def watching(run: Path) -> AsyncIterator[Watched]:
    """Run an agent in this loop to which guests report each second."""
    clock = asyncio.get_running_loop().time
    async with watched(Surroundings(run=run, ledger=run / ".ksm", clock=clock)) as seen:
        seen.agent.rarest = 1.0
        yield seen


def known(seen: Watched) -> GuestReading:
    reading = seen.reading("g")
    assert reading is not None
    return reading


async def reported(seen: Watched) -> GuestReading:
    """Wait until the guest has reported since it last began or went on."""
    await seen.until(lambda: (reading := seen.reading("g")) is not None and reading.age is not None)
    return known(seen)


def reports_of_before(seen: Watched, resumed: float) -> list[float]:
    """Return the times of reports from before a pause that count in rounds after it.

    A round that saw it running has heard of the end of the pause: QEMU tells of that first.
    """
    found: list[float] = []
    for tick in reversed(seen.ticks):
        [guest] = tick.snapshot.guests
        if guest.state != "running":
            break
        if guest.age is not None and tick.snapshot.time - guest.age < resumed:
            found.append(tick.snapshot.time - guest.age)
    return found


async def say(monitor: Monitor, *lines: str) -> None:
    for line in lines:
        assert await asyncio.to_thread(monitor.say, line) == ""


async def resets(monitor: Monitor) -> int:
    """Count the resets that QEMU has told of."""
    await asyncio.to_thread(monitor.ask, "query-status")
    return monitor.events.count("RESET")


async def test_a_pause_is_no_new_epoch_a_reset_and_a_snapshot_are() -> None:
    with short_directory() as run:
        make_qcow2(run / "d")
        disk = ("-device", "virtio-blk-pci,drive=d", "-drive", f"file={run}/d,if=none,id=d")
        own = ("-qmp", f"unix:{run}/own,server=on,wait=off")
        async with booted(run, *disk, *own) as guest, watching(run) as seen:
            with talking(run / "own") as monitor:
                before = await reported(seen)
                assert (before.epoch, before.began) == (0, "seen")

                await say(monitor, "stop")
                await seen.until(lambda: known(seen).state == "paused")
                resumed = asyncio.get_running_loop().time()
                await say(monitor, "cont")
                await seen.until(lambda: known(seen).state == "running")
                after = await reported(seen)
                assert not reports_of_before(seen, resumed)
                assert (after.epoch, after.began) == (0, "seen")
                assert after.actual is not None
                assert before.actual is not None
                assert after.actual <= before.actual  # a new epoch has all of its memory back

                await say(monitor, "savevm one")
                await reported(seen)
                await asyncio.to_thread(guest.check, "for i in $(seq 50); do :|cat; done")
                await asyncio.sleep(2.5)  # as often as the guest reports: once more at the least
                assert known(seen).epoch == 0
                await say(monitor, "loadvm one")
                await seen.until(lambda: known(seen).began == "arrived")
                assert known(seen).epoch == 1

                await say(monitor, "system_reset")
                await seen.until(lambda: known(seen).began == "reset")

                # Its firmware may reset it again at once: QEMU tells of each (guest-reset).
                async def heard_all() -> bool:
                    return known(seen).epoch >= 1 + await resets(monitor)

                await until(
                    heard_all,
                    what="each reset begins an epoch",
                    said=lambda: repr((known(seen).epoch, known(seen).began, monitor.events)),
                )


async def test_a_small_guest_that_is_reset_has_all_and_qemu_learns_of_it() -> None:
    """Where its driver has nothing to move, QEMU goes on showing the size of before the reset."""
    with short_directory() as run:
        own = ("-qmp", f"unix:{run}/own,server=on,wait=off")
        async with booted(run, *own), watching(run) as seen:
            with talking(run / "own") as monitor:
                maximum = (await reported(seen)).maximum
                assert maximum is not None
                while (known(seen).actual or maximum) > maximum - 48 * MIB:
                    # The agent may be telling it a size at that moment.
                    await say(monitor, f"balloon {maximum // MIB - 64}")
                    await seen.rounds(2)
                await say(monitor, "system_reset")
                await seen.until(lambda: known(seen).began == "reset")
                await reported(seen)
                await seen.until(lambda: (known(seen).actual or 0) > maximum - MIB)
