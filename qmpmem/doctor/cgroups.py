"""Whether memory can be reclaimed of guests that have cgroups of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qmpmem.api import addresses
from qmpmem.doctor.finding import Finding, Host, is_roots, ok, warning
from qmpmem.errors import ConfigError, KernelError
from qmpmem.files import state_files
from qmpmem.guests import inventory
from qmpmem.guests.rundir import GuestRecord
from qmpmem.records import Record
from qmpmem.wire.kernel import cgroup, reclaim
from qmpmem.wire.kernel.files import read

WHAT: Final = "reclaim"
ROOT: Final = Path("/")
LONGEST: Final = 20
"""Bytes of the agent's lock that are read; it holds the agent's process number."""
NO_SWAP: Final = "no swap here, so no memory of guests' cgroups is reclaimed"
NO_GROUPS: Final = "no guest has a cgroup of its own that counts memory (QMPMEM_CGROUP)"


class Group(Record, frozen=True):
    """A guest's cgroup."""

    guest: str
    path: Path
    version: int


def check_reclaim(host: Host) -> Iterator[Finding]:
    """Check whether the agent may reclaim memory of guests' cgroups (manual/agent.md)."""
    if not host.run.is_relative_to(host.root) or is_roots(host):
        return  # the groups of that root say nothing about the guests of this one
    if not has_swap(read(host.proc / "swaps") or ""):
        yield ok(WHAT, NO_SWAP)
        return
    records = [found.record for found in inventory.take(host.run, host.proc).guests]
    groups = [group for record in records for group in groups_of(record, host.root)]
    agent = _agent(host) if groups else None
    table = None if agent is None else read(host.proc / str(agent) / "mountinfo")
    odd = [line for group in groups if (line := _judge(group, agent, table)) is not None]
    yield from odd
    if not groups:
        yield ok(WHAT, NO_GROUPS)
    elif not odd:
        yield ok(WHAT, f"possible for {', '.join(group.guest for group in groups)}")


def has_swap(swaps: str) -> bool:
    """Tell whether there is swap in use: a line after the first (proc(5): /proc/swaps)."""
    return len(swaps.splitlines()) > 1


def groups_of(record: GuestRecord, root: Path) -> Iterator[Group]:
    """List the groups that the launcher made for a guest, and that count memory."""
    for parent in (record.cgroup or "").splitlines():
        path = root / parent.lstrip("/") / record.id
        try:
            version = cgroup.version_of(path).number
        except KernelError:  # gone, or it tells of pressure alone
            continue
        yield Group(guest=record.id, path=path, version=version)


def is_read_only(path: Path, mountinfo: str) -> bool:
    """Tell whether a path is on a mount that may only be read.

    Args:
        path: an absolute path without links.
        mountinfo: the mounts of the process that would write (proc(5): /proc/PID/mountinfo); of two
            at one place the later hides the other.
    """
    best, options = "", ""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < 6:  # noqa: PLR2004 - proc(5)
            continue
        point = fields[4]
        if path.is_relative_to(point) and len(point) >= len(best):
            best, options = point, fields[5]
    return "ro" in options.split(",")


def _judge(group: Group, agent: int | None, mountinfo: str | None) -> Finding | None:
    """Return what keeps memory of a guest's group from being reclaimed; None: nothing."""
    nothing = f"so nothing of guest {group.guest} is reclaimed"
    if mountinfo is not None and is_read_only(group.path, mountinfo):
        said = f"{group.path}: read-only for the agent, pid {agent}, {nothing}"
        todo = "ProtectControlGroups=no in the agent's unit (systemctl edit), then restart it"
        return warning(WHAT, said, todo)
    if reclaim.way(group.path, group.version, made=True) is not None:
        return None
    if reclaim.is_forbidden(group.path, group.version):
        said = f"{group.path}: this user may not write there, {nothing}"
        return warning(WHAT, said, "run the agent as the owner of that cgroup, or as root")
    said = f"{group.path}: no memory.reclaim, and memory.high is missing or set, {nothing}"
    return warning(WHAT, said, "Linux 5.19 or later has memory.reclaim")


def _agent(host: Host) -> int | None:
    """Return the process of the agent of these guests; None where this user sees none."""
    if host.root != ROOT:
        return None
    try:
        path = addresses.lock_path(addresses.socket_path(host.environ, host.run))
        return int(state_files.read(path, LONGEST))
    except (ConfigError, OSError, ValueError):
        return None
