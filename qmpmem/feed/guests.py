"""A round without an agent: what the guests and the host say when they are asked.

Rules of this file:
    Nothing is changed in a guest (`qmpmem.sources`), and no session outlives a look: an agent that
    begins finds the sockets free.
"""

import asyncio
import time
from pathlib import Path

from qmpmem import inventory, sources
from qmpmem.errors import KernelError
from qmpmem.feed.records import Round
from qmpmem.overview import SHORT
from qmpmem.sight import GuestSight, HostSight, Snapshot
from qmpmem.snapshot import GuestSnapshot, GuestStats, HostMemory, KsmState, Pressure, VmCounters
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
    seen = await sources.observe_all(found.guests, detail=True, deadlines=SHORT)
    sight, merging = await asyncio.to_thread(_host, root)
    return Round(
        source="guests",
        wall=time.time(),
        snapshot=Snapshot(
            time=time.monotonic(),
            host=sight,
            guests=tuple(guest_sight(each) for each in seen),
            ksm=merging,
            wall=time.time(),
        ),
        notes={each.id: each.problem for each in seen if each.problem is not None},
    )


def guest_sight(seen: GuestSnapshot) -> GuestSight:
    """Put what one look showed of a guest into the form that an agent's round has."""
    stats = seen.stats or GuestStats()
    return GuestSight(
        id=seen.id,
        name=seen.name,
        state=seen.state,
        maximum=seen.maximum,
        current=seen.current,
        beyond=seen.beyond,
        actual=seen.actual,
        rss=seen.rss,
        available=stats.available,
        free=stats.free,
        total=stats.total,
        disk_caches=stats.disk_caches,
        swap_in=stats.swap_in,
        swap_out=stats.swap_out,
        major_faults=stats.major_faults,
        oom_kills=stats.oom_kills,
        alloc_stalls=stats.alloc_stalls,
        age=stats.age,
        implausible=not stats.consistent,
        exempt=seen.unmovable,
    )


def host_sight(memory: HostMemory, counters: VmCounters, stalls: Pressure | None) -> HostSight:
    """Put what the kernel says of a host into the form that an agent's round has."""
    return HostSight(
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


def _host(root: Path) -> tuple[HostSight, KsmState | None]:
    try:
        merging = ksm.state(root)
    except KernelError:
        merging = None
    sight = host_sight(host.memory(root), host.counters(root), pressure.pressure(root=root))
    return sight, merging
