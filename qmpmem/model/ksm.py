"""What was seen of kernel samepage merging. Sizes are bytes; None is not known."""

from qmpmem.records import Record
from qmpmem.units import Bytes


class KsmState(Record, frozen=True):
    """Kernel samepage merging, by the names of its files (kernel: admin-guide/mm/ksm).

    Pages are the host's, of `page_size`. None: this kernel does not have the file.
    """

    page_size: Bytes
    run: int
    """0: ksmd is stopped, what is merged stays so; 1: it merges; 2: it is stopped, and all is
    unmerged."""
    pages_to_scan: int | None = None
    """Pages that ksmd looks at before it sleeps."""
    sleep_millisecs: int | None = None
    merge_across_nodes: int | None = None
    max_page_sharing: int | None = None
    stable_node_chains_prune_millisecs: int | None = None
    use_zero_pages: int | None = None
    smart_scan: int | None = None
    """1: ksmd looks less often at pages that did not merge before (Linux 6.7)."""
    advisor_mode: str | None = None
    """``none``, or ``scan-time``: the kernel chooses pages_to_scan itself (Linux 6.8)."""
    advisor_max_cpu: int | None = None
    """Percent of a core that ksmd may use."""
    advisor_min_pages_to_scan: int | None = None
    advisor_max_pages_to_scan: int | None = None
    advisor_target_scan_time: int | None = None
    """Seconds that one full scan shall take."""
    pages_shared: int | None = None
    """Pages that stand for many equal ones."""
    pages_sharing: int | None = None
    """Pages that there would be in addition without merging: what is saved."""
    pages_unshared: int | None = None
    """Pages that ksmd looks at again and again, and that are equal to no other."""
    pages_volatile: int | None = None
    """Pages that change too fast to be merged."""
    pages_skipped: int | None = None
    pages_scanned: int | None = None
    full_scans: int | None = None
    stable_node_chains: int | None = None
    stable_node_dups: int | None = None
    ksm_zero_pages: int | None = None
    """Pages of zeros that became the kernel's zero page (Linux 6.6); not among pages_sharing."""
    general_profit: Bytes | None = None
    """What is saved, less the kernel's own memory for merging; may be negative (Linux 6.4)."""


class KsmProcess(Record, frozen=True):
    """What merging does for one process (kernel: admin-guide/mm/ksm, /proc/PID/ksm_stat)."""

    merging_pages: int | None = None
    rmap_items: int | None = None
    """Pages that ksmd keeps track of, each of which costs the kernel some 64 bytes."""
    zero_pages: int | None = None
    profit: Bytes | None = None
    """What is saved, less what it costs; negative where merging costs more than it saves."""
    mergeable: bool | None = None
    """Whether the process asked for merging, for any part of its memory (after Linux 6.12;
    6.18)."""
