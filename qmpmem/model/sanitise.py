"""The check of numbers that a guest writes, in one place.

Theory of operation:
    The guest writes the size of the balloon and every statistic, and may be broken or hostile. QEMU
    computes ``actual`` as ram_size - (guest's number << 12) without a check, so it can be negative
    or wrap (QEMU: virtio_balloon_stat). A field that the driver never sent is 2^64-1 (QEMU:
    reset_stats). A number that is not possible becomes None. Where numbers contradict each other,
    all of them become None, because it is not known which of them are wrong.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from qmpmem.model.guest import GuestStats
from qmpmem.model.obstacles import NO_DEVICE
from qmpmem.units import MIB, Bytes

NOT_REPORTED: Final = (1 << 64) - 1
_COUNTER_LIMIT: Final = 1 << 63
"""A limit that no counter reaches in the life of a machine: larger values are a wrapped -1 or
worse."""

_MEMORY: Final = {
    "free": "stat-free-memory",
    "total": "stat-total-memory",
    "available": "stat-available-memory",
    "disk_caches": "stat-disk-caches",
}


def count(raw: object) -> int | None:
    """Return a non-negative integer that can be true, or None for anything else."""
    if type(raw) is not int or not 0 <= raw < _COUNTER_LIMIT:
        return None
    return raw


def total(raw: Iterable[object]) -> Bytes | None:
    """Return the sum of counters, or None where one of them cannot be true."""
    known = [count(each) for each in raw]
    return None if None in known else Bytes(sum(each or 0 for each in known))


def balloon_actual(raw: object, maximum: Bytes | None) -> Bytes | None:
    """Return ``actual`` if a guest of this size can have it, 0 < actual <= maximum, else None."""
    size = count(raw)
    if size is None or size == 0 or (maximum is not None and size > maximum):
        return None
    return Bytes(size)


def balloon_problem(claimed: object, actual: Bytes | None, state: str) -> str | None:
    """Return why there is no size, or None where there is one.

    Args:
        claimed: what the guest claims; None without a balloon device.
        actual: what `balloon_actual` made of it.
        state: QEMU's run state.
    """
    if actual is not None or state == "preconfig":
        return None
    if claimed is None:
        return NO_DEVICE
    return f"implausible: the guest claims {claimed!r:.40} bytes"


def guest_stats(
    stats: Mapping[str, object], last_update: object, *, maximum: Bytes | None, now: float
) -> GuestStats | None:
    """Read the ``guest-stats`` property of a balloon device.

    Args:
        stats: the statistics, as QEMU names them.
        last_update: seconds since 1970 of the last report, as QEMU sends it.
        maximum: the guest's memory, or None where that is not known.
        now: seconds since 1970.

    Returns:
        What can be true, or None where the guest never reported.
    """
    updated = count(last_update)
    if not updated:
        return None
    age = now - updated if updated <= now else None
    memory = {field: _size(stats.get(key)) for field, key in _MEMORY.items()}
    if not _is_consistent(memory, maximum):
        return GuestStats(last_update=updated, age=age, consistent=False)
    return GuestStats(
        free=memory["free"],
        total=memory["total"],
        available=memory["available"],
        disk_caches=memory["disk_caches"],
        swap_in=_size(stats.get("stat-swap-in")),
        swap_out=_size(stats.get("stat-swap-out")),
        major_faults=count(stats.get("stat-major-faults")),
        minor_faults=count(stats.get("stat-minor-faults")),
        hugetlb_allocations=count(stats.get("stat-htlb-pgalloc")),
        hugetlb_failures=count(stats.get("stat-htlb-pgfail")),
        # QEMU 10.0 with a Linux 6.12 guest has these.
        oom_kills=count(stats.get("stat-oom-kills")),
        alloc_stalls=count(stats.get("stat-alloc-stalls")),
        last_update=updated,
        age=age,
    )


def used(actual: Bytes | None, stats: GuestStats | None) -> Bytes | None:
    """Return what the guest cannot give up without swapping: actual - available.

    Args:
        actual: what it had when it reported.
        stats: the report. It belongs to another size than `actual` where it shows more available
            than that; the result is None then.
    """
    if actual is None or stats is None or stats.available is None or stats.available > actual:
        return None
    return Bytes(actual - stats.available)


def available_by_now(
    available: Bytes | None, then: Bytes | None, now: Bytes | None
) -> Bytes | None:
    """Return what a guest could give up after its balloon moved, if it uses what it used before.

    Args:
        available: what it reported.
        then: what it had when it reported; None where that is not known.
        now: what it has.
    """
    if available is None or then is None or now is None:
        return available
    return Bytes(min(max(0, available + now - then), now))


def _size(raw: object) -> Bytes | None:
    value = count(raw)
    return None if value is None else Bytes(value)


def _is_consistent(memory: Mapping[str, Bytes | None], maximum: Bytes | None) -> bool:
    """Tell whether one machine can have all these numbers at once."""
    total, available, free = memory["total"], memory["available"], memory["free"]
    if total == 0:
        return False
    if maximum is not None and any(
        value is not None and value > maximum + maximum // 20 for value in memory.values()
    ):
        return False
    if total is None:
        return True
    slack = total // 64 + 4 * MIB
    return not (
        (available is not None and available > total)
        or (free is not None and free > total)
        # The kernel's estimate leaves out its own reserves, so free may exceed available a little
        # (mm/show_mem.c: si_mem_available).
        or (
            free is not None
            and available is not None
            and free > available + _reserves(total) + slack
        )
    )


def _reserves(total: int) -> int:
    """Return a bound of what si_mem_available() subtracts: high watermarks and lowmem reserves."""
    return total // 16
