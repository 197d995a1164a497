"""QMP over TCP, on this host's loopback addresses only.

Rules of this file:
    TCP does not tell which process is at the other end: there is no SO_PEERCRED. The kernel's table
    tells which user's socket listens (proc_pid_net(5): /proc/net/tcp, uid and inode). /proc/PID/fd
    tells which process has it open, where this user may see that. Elsewhere only the user is known,
    and not the process. Any user of this host may connect to such a monitor: QEMU does not check.

Theory of operation:
    A connection has an inode once it was accepted. The client's end is the entry with the two
    addresses the other way round.
"""

import ipaddress
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.records import Record
from qmpmem.wire import kernel, sock_diag
from qmpmem.wire.errors import unreachable
from qmpmem.wire.kernel.files import read
from qmpmem.wire.sock_diag import Holder
from qmpmem.wire.unix_socket import Peer

PREFIX: Final = "tcp:"

_ADDRESS: Final = re.compile(
    r"tcp:(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,6})"
)
_ROW: Final = re.compile(
    r" *\d+: ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]{2})"
    r" [0-9A-F:]+ [0-9A-F:]+ [0-9A-F]+ +(\d{1,10}) +\d+ (\d{1,20}) .*"
)
"""A line of the table (net/ipv4/tcp_ipv4.c: get_tcp4_sock, and tcp6_seq_show)."""
_ESTABLISHED, _LISTEN = "01", "0A"
_ANY: Final = "0.0.0.0"  # noqa: S104 - what others bind
_MOST: Final = 65535
_TABLES: Final = ("tcp", "tcp6")

End = tuple[str, int]


class Row(Record, frozen=True):
    """One TCP socket of this network namespace."""

    local: End
    remote: End
    state: str
    uid: int
    inode: int
    """Its inode; 0 until it was accepted."""

    @property
    def is_listening(self) -> bool:
        """Tell whether it takes connections."""
        return self.state == _LISTEN


def is_tcp(address: str) -> bool:
    """Tell whether an address is a TCP address."""
    return address.startswith(PREFIX)


def normal(address: str) -> str:
    """Return an address as it is kept: ``tcp:127.0.0.1:4444``.

    Raises:
        ConfigError: it is no address, or not one of this host's loopback.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= _MOST:
        raise ConfigError(f"{address!r}: expected tcp:127.0.0.1:PORT")
    host = match["six"] or match["host"]
    if host == "localhost":
        found = {row.local[0] for row in rows() if _listens(row, "127.0.0.1", int(match["port"]))}
        host = "127.0.0.1" if found else "::1"
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        raise ConfigError(
            f"{address!r}: only a monitor on this host's loopback is adopted",
            hint="tcp:127.0.0.1:PORT, or better a unix socket: -qmp unix:PATH,server=on,wait=off",
        )
    return write(host, int(match["port"]))


def write(host: str, port: int) -> str:
    """Return the address of a host and a port."""
    return f"{PREFIX}[{host}]:{port}" if ":" in host else f"{PREFIX}{host}:{port}"


def near(row: Row) -> str | None:
    """Return the loopback address at which a listener can be reached; None where there is none."""
    host, port = row.local
    if host in (_ANY, "::"):
        return write("127.0.0.1" if host == _ANY else "::1", port)
    return write(host, port) if ipaddress.ip_address(host).is_loopback else None


def end(address: str) -> End:
    """Return the host and the port of a normal address."""
    host, _, port = address.removeprefix(PREFIX).rpartition(":")
    return host.strip("[]"), int(port)


def rows(proc: Path = kernel.PROC) -> list[Row]:
    """List the TCP sockets of this network namespace."""
    return [row for name in _TABLES for row in parse(read(proc / "net" / name) or "")]


def parse(content: str) -> Iterator[Row]:
    """Yield the sockets of /proc/net/tcp or tcp6."""
    for line in content.split("\n")[1:]:
        if match := _ROW.fullmatch(line):
            local, port, remote, other, state, uid, inode = match.groups()
            yield Row(
                local=(_host(local), int(port, 16)),
                remote=(_host(remote), int(other, 16)),
                state=state,
                uid=int(uid),
                inode=int(inode),
            )


def listeners(address: str) -> list[Row]:
    """Find the sockets that take connections to an address: those bound to it most exactly."""
    host, port = end(address)
    found = [row for row in rows() if _listens(row, host, port)]
    nearest = min((_distance(row.local[0], host) for row in found), default=0)
    return [row for row in found if _distance(row.local[0], host) == nearest]


def listener(address: str) -> int | None:
    """Find the socket that listens at an address; None where none does."""
    return next((row.inode for row in listeners(address)), None)


def holder(address: str, besides: int | None = None) -> Holder | None:
    """Find the process that is attached; as `sock_diag.holder`."""
    known = rows()
    at = end(address)
    ends = {(row.local, row.remote): row for row in known}
    for row in known:
        is_accepted = row.state == _ESTABLISHED and row.inode and row.local == at
        client = ends.get((row.remote, row.local)) if is_accepted else None
        if client is not None and client.inode != besides:
            return (
                sock_diag.describe_owner(client.inode) if client.inode else Holder(uid=client.uid)
            )
    return None


def peer_of(address: str, guest: str, expect_pid: int | None = None) -> Peer:
    """Find the process that listens; its pid is 0 where this user may not see it.

    Args:
        address: a normal one.
        guest: the guest's id, for messages.
        expect_pid: the process that should listen: it is looked at first.

    Raises:
        GuestUnreachable: none listens, or several do, and any of them may answer (SO_REUSEPORT).
    """
    found = listeners(address)
    if not found:
        raise unreachable(guest, "gone", f"{address}: no process listens on it any more")
    if len(found) > 1:
        raise unreachable(guest, "wrong-peer", f"{address}: several sockets listen there")
    inode = found[0].inode
    if expect_pid and inode in kernel.socket_inodes(expect_pid):
        return Peer(pid=expect_pid, uid=found[0].uid, gid=0)
    return Peer(pid=kernel.owner_of_socket(inode) or 0, uid=found[0].uid, gid=0)


def open_socket(address: str) -> tuple[socket.socket, End]:
    """Return a socket that can be connected to an address, and where to connect it."""
    host, port = end(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), (host, port)


def _listens(row: Row, host: str, port: int) -> bool:
    return row.state == _LISTEN and row.local[1] == port and _covers(row.local[0], host)


def _covers(bound: str, host: str) -> bool:
    # A socket for IPv6 takes IPv4 as well, unless it was told not to (ipv6(7): IPV6_V6ONLY).
    return bound in (host, "::") or (bound == _ANY and ":" not in host)


def _distance(bound: str, host: str) -> int:
    """Return a listener's rank, as the kernel ranks: the very address, all of its family, all."""
    if bound == host:
        return 0
    return 1 if (":" in bound) == (":" in host) else 2


def _host(text: str) -> str:
    """Read an address as the kernel writes it: words of 32 bits in the host's own order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
