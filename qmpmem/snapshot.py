"""What was seen: one guest, as QEMU, its driver and the host describe it.

Sizes are bytes. Whatever is not known is None. The field names of `GuestSnapshot` are the keys of
``--json`` and stay stable; new ones may be added.
"""

from collections.abc import Mapping
from typing import Any

from qmpmem.records import Record
from qmpmem.units import Bytes


class GuestStats(Record, frozen=True):
    """What the guest's balloon driver reports (virtio 1.2, 5.5.6.3; QEMU: qom guest-stats).

    Written by the guest, so never trusted alone. Counters start again with every boot.
    """

    swap_in: Bytes | None = None
    swap_out: Bytes | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    free: Bytes | None = None
    total: Bytes | None = None
    available: Bytes | None = None
    disk_caches: Bytes | None = None
    hugetlb_allocations: int | None = None
    hugetlb_failures: int | None = None
    oom_kills: int | None = None
    alloc_stalls: int | None = None
    last_update: int | None = None
    """Host wall clock, seconds since 1970, of the last report. None until there was one."""
    age: float | None = None
    """Seconds since the last report, when this was read."""
    consistent: bool = True
    """False where the guest's numbers contradict each other; they are then all None."""


class BalloonDevice(Record, frozen=True):
    """The balloon device of a guest, and those of its properties that matter here."""

    driver: str
    """QEMU's type name, such as ``virtio-balloon-pci``."""
    path: str
    """The QOM path, such as ``/machine/peripheral/qmpmem0``."""
    deflate_on_oom: bool | None = None
    free_page_reporting: bool | None = None


class GuestSnapshot(Record, frozen=True):
    """One guest at one moment."""

    id: str
    name: str
    """What the user called it; any text. Escape it before showing it."""
    pid: int | None
    state: str
    """QEMU's run state (``running``, ``paused``, ...), or why there is none:
    ``unreachable``, ``busy``, ``in-use``, ``gone``."""
    maximum: Bytes | None
    """Boot memory plus the plugged memory that the guest uses: what an empty balloon leaves it."""
    actual: Bytes | None
    """What the guest has now: maximum - balloon. None without a balloon device."""
    rss: Bytes | None
    """Resident memory of the QEMU process on the host."""
    stats: GuestStats | None
    socket: str
    machine: str | None
    managed: bool
    """Whether qmpmem may change this guest's memory."""
    mode: str = "balloon"
    used: Bytes | None = None
    """What the guest cannot give up without swapping: actual - available. Not total - available:
    with deflate-on-oom the balloon stays in the guest's total, and would count as used."""
    accelerator: str | None = None
    balloon: BalloonDevice | None = None
    problem: str | None = None
    """One line: why something above is missing or may not change."""
    plugged: Bytes | None = None
    """All memory beside boot memory: DIMMs, virtio-mem, NVDIMM, CXL."""
    offline: Bytes | None = None
    """What of that the guest does not use; None where it did not say."""
    beyond: Bytes | None = None
    """What of the maximum no balloon takes, as virtio-mem."""
    no_balloon: str | None = None
    """Why the launcher added no balloon, where it did not."""
    unmovable: str | None = None
    """Why a balloon frees nothing of this guest."""
    current: Bytes | None = None
    """What it was to start with, where that was asked for; the balloon's driver went there when it
    was loaded."""


class GuestEvent(Record, frozen=True):
    """Something that QEMU says has happened to a guest (QEMU: qemu-qmp-ref, "Events").

    The field names are the keys of ``qmpmem events --json``.
    """

    id: str
    """The guest's id."""
    event: str
    """QEMU's name of it, such as ``RESET``."""
    data: Mapping[str, Any]
    """As QEMU sent it, unjudged but for its JSON."""
    time: float
    """Seconds since 1970."""
    dropped: int = 0
    """How many events, of any guest, were dropped right before this one, because their reader was
    too slow."""
    name: str | None = None
    """What the guest's owner called it."""


class HostMemory(Record, frozen=True):
    """What the host has (proc(5): /proc/meminfo)."""

    total: Bytes | None = None
    available: Bytes | None = None
    """The kernel's own estimate of what can be had without swapping, and what ZFS's cache gives
    back. Never free + buffers + cached: that counts the memory of guests that live in memfd or
    tmpfs as free."""
    swap_total: Bytes | None = None
    swap_free: Bytes | None = None


class VmCounters(Record, frozen=True):
    """Events since boot (proc(5): /proc/vmstat)."""

    swap_in: Bytes | None = None
    swap_out: Bytes | None = None
    cow_ksm: int | None = None
    """Merged pages that were copied again because somebody wrote to them (CONFIG_KSM)."""
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


class KsmState(Record, frozen=True):
    """Kernel samepage merging, by the names of its files (kernel: admin-guide/mm/ksm).

    Pages are the host's, of `page_size`. None: this kernel does not have the file.
    """

    page_size: Bytes
    run: int
    """0: stopped, what is merged stays so; 1: merging; 2: stopped, and all is unmerged."""
    pages_to_scan: int | None = None
    """How many pages ksmd looks at before it sleeps."""
    sleep_millisecs: int | None = None
    merge_across_nodes: int | None = None
    max_page_sharing: int | None = None
    stable_node_chains_prune_millisecs: int | None = None
    use_zero_pages: int | None = None
    smart_scan: int | None = None
    """1: pages that did not merge before are looked at less often (6.7)."""
    advisor_mode: str | None = None
    """``none`` or ``scan-time``: the kernel chooses pages_to_scan itself (6.8)."""
    advisor_max_cpu: int | None = None
    """Percent of a core."""
    advisor_min_pages_to_scan: int | None = None
    advisor_max_pages_to_scan: int | None = None
    advisor_target_scan_time: int | None = None
    """Seconds that one scan of everything shall take."""
    pages_shared: int | None = None
    """Pages that stand for many equal ones."""
    pages_sharing: int | None = None
    """How many more there would be without merging: what is saved."""
    pages_unshared: int | None = None
    """Looked at again and again, and equal to no other."""
    pages_volatile: int | None = None
    """Change too fast to be merged."""
    pages_skipped: int | None = None
    pages_scanned: int | None = None
    full_scans: int | None = None
    stable_node_chains: int | None = None
    stable_node_dups: int | None = None
    ksm_zero_pages: int | None = None
    """Pages of zeros that became the kernel's zero page (6.6); not among pages_sharing."""
    general_profit: Bytes | None = None
    """What is saved less what it takes to keep account of it; may be negative (6.4)."""


class KsmProcess(Record, frozen=True):
    """What merging does for one process (kernel: admin-guide/mm/ksm, /proc/PID/ksm_stat)."""

    merging_pages: int | None = None
    rmap_items: int | None = None
    """Pages under account, each of which costs the kernel some 64 bytes."""
    zero_pages: int | None = None
    profit: Bytes | None = None
    """Saved less spent; negative where merging costs more than it brings."""
    mergeable: bool | None = None
    """Whether the process asked for merging, for any part of its memory (after 6.12; 6.18)."""


class ProcessCost(Record, frozen=True):
    """What the memory of a process costs the host."""

    rss: Bytes | None = None
    """Everything mapped, counting what is shared in full."""
    proportional: Bytes | None = None
    """Likewise, but of a page with n users an n-th (proc(5): Pss)."""
    ksm: Bytes | None = None
    """Merged pages of it (6.6: smaps_rollup, KSM)."""
    hugetlb: Bytes | None = None
    """Huge pages, which are not in `rss` and never merge."""


class CgroupMemory(Record, frozen=True):
    """The memory budget of a cgroup: the tightest limit on the way up to the root."""

    path: str
    """The group that was asked for."""
    version: int
    """1 or 2."""
    usage: Bytes
    limit: Bytes | None
    """None: no limit anywhere on the way."""
    headroom: Bytes | None
    """What may still be taken: limit less usage, with file cache that can be dropped counted as
    free. None without a limit."""
    swap_limit: Bytes | None = None
    """None: no limit, or this kernel does not count swap."""
    swap_usage: Bytes | None = None
