"""Connecting to the process that a guest's socket should lead to, and to no other.

Rules of this file:
    A path is a claim. The connection goes to the very inode that was looked at: it is opened with
    O_PATH and O_NOFOLLOW, seen to be a socket, and connected through /proc/self/fd. The kernel
    tells which process listens there (unix(7): SO_PEERCRED), not /proc, whose names any process can
    forge.
    An abstract name (unix(7)) is no file, and any process may take it: there only the process that
    listens counts.
    Nothing here waits: a full backlog is an answer (EAGAIN).
"""

import errno
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING, Final, Protocol

from qmpmem.records import Record
from qmpmem.wire.errors import Reason, unreachable

if TYPE_CHECKING:
    from asyncio import WriteTransport  # commands that take milliseconds do not load it

_UCRED: Final = struct.Struct("=iII")
"""struct ucred (unix(7)): pid_t, uid_t, gid_t."""

_SUN_PATH: Final = 108
"""Most bytes of an address (unix(7): sun_path)."""

_CONNECT: Final[dict[int, tuple[Reason, str]]] = {
    errno.ENOENT: ("gone", "no such socket"),
    errno.ENOTDIR: ("gone", "no such socket"),
    errno.ECONNREFUSED: ("gone", "no process listens on it any more"),
    errno.EACCES: ("permission", "not permitted"),
    errno.EPERM: ("permission", "not permitted"),
    errno.ELOOP: ("not-a-socket", "a loop of symbolic links"),
    errno.EPROTOTYPE: ("not-a-socket", "a socket, but not a stream"),
}


class Socket(Protocol):
    """A connected socket, or what an event loop gives for one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Ask the kernel."""
        ...


class Peer(Record, frozen=True):
    """The process at the other end, as the kernel saw it call listen() or connect()."""

    pid: int
    uid: int
    gid: int


def open_socket(path: str, guest: str) -> socket.socket:
    """Connect to what is seen to be a unix stream socket, without waiting.

    Args:
        path: a path, or an abstract name that begins with @.
        guest: the guest's id, for messages.

    Returns:
        A connected, non-blocking socket, which the caller closes.

    Raises:
        GuestUnreachable: with the reason gone, permission or not-a-socket.
        BlockingIOError: the backlog is full. QEMU's is 1, so two more clients wait already beside
            the one that it serves. (A unix socket fails with EAGAIN then, and never with
            EINPROGRESS: unix(7).)
    """
    if path.startswith("@"):
        return _open_abstract(path, guest)
    try:
        inode = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _no_connection(path, guest, error) from error
    except ValueError as error:
        raise unreachable(guest, "gone", f"{path!r}: no such socket") from error
    try:
        if not stat.S_ISSOCK(os.fstat(inode).st_mode):
            raise unreachable(guest, "not-a-socket", f"{path}: expected a socket")
        return _connect(f"/proc/self/fd/{inode}")
    except BlockingIOError:
        raise
    except OSError as error:
        raise _no_connection(path, guest, error) from error
    finally:
        os.close(inode)


def peer_of(connection: Socket) -> Peer:
    """Ask the kernel which process is at the other end.

    Raises:
        OSError: not a unix socket.
    """
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(content)
    return Peer(pid=pid, uid=uid, gid=gid)


def send(transport: "WriteTransport", content: bytes) -> None:
    """Send to a peer that may have gone, and leave what it sent before to be read.

    A transport closes its socket at the first write that fails, with all that came and was not read
    yet, such as a last answer (asyncio: _SelectorSocketTransport.write, _fatal_error). Here such a
    write is dropped, and the transport then finds the end where it is.
    """
    connection = transport.get_extra_info("socket")
    is_ready = not transport.get_write_buffer_size() and not transport.is_closing()
    if connection is not None and is_ready:
        try:
            sent = os.write(connection.fileno(), content)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        content = content[sent:]
    if content:
        transport.write(content)


def _open_abstract(name: str, guest: str) -> socket.socket:
    """Connect to an abstract name, or to the same filled up with zeros (QEMU: tight=off)."""
    address = b"\0" + os.fsencode(name[1:])
    try:
        return _connect(address)
    except ConnectionRefusedError:
        pass
    except BlockingIOError:
        raise
    except (OSError, ValueError) as error:
        raise unreachable(guest, "gone", f"{name}: {error}") from error
    try:
        return _connect(address.ljust(_SUN_PATH, b"\0"))
    except BlockingIOError:
        raise
    except OSError as error:
        raise _no_connection(name, guest, error) from error


def _connect(address: str | bytes) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _no_connection(path: str, guest: str, error: OSError) -> Exception:
    reason, text = _CONNECT.get(error.errno or 0, ("gone", error.strerror or str(error)))
    return unreachable(guest, reason, f"{path}: {text}")
