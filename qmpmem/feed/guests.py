"""A round without an agent: what the guests and the host report when they are asked.

Rules of this file:
    Nothing is changed in a guest (`qmpmem.guests.read_guest`), and no session outlives a look: an
    agent that begins finds the sockets free.
"""

import asyncio
import time
from pathlib import Path

from qmpmem.errors import KernelError
from qmpmem.feed.records import Round
from qmpmem.guests import inventory, read_guest
from qmpmem.guests.overview import SHORT
from qmpmem.model.guest import GuestStats, GuestView
from qmpmem.model.host import HostMemory, Pressure, VmCounters
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.records import replace
from qmpmem.wire.kernel import host, ksm, pressure


async def look(run: Path, root: Path = Path("/")) -> Round:
    """Look at every guest of a run directory, and at the host.

    Args:
        run: the run directory.
        root: the host's file system.

    Raises:
        ConfigError: the run directory makes no sense.
        KernelError: this user may not look there.
    """
    found = await asyncio.to_thread(inventory.take, run)
    seen = await read_guest.observe_all(found.guests, detail=True, deadlines=SHORT)
    reading, merging = await asyncio.to_thread(_host, root)
    return Round(
        source="guests",
        wall=time.time(),
        snapshot=Snapshot(
            time=time.monotonic(),
            host=reading,
            guests=tuple(guest_reading(each) for each in seen),
            ksm=merging,
            wall=time.time(),
        ),
        notes={each.id: each.problem for each in seen if each.problem is not None},
    )


def guest_reading(seen: GuestView) -> GuestReading:
    """Put what one look showed of a guest into the form that an agent's round has."""
    stats = seen.stats or GuestStats()
    return GuestReading(
        id=seen.id,
        name=seen.name,
        state=seen.state,
        maximum=seen.maximum,
        current=seen.current,
        beyond=seen.beyond,
        actual=seen.actual,
        rss=seen.rss,
        stats=replace(stats, age=None),
        age=stats.age,
        implausible=not stats.consistent,
        exempt=seen.unmovable,
    )


def host_reading(memory: HostMemory, counters: VmCounters, stalls: Pressure | None) -> HostReading:
    """Put what the kernel says of a host into the form that an agent's round has."""
    return HostReading(
        total=memory.total,
        available=memory.available,
        swap_total=memory.swap_total,
        swap_free=memory.swap_free,
        swap_in=counters.swap_in,
        swap_out=counters.swap_out,
        cow_ksm=counters.cow_ksm,
        some=None if stalls is None else stalls.some.avg10,
        full=None if stalls is None or stalls.full is None else stalls.full.avg10,
        stalled=None if stalls is None else stalls.some.total,
    )


def _host(root: Path) -> tuple[HostReading, KsmState | None]:
    try:
        merging = ksm.state(root)
    except KernelError:
        merging = None
    reading = host_reading(host.memory(root), host.counters(root), pressure.pressure(root=root))
    return reading, merging
