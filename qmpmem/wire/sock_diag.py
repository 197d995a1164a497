"""Which client is attached to a unix socket, asked of the kernel without touching the socket.

Theory of operation:
    QEMU serves one client of a monitor at a time. The next is left in the backlog, connected and
    not greeted, just as if QEMU hung. The kernel knows the difference: sock_diag(7), AF_UNIX, shows
    each socket that was accepted from a listener under the listener's inode, with its peer. A peer
    of inode 0 has closed already; QEMU will notice that and serve the next one. Clients that wait
    in the backlog are not shown. Answering takes the kernel 0.2 ms and some microseconds for each
    socket.

    An abstract name is no file (unix(7)): its listener, and what was accepted from it, are known by
    the name. Here it begins with @, as in /proc/net/unix; a file of such a name is ``./@name``.

    One dump answers for any number of sockets, and one walk through /proc for any number of
    clients: for many, take one `Table` and one `Owners`.

    Where the kernel has no unix_diag module, nothing is known: that is an OSError, and does not
    mean that no client is attached.
"""

import errno
import os
import re
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qmpmem.errors import GuestUnreachable
from qmpmem.records import Record, replace
from qmpmem.wire import kernel
from qmpmem.wire.errors import one_line, unreachable

# linux/sock_diag.h, linux/netlink.h, linux/unix_diag.h, net/tcp_states.h
_NETLINK_SOCK_DIAG: Final = 4
BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_DONE: Final = 3
_ESTABLISHED: Final = 1
_LISTEN: Final = 10
_SHOW_NAME, _SHOW_VFS, _SHOW_PEER = 1, 2, 4
_NAME, _VFS, _PEER, _SHUTDOWN = 0, 1, 2, 6
_RECEIVES_NOTHING: Final = 1
"""A bit of the attribute `_SHUTDOWN`: the peer has shut down its sending (net/sock.h:
RCV_SHUTDOWN)."""
_ANY: Final = 0xFFFFFFFF

_INTERPRETER: Final = re.compile(r"python[0-9.]*|sh|bash|dash|perl|ruby|node")

HEADER: Final = struct.Struct("=IHHII")
_QUERY: Final = struct.Struct("=BBHIIIII")
_MESSAGE: Final = struct.Struct("=BBBBIII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_TWO: Final = struct.Struct("=II")
_ONE: Final = struct.Struct("=I")


_OUR_NAME: Final = "qmpmem"
_AGENT: Final = (
    "the agent lets go when it is stopped, and of an adopted guest by `qmpmem forget GUEST`"
)
_COMMAND: Final = (
    "that command lets go when it ends; where an agent runs, all commands share the monitor"
)
_LONGEST: Final = 80
"""Most characters of a command line that a message repeats."""


class Connection(Record, frozen=True):
    """One accepted connection, or one listener."""

    socket: int
    """The inode of this socket itself, as /proc/PID/fd shows it."""
    name: str = ""
    """The name that its owner passed to bind(); an abstract one begins with @."""
    file: tuple[int, int] | None = None
    """The listener's file: its device, as the kernel counts (major << 20 | minor), and the low 32
    bits of its inode. None for an abstract name."""
    listening: bool = False
    peer: int | None = None
    """The inode of the client's socket; 0 where the client has closed it; None for a listener."""
    is_last: bool = False
    """Whether the client has sent all that it will, so that QEMU ends the connection after that."""

    @property
    def place(self) -> tuple[int, int] | str:
        """Return what a listener and the connections that it accepted have in common."""
        return self.file or self.name


class Holder(Record, frozen=True):
    """The process at the other end of a monitor; None for what this user may not see."""

    pid: int | None = None
    uid: int | None = None
    comm: str | None = None
    """What the process calls itself: easy to forge, so it is for people only."""
    command: str | None = None
    """What it was started as, without its interpreter: easy to forge, so it is for people only."""
    leaves: bool = False
    """Whether it has sent all that it will: QEMU serves the next client after that. The client that
    a launcher leaves for its QEMU is such a one (launchers/kvm_current.py)."""


class Table:
    """The unix sockets of this network namespace that have a name, as of one dump.

    Raises:
        OSError: the kernel does not tell.
    """

    def __init__(self) -> None:
        self.listening: dict[int, Connection] = {}
        """The listeners by socket inode."""
        self._listeners: dict[tuple[int, int] | str, int] = {}
        self._clients: dict[tuple[int, int] | str, list[int]] = defaultdict(list)
        self.leaving = set[int]()
        """The clients that have sent all that they will."""
        for entry in _dump():
            if entry.listening:
                self.listening[entry.socket] = entry
                self._listeners[entry.place] = entry.socket
            elif entry.peer:
                self._clients[entry.place].append(entry.peer)
                self.leaving |= {entry.peer} if entry.is_last else set()

    def listener(self, address: str) -> int | None:
        """Find the socket that listens at an address; None where none does in this namespace.

        Raises:
            OSError: the file is gone.
        """
        return self._listeners.get(_place(address))

    def client(self, address: str, besides: int | None = None) -> int | None:
        """Find the socket of a client that keeps others waiting; one that stays comes first.

        Args:
            address: where.
            besides: the inode of our own client's socket. Where that was accepted, it is served,
                whatever others are attached: a broker serves many.

        Raises:
            OSError: the file is gone.
        """
        peers = self._clients.get(_place(address), ())
        if besides in peers:
            return None
        return min(peers, key=lambda peer: peer in self.leaving, default=None)


class Owners:
    """Which process has which socket open, by one walk through /proc at the first question."""

    def __init__(self, proc: Path = kernel.PROC) -> None:
        self._proc = proc
        self._known: dict[int, int] | None = None
        self._lock = threading.Lock()

    def pid(self, inode: int) -> int | None:
        """Return the pid of a process that has a socket open; None where this user may see none."""
        with self._lock:
            if self._known is None:
                self._known = self._walk()
        return self._known.get(inode)

    def holder(self, inode: int) -> Holder:
        """Return the process that has a socket open, as far as this user may see it."""
        pid = self.pid(inode)
        return Holder() if pid is None else _describe(pid, self._proc)

    def _walk(self) -> dict[int, int]:
        known: dict[int, int] = {}
        for pid in kernel.pids(self._proc):
            for inode in kernel.socket_inodes(pid, self._proc):
                known.setdefault(inode, pid)
        return known


def holder(path: str, *, besides: int | None = None) -> Holder | None:
    """Find the process that is attached to a socket. May read all of /proc: not for the event loop.

    Args:
        path: the socket, or an abstract name that begins with @.
        besides: the inode of a client's socket that does not count, our own.

    Returns:
        One of the processes that are attached; None where there is none.

    Raises:
        OSError: the socket is gone, or the kernel does not tell.
    """
    _place(path)
    table = Table()
    client = table.client(path, besides)
    if client is None:
        return None
    return replace(describe_owner(client), leaves=client in table.leaving)


def listener(path: str) -> int | None:
    """Find the socket that listens behind a file, under whatever name its owner bound it.

    Returns:
        The socket's inode, as /proc/PID/fd shows it; None where nothing listens there in this
        network namespace.

    Raises:
        OSError: the file is gone, or the kernel does not tell.
    """
    _place(path)
    return Table().listener(path)


def is_agent(held: Holder) -> bool:
    """Tell whether a process was started as our agent is: good enough to choose an advice by."""
    return (held.command or "").split(" ")[:2] == [_OUR_NAME, "agent"]


def describe(held: Holder) -> str:
    """Return a text that names a process, as far as this user may see it."""
    if held.pid is None:
        return "another process"
    command = held.command or held.comm or "?"
    shown = command if len(command) <= _LONGEST else f"{command[:_LONGEST]}..."
    return f"process {held.pid} ({one_line(shown)}, uid {held.uid})"


def taken(path: str, guest: str, held: Holder, *, hint: str | None = None) -> GuestUnreachable:
    """Return the error that another process holds a monitor.

    Args:
        path: the monitor's socket.
        guest: the guest's id.
        held: the process that holds it.
        hint: what to do; None: what follows from that process.
    """
    hint = hint or _advice(held)
    return unreachable(guest, "taken", f"{path}: {describe(held)} holds the monitor", hint=hint)


def _advice(held: Holder) -> str | None:
    if is_agent(held):
        return _AGENT
    ours = (held.command or held.comm or "").split(" ")[0] == _OUR_NAME
    return _COMMAND if ours else None


def without_interpreter(words: Sequence[str]) -> str:
    """Return a command line as it was typed: ``python3 /usr/bin/qmpmem events`` is qmpmem's.

    Pure.
    """
    left = list(words)
    if left and _INTERPRETER.fullmatch(_base(left[0])):
        script = next((at for at, word in enumerate(left[1:], 1) if word[:1] != "-"), 0)
        # What follows -c is the text of a program, and not its name.
        left = [left[0], "-c"] if script and left[script - 1] == "-c" else left[script:]
    return " ".join([_base(left[0]), *left[1:]]) if left else ""


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def parse_dump(content: bytes) -> Iterator[Connection | None]:
    """Yield the connections of one answer of sock_diag; a None ends the dump."""
    at = 0
    while at < len(content):
        length, kind, *_ = HEADER.unpack_from(content, at)
        if kind != BY_FAMILY:
            if kind != _DONE:
                raise OSError(errno.EOPNOTSUPP, "sock_diag")  # NLMSG_ERROR: no such module
            yield None
            return
        message = _MESSAGE.unpack_from(content, at + HEADER.size)
        fields = dict(_attributes(content[at + HEADER.size + _MESSAGE.size : at + length]))
        if fields.get(_NAME):
            yield _connection(message[2], message[4], fields)
        at += max(length, HEADER.size)


def is_abstract(address: str) -> bool:
    """Tell whether an address is a name and no file (unix(7), "Abstract sockets")."""
    return address.startswith("@")


def _connection(state: int, inode: int, fields: dict[int, bytes]) -> Connection:
    file = None
    if _VFS in fields:
        number, device = _TWO.unpack(fields[_VFS])
        file = device, number
    return Connection(
        socket=inode,
        name=_name(fields[_NAME]),
        file=file,
        listening=state == _LISTEN,
        peer=_ONE.unpack(fields[_PEER])[0] if _PEER in fields else None,
        is_last=bool(fields.get(_SHUTDOWN, b"\0")[0] & _RECEIVES_NOTHING),
    )


def _name(content: bytes) -> str:
    """Return a socket's name: a path ends before its first zero, an abstract one begins with it."""
    is_file = not content.startswith(b"\0")
    text = content.strip(b"\0").decode("utf-8", "surrogateescape")
    if is_file:
        return f"./{text}" if is_abstract(text) else text
    return f"@{text}"


def _place(address: str) -> tuple[int, int] | str:
    """Return how the kernel names in its answers what is at an address."""
    if is_abstract(address):
        return address
    status = os.lstat(address)
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return device, status.st_ino & _ANY


@contextmanager
def asked(query: bytes, flags: int) -> Generator[socket.socket]:
    """Yield a netlink socket at which the answer to a query of sock_diag(7) is to be read.

    Args:
        query: of an address family, which comes first in it.
        flags: of netlink(7).

    Raises:
        OSError: the kernel does not tell.
    """
    header = HEADER.pack(HEADER.size + len(query), BY_FAMILY, flags, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(header + query)
        yield netlink


def _dump() -> Iterator[Connection]:
    states, show = 1 << _ESTABLISHED | 1 << _LISTEN, _SHOW_NAME | _SHOW_VFS | _SHOW_PEER
    query = _QUERY.pack(socket.AF_UNIX, 0, 0, states, 0, show, _ANY, _ANY)
    with asked(query, _REQUEST_DUMP) as netlink:
        while True:
            for connection in parse_dump(netlink.recv(1 << 16)):
                if connection is None:
                    return
                yield connection


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, at)
        yield kind, content[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)


def describe_owner(inode: int) -> Holder:
    """Return the process that has a socket open. May read all of /proc."""
    pid = kernel.owner_of_socket(inode)
    return Holder() if pid is None else _describe(pid, kernel.PROC)


def _describe(pid: int, proc: Path) -> Holder:
    process = kernel.process(pid, proc)
    try:
        uid = os.stat(proc / str(pid)).st_uid  # noqa: PTH116 - speed
    except OSError:
        return Holder(pid=pid)
    words = kernel.command_line(pid)
    return Holder(
        pid=pid,
        uid=uid,
        comm=process.comm if process else None,
        command=without_interpreter(words) if words else None,
    )
