"""Which user of this host is at the other end of a TCP connection.

Theory of operation:
    TCP carries no credentials. But where the other end is a socket of this network namespace, the
    kernel has that socket in its table, with its user (sock_diag(7), AF_INET: idiag_uid). It looks
    up one pair of addresses in some microseconds, however many connections there are.
    A socket that its process has closed has no inode any more, and the kernel calls its user 0
    (net/core/sock.c: sock_i_uid; net/ipv4/inet_diag.c: inet_twsk_diag_fill). Nothing is known of
    that one: any user can close a socket.
"""

import ipaddress
import socket
import struct
from typing import Final

from qmpmem.wire import sock_diag

# linux/netlink.h, linux/inet_diag.h
_REQUEST: Final = 1
_QUERY: Final = struct.Struct("=BBBxI")
_ID: Final = struct.Struct("!HH16s16s")
_NO_COOKIE: Final = struct.pack("=Iii", 0, -1, -1)
"""Any interface (idiag_if), any cookie (INET_DIAG_NOCOOKIE)."""
_OWNER: Final = struct.Struct("=II")
_OWNER_AT: Final = sock_diag.HEADER.size + 4 + 48 + 12
"""Where idiag_uid and idiag_inode are: behind four bytes, struct inet_diag_sockid, and three
numbers."""
_ALL_STATES: Final = 0xFFFFFFFF


def user_of_client(connection: socket.socket) -> int | None:
    """Return the user of the socket at the other end; None where it is none of this host.

    None also where it is closed already, and where the kernel does not tell: it has no tcp_diag, or
    this process may open no netlink socket.

    Args:
        connection: an accepted TCP socket.

    Raises:
        OSError: the connection is gone.
    """
    client, server = _address(connection.getpeername()), _address(connection.getsockname())
    family = socket.AF_INET6 if client[0].version == 6 else socket.AF_INET  # noqa: PLR2004
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES) + (
        _ID.pack(client[1], server[1], client[0].packed, server[0].packed) + _NO_COOKIE
    )
    try:
        with sock_diag.asked(query, _REQUEST) as netlink:
            return parse_user(netlink.recv(1 << 12))
    except OSError:
        return None


def parse_user(content: bytes) -> int | None:
    """Read the user of an answer; None for one that is an error (struct nlmsgerr)."""
    if len(content) < _OWNER_AT + _OWNER.size:
        return None
    _, kind, *_ = sock_diag.HEADER.unpack_from(content)
    uid, inode = _OWNER.unpack_from(content, _OWNER_AT)
    return uid if kind == sock_diag.BY_FAMILY and inode else None


def _address(name: tuple[str, int]) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """Return an address as the client's own socket has it: of IPv4, where IPv6 only maps it."""
    found = ipaddress.ip_address(name[0].partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found, name[1]
