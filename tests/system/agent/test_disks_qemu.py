"""What an agent sees a real guest read from its disks."""

import asyncio

import pytest

from qmpmem.agent.loop import Surroundings
from tests.rig.invariants import Watched, watched
from tests.rig.qemu import BALLOON, make_qcow2, paused, short_directory

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

SECTORS = 8
READER = bytes.fromhex(
    "fa31c08ed88ed0bc007c"  # no interrupts, segments 0, stack below
    f"b402b0{SECTORS:02x}b500b102b600bb007e"  # int 13h, read: as many sectors, behind the first
    "cd13f4ebfd"  # from the disk that was booted; halt
)
"""What a boot sector does here: the firmware has read it, and it reads some sectors more."""
BOOT = READER.ljust(510, b"\0") + b"\x55\xaa"


def reads(seen: Watched, guest: str) -> int | None:
    reading = seen.reading(guest)
    return None if reading is None else reading.reads


async def test_what_a_guest_reads_is_counted_once_whatever_lies_below_its_disks() -> None:
    with short_directory() as run:
        (run / "boot").write_bytes(BOOT.ljust(1 << 20, b"\0"))
        make_qcow2(run / "empty")
        drives = ("file={}/boot,format=raw,if=virtio", "file={}/empty,format=qcow2,if=virtio")
        words = [word for each in drives for word in ("-drive", each.format(run))]
        drive = ("-device", "ide-cd,drive=none", "-drive", "if=none,id=none,media=cdrom")
        with (
            paused(run, "reader", extra=(*BALLOON, *words, *drive), running=True),
            paused(run, "none", extra=(*BALLOON, *drive)),
        ):
            clock = asyncio.get_running_loop().time
            async with watched(Surroundings(run=run, ledger=run / ".ksm", clock=clock)) as seen:
                seen.agent.rarest = 1.0
                await seen.until(lambda: (reads(seen, "reader") or 0) >= (SECTORS + 1) * 512)
                assert (reads(seen, "reader") or 0) < 64 * 512
                assert reads(seen, "none") is None
                assert seen.reading("none") is not None
