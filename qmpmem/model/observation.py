"""What one round of the agent saw: all that a decision may rest on, and nothing else.

Rules of this file:
    Frozen records of plain values, so that a round can be written down, read, and decided again.
    Time is `Snapshot.time`, seconds of one steady clock; the wall clock is only for people.
    What is not known is None, and nothing is done that would rest on it.
"""

from collections.abc import Mapping
from typing import Literal

from qmpmem.model.guest import GuestStats
from qmpmem.model.ksm import KsmState
from qmpmem.records import Record
from qmpmem.units import Bytes

Way = Literal["reclaim", "high", "empty"]
"""How the host reclaims memory of a cgroup: memory.reclaim (Linux 5.19); memory.high, lowered for
a moment; memory.force_empty of version 1, stopped when enough is reclaimed."""
Beginning = Literal["seen", "reset", "arrived"]
"""How an epoch of a guest began: it was first seen, or its QEMU started; it was reset; it arrived
with its memory, by a migration or out of a snapshot."""


class Habit(Record, frozen=True, omit_defaults=True):
    """What a guest used at this hour of the day, and as it started, on the days before.

    (U), bounded by the host: no guest uses more than its process has.
    """

    maximum: Bytes
    """What it could have then. Under another maximum nothing of this holds."""
    usual: Bytes | None = None
    """What was enough for nine minutes of ten, on half of the days. None: nothing is known of this
    hour."""
    peak: Bytes | None = None
    """The most that it used at this hour."""
    start: Bytes | None = None
    """The most that it used right after its QEMU started, at half of its last starts."""
    days: int = 0
    """Number of days on which something was learned of this hour."""


class GuestReading(Record, frozen=True, omit_defaults=True):
    """One guest in one round. (T): the host tells it. (U): the guest tells it, checked."""

    id: str
    state: str
    """QEMU's run state; or ``unreachable``, ``busy``, ``in-use``, ``gone``. (T)"""
    name: str | None = None
    """What its owner called it: any text, not unique. None: not known. (T)"""
    epoch: int = 0
    """Number of its starts, resets and arrivals by migration, after which all begins anew. A pause,
    a suspend and a migration that failed do not count: they only void the last report (`age`). (T)
    """
    began: Beginning = "seen"
    """How this epoch began. After a reset QEMU keeps the old target, and `actual` is the old size
    until the guest's driver has begun. A guest that arrived has what it had where it came from. (T)
    """
    up: float | None = None
    """Seconds since its QEMU started. (T)"""
    maximum: Bytes | None = None
    """Boot memory plus the plugged memory that it uses. (T), the part that it uses (U)"""
    current: Bytes | None = None
    """What its user asked to start it with: the size that it started with, or is told to go to as
    it starts; None: its user asked for none. QEMU has this target before the agent's first command.
    (T)"""
    beyond: Bytes | None = None
    """The part of `maximum` that no balloon takes; None: there is none. (T)"""
    actual: Bytes | None = None
    """What it has; None where its claim cannot be true, or it has no balloon. (U)"""
    deflates: bool | None = None
    """Whether it takes memory back by itself before it kills (deflate-on-oom). (T)"""
    implausible: bool = False
    """Its claims contradict each other or the world. (U)"""
    rss: Bytes | None = None
    """VmRSS of its process. (T)"""
    swap: Bytes | None = None
    """What the host swapped out of it: by its own cgroup, else VmSwap of its process. (T)"""
    ceiling: Bytes | None = None
    """What the limit of its own cgroup lets it have; None without one. (T)"""
    cost: Bytes | None = None
    """What it costs the host: what its own cgroup holds, less file cache, else `rss`. Merged and
    shared pages count once, in the cgroup that touched them first. (T)"""
    stats: GuestStats = GuestStats()
    """Its last report, without the age that it has there. `available` is what it could give up by
    now, if it uses what it used when it reported. (U)"""
    reads: Bytes | None = None
    """Bytes that its devices read from its disks since its QEMU started, as of the last report
    (query-blockstats). None: not known, as without a disk. It goes down when a disk is unplugged.
    (T)"""
    reads_waited: int | None = None
    """Microseconds that its reads took together (`rd_total_time_ns`). (T)"""
    stalled: int | None = None
    """Microseconds in which a task of its own cgroup waited for memory (memory.pressure, total of
    some); None: it is in no cgroup of its own, or that has no such file. (T)"""
    way: Way | None = None
    """How the host can reclaim memory of its own cgroup; None: not at all. (T)"""
    reclaiming: bool = False
    """Whether the host has not yet finished the last reclaim of it. (T)"""
    bare: bool = False
    """Whether it has no balloon, and nothing is known that keeps its memory where it is. (T)"""
    made: bool = False
    """Whether the launcher made that cgroup. (T)"""
    refaults: Bytes | None = None
    """What its cgroup had to read back from swap soon after it was reclaimed, since the cgroup was
    made (memory.stat: workingset_refault_anon); None: not known. (T)"""
    age: float | None = None
    """Seconds since its report last changed, by the agent's clock. None: it never reported."""
    every: float | None = None
    """Seconds from one report to the next that it was last asked for. None: not known."""
    exempt: str | None = None
    """Why its memory must not be moved (paused, migrating, vfio, mem-lock, static, ...). (T)"""
    refused: str | None = None
    """What went wrong with the command of the round before. (T)"""
    domain: str | None = None
    habit: Habit | None = None
    """What it usually uses now, by the journal; None: that is not known, or not to be used."""


class HostReading(Record, frozen=True, omit_defaults=True):
    """The host in one round."""

    total: Bytes | None = None
    available: Bytes | None = None
    """What can be had without swapping: MemAvailable, and what ZFS's cache gives back."""
    swap_total: Bytes | None = None
    swap_free: Bytes | None = None
    swap_fast: bool = False
    """Whether all swap that is in use is compressed memory (zram): reading back takes microseconds,
    and what is swapped out takes a part of its size of the host's memory."""
    swap_in: Bytes | None = None
    """Bytes that were read back from swap since boot."""
    swap_out: Bytes | None = None
    cow_ksm: int | None = None
    """Merged pages that were copied since boot, because a process wrote to them."""
    some: float | None = None
    """Percent of the last 10 s in which some task waited for memory (PSI some avg10). The task is
    of the budget's cgroup, where that is one of version 2, else of the host; so for `full`,
    `stalled`."""
    full: float | None = None
    """Percent of the last 10 s in which all tasks waited for memory (PSI full avg10)."""
    stalled: int | None = None
    """Microseconds in which some task waited (PSI some total), since boot or since its cgroup was
    made. It begins anew where the budget becomes another one."""
    limit: Bytes | None = None
    """The budget's limit, where it is narrower than the host."""
    headroom: Bytes | None = None
    """What may still be taken within the budget; None without one."""
    limited_by: str | None = None
    """The cgroup whose limit that is."""


class Lease(Record, frozen=True):
    """Memory kept for a guest that is about to start."""

    id: str
    owner: str
    size: Bytes
    until: float
    """Seconds of `Snapshot.time`."""
    guest: str | None = None
    """The guest that took it: what that guest has touched is no longer kept for it."""
    meant: str | None = None
    """The guest that it was asked for, which may not be there yet."""


class OperatorRequests(Record, frozen=True, omit_defaults=True):
    """What operators asked for."""

    hold: bool = False
    """Whether guests may only be released."""
    pins: Mapping[str, Bytes] = {}
    """The sizes that operators set, within the limits of each guest."""
    leases: tuple[Lease, ...] = ()


class Snapshot(Record, frozen=True, rename={"requests": "wishes"}, omit_defaults=True):
    """Everything that was seen in one round."""

    time: float
    """Seconds of a steady clock."""
    host: HostReading
    guests: tuple[GuestReading, ...] = ()
    ksm: KsmState | None = None
    """What merging does; None: this kernel cannot merge, or KSM was not read in this round."""
    ksmd: float | None = None
    """Seconds that ksmd ran since boot."""
    requests: OperatorRequests = OperatorRequests()
    wall: float | None = None
    """Seconds since 1970, for people."""
