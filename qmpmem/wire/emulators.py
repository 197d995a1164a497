"""QEMU processes of this host: which they are, and where their QMP sockets can be reached.

Rules of this file:
    Nothing is connected to. A process is a QEMU by the file it runs, which it cannot choose to
    show; its command line and name are claims, and the kernel says who listens and who is attached.
    Reading about a process may block for as long as its address space is locked, or its file system
    hangs: a few threads that nobody waits for longer than `PATIENCE`.

Theory of operation:
    A socket that a process listens on is known by its inode. The path beside it in /proc/net/unix
    is what the process gave to bind(), so the same text stands in its command line, which tells a
    QMP monitor from other sockets. That path may be relative, or of another root: `_candidates`
    lists where it may lead from here, and the kernel confirms which one leads to that inode.
"""

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from qmpmem import rundir
from qmpmem.records import Record
from qmpmem.rundir import GuestRecord
from qmpmem.wire import attached, cmdline, kernel
from qmpmem.wire.attached import Holder
from qmpmem.wire.cmdline import CommandLine
from qmpmem.wire.kernel import UnixSocket

T = TypeVar("T")

PATIENCE: Final = 3.0
"""Seconds for all processes together; one takes about 1 ms."""
THREADS: Final = 4


class Monitor(Record, frozen=True):
    """A unix socket on which a process offers QMP."""

    path: str
    """As the process bound it."""
    address: str | None = None
    """By which it can be reached from here; None where it cannot."""
    holder: Holder | None = None
    """Who is attached; None where nobody is."""


class Facts(Record, frozen=True):
    """What was seen of one QEMU process."""

    pid: int
    uid: int | None = None
    line: CommandLine | None = None
    """None where it could not be read, or not in time."""
    listening: tuple[str, ...] = ()
    """All unix sockets that it listens on, as it bound them."""
    monitors: tuple[Monitor, ...] = ()
    home: str | None = None
    """The run directory that this process is registered in."""
    kvm: bool | None = None
    """Whether it has a KVM machine open. None where that is not ours to see."""

    @property
    def libvirt(self) -> bool:
        """Whether libvirt manages it, by its arguments or the place of its sockets."""
        by_line = self.line is not None and self.line.libvirt
        return by_line or any("/libvirt/qemu/" in path for path in self.listening)


def find_emulators(proc: Path = kernel.PROC) -> tuple[list[int], int]:
    """List the processes that run a QEMU, and count those that only say so and hide the rest."""
    emulators: list[int] = []
    hidden = 0
    for pid in kernel.pids(proc):
        program = kernel.executable(pid, proc)
        if program is None:
            hidden += _calls_itself_emulator(pid, proc)
        elif is_emulator(program):
            emulators.append(pid)
    return emulators, hidden


def is_emulator(program: str) -> bool:
    """Whether a program is a QEMU that runs machines, by its file's name on any distribution."""
    name = os.path.basename(program)  # noqa: PTH119 - a name, not a file of ours
    return name.startswith("qemu-system-") or name == "qemu-kvm"


def look(pid: int, proc: Path = kernel.PROC) -> Facts:
    """Gather what there is to know about a process. May block: see `each_within`."""
    words, files = kernel.command_line(pid, proc), kernel.open_files(pid, proc)
    if words is None or files is None:
        return Facts(pid=pid, uid=kernel.owner(pid, proc))
    line = cmdline.parse(words)
    inodes = kernel.inodes_of(files.values())
    handed = kernel.inodes_of(files.get(number, "") for number in line.descriptors)
    # The table of its own network namespace, which need not be ours.
    table = kernel.unix_sockets(proc / str(pid))
    listening = [entry for entry in table if entry.listening and entry.inode in inodes]
    foreign = _network(proc / str(pid)) != _network(proc / "self")
    addresses = {entry.inode: _address(pid, entry, proc, foreign=foreign) for entry in listening}
    return Facts(
        pid=pid,
        uid=kernel.owner(pid, proc),
        line=line,
        listening=tuple(entry.path for entry in listening),
        monitors=tuple(
            _monitor(entry.path, addresses[entry.inode], table if foreign else None)
            for entry in listening
            if entry.path in line.paths or entry.inode in handed
        ),
        home=next(filter(None, map(_home, addresses.values())), None),
        kvm=any(name == "anon_inode:kvm-vm" for name in files.values()),
    )


def each_within(
    seconds: float, work: Callable[[int], T], items: Sequence[int], threads: int = THREADS
) -> dict[int, T]:
    """Do some work for each item in a few threads, and leave those that hang to themselves.

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
    return process.comm.startswith(("qemu-system", "qemu-kvm")) or process.comm == "kvm"


def _monitor(bound: str, address: str | None, table: Sequence[UnixSocket] | None) -> Monitor:
    holder = None if address is None else _holder(address, bound, table)
    return Monitor(path=bound, address=address, holder=holder)


def _address(pid: int, entry: UnixSocket, proc: Path, *, foreign: bool) -> str | None:
    for candidate in _candidates(pid, entry.path, proc):
        if _leads_to(candidate, entry.inode, foreign=foreign):
            return candidate
    return None


def _candidates(pid: int, bound: str, proc: Path) -> Iterator[str]:
    here = proc / str(pid)
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


def _leads_to(path: str, inode: int, *, foreign: bool) -> bool:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except (OSError, ValueError):
        return False
    try:
        found = attached.listener(path)
    except OSError:
        return True  # a kernel that does not say: the path has to do
    return found == inode or (found is None and foreign)


def _holder(address: str, bound: str, table: Sequence[UnixSocket] | None) -> Holder | None:
    try:
        found = attached.holder(address)
    except OSError:  # a kernel that does not say
        found, table = None, table or kernel.unix_sockets()
    if found is not None or table is None:
        return found
    # An accepted connection bears its listener's path, and lives in its client's network namespace
    # (Linux: net/unix/af_unix.c, unix_stream_connect). By whom it was made is not shown.
    is_held = any(entry.connected and entry.path == bound for entry in table)
    return Holder() if is_held else None


def _home(address: str | None) -> str | None:
    """Name the run directory in which a socket is registered, by the record beside it."""
    if address is None or not address.endswith("/qmp.sock"):
        return None
    directory = Path(address).parent
    record = rundir.read_record(directory)
    is_its_own = isinstance(record, GuestRecord) and record.socket == address
    return str(directory.parent) if is_its_own else None


def _network(process: Path) -> str | None:
    try:
        return os.readlink(process / "ns/net")  # noqa: PTH115 - a name such as net:[4026531833]
    except OSError:
        return None
