"""The host's memory: /proc/meminfo, /proc/vmstat and /proc/swaps (proc(5)), and ZFS's cache."""

import os
from pathlib import Path
from typing import Final

from qmpmem.model.host import HostMemory, VmCounters
from qmpmem.records import replace
from qmpmem.units import KIB, Bytes
from qmpmem.wire.kernel.files import is_count, pairs, read

ROOT: Final = Path("/")
ARC: Final = "proc/spl/kstat/zfs/arcstats"
"""The file in which OpenZFS tells about its cache (module/zfs/arc.c: arc_stats)."""


def parse_meminfo(content: str) -> HostMemory:
    """Read /proc/meminfo: ``MemTotal:  24684084 kB``."""
    found: dict[str, Bytes] = {}
    for line in content.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and is_count(words[0]):  # noqa: PLR2004
            found[name] = Bytes(int(words[0]) * KIB)
    return HostMemory(
        total=found.get("MemTotal"),
        available=found.get("MemAvailable"),
        swap_total=found.get("SwapTotal"),
        swap_free=found.get("SwapFree"),
    )


def parse_vmstat(content: str, page_size: int) -> VmCounters:
    """Read /proc/vmstat: ``pswpin 123``, in pages."""
    found = pairs(content)
    swap_in, swap_out = found.get("pswpin"), found.get("pswpout")
    return VmCounters(
        swap_in=None if swap_in is None else Bytes(swap_in * page_size),
        swap_out=None if swap_out is None else Bytes(swap_out * page_size),
        cow_ksm=found.get("cow_ksm"),
        oom_kills=found.get("oom_kill"),
    )


def parse_arcstats(content: str) -> Bytes:
    """Return what ZFS's cache gives back in need: ``size 4 3221225472`` less ``c_min``.

    It shrinks down to ``c_min`` when the kernel asks (openzfs: arc_shrinker_count).
    """
    lines = (line.split() for line in content.splitlines())
    known = {words[0]: int(words[2]) for words in lines if len(words) == 3 and is_count(words[2])}  # noqa: PLR2004
    return Bytes(max(0, known.get("size", 0) - known.get("c_min", known.get("size", 0))))


def parse_swaps(content: str) -> bool:
    """Tell from /proc/swaps whether all swap that is in use is compressed memory (zram).

    Where none is in use, all swap that there is counts. Without swap the answer is no.
    """
    lines = [line.split() for line in content.splitlines()[1:]]
    areas = [(words[0], words[3]) for words in lines if len(words) == 5]  # noqa: PLR2004
    chosen = [name for name, used in areas if used != "0"] or [name for name, _ in areas]
    return bool(chosen) and all(name.startswith("/dev/zram") for name in chosen)


def memory(root: Path = ROOT) -> HostMemory:
    """Read what the host has, and what of that is available, ZFS's cache included.

    The kernel's estimate (MemAvailable) counts ZFS's cache as used, unlike any other file cache.
    """
    known = parse_meminfo(read(root / "proc/meminfo") or "")
    cache = parse_arcstats(read(root / ARC) or "")
    if known.available is None or known.total is None or not cache:
        return known
    return replace(known, available=Bytes(min(known.total, known.available + cache)))


def swaps_fast(root: Path = ROOT) -> bool:
    """Tell whether reading back from swap takes microseconds, as `parse_swaps`."""
    return parse_swaps(read(root / "proc/swaps") or "")


def counters(root: Path = ROOT) -> VmCounters:
    """Read the event counters that matter here."""
    return parse_vmstat(read(root / "proc/vmstat") or "", page_size())


def page_size() -> Bytes:
    """Return the size of a page of this host, in bytes."""
    return Bytes(os.sysconf("SC_PAGE_SIZE"))
