"""Which guests there are: records, compared with the processes and sockets of this host.

Theory of operation:
    A record is believed while its process lives, known by pid and start time: exec keeps both, and
    a pid that was used again has another start time. QEMU's -daemonize forks once more; the guest
    is then found as the process that has the listening socket open. A record is stale only when
    its process is gone and its socket refuses or is missing. In doubt a guest lives: removing the
    directory of a live guest would make it unreachable for good.

Rules of this file:
    The kernel's numbers tell which process is behind a socket: sock_diag(7) by the file's device
    and inode, else SO_PEERCRED. The names in /proc/net/unix do not: a bound path may hold a
    newline, so any local user can write a line of that table.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qmpmem.errors import GuestUnreachable
from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord, Unreadable
from qmpmem.model import obstacles
from qmpmem.model.guest import GuestView
from qmpmem.model.names import SAFE_ID
from qmpmem.model.sizes import Sizes
from qmpmem.records import Record, replace
from qmpmem.units import Bytes
from qmpmem.wire import kernel, loopback, unix_socket
from qmpmem.wire.errors import unreachable
from qmpmem.wire.kernel import cgroup
from qmpmem.wire.kernel.processes import Memory
from qmpmem.wire.sock_diag import Owners, Table

_NO_LISTENER: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})
"""What connect(2) answers where no process listens (unix(7))."""


class LiveGuest(Record, frozen=True):
    """A live guest."""

    record: GuestRecord
    pid: int | None
    """The guest's process now; None where it lives but this user may not see it."""

    @property
    def listener(self) -> int:
        """Return the process that SO_PEERCRED names on this guest's socket: it called listen().

        That is QEMU itself, which calls it once more on a socket that it inherited (QEMU:
        util/qemu-sockets.c, socket_listen), also where -daemonize made it a child of the launcher.
        """
        return self.record.listener or self.pid or self.record.pid

    def is_shown_anew(self, other: "LiveGuest") -> bool:
        """Tell whether this and another are one process, which another broker shows now."""
        same = replace(self.record, listener=other.record.listener) == other.record
        return same and self.record.shared and self.pid == other.pid


class Inventory(Record, frozen=True):
    """What a run directory holds."""

    guests: tuple[LiveGuest, ...] = ()
    stale: tuple[GuestRecord, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


class Listeners:
    """Which process listens at an address, by one dump of the sockets and one walk through /proc.

    Args:
        proc: what stands for /proc.
    """

    def __init__(self, proc: Path = kernel.PROC) -> None:
        self._owners = Owners(proc)
        self._proc = proc
        self._table: Table | None = None

    def find(self, address: str) -> tuple[bool, int | None]:
        """Look for the process behind an address.

        Returns:
            Whether a process may be there, and its pid where it is known.
        """
        try:
            inode = self._inode(address)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a zero in the path
            return False, None
        except OSError:  # this kernel does not tell
            return self._connect(address)
        if inode is not None:
            return True, self._owners.pid(inode)
        # A QEMU in another network namespace is in another table, but answers at its file.
        return self._connect(address) if address.startswith("/") else (False, None)

    def _inode(self, address: str) -> int | None:
        if loopback.is_tcp(address):
            return loopback.listener(address)
        self._table = self._table or Table()
        return self._table.listener(address)

    def _connect(self, address: str) -> tuple[bool, int | None]:
        """Look by connecting, which takes a place in the backlog: QEMU serves one client a time."""
        if loopback.is_tcp(address):
            return True, None
        try:
            with unix_socket.open_socket(address, "") as connection:
                pid = unix_socket.peer_of(connection).pid
        except BlockingIOError:
            return True, None
        except GuestUnreachable as error:
            if error.reason == "not-a-socket":
                return False, None
            cause = error.__cause__
            return getattr(cause, "errno", None) not in _NO_LISTENER, None
        return True, pid if kernel.process(pid, self._proc) is not None else None


def take(run: Path, proc: Path = kernel.PROC) -> Inventory:
    """Read the run directory, and tell live guests from stale records. Changes nothing.

    Raises:
        ConfigError: the run directory is no directory.
        KernelError: it cannot be listed.
    """
    guests: list[LiveGuest] = []
    stale: list[GuestRecord] = []
    unreadable: list[Unreadable] = []
    listeners = Listeners(proc)
    for entry in rundir.read_records(run):
        match entry:
            case Unreadable():
                unreadable.append(entry)
            case GuestRecord():
                match judge(entry, proc, listeners):
                    case LiveGuest() as found:
                        guests.append(found)
                    case Unreadable() as doubt:
                        path = str(run / entry.id / "record.json")
                        unreadable.append(replace(doubt, path=path))
                    case None:
                        stale.append(entry)
    return Inventory(guests=tuple(guests), stale=tuple(stale), unreadable=tuple(unreadable))


def look_up(run: Path, guest: str, proc: Path = kernel.PROC) -> LiveGuest | None:
    """Find a live guest by its id, without a look at the others; None where there is none."""
    if not SAFE_ID.fullmatch(guest):
        return None
    record = rundir.read_record(run / guest)
    found = judge(record, proc) if isinstance(record, GuestRecord) else None
    return found if isinstance(found, LiveGuest) else None


def sweep(run: Path, stale: Sequence[GuestRecord], proc: Path = kernel.PROC) -> tuple[str, ...]:
    """Remove the directories of guests that are gone; each is checked once more right before.

    Returns:
        The ids that were removed.
    """
    removed: list[str] = []
    if not stale:
        return ()
    # Without the lock a launcher could claim the id between our check and our removal.
    with rundir.removing(run) as alone:
        for record in stale if alone else ():
            now = rundir.read_record(run / record.id)
            if now == record and judge(record, proc) is None:
                rundir.remove_guest(run, record.id)
                for parent in (record.cgroup or "").splitlines():
                    cgroup.remove_empty(Path(parent) / record.id)
                removed.append(record.id)
    return tuple(removed)


def unseen(found: LiveGuest) -> GuestView:
    """Return what is known of a guest without talking to it."""
    memory = cost(found.pid)
    guest = silent(found, memory.rss)
    return replace(guest, unmovable=guest.unmovable or obstacle(memory, None))


def silent(found: LiveGuest, cost: Bytes | None) -> GuestView:
    """Return what a guest's record tells, and what its process costs. Reads nothing."""
    record = found.record
    return GuestView(
        id=record.id,
        name=record.name,
        pid=found.pid,
        state="unreachable",
        maximum=None,
        actual=None,
        rss=cost,
        stats=None,
        socket=record.socket,
        machine=None,
        managed=record.managed,
        mode=record.mode,
        no_balloon=record.no_balloon,
        unmovable=record.unmovable,
        current=record.current,
        problem=record.note,
    )


def describe(base: GuestView, sizes: Sizes | None, counted: Bytes | None) -> GuestView:
    """Return a guest's snapshot with its sizes.

    Args:
        base: the snapshot.
        sizes: its memory by kind; None: not known.
        counted: its `actual` as QEMU counts it, where that can be true.
    """
    if sizes is None:
        return replace(base, actual=counted)
    return replace(
        base,
        maximum=sizes.maximum,
        actual=sizes.seen(counted),
        plugged=sizes.plugged,
        offline=sizes.offline,
        beyond=sizes.beyond,
    )


def cost(pid: int | None) -> Memory:
    """Return what a guest's process costs the host now."""
    return Memory(rss=None, swap=None) if pid is None else kernel.memory(pid)


def rss(pid: int | None) -> Bytes | None:
    """Return how much of a guest's process is resident now."""
    return cost(pid).rss


def obstacle(memory: Memory, sizes: Sizes | None) -> str | None:
    """Return why a balloon frees nothing of a process with such memory; None: no reason is known.

    Args:
        memory: what the kernel tells of the process.
        sizes: the guest's memory; None where it is not known.
    """
    most = None if sizes is None else sizes.most
    return obstacles.of_process(memory.huge, memory.locked, memory.pinned, most)


def remarks(base: GuestView, seen: GuestView, problem: str | None) -> str | None:
    """Return the remarks about a guest in one line.

    Args:
        base: what its record tells, with a note for its user in `problem`.
        seen: what was seen.
        problem: why it has no size; None where it has one.
    """
    if problem == obstacles.NO_DEVICE:
        problem = obstacles.no_device(seen.no_balloon or seen.unmovable)
    elif seen.unmovable is not None:
        problem = obstacles.joined(problem, obstacles.frees_nothing(seen.unmovable))
    lacks = obstacles.NO_DEFLATE if obstacles.lacks_deflate(seen.balloon) else None
    return obstacles.joined(problem, lacks, base.problem)


def judge(
    record: GuestRecord, proc: Path = kernel.PROC, listeners: Listeners | None = None
) -> LiveGuest | Unreadable | None:
    """Find out whether a record's guest lives.

    Args:
        record: a claim.
        proc: what stands for /proc.
        listeners: what the kernel told a moment ago; None: it is asked now.

    Returns:
        The guest; why that is not known; or None where it is gone for sure.
    """
    process = kernel.process(record.pid, proc)
    if process and process.start_time == record.start_time and process.state != "Z":
        return _expect_owner(LiveGuest(record=record, pid=record.pid), proc)
    is_there, pid = (listeners or Listeners(proc)).find(record.socket)
    if not is_there:
        return None
    if record.daemonize or record.start_time == 0:
        return _expect_owner(LiveGuest(record=record, pid=pid), proc)
    return Unreadable(
        path=record.socket,
        problem=f"the process of guest {record.id} is gone, but another one answers; "
        f"`qmpmem forget {record.id}`, then `qmpmem discover`",
    )


def _expect_owner(found: LiveGuest, proc: Path) -> LiveGuest | Unreadable:
    """Refuse a guest whose process belongs to another user than its record names.

    A user may write any record about guests of its own. Root wrote each record that names root
    (`rundir.read_record`), and root's QEMU may have become another user since (QEMU: -runas).
    """
    record = found.record
    for pid in () if record.uid == 0 else (found.pid, record.listener):
        owner = None if pid is None else kernel.owner(pid, proc)
        if owner not in (record.uid, None):
            said = f"process {pid} is of uid {owner}, and the record of uid {record.uid}"
            return Unreadable(path=record.socket, problem=said)
    return found


def lost_socket(found: LiveGuest) -> GuestUnreachable | None:
    """Return the error that a running guest cannot be reached, as its socket's file was removed.

    Returns:
        None where that is not so.
    """
    record = found.record
    if not is_lost(found):
        return None
    return unreachable(
        record.id,
        "lost",
        f"{record.socket}: removed while the guest runs (process {found.pid}), most likely by "
        "something that clears away old files",
    )


def is_lost(found: LiveGuest) -> bool:
    """Tell whether a guest runs and its socket's file is gone."""
    record = found.record
    is_file = record.socket.startswith("/")
    process = None if found.pid is None else kernel.process(found.pid)
    return is_file and process is not None and not os.path.lexists(record.socket)
