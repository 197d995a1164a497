"""The host's memory: /proc/meminfo and /proc/vmstat (proc(5))."""

import os
from pathlib import Path
from typing import Final

from qmpmem.snapshot import HostMemory, VmCounters
from qmpmem.units import KIB, Bytes
from qmpmem.wire.kernel.files import is_count, pairs, read

ROOT: Final = Path("/")


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


def memory(root: Path = ROOT) -> HostMemory:
    """Say what the host has and what of it is available."""
    return parse_meminfo(read(root / "proc/meminfo") or "")


def counters(root: Path = ROOT) -> VmCounters:
    """Read the event counters that matter here."""
    return parse_vmstat(read(root / "proc/vmstat") or "", page_size())


def page_size() -> Bytes:
    """Say how large a page of this host is."""
    return Bytes(os.sysconf("SC_PAGE_SIZE"))
