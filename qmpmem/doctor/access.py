"""Which users get at the guests: the group, and the run directory."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from qmpmem.doctor.finding import Finding, Host, failed, ok, warning
from qmpmem.guests import access, rundir
from qmpmem.model.names import SAFE_ID
from qmpmem.records import Record

SOCKET_PATH: Final = 107
"""Bytes of a socket's path (unix(7): sun_path, less its end)."""
_BELOW: Final = len("/") + 48 + len("/qmp.sock")
"""Bytes of a socket's path that come after the run directory, with the longest id."""
_WRITE_AND_SEARCH: Final = 0o3


class Group(Record, frozen=True):
    """A line of /etc/group."""

    gid: int
    members: tuple[str, ...]


def parse_group(content: str, name: str) -> Group | None:
    """Find a group: ``name:password:gid:member,member`` (group(5))."""
    for line in content.splitlines():
        entry = line.split(":")
        if len(entry) == 4 and entry[0] == name and entry[2].isdecimal():  # noqa: PLR2004 - group(5)
            return Group(gid=int(entry[2]), members=tuple(filter(None, entry[3].split(","))))
    return None


def check_group(host: Host) -> Iterator[Finding]:
    """Tell whether there is a group for users who may ask root's agent, and this user is in it."""
    group = _group(host)
    name = rundir.GROUP
    if group is None and host.uid == 0:
        said = f"no group {name}: root's guests, and root's agent, are root's alone"
        yield warning("group", said, f"groupadd --system {name}")
    elif group is None:
        yield ok("group", f"no group {name}; your own guests need none")
    elif host.uid == 0:
        yield ok("group", f"{name}: {', '.join(group.members) or 'no user in it'}")
    elif group.gid in host.groups:
        yield ok(
            "group", f"{name}: you are in it, so root's agent shows you its guests; {_rights(host)}"
        )
    else:
        said = f"{name}: you are not in it, so root's agent does not show you its guests"
        yield warning("group", said, f"usermod -aG {name} USER, then log in again")


def _rights(host: Host) -> str:
    """Return the words that tell whether a user who sees root's guests may change them."""
    group = _group(host, access.WRITERS)
    if group is not None and group.gid in host.groups:
        return f"{access.WRITERS}: you are in it, so you may change them"
    to_do = access.joining(access.WRITERS, None if group is None else group.gid)
    return f"to change them, {to_do}"


def check_run_directory(host: Host) -> Iterator[Finding]:
    """Tell whether the run directory can be used, by this user and no other."""
    found = _judge(host) or _judge_length(host.run) or _judge_guests(host)
    yield found or ok("run directory", _describe(host.run))
    if host.roots is not None:
        said = f"{host.run} has your own guests; root's are in {host.roots}"
        yield ok("run directory", f"{said}: QMPMEM_RUN_DIR={host.roots}")


def _judge(host: Host) -> Finding | None:
    try:
        seen = host.run.lstat()
    except FileNotFoundError:
        return _judge_missing(host)
    except OSError as error:
        return failed("run directory", f"{host.run}: {error.strerror}", "set QMPMEM_RUN_DIR")
    refused = _judge_kind(host, seen)
    if refused is not None:
        return refused
    if seen.st_uid != host.uid:
        return ok(
            "run directory", f"{host.run}: root's alone; its guests are asked of root's agent"
        )
    return _not_private(seen, [host.run]) if seen.st_mode & rundir.OTHERS else None


def _judge_kind(host: Host, seen: os.stat_result) -> Finding | None:
    run = host.run
    if not stat.S_ISDIR(seen.st_mode):
        todo = "set QMPMEM_RUN_DIR to a directory, or move away what is there"
        return failed("run directory", f"{run}: not a directory", todo)
    if seen.st_uid not in (0, host.uid):
        return failed("run directory", f"{run}: belongs to uid {seen.st_uid}", "set QMPMEM_RUN_DIR")
    if seen.st_mode & stat.S_IWOTH:
        said = f"{run}: mode {stat.S_IMODE(seen.st_mode):04o}, any user can write there"
        return failed("run directory", said, f"chmod {rundir.PRIVATE:o} {run}")
    return None


def _judge_guests(host: Host) -> Finding | None:
    """Judge whose the guests' directories are, and that their modes keep other users out."""
    shared: list[Path] = []
    others: list[Path] = []
    for guest in sorted(host.run.iterdir()) if _is_own(host) else ():
        seen = guest.lstat()
        if not stat.S_ISDIR(seen.st_mode) or not SAFE_ID.fullmatch(guest.name):
            continue
        if seen.st_uid not in (0, host.uid):
            others.append(guest)
        elif seen.st_mode & rundir.OTHERS:
            shared.append(guest)
    if others:
        names, uid = _listed(others), others[0].lstat().st_uid
        said = f"{names}: belongs to uid {uid}; its guest does not count, and its name is taken"
        return warning("run directory", said, f"rm -r {names}, if nothing runs there")
    return _not_private(shared[0].lstat(), shared) if shared else None


def _is_own(host: Host) -> bool:
    try:
        return host.run.lstat().st_uid == host.uid
    except OSError:
        return False


def _not_private(seen: os.stat_result, paths: Sequence[Path]) -> Finding:
    mode, names = stat.S_IMODE(seen.st_mode), _listed(paths)
    said = f"{names}: mode {mode:04o}, expected {rundir.PRIVATE:04o}: QMP may do all that QEMU may"
    return warning("run directory", said, f"chmod {rundir.PRIVATE:o} {names}")


def _listed(paths: Sequence[Path]) -> str:
    return " ".join(map(str, paths))


def _judge_missing(host: Host) -> Finding | None:
    parent = next(path for path in host.run.parents if path.exists())
    seen = parent.stat()
    # Owner, group, others: the first that fits decides (path_resolution(7)).
    shift = 6 if seen.st_uid == host.uid else 3 if seen.st_gid in host.groups else 0
    if host.uid == 0 or (seen.st_mode >> shift) & _WRITE_AND_SEARCH == _WRITE_AND_SEARCH:
        return None
    todo = f"log in, or `loginctl enable-linger {host.uid}` as root, or set QMPMEM_RUN_DIR"
    return failed("run directory", f"{host.run}: cannot be made in {parent}", todo)


def _judge_length(run: Path) -> Finding | None:
    room = SOCKET_PATH - len(os.fsencode(run))
    if room >= _BELOW:
        return None
    said = f"{run}: too long a path for the socket of a guest with a long id"
    return warning("run directory", said, "set QMPMEM_RUN_DIR to a shorter one")


def _describe(run: Path) -> str:
    return str(run) if run.exists() else f"{run}: made with the first guest"


def _group(host: Host, name: str = rundir.GROUP) -> Group | None:
    try:
        content = host.path("/etc/group").read_text(errors="replace")
    except OSError:
        return None
    return parse_group(content, name)
