"""From QMP and /proc to a `GuestView`.

Rules of this file:
    Nothing is changed in a guest, with one exception that is undone: a guest reports statistics
    only while QEMU polls for them, so a fresh report switches polling on and off again.
    A guest that cannot be read is a snapshot with a state that tells why, never an exception:
    one guest that fails must not hide the others.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, TypeVar

from qmpmem.errors import GuestError, GuestRefused, GuestUnreachable
from qmpmem.guests import inventory
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model import sanitise
from qmpmem.model.guest import BalloonDevice, GuestDevices, GuestStats, GuestView
from qmpmem.model.sizes import Sizes, by_report
from qmpmem.records import replace
from qmpmem.units import Bytes
from qmpmem.wire import commands, errors, guest_devices, replies
from qmpmem.wire.channel import Channel, connect_human
from qmpmem.wire.qmp import Deadlines, connect

T = TypeVar("T")

AT_ONCE: Final = 64
"""Most connections at the same time: enough that slow guests delay few, and few enough for 256
files."""

REPORT_WAIT: Final = 1.0
"""Seconds to wait for a guest's first report. A running Linux guest answers within milliseconds."""

_REPORT_POLL: Final = 0.02


async def observe(
    found: LiveGuest, *, detail: bool = False, deadlines: Deadlines | None = None
) -> GuestView:
    """Read one guest over a connection of its own.

    Args:
        found: the guest.
        detail: whether to read its balloon device, its accelerator and a fresh report as well.
        deadlines: how long to wait for it.
    """
    base = inventory.unseen(found)
    try:
        async with open_session(found, deadlines) as session:
            return await look(session, base, detail=detail)
    except GuestUnreachable as error:
        return replace(base, state=errors.state(error.reason), problem=errors.problem(error))
    except GuestError as error:
        return replace(base, state="unreachable", problem=error.message)


async def observe_all(
    guests: Sequence[LiveGuest], *, detail: bool = False, deadlines: Deadlines | None = None
) -> list[GuestView]:
    """Read many guests at once, in the order given; a slow one delays only itself."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(found: LiveGuest) -> GuestView:
        async with room:
            return await observe(found, detail=detail, deadlines=deadlines)

    return list(await asyncio.gather(*(one(found) for found in guests)))


@asynccontextmanager
async def open_session(
    found: LiveGuest, deadlines: Deadlines | None = None
) -> AsyncGenerator[Channel]:
    """Connect to a guest, and to no other process that took its place.

    Raises:
        GuestUnreachable: on entering the context.
    """
    record = found.record
    async with AsyncExitStack() as stack:
        opening = connect_human if record.human else partial(connect, serves_many=record.shared)
        context = opening(
            record.socket,
            guest=record.id,
            expect_pid=found.listener,
            deadlines=deadlines or Deadlines(),
        )
        try:
            session: Channel = await stack.enter_async_context(context)
        except GuestUnreachable as error:
            if error.reason != "gone":
                raise
            # That reads files in /proc, for which no event loop should wait.
            raise await asyncio.to_thread(inventory.lost_socket, found) or error from error
        yield session


async def look(session: Channel, base: GuestView, *, detail: bool) -> GuestView:
    """Return a snapshot with what an open session tells.

    Raises:
        GuestUnreachable: the session broke.
    """
    state = await commands.run_state(session)
    around = await guest_devices.look(session) if detail else GuestDevices()
    sizes = await known(given(session, around))
    claimed = await known(commands.balloon_actual(session))
    counted = sanitise.balloon_actual(claimed, None if sizes is None else sizes.ballooned)
    device, stats = None, None
    if detail or (sizes is not None and sizes.plugged):
        device = await known(commands.find_balloon(session))
    if device is not None and state == "running":
        most = None if sizes is None else sizes.most
        stats = await known(fresh_stats(session, device, most))
    if sizes is not None:
        sizes = by_report(sizes, stats, counted, device)
    # Once more: a guest that is just starting answers when its memory is there.
    memory = inventory.cost(base.pid)
    seen = replace(
        inventory.describe(base, sizes, counted),
        state=state,
        rss=memory.rss,
        machine=await known(commands.machine_type(session)),
        unmovable=base.unmovable or inventory.obstacle(memory, sizes) or around.obstacle,
    )
    if detail:
        kvm = await known(commands.kvm_enabled(session))
        seen = replace(
            seen,
            balloon=device,
            stats=stats,
            used=sanitise.used(seen.actual, stats),
            accelerator=None if kvm is None else "kvm" if kvm else "tcg",
        )
    problem = sanitise.balloon_problem(claimed, counted, state) or session.lacks
    return replace(seen, problem=inventory.remarks(base, seen, problem))


async def measure(session: Channel, found: LiveGuest) -> tuple[Sizes, str | None]:
    """Return a guest's memory, and why a balloon would free nothing of it.

    Raises:
        GuestRefused: this QEMU does not tell.
        GuestUnreachable: the session broke.
    """
    around = await guest_devices.look(session)
    sizes = await given(session, around)
    if sizes.plugged:
        device = await known(commands.find_balloon(session))
        counted = await known(commands.balloon_actual(session))
        stats = None if device is None else await known(fresh_stats(session, device, sizes.most))
        actual = sanitise.balloon_actual(counted, sizes.ballooned)
        sizes = by_report(sizes, stats, actual, device)
    memory = await asyncio.to_thread(inventory.cost, found.pid)
    reason = found.record.unmovable or inventory.obstacle(memory, sizes) or around.obstacle
    return sizes, reason


async def given(session: Channel, around: GuestDevices) -> Sizes:
    """Ask which memory a guest was given, CXL memory included."""
    sizes = await commands.sizes(session)
    return replace(sizes, storage=Bytes(sizes.storage + around.cxl)) if around.cxl else sizes


async def fresh_stats(
    session: Channel, device: BalloonDevice, maximum: Bytes | None
) -> GuestStats | None:
    """Ask the guest for a report now, and leave the polling as it was found.

    Returns:
        The report; the last one where the guest does not answer; None where there never was one.
    """
    asked = int(time.time())
    raw = await commands.guest_stats(session, device)
    if await commands.polling_interval(session, device) == 0:
        await commands.set_polling_interval(session, device, 1)
        try:
            raw = await _next_report(session, device, raw, asked)
        finally:
            await commands.set_polling_interval(session, device, 0)
    return sanitise.guest_stats(raw.stats, raw.last_update, maximum=maximum, now=time.time())


async def known(reading: Awaitable[T]) -> T | None:
    """Return what is read, or None where QEMU has no answer now (preconfig, an older QEMU)."""
    try:
        return await reading
    except GuestRefused:
        return None


async def _next_report(
    session: Channel, device: BalloonDevice, last: replies.RawStats, asked: int
) -> replies.RawStats:
    """Wait for a report of the second `asked` or later; one of that second may be an old one."""
    deadline = asyncio.get_running_loop().time() + REPORT_WAIT
    while True:
        raw = await commands.guest_stats(session, device)
        updated = sanitise.count(raw.last_update) or 0
        if (updated >= asked and raw != last) or asyncio.get_running_loop().time() > deadline:
            return raw
        await asyncio.sleep(_REPORT_POLL)
