"""What else QEMU tells of a guest that decides whether its balloon frees anything.

Rules of this file:
    What an older QEMU does not know is left out: the kernel shows most of it as well, in what a
    process has locked, pinned and in huge pages.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from qmpmem.errors import GuestRefused
from qmpmem.model import obstacles
from qmpmem.model.guest import GuestDevices
from qmpmem.units import Bytes
from qmpmem.wire import commands
from qmpmem.wire.channel import Channel

T = TypeVar("T")

_CXL: Final = "cxl-type3"
_CXL_MEMORY: Final = ("memdev", "volatile-memdev", "persistent-memdev")
_CONFIDENTIAL: Final = "confidential-guest-support"
_DISKS: Final = ("virtio-blk", "scsi-", "ide-", "nvme", "usb-storage", "vhost-user-blk")
MOST_DISKS: Final = 4
"""Most disks of a guest that are asked about. QEMU tells 0.6 to 1.6 KiB of each image below a disk,
and takes one line for all of them. The kernel shows what VFIO pins for a disk in any case."""
MOST_BACKENDS: Final = 32
"""Most memory backends that are looked at; a guest has few."""


async def look(
    session: Channel, is_file: Callable[[str], bool] = os.path.isfile, *, disks: bool = True
) -> GuestDevices:
    """Ask QEMU for all of it: some five questions, and one or two for each memory backend.

    Args:
        session: the guest's session.
        is_file: tells whether a path is a file here.
        disks: whether to ask about the disks as well, where there are few.

    Raises:
        GuestUnreachable: the session broke.
    """
    found = await _or(commands.devices(session), [])
    obstacle = (
        obstacles.of_devices(kind for _, kind in found)
        or obstacles.of_disks(await _drivers(session, found) if disks else [])
        or await _encrypted(session)
        or await _backed(session, is_file)
    )
    return GuestDevices(obstacle=obstacle, cxl=await _cxl(session, found))


async def _drivers(session: Channel, found: Sequence[tuple[str, str]]) -> list[str]:
    """List the drivers of the disks; [] where there are many, for the answer would be too long."""
    many = sum(kind.startswith(_DISKS) for _, kind in found) > MOST_DISKS
    return [] if many else await _or(commands.block_drivers(session), [])


async def _encrypted(session: Channel) -> str | None:
    found = await _or(commands.text(session, "/machine", _CONFIDENTIAL), "")
    return "its memory is encrypted" if found.startswith("/") else None  # the path of an object


async def _backed(session: Channel, is_file: Callable[[str], bool]) -> str | None:
    """Return why the objects behind the guest's memory keep it, or None where they do not."""
    entries = await _or(commands.properties(session, "/objects"), [])
    for entry in entries[:MOST_BACKENDS]:
        path = f"/objects/{entry.name}"
        if entry.child == "memory-backend-memfd" and await _is_on(session, path, "hugetlb"):
            return "its memory is in huge pages"
        if entry.child == "memory-backend-file" and not await _is_on(session, path, "share"):
            # In a directory QEMU makes a file of its own, and unlinks it.
            file = await _or(commands.text(session, path, "mem-path"), "")
            if await asyncio.to_thread(is_file, file):
                return "its memory is a private copy of a file, which a balloon damages"
    return None


async def _cxl(session: Channel, found: Sequence[tuple[str, str]]) -> Bytes:
    size = 0
    for path, kind in found:
        for link in _CXL_MEMORY if kind == _CXL else ():
            backend = await _or(commands.text(session, path, link), "")
            size += await _or(commands.number(session, backend, "size"), 0) if backend else 0
    return Bytes(size)


async def _is_on(session: Channel, path: str, name: str) -> bool:
    return bool(await _or(commands.switch(session, path, name), default=False))


async def _or(reading: Awaitable[T], default: T) -> T:
    try:
        return await reading
    except GuestRefused:
        return default
