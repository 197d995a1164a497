"""Which processes may look, and which may change something: as the kernel says of each.

Theory of operation:
    SO_PEERCRED and SO_PEERGROUPS are what the process was when it connected (unix(7)), so nothing
    that it does to itself later, and no other process that gets its pid, changes the answer.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Final

from qmpmem.api.records import Access
from qmpmem.guests.access import AGENT, READERS, WRITERS, group_id, user_id
from qmpmem.records import Record
from qmpmem.wire import unix_socket
from qmpmem.wire.unix_socket import Socket

USER: Final = AGENT
"""The user whose agent serves the groups as root's does."""

_SO_PEERGROUPS: Final = 59
"""asm-generic/socket.h, since Linux 4.13; Python has no name for it."""
_MOST: Final = 1024
"""Bytes that Python's getsockopt takes at most: 256 groups. A process in more groups counts as in
its first alone."""


class Peer(Record, frozen=True):
    """A process that connected."""

    pid: int
    uid: int
    groups: frozenset[int]
    behalf: str | None = None
    """The person for whom it asks, by its own account: for the log alone."""


class Permissions(Record, frozen=True):
    """Which users may do what. Group ids; None: this host has no such group."""

    owner: int
    """The agent's own user."""
    readers: int | None = None
    writers: int | None = None

    def of(self, peer: Peer) -> Access:
        """Return what a process may do."""
        if self.owns(peer) or self.writers in peer.groups:
            return "write"
        return "read" if self.readers in peer.groups else "none"

    def owns(self, peer: Peer) -> bool:
        """Return whether a process may do all that the agent's own user may, or more."""
        return peer.uid in (0, self.owner)


def peer_of(connection: Socket) -> Peer:
    """Ask the kernel for the process at the other end.

    Raises:
        OSError: not a unix socket.
    """
    found = unix_socket.peer_of(connection)
    return Peer(pid=found.pid, uid=found.uid, groups=frozenset({found.gid, *_groups(connection)}))


def permissions(
    owner: int,
    find: Callable[[str], int | None] | None = None,
    user: Callable[[str], int | None] | None = None,
) -> Permissions:
    """Find the groups of this host that an agent serves.

    Root's agent serves them, and so does the agent of the user `USER`, which only root can make.
    The agent of any other user is that user's and root's, whatever groups there are.

    Args:
        owner: the agent's own user.
        find: gives a group's id by its name.
        user: gives a user's id by its name.
    """
    look = find or group_id
    if owner not in (0, (user or user_id)(USER)):
        return Permissions(owner=owner)
    return Permissions(owner=owner, readers=look(READERS), writers=look(WRITERS))


def _groups(connection: Socket) -> Iterable[int]:
    try:
        content = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST)
    except OSError as error:
        if error.errno in (errno.ERANGE, errno.ENOPROTOOPT):
            return ()
        raise
    return struct.unpack(f"={len(content) // 4}I", content)
