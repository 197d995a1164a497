"""Who is attached to a unix socket already, asked of the kernel without touching the socket.

Theory of operation:
    QEMU serves one client of a monitor at a time; the next is left in the backlog, connected and
    not greeted, just as if QEMU hung. The kernel knows the difference: sock_diag(7), AF_UNIX, shows
    each socket that was accepted from a listener under the listener's inode, with its peer. A peer
    of inode 0 has closed already; QEMU will notice and serve the next one. What waits in the
    backlog is not shown. Answering takes the kernel 0.2 ms and some microseconds per socket.

    Where the kernel has no unix_diag module, nothing is known; that is an OSError, not a "nobody".
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from qmpmem.errors import GuestUnreachable
from qmpmem.records import Record
from qmpmem.wire import kernel
from qmpmem.wire.reasons import one_line, unreachable

# linux/sock_diag.h, linux/netlink.h, linux/unix_diag.h, net/tcp_states.h
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_DONE: Final = 3
_ESTABLISHED: Final = 1
_LISTEN: Final = 10
_SHOW_VFS, _SHOW_PEER = 2, 4
_VFS, _PEER = 1, 2
_ANY: Final = 0xFFFFFFFF

_HEADER: Final = struct.Struct("=IHHII")
_QUERY: Final = struct.Struct("=BBHIIIII")
_MESSAGE: Final = struct.Struct("=BBBBIII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_TWO: Final = struct.Struct("=II")
_ONE: Final = struct.Struct("=I")


_OUR_NAME: Final = "qmpmem"
_OURS: Final = (
    "most likely the agent: it lets go when it is stopped, and of an adopted guest by "
    "`qmpmem forget GUEST`"
)


class Connection(Record, frozen=True):
    """One accepted connection, or one listener."""

    inode: int
    """Of the listener's file, its low 32 bits."""
    device: int
    """Of the listener's file, as the kernel counts: major << 20 | minor."""
    socket: int
    """The inode of this socket itself, as /proc/PID/fd shows it."""
    peer: int | None = None
    """The client's socket inode; 0 where the client has closed; None of a listener."""


class Holder(Record, frozen=True):
    """The process at the other end of a monitor; None for what this user may not see."""

    pid: int | None = None
    uid: int | None = None
    comm: str | None = None
    """What the process calls itself: free to forge, for people only."""


def holder(path: str, *, besides: int | None = None) -> Holder | None:
    """Find who is attached to a socket. May read all of /proc: not for the event loop.

    Args:
        path: the socket.
        besides: the inode of a client's socket that does not count, our own.

    Returns:
        One of those attached; None where there is nobody.

    Raises:
        OSError: the socket is gone, or the kernel does not say.
    """
    here = _file(path)
    for connection in _dump(_ESTABLISHED):
        is_here = (connection.device, connection.inode) == here
        if is_here and connection.peer not in (None, 0, besides):
            return _who(connection.peer)
    return None


def listener(path: str) -> int | None:
    """Find the socket that listens behind a file, by whatever name its owner knows the file.

    Returns:
        The socket's inode, as /proc/PID/fd shows it; None where nothing listens there, in this
        network namespace.

    Raises:
        OSError: the file is gone, or the kernel does not say.
    """
    here = _file(path)
    for entry in _dump(_LISTEN):
        if (entry.device, entry.inode) == here:
            return entry.socket
    return None


def is_ours(held: Holder) -> bool:
    """Whether it calls itself as we do, which is good enough to choose an advice by."""
    return held.comm == _OUR_NAME


def taken(path: str, guest: str, held: Holder, *, hint: str | None = None) -> GuestUnreachable:
    """Make the error that says by whom a monitor is held.

    Args:
        path: its socket.
        guest: whose it is.
        held: who holds it.
        hint: what to do; None: what the holder suggests.
    """
    who = "another process"
    if held.pid is not None:
        who = f"process {held.pid} ({one_line(held.comm or '?')}, uid {held.uid})"
    hint = hint or (_OURS if is_ours(held) else None)
    return unreachable(guest, "taken", f"{path}: {who} holds the monitor", hint=hint)


def parse_dump(content: bytes) -> Iterator[Connection | None]:
    """Read one answer of sock_diag; a None ends the dump."""
    at = 0
    while at < len(content):
        length, kind, *_ = _HEADER.unpack_from(content, at)
        if kind != _SOCK_DIAG_BY_FAMILY:
            if kind != _DONE:
                raise OSError(errno.EOPNOTSUPP, "sock_diag")  # NLMSG_ERROR: no such module
            yield None
            return
        socket_inode = _MESSAGE.unpack_from(content, at + _HEADER.size)[4]
        fields = dict(_attributes(content[at + _HEADER.size + _MESSAGE.size : at + length]))
        if _VFS in fields:
            inode, device = _TWO.unpack(fields[_VFS])
            peer = _ONE.unpack(fields[_PEER])[0] if _PEER in fields else None
            yield Connection(inode=inode, device=device, socket=socket_inode, peer=peer)
        at += max(length, _HEADER.size)


def _file(path: str) -> tuple[int, int]:
    """Name a file as the kernel does in its answers: device and inode."""
    status = os.lstat(path)
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return device, status.st_ino & _ANY


def _dump(state: int) -> Iterator[Connection]:
    query = _QUERY.pack(socket.AF_UNIX, 0, 0, 1 << state, 0, _SHOW_VFS | _SHOW_PEER, _ANY, _ANY)
    header = _HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(header + query)
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


def _who(inode: int) -> Holder:
    pid = kernel.owner_of_socket(inode)
    if pid is None:
        return Holder()
    process = kernel.process(pid)
    try:
        uid = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - not a path that anyone joins
    except OSError:
        return Holder(pid=pid)
    return Holder(pid=pid, uid=uid, comm=process.comm if process else None)
