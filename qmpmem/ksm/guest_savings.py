"""What merging does for each guest: QEMU tells what it offers, the kernel what was merged.

Rules of this file:
    To read what a process costs waits while its address space is locked. So a few threads do it,
    and the caller waits no longer than `PATIENCE` seconds for them.
    A guest that cannot be asked is shown with what is not known, and never left out.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Final

from qmpmem.errors import GuestError
from qmpmem.guests import read_guest
from qmpmem.guests.inventory import LiveGuest
from qmpmem.ksm.status_records import GuestMerging
from qmpmem.model.host import ProcessCost
from qmpmem.model.ksm import KsmProcess
from qmpmem.records import Record
from qmpmem.units import Bytes
from qmpmem.wire import commands
from qmpmem.wire.kernel import host, ksm
from qmpmem.wire.limits import Deadlines
from qmpmem.wire.replies import MemoryDevice

PATIENCE: Final = 2.0
"""Most seconds to read a process: page tables of 200 GiB take about half a second."""

THREADS: Final = 4
"""Most processes that are read at once."""

_under_way: Final[set[int]] = set()
"""Processes that a thread still reads. `watch` reads again and again, and one thread is enough."""

SHORT: Final = Deadlines(handshake=2.0, query=1.5, probe=0.5)


class QemuOffer(Record, frozen=True):
    """What QEMU tells of a guest's memory."""

    devices: tuple[MemoryDevice, ...] | None = None
    problem: str | None = None


class KernelAccount(Record, frozen=True):
    """What the kernel tells of a guest's process."""

    process: KsmProcess = KsmProcess()
    cost: ProcessCost = ProcessCost()


async def look(
    guests: Sequence[LiveGuest], root: Path = Path("/"), *, ask: bool = True
) -> list[GuestMerging]:
    """Read every guest, in the order given; a slow one delays only itself.

    Args:
        guests: the guests.
        root: the host's file system.
        ask: whether to ask QEMU as well what it offers; else only the kernel is asked.
    """
    room, threads = asyncio.Semaphore(read_guest.AT_ONCE), asyncio.Semaphore(THREADS)

    async def one(found: LiveGuest) -> GuestMerging:
        async with room:
            offer = await _ask(found) if ask else QemuOffer()
        return describe(found, offer, await _account(found.pid, root, threads))

    return list(await asyncio.gather(*(one(found) for found in guests)))


def describe(found: LiveGuest, offer: QemuOffer, account: KernelAccount) -> GuestMerging:
    """Return what is known of one guest. Pure."""
    mergeable, reason = offered(found, offer, account)
    pages, size = account.process.merging_pages, host.page_size()
    return GuestMerging(
        id=found.record.id,
        name=found.record.name,
        pid=found.pid,
        domain=found.record.domain,
        mergeable=mergeable,
        reason=reason,
        merged=None if pages is None else Bytes(pages * size),
        profit=account.process.profit,
        rss=account.cost.rss,
        proportional=account.cost.proportional,
    )


def offered(
    found: LiveGuest, offer: QemuOffer, account: KernelAccount
) -> tuple[bool | None, str | None]:
    """Return whether a guest's memory may be merged, and why not. Pure.

    Shared memory and huge pages never merge, whatever QEMU asked for: only anonymous pages do
    (kernel: admin-guide/mm/ksm). The static mode of a guest only explains why it offers nothing: an
    adopted guest may offer its memory all the same.
    """
    if account.cost.hugetlb:
        return False, "huge pages"
    if not offer.devices:
        return _by_kernel(account.process.mergeable, offer.problem)
    private = [device for device in offer.devices if not device.share]
    if not private:
        return False, "shared memory"
    if not any(device.merge for device in private):
        return False, "static mode" if found.record.mode == "static" else "mem-merge=off"
    return True, None


def _by_kernel(mergeable: bool | None, problem: str | None) -> tuple[bool | None, str | None]:  # noqa: FBT001 - a fact, no switch
    if mergeable is None:
        return None, problem
    return mergeable, None if mergeable else "not offered"


async def _ask(found: LiveGuest) -> QemuOffer:
    try:
        async with read_guest.open_session(found, SHORT) as session:
            return QemuOffer(devices=tuple(await commands.memory_devices(session)))
    except GuestError as error:
        return QemuOffer(problem=error.message)


async def _account(pid: int | None, root: Path, room: asyncio.Semaphore) -> KernelAccount:
    if pid is None:
        return KernelAccount()
    async with room:
        if pid in _under_way:
            return KernelAccount()
        try:
            return await asyncio.wait_for(_read_aside(pid, root), PATIENCE)
        except TimeoutError:
            return KernelAccount()


def _read_aside(pid: int, root: Path) -> asyncio.Future[KernelAccount]:
    """Read in a thread for which the program does not wait at its end, unlike an executor's."""
    reading: Future[KernelAccount] = Future()

    def work() -> None:
        try:
            reading.set_running_or_notify_cancel()
            reading.set_result(_read(pid, root))
        finally:
            _under_way.discard(pid)

    _under_way.add(pid)

    Thread(target=work, name=f"ksm-{pid}", daemon=True).start()
    return asyncio.wrap_future(reading)


def _read(pid: int, root: Path) -> KernelAccount:
    return KernelAccount(process=ksm.process(pid, root), cost=ksm.cost(pid, root))
