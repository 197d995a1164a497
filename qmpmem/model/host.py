"""What was seen of the host: memory, pressure, cgroups. Sizes are bytes; None is not known."""

from qmpmem.records import Record
from qmpmem.units import Bytes


class HostMemory(Record, frozen=True):
    """What the host has (proc(5): /proc/meminfo)."""

    total: Bytes | None = None
    available: Bytes | None = None
    """The kernel's own estimate of what is available without swapping, and what ZFS's cache gives
    back. It is never free + buffers + cached: that would count the memory of guests in memfd or
    tmpfs as free."""
    swap_total: Bytes | None = None
    swap_free: Bytes | None = None


class VmCounters(Record, frozen=True):
    """Events since boot (proc(5): /proc/vmstat)."""

    swap_in: Bytes | None = None
    swap_out: Bytes | None = None
    cow_ksm: int | None = None
    """Merged pages that were copied again because a process wrote to them (CONFIG_KSM)."""
    oom_kills: int | None = None


class PressureLine(Record, frozen=True):
    """One line of a pressure file: the share of time in which tasks were stalled."""

    avg10: float
    """Percent of the last 10 seconds."""
    avg60: float
    avg300: float
    total: int
    """Microseconds since boot."""


class Pressure(Record, frozen=True):
    """Pressure stall information of one resource (kernel: accounting/psi)."""

    some: PressureLine
    """At least one task was stalled."""
    full: PressureLine | None = None
    """All tasks that could run were stalled at the same time."""


class ProcessCost(Record, frozen=True):
    """What the memory of a process costs the host."""

    rss: Bytes | None = None
    """All that the process has mapped; shared pages count in full."""
    proportional: Bytes | None = None
    """All that the process has mapped; a page with n users counts for an n-th (proc(5): Pss)."""
    ksm: Bytes | None = None
    """Its merged pages (Linux 6.6: smaps_rollup, KSM)."""
    hugetlb: Bytes | None = None
    """Huge pages, which are not in `rss` and never merge."""


class CgroupMemory(Record, frozen=True):
    """The memory budget of a cgroup: the tightest limit on the way up to the root."""

    path: str
    """The cgroup that was asked for."""
    version: int
    """The version of cgroups, 1 or 2."""
    usage: Bytes
    limit: Bytes | None
    """None: no limit anywhere on the way."""
    headroom: Bytes | None
    """What may still be taken: limit less usage, where file cache that can be dropped counts as
    free. None without a limit."""
    swap_limit: Bytes | None = None
    """None: no limit, or this kernel does not count swap."""
    swap_usage: Bytes | None = None
