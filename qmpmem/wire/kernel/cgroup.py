"""Memory budgets narrower than the host: cgroup v1 and v2.

Rules of this file:
    A limit higher up binds as much as the group's own. So the whole way up is read, and the
    tightest headroom counts (kernel: admin-guide/cgroup-v2, "Top-down Constraint").
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from qmpmem.errors import KernelError
from qmpmem.model.host import CgroupMemory
from qmpmem.records import Record
from qmpmem.units import Bytes
from qmpmem.wire.kernel.files import is_count, pick, read

UNLIMITED: Final = 1 << 60
"""Bytes from which on a limit is none: v1 writes "no limit" as the largest number of pages that it
can count (PAGE_COUNTER_MAX)."""


class Version(Record, frozen=True):
    """How a version of cgroups names its files."""

    number: int
    usage: str
    limits: tuple[str, ...]
    file_cache: tuple[str, ...]
    """Keys of memory.stat for file cache of this group and those below, which can be dropped."""
    swap_usage: str
    swap_limit: str
    swap_counts_memory: bool
    """Whether it counts memory and swap together, as v1 does (kernel: admin-guide/cgroup-v1/memory,
    2.4)."""
    refaults: str
    """Key of memory.stat for pages that were read back from swap soon after they were reclaimed
    (Linux 5.9; since 4.20 together with those of files, without the ending)."""
    held: tuple[str, ...]
    """Keys of memory.stat for memory of this group and those below that no file of a disk backs,
    and for what the kernel needs for it (``kernel``: since Linux 5.18)."""


V1: Final = Version(
    number=1,
    usage="memory.usage_in_bytes",
    limits=("memory.limit_in_bytes",),
    file_cache=("total_inactive_file", "total_active_file"),
    swap_usage="memory.memsw.usage_in_bytes",
    swap_limit="memory.memsw.limit_in_bytes",
    swap_counts_memory=True,
    refaults="total_workingset_refault_anon",
    held=("total_rss", "total_shmem"),
)
V2: Final = Version(
    number=2,
    usage="memory.current",
    limits=("memory.max", "memory.high"),
    file_cache=("inactive_file", "active_file"),
    swap_usage="memory.swap.current",
    swap_limit="memory.swap.max",
    swap_counts_memory=False,
    refaults="workingset_refault_anon",
    held=("anon", "shmem", "kernel"),
)


OURS: Final = "qmpmem"
"""The group in which launchers make the groups of guests; launchers/kvm_group.py has the same."""
STAT: Final = "memory.stat"
ABOVE: Final = "hierarchical_memory_limit"
"""The line of memory.stat, in version 1, for the tightest limit of a group and of all above it."""
PRESSURE: Final = "memory.pressure"


class Level(Record, frozen=True):
    """One group on the way up."""

    usage: Bytes
    limit: Bytes | None
    reclaimable: Bytes

    @property
    def headroom(self) -> Bytes | None:
        """Return what may still be taken here."""
        if self.limit is None:
            return None
        return Bytes(max(0, self.limit - self.usage + self.reclaimable))


def parse_limit(content: str) -> Bytes | None:
    """Read a limit in bytes; None: there is none.

    Raises:
        ValueError: it is neither a number nor ``max``.
    """
    word = content.strip()
    if word == "max":
        return None
    if not is_count(word):
        raise ValueError(word)
    value = int(word)
    return None if value >= UNLIMITED else Bytes(value)


def version_of(group: Path) -> Version:
    """Find out by its files which version a memory cgroup has.

    Raises:
        KernelError: it is none; v2's root group has no files that tell how much it uses.
    """
    for version in (V2, V1):
        if (group / version.usage).is_file():
            return version
    raise KernelError(
        f"{group}: not a memory cgroup",
        hint=f"expected {V2.usage} or {V1.usage} in it; is the memory controller enabled there?",
    )


def memory(group: Path) -> CgroupMemory:
    """Read the budget of a group: the tightest of its own limit and those above it.

    Raises:
        KernelError: it is no memory cgroup, or its files hold something unexpected.
    """
    version = version_of(group)
    levels = list(_climb(group, version))
    own = levels[0]
    bounded = [level for level in levels if level.headroom is not None]
    tightest = min(bounded, key=lambda level: level.headroom or 0, default=None)
    return CgroupMemory(
        path=str(group),
        version=version.number,
        usage=own.usage,
        limit=None if tightest is None else tightest.limit,
        headroom=None if tightest is None else tightest.headroom,
        swap_limit=_swap(group, version.swap_limit, own.limit, version),
        swap_usage=_swap(group, version.swap_usage, own.usage, version),
    )


def counts_memory(group: Path) -> bool:
    """Tell whether the memory controller is at work in a group."""
    return any((group / version.usage).is_file() for version in (V2, V1))


def _with_those_below(group: Path) -> Iterator[str]:
    try:
        links = os.stat(group).st_nlink  # noqa: PTH116 - speed
    except OSError:
        return
    yield str(group)
    if links == 2:  # noqa: PLR2004 - none below (kernel: fs/kernfs/inode.c, kernfs_refresh_inode)
        return
    for directory, _, _ in islice(os.walk(group), 1, None):
        yield directory


def tells_pressure(group: Path) -> bool:
    """Tell whether a group is of version 2, and counts its processes' waits for memory.

    The threads of one process may be in several threaded groups (kernel: admin-guide/cgroup-v2,
    "Threads"), so such a group does not count.
    """
    if not (group / PRESSURE).is_file():
        return False
    return "threaded" not in (read(group / "cgroup.type") or "")


def held(stat: str, version: Version) -> Bytes | None:
    """Read what a group holds, less file cache, from its memory.stat; None: it does not tell.

    A page that several processes share counts once, in the group that touched it first (kernel:
    admin-guide/cgroup-v2, "Memory Ownership"), and so does a page that KSM merged.
    """
    known = pick(stat, version.held)
    return Bytes(sum(known.values())) if known else None


def refaults(stat: str, version: Version) -> Bytes | None:
    """Read how much of what was reclaimed a group soon needed again; None: it does not tell."""
    pages = pick(stat, (version.refaults,)).get(version.refaults)
    return None if pages is None else Bytes(pages * os.sysconf("SC_PAGE_SIZE"))


def members(group: Path, most: int) -> frozenset[int] | None:
    """List the processes of a group and of those below it.

    Args:
        group: its directory.
        most: the most groups that are read, and the most processes of each.

    Returns:
        Their pids, 0 for one of another pid namespace; None where there are more, or they cannot be
        read.
    """
    found: set[int] = set()
    for number, directory in enumerate(_with_those_below(group)):
        content = read(f"{directory}/cgroup.procs")
        words = (content or "").split()
        if content is None or number >= most or len(words) > most:
            return None
        found.update(int(word) for word in words if is_count(word))
    return frozenset(found)


def remove_empty(group: Path) -> None:
    """Remove the group that a launcher made for a guest that is gone, and an empty one above it.

    Anything else stays: a directory that is no group and has a file in it is not empty.
    """
    with suppress(OSError):
        if group.parent.name == OURS and (group / "cgroup.procs").is_file():
            group.rmdir()
            group.parent.rmdir()


def level(group: Path) -> Level:
    """Read one group, without those above it.

    Raises:
        KernelError: it is no memory cgroup, or its files hold something unexpected.
    """
    return _level(group, version_of(group))


def _climb(group: Path, version: Version) -> Iterator[Level]:
    here = group
    while (here / version.usage).is_file():
        yield _level(here, version)
        here = here.parent


def _level(group: Path, version: Version) -> Level:
    stat = pick(read(group / STAT) or "", (*version.file_cache, ABOVE))
    usage = _number(group / version.usage)
    if usage is None:
        raise KernelError(f"{group / version.usage}: expected a number of bytes, got 'max'")
    limits = [_number(group / name) for name in version.limits if (group / name).is_file()]
    # This covers groups that a container does not see (mm/memcontrol-v1.c, memcg1_stat_format).
    above = stat.get(ABOVE, UNLIMITED)
    limits.append(Bytes(above) if above < UNLIMITED else None)
    return Level(
        usage=usage,
        limit=min((limit for limit in limits if limit is not None), default=None),
        reclaimable=Bytes(sum(stat.get(key, 0) for key in version.file_cache)),
    )


def _swap(group: Path, name: str, memory_part: Bytes | None, version: Version) -> Bytes | None:
    if not (group / name).is_file():
        return None
    value = _number(group / name)
    if value is None or not version.swap_counts_memory:
        return value
    return None if memory_part is None else Bytes(max(0, value - memory_part))


def _number(path: Path) -> Bytes | None:
    content = read(path)
    if content is None:
        raise KernelError(f"{path}: cannot be read; the group is gone, or not ours")
    try:
        return parse_limit(content)
    except ValueError:
        raise KernelError(f"{path}: expected bytes or max, got {content.strip()[:40]!r}") from None
