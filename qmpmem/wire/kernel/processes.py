"""Processes and unix sockets, as /proc shows them.

Rules of this file:
    The directory that stands for /proc is an argument, so that tests use recorded trees.
    A process that ended while it was read is None, never an error: any process may end.
    A process can forge what it tells of itself (comm, cmdline). Identity is pid and start time.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from qmpmem.records import Record
from qmpmem.units import KIB, Bytes
from qmpmem.wire.kernel.files import is_count, read, read_link

PROC: Final = Path("/proc")

_SO_ACCEPTCON: Final = 0x10000
"""Flag of a listening socket in /proc/net/unix (include/uapi/linux/net.h: __SO_ACCEPTCON)."""

_UNIX: Final = re.compile(
    r"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) [0-9A-F]{4} (?P<state>[0-9A-F]{2})"
    r" +(?P<inode>[0-9]{1,20}) (?P<path>[^@].*)"
)
"""A line of /proc/net/unix (net/unix/af_unix.c: unix_seq_show). An abstract name, which is no file,
begins with @."""


class Process(Record, frozen=True):
    """One process, as /proc/PID/stat shows it (proc(5))."""

    pid: int
    comm: str
    state: str
    """``R``, ``S``, ``D`` (cannot be interrupted), ``T`` (stopped), ``Z`` (a zombie), ..."""
    start_time: int
    """When it started, in clock ticks after boot."""


class Memory(Record, frozen=True):
    """What a process costs the host, in bytes (proc(5): /proc/PID/status)."""

    rss: Bytes | None
    swap: Bytes | None
    locked: Bytes | None = None
    """Memory that cannot be taken from it, by mlock, or because a passed-through device may write
    it."""
    pinned: Bytes | None = None
    """Memory that a device of the host may write, as vDPA and iommufd count it (VmPin)."""
    huge: Bytes | None = None
    """Huge pages, which are not in `rss`."""
    state: str | None = None
    """As `Process.state`."""


class UnixSocket(Record, frozen=True):
    """One bound unix socket of this network namespace."""

    path: str
    """The path that its owner passed to bind(): it may be relative to the owner's directory
    then."""
    inode: int
    listening: bool
    connected: bool


def parse_stat(content: str) -> Process | None:
    """Read /proc/PID/stat. The comm may hold spaces and brackets; the last bracket ends it."""
    head, _, tail = content.rpartition(")")
    pid, _, comm = head.partition("(")
    fields = tail.split()
    # starttime is field 22
    if len(fields) < 20 or not all(map(is_count, (pid.strip(), fields[19]))):  # noqa: PLR2004
        return None
    if not (len(fields[0]) == 1 and fields[0].isascii()):
        return None
    return Process(pid=int(pid), comm=comm, state=fields[0], start_time=int(fields[19]))


def parse_memory(content: str) -> Memory:
    """Read VmRSS and so on of /proc/PID/status; a kernel thread has none of them."""
    content = f"\n{content}"
    return Memory(
        rss=_size(_field(content, "\nVmRSS:")),
        swap=_size(_field(content, "\nVmSwap:")),
        locked=_size(_field(content, "\nVmLck:")),
        pinned=_size(_field(content, "\nVmPin:")),
        huge=_size(_field(content, "\nHugetlbPages:")),
        state=next(iter(_field(content, "\nState:")), None),
    )


def parse_unix(content: str) -> Iterator[UnixSocket]:
    """Read /proc/net/unix: ``Num RefCount Protocol Flags Type St Inode Path``."""
    for line in content.split("\n")[1:]:  # not splitlines: a path may hold any byte, even \v
        match = _UNIX.fullmatch(line)  # a path is not escaped: after a \n its rest is a line here
        if match is not None:
            yield UnixSocket(
                path=match["path"],
                inode=int(match["inode"]),
                listening=bool(int(match["flags"], 16) & _SO_ACCEPTCON),
                connected=match["state"] == "03",
            )


def parse_owner(content: str) -> int | None:
    """Read the effective user of /proc/PID/status: ``Uid: real effective saved file-system``."""
    words = _status(content).get("Uid", [])
    return int(words[1]) if len(words) == 4 and is_count(words[1]) else None  # noqa: PLR2004


def _status(content: str) -> dict[str, list[str]]:
    # Not splitlines: in a comm the kernel escapes only \n and \ (fs/proc: proc_task_name), and a
    # comm of "\vUid:\t0\t0" must stay on its line.
    lines = (line.partition(":") for line in content.split("\n"))
    return {name: rest.split() for name, _, rest in lines}


def _field(content: str, name: str) -> list[str]:
    """Find one line of many, in a fifth of the time that reading all of them takes."""
    start = content.find(name) + len(name)
    return content[start : content.find("\n", start)].split() if start >= len(name) else []


def _size(words: Sequence[str]) -> Bytes | None:
    return Bytes(int(words[0]) * KIB) if words[1:] == ["kB"] and is_count(words[0]) else None


def process(pid: int, proc: Path = PROC) -> Process | None:
    """Read one process; None where it is gone."""
    content = read(f"{proc}/{pid}/stat")  # no Path: twice as fast, for thousands in a round
    return None if content is None else parse_stat(content)


def queued(pid: int | str, proc: Path = PROC) -> float:
    """Return the seconds for which the living threads of a process waited for a processor.

    In these they could have run and did not. 0.0 where the process is gone, or this kernel does not
    count them. Source: Linux, Documentation/scheduler/sched-stats.rst (/proc/PID/schedstat).
    """
    return sum(_delay(f"{thread}/schedstat") for thread in _threads(pid, proc)) / 1e9


def waits_for_a_device(pid: int | str, proc: Path = PROC) -> bool:
    """Return whether a thread of a process waits for what cannot be interrupted, as for a disk.

    Source: proc(5), /proc/PID/task/TID/stat: state D.
    """
    contents = (read(f"{thread}/stat") for thread in _threads(pid, proc))
    found = (parse_stat(content) for content in contents if content is not None)
    return any(thread is not None and thread.state == "D" for thread in found)


def _threads(pid: int | str, proc: Path) -> list[str]:
    """Return the directories of a process's threads; none where it is gone."""
    try:
        directory = f"{proc}/{pid}/task"
        return [f"{directory}/{each}" for each in os.listdir(directory)]  # noqa: PTH208 - as above
    except OSError:
        return []


def _delay(path: str) -> int:
    """Read the second of the three numbers of a schedstat file, in ns."""
    words = (read(path) or "").split()
    return int(words[1]) if len(words) > 1 and is_count(words[1]) else 0


def parent(pid: int, proc: Path = PROC) -> int | None:
    """Return the pid of a process's present parent; None where the process is gone."""
    words = (read(proc / str(pid) / "stat") or "").rpartition(")")[2].split()
    return int(words[1]) if len(words) > 1 and is_count(words[1]) else None


def memory(pid: int, proc: Path = PROC) -> Memory:
    """Return what a process costs the host; its sizes are None where it is gone."""
    content = read(proc / str(pid) / "status")
    return Memory(rss=None, swap=None) if content is None else parse_memory(content)


def touched(pid: int, proc: Path = PROC) -> Bytes | None:
    """Return a process's memory that no file of a disk backs, merged pages included.

    Source: proc(5), /proc/PID/status: RssAnon and RssShmem.
    """
    content = read(f"{proc}/{pid}/status") or ""
    anon, shared = (_size(_field(content, f"\n{name}:")) for name in ("RssAnon", "RssShmem"))
    return None if anon is None or shared is None else Bytes(anon + shared)


def merged_pages(pid: int, proc: Path = PROC) -> int:
    """Return how many pages of a process KSM has merged; 0 where the kernel does not tell."""
    content = (read(f"{proc}/{pid}/ksm_merging_pages") or "").strip()
    return int(content) if is_count(content) else 0


def owner(pid: int, proc: Path = PROC) -> int | None:
    """Return the user as which a process acts; None where it is gone.

    The owner of /proc/PID does not tell: after a change of user it is root (proc(5), "dumpable").
    """
    content = read(proc / str(pid) / "status")
    return None if content is None else parse_owner(content)


def command_line(pid: int, proc: Path = PROC) -> tuple[str, ...] | None:
    """Read a process's arguments; None where it is gone or not ours to read.

    May block while the process's address space is locked: never call this in the event loop.
    """
    content = read(proc / str(pid) / "cmdline")
    if not content:
        return None
    return tuple(content.removesuffix("\0").split("\0"))


def first_directory(pid: int, proc: Path = PROC) -> str | None:
    """Return where a process was started, if its environment tells; blocks as `command_line`."""
    content = read(proc / str(pid) / "environ") or ""
    found = [entry for entry in content.split("\0") if entry.startswith("PWD=/")]
    return found[0].removeprefix("PWD=") if found else None


def pids(proc: Path = PROC) -> list[int]:
    """List all processes that this user may see; none where /proc is not mounted."""
    try:
        names = os.listdir(proc)  # noqa: PTH208 - speed
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isdigit())


def unix_sockets(proc: Path = PROC) -> list[UnixSocket]:
    """List the bound unix sockets of a network namespace, where sock_diag(7) cannot be asked.

    Any user can write a line of this table, by a newline in a path. So an inode that has several
    lines is left out: at most one of them is the kernel's.
    """
    content = read(proc / "net" / "unix")
    entries = [] if content is None else list(parse_unix(content))
    times = Counter(entry.inode for entry in entries)
    return [entry for entry in entries if times[entry.inode] == 1]


def executable(pid: int, proc: Path = PROC) -> str | None:
    """Return the path of the file that a process runs; None where this user may not see it.

    Unlike comm and the arguments, the process cannot choose what is shown here (proc(5):
    /proc/PID/exe). After an upgrade the file is gone while the process goes on.
    """
    target = read_link(proc / str(pid) / "exe")
    return None if target is None else target.removesuffix(" (deleted)")


def open_files(pid: int, proc: Path = PROC) -> dict[int, str] | None:
    """List what a process has open by descriptor: a path, or a name such as ``socket:[123]``.

    Returns:
        None where the process is gone, or this user may not see it.
    """
    directory = proc / str(pid) / "fd"
    try:
        names = os.listdir(directory)  # noqa: PTH208 - speed
    except OSError:
        return None
    targets = ((int(name), read_link(directory / name)) for name in names)
    return {number: target for number, target in targets if target is not None}


def socket_inodes(pid: int, proc: Path = PROC) -> frozenset[int]:
    """List the inodes of a process's open sockets; empty where this user may not see them."""
    return inodes_of((open_files(pid, proc) or {}).values())


def inodes_of(files: Iterable[str]) -> frozenset[int]:
    """Return the inodes of the sockets in a list of open files."""
    return frozenset(int(name[8:-1]) for name in files if name.startswith("socket:["))


def owner_of_socket(inode: int, proc: Path = PROC) -> int | None:
    """Find the process that has this socket open; None where this user may see none."""
    return next((pid for pid in pids(proc) if inode in socket_inodes(pid, proc)), None)
