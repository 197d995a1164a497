"""QEMU processes of this host: which they are, and where their monitors can be reached.

Rules of this file:
    Nothing is connected to. A process is a QEMU by the file that it runs
    (`qmpmem.guests.qemu_binaries`). Its command line and name are claims. The kernel tells which
    process listens, and which is attached. To read about a process may block for as long as its
    address space is locked, or its file system hangs: a few threads do it, and the caller waits no
    longer than `PATIENCE` seconds for them.

Theory of operation:
    A socket that a process listens on is known by its inode. The name beside it in the kernel's
    table is what the process passed to bind(), so the same text is in its command line, which tells
    a monitor from other sockets. That path may be relative, or of another root: `_candidates` lists
    where it may lead from here, and the kernel confirms which one leads to that inode.

    All that concerns every socket or every process is asked once for all QEMUs: see `View`.
"""

import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from qmpmem.guests import managers, qemu_binaries, qemu_command_line, rundir
from qmpmem.guests.qemu_command_line import CommandLine
from qmpmem.guests.rundir import GuestRecord
from qmpmem.records import Record
from qmpmem.wire import kernel, loopback, sock_diag
from qmpmem.wire.kernel import UnixSocket
from qmpmem.wire.sock_diag import Holder, Owners, Table

T = TypeVar("T")

PATIENCE: Final = 3.0
"""Most seconds for all processes together; one takes about 1 ms."""
BRIEFLY: Final = 1.0
"""Most seconds to tell QEMUs with unusual names from all other processes."""
THREADS: Final = 4


CONFIG: Final = 64 * 1024
"""Most bytes that are read of a file which -readconfig names."""


class Monitor(Record, frozen=True):
    """A socket on which a process has a monitor."""

    path: str
    """The name under which the process bound it; an abstract one begins with @."""
    address: str | None = None
    """The address at which it can be reached from here; None where it cannot."""
    holder: Holder | None = None
    """The process that is attached; None where none is."""
    human: bool = False
    """Whether it is a human monitor, and not QMP."""


class Facts(Record, frozen=True):
    """What was seen of one QEMU process."""

    pid: int
    uid: int | None = None
    line: CommandLine | None = None
    """Its command line; None where it could not be read, or not in time."""
    listening: tuple[str, ...] = ()
    """All unix sockets that it listens on, by the names under which it bound them."""
    monitors: tuple[Monitor, ...] = ()
    home: str | None = None
    """The run directory in which this process is registered."""
    lost: str | None = None
    """A socket that the launcher bound, by its name, whose file or record is gone."""
    manager: str | None = None
    """The program that manages it, by its arguments, its sockets or its parent."""
    kvm: bool | None = None
    """Whether it has a KVM machine open; None where this user may not see that."""


class View:
    """What the kernel tells of all sockets and processes, asked once for all QEMUs.

    Args:
        proc: what stands for /proc.
    """

    def __init__(self, proc: Path = kernel.PROC) -> None:
        self.proc = proc
        self.owners = Owners(proc)
        self.programs = qemu_binaries.Programs(proc)
        self.network = _network(proc / "self")
        self.table: Table | None
        try:
            self.table = Table()
        except OSError:  # this kernel does not tell
            self.table = None
        self._others: dict[str | None, list[UnixSocket]] = {}
        self._tcp: list[loopback.Row] | None = None
        self._lock = threading.Lock()

    def sockets(self, pid: int) -> tuple[Sequence[UnixSocket], bool]:
        """List the unix sockets of a process's network namespace; tell whether it is not ours."""
        network = _network(self.proc / str(pid))
        is_foreign = network != self.network
        if self.table is not None and not is_foreign:
            known = self.table.listening.values()
            return [
                UnixSocket(path=each.name, inode=each.socket, listening=True, connected=False)
                for each in known
            ], False
        with self._lock:
            if network not in self._others:
                self._others[network] = kernel.unix_sockets(self.proc / str(pid))
            return self._others[network], is_foreign

    def tcp(self) -> Sequence[loopback.Row]:
        """List the TCP sockets of this network namespace."""
        with self._lock:
            if self._tcp is None:
                self._tcp = loopback.rows(self.proc)
            return self._tcp

    def leads_to(self, address: str, inode: int, *, foreign: bool) -> bool:
        """Tell whether an address leads to a listening socket."""
        try:
            if not sock_diag.is_abstract(address) and not stat.S_ISSOCK(os.lstat(address).st_mode):
                return False
            if self.table is None:
                return True  # only the path is known
            found = self.table.listener(address)
        except (OSError, ValueError):
            return False
        return found == inode or (found is None and foreign)

    def holder(self, address: str, bound: str, sockets: Sequence[UnixSocket]) -> Holder | None:
        """Find the process that is attached at an address.

        Args:
            address: the socket.
            bound: the name under which its owner bound it.
            sockets: those of its owner's network namespace.
        """
        try:
            client = None if self.table is None else self.table.client(address)
        except OSError:
            return None
        if client is not None:
            return self.owners.holder(client)
        # An accepted connection bears its listener's path, and lives in its client's network
        # namespace (Linux: net/unix/af_unix.c, unix_stream_connect). Its client is not shown.
        is_held = any(entry.connected and entry.path == bound for entry in sockets)
        return Holder() if is_held else None


def find_emulators(view: View) -> tuple[list[int], int]:
    """List the processes that run a QEMU, and count those that claim to but cannot be looked at."""
    likely: list[int] = []
    others: list[int] = []
    hidden = 0
    for pid in kernel.pids(view.proc):
        program = kernel.executable(pid, view.proc)
        if program is None:
            hidden += _calls_itself_emulator(pid, view.proc)
        elif qemu_binaries.has_likely_name(program):
            likely.append(pid)
        else:
            others.append(pid)
    # The others come apart, so that a process whose arguments block their readers delays no QEMU.
    found = each_within(PATIENCE, view.programs.is_emulator, likely)
    found |= {pid: True for pid in likely if pid not in found}  # one that hangs is shown as such
    found |= each_within(BRIEFLY, view.programs.is_odd_emulator, others)
    return sorted(pid for pid, is_one in found.items() if is_one), hidden


def look(pid: int, view: View) -> Facts:
    """Return what is known about a process. May block: see `each_within`."""
    proc = view.proc
    words, files = kernel.command_line(pid, proc), kernel.open_files(pid, proc)
    if words is None or files is None:
        return Facts(pid=pid, uid=kernel.owner(pid, proc))
    line = qemu_command_line.parse(words, _configs(pid, words, proc))
    inodes = kernel.inodes_of(files.values())
    handed = kernel.inodes_of(files.get(number, "") for number in line.descriptors)
    table, foreign = view.sockets(pid)
    listening = [entry for entry in table if entry.listening and entry.inode in inodes]
    addresses = {entry.inode: _address(pid, entry, view, foreign=foreign) for entry in listening}
    homes = {entry.inode: _home(addresses[entry.inode]) for entry in listening}
    return Facts(
        pid=pid,
        uid=kernel.owner(pid, proc),
        line=line,
        listening=tuple(entry.path for entry in listening),
        monitors=(
            *_tcp_monitors(line, inodes, view, foreign=foreign),
            *(
                Monitor(
                    path=entry.path,
                    address=(address := addresses[entry.inode]),
                    holder=None if address is None else view.holder(address, entry.path, table),
                    human=entry.path in line.human,
                )
                for entry in listening
                if entry.path in (*line.paths, *line.human) or entry.inode in handed
            ),
        ),
        home=next(filter(None, homes.values()), None),
        lost=next((entry.path for entry in listening if _is_lost(entry, homes)), None),
        manager=line.manager
        or managers.by_sockets([entry.path for entry in listening])
        or _parent_manager(pid, proc),
        kvm=any(name == "anon_inode:kvm-vm" for name in files.values()),
    )


def _tcp_monitors(
    line: CommandLine, inodes: frozenset[int], view: View, *, foreign: bool
) -> Iterator[Monitor]:
    """Yield the TCP ports on which a process has a monitor, each once, by a loopback address."""
    ports = dict.fromkeys(line.ports, False) | dict.fromkeys(line.human_ports, True)
    if not ports or foreign:
        return
    for row in view.tcp():
        port = row.local[1]
        if row.inode in inodes and port in ports and row.is_listening:
            is_human = ports.pop(port)
            address = loopback.near(row)
            held = None if address is None else loopback.holder(address)
            yield Monitor(
                path=loopback.write(*row.local), address=address, holder=held, human=is_human
            )


def each_within(
    seconds: float, work: Callable[[int], T], items: Sequence[int], threads: int = THREADS
) -> dict[int, T]:
    """Do some work for each item in a few threads, and stop waiting for those that hang.

    Returns:
        The results that were there in time. A thread that hangs is a daemon: it ends with us.
    """
    waiting = deque(items)
    done: dict[int, T] = {}

    def toil() -> None:
        with suppress(IndexError):
            while True:
                item = waiting.popleft()
                with suppress(OSError):
                    done[item] = work(item)

    workers = [threading.Thread(target=toil, daemon=True) for _ in items[:threads]]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    waiting.clear()
    return done.copy()


def _calls_itself_emulator(pid: int, proc: Path) -> bool:
    process = kernel.process(pid, proc)
    if process is None or process.state == "Z":
        return False
    return qemu_binaries.calls_itself_one(process.comm)


def _parent_manager(pid: int, proc: Path) -> str | None:
    parent = kernel.parent(pid, proc)
    if parent in (None, 0, 1):
        return None
    process = kernel.process(parent, proc)
    by_program = managers.by_parent(kernel.executable(parent, proc))
    return by_program or managers.by_parent(process.comm if process else None)


def _configs(pid: int, words: Sequence[str], proc: Path) -> dict[str, str]:
    """Read the files that -readconfig names, as far as they are files and can be read."""
    found: dict[str, str] = {}
    for name in qemu_command_line.config_files(words):
        text = _config(pid, name, proc)
        if text is not None:
            found[name] = text
    return found


def _config(pid: int, name: str, proc: Path) -> str | None:
    here = proc / str(pid)
    descriptor = re.fullmatch(r"/(?:dev/fd|proc/self/fd)/(\d+)", name)
    path = here / "fd" / descriptor[1] if descriptor else here / "root" / name.lstrip("/")
    if not name.startswith("/"):
        path = here / "cwd" / name
    try:
        # To open a FIFO or a device may wait, or do something: look first.
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            return file.read(CONFIG).decode(errors="replace")
    except OSError:
        return None


def _address(pid: int, entry: UnixSocket, view: View, *, foreign: bool) -> str | None:
    for candidate in _candidates(pid, entry.path, view.proc):
        if view.leads_to(candidate, entry.inode, foreign=foreign):
            return candidate
    return None


def _candidates(pid: int, bound: str, proc: Path) -> Iterator[str]:
    here = proc / str(pid)
    if sock_diag.is_abstract(bound):
        yield bound
        return
    if bound.startswith("/"):
        yield bound
        yield f"{here}/root{bound}"  # under -chroot, or in a container
        return
    with suppress(OSError):
        yield str((here / "cwd").readlink() / bound)
    yield f"{here}/cwd/{bound}"
    started = kernel.first_directory(pid, proc)  # -daemonize goes to / after binding
    if started is not None:
        yield f"{started}/{bound}"


def _home(address: str | None) -> str | None:
    """Return the run directory in which a socket is registered, by the record beside it."""
    if address is None or not address.endswith("/qmp.sock"):
        return None
    directory = Path(address).parent
    record = rundir.read_record(directory)
    is_its_own = isinstance(record, GuestRecord) and record.socket == address
    return str(directory.parent) if is_its_own else None


def _is_lost(entry: UnixSocket, homes: Mapping[int, str | None]) -> bool:
    """Tell whether a socket is bound where the launcher binds one, and is no longer registered."""
    is_launchers = entry.path.startswith("/") and entry.path.endswith("/qmp.sock")
    return is_launchers and homes[entry.inode] is None


def _network(process: Path) -> str | None:
    try:
        return os.readlink(process / "ns/net")  # noqa: PTH115 - a name such as net:[4026531833]
    except OSError:
        return None
