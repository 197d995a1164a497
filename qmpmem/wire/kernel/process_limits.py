"""Which memory limits hold for a process: the cgroups that it is in, as far up as can be seen.

Theory of operation:
    /proc/PID/cgroup names a process's group in each hierarchy. /proc/self/mountinfo tells which
    part of a hierarchy is mounted where (cgroups(7)). In a container the top of what is mounted is
    the container's own group, with limits like any other. The groups above cannot be seen there,
    but version 1 tells their limit (memory.stat: hierarchical_memory_limit).

Rules of this file:
    The file system's root is an argument. What cannot be read sets no limit.
"""

from collections.abc import Iterator, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Final

from qmpmem.errors import KernelError
from qmpmem.records import Record
from qmpmem.units import Bytes
from qmpmem.wire.kernel import cgroup
from qmpmem.wire.kernel.files import read

ROOT: Final = Path("/")


class Fence(Record, frozen=True):
    """A group with a limit."""

    path: str
    """The group's directory, as seen from here."""
    limit: Bytes
    headroom: Bytes
    """What may still be taken, where file cache that can be dropped counts as free."""


class Mount(Record, frozen=True):
    """Where a part of a hierarchy is mounted."""

    version: int
    top: str
    """The group that is mounted, as /proc/PID/cgroup names it."""
    point: str


class Places(Record, frozen=True):
    """The groups that a process is in: its own first, then those above it."""

    memory: tuple[Path, ...] = ()
    """The groups that count memory."""
    waits: tuple[Path, ...] = ()
    """The groups of version 2 that count waits for memory, which needs no controller."""


def mounts(root: Path = ROOT) -> Sequence[Mount]:
    """Read where hierarchies are mounted; with containers the file has hundreds of lines."""
    return _mounts(read(root / "proc/self/mountinfo") or "")


def groups(
    pid: int | str = "self", root: Path = ROOT, mounted: Sequence[Mount] | None = None
) -> tuple[Path, ...]:
    """List the memory groups that a process is in, its own first; none where that is not known.

    Args:
        pid: the process.
        root: the file system's root.
        mounted: what `mounts` returned; None: it is read here.
    """
    return places(pid, root, mounted).memory


def places(
    pid: int | str = "self", root: Path = ROOT, mounted: Sequence[Mount] | None = None
) -> Places:
    """List the groups that a process is in; arguments as of `groups`."""
    told = read(f"{root}/proc/{pid}/cgroup") or ""
    return resolve(told, root, mounts(root) if mounted is None else mounted)


def resolve(told: str, root: Path, mounted: Sequence[Mount]) -> Places:
    """List the groups that a process is in.

    Args:
        told: the content of its /proc/PID/cgroup.
        root: the file system's root.
        mounted: what `mounts` returned.
    """
    names = dict(_names(told))
    memory: tuple[Path, ...] = ()
    waits: tuple[Path, ...] = ()
    for mount in mounted:
        name = names.get(mount.version)
        if name is None:
            continue
        climb = tuple(_climb(root / mount.point.lstrip("/"), _below(name, mount.top)))
        memory = memory or tuple(group for group in climb if cgroup.counts_memory(group))
        if mount.version != 1 and not waits:
            # Each group above one that tells its pressure tells it, too.
            waits = tuple(dropwhile(lambda group: not cgroup.tells_pressure(group), climb))
    return Places(memory=memory, waits=waits)


def fence(group: Path) -> Fence | None:
    """Read a group's own limit; None where it has none, or cannot be read."""
    try:
        level = cgroup.level(group)
    except KernelError:
        return None
    if level.limit is None or level.headroom is None:
        return None
    return Fence(path=str(group), limit=level.limit, headroom=level.headroom)


def tightest(groups: Sequence[Path]) -> Fence | None:
    """Find the limit of these groups that leaves least; None where none of them has one."""
    found = [each for each in map(fence, groups) if each is not None]
    return min(found, key=lambda each: (each.headroom, each.limit), default=None)


def _names(content: str) -> Iterator[tuple[int, str]]:
    """Read /proc/PID/cgroup: ``4:memory:/a/b`` of version 1, ``0::/a/b`` of version 2."""
    for line in content.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            yield 2, path
        elif "memory" in controllers.split(","):
            yield 1, path


def _mounts(content: str) -> list[Mount]:
    """Read /proc/self/mountinfo. Version 1 comes first: it has the controller where both exist."""
    found: list[Mount] = []
    for line in content.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if len(fields) < 5 or len(kind) < 3:  # noqa: PLR2004 - proc(5)
            continue
        is_first = kind[0] == "cgroup" and "memory" in kind[2].split(",")
        if is_first or kind[0] == "cgroup2":
            version = 1 if is_first else 2
            found.append(Mount(version=version, top=_plain(fields[3]), point=_plain(fields[4])))
    return sorted(found, key=lambda mount: mount.version)


def _plain(text: str) -> str:
    return text.replace("\\040", " ").replace("\\134", "\\")


def _below(name: str, top: str) -> str:
    """Return a group's path below the group that is mounted; "" for that, and for one elsewhere."""
    if top == "/":
        inside = name
    elif name == top or name.startswith(f"{top}/"):
        inside = name[len(top) :]
    else:
        return ""
    return "" if inside.startswith("/..") else inside.strip("/")


def _climb(point: Path, inside: str) -> Iterator[Path]:
    """List the groups from a process's own up to the mounted one."""
    parts = inside.split("/") if inside else []
    for count in range(len(parts), -1, -1):
        yield point.joinpath(*parts[:count])
