"""One visitor's connection to the page, and the places for all of them.

Theory of operation:
    Any user of the host may connect, so no user may hold all places. When they are taken, a visitor
    that has fewer connections than another is let in all the same, and the oldest of that other is
    cut (`qmpmem.api.fair_places`). A visitor is a user where the connection comes from this host,
    and else an address.
"""

import asyncio
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

import msgspec

from qmpmem.api.bounded_connection import BoundedConnection, SharedState
from qmpmem.api.fair_places import giver
from qmpmem.api.permissions import peer_of
from qmpmem.wire import tcp_diag

PLACES: Final = 64
"""Connections that there may be at once. A browser opens six for one page."""
STREAMS: Final = 24
"""Connections that open pages may have; these follow the rounds for as long as the pages are
open."""
UNTAKEN: Final = 64 * 1024
"""Bytes of an answer that the kernel keeps for a slow reader; it doubles that (socket(7))."""
FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 26\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\ntoo many connections here\n"
)


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """The visitor, as the application sees it."""

    name: str
    """The visitor's name for the log: an address, or a user at the unix socket."""
    arrived: Callable[[], None]
    """Called when the whole question is there."""
    within: Callable[[float], None]
    """Called with the seconds after which the connection is cut, unless `arrived` is called
    before."""
    follows: Callable[[], bool]
    """Called before a stream begins; it returns False where there is no place for the stream."""


class ConnectionPool:
    """Lets visitors in, as many as there are places for.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - ASGI
        self.shared = SharedState(app)
        # Dictionaries are sets in the order of arrival.
        self.inside: dict[VisitorConnection, None] = {}
        self.streams: dict[VisitorConnection, None] = {}
        self._opening: set[asyncio.Task[None]] = set()

    def receive(self, connection: socket.socket) -> None:
        """Let a visitor in that has connected, or turn it away. Takes over its socket."""
        try:
            owner, name = _visitor(connection)
        except OSError:  # gone already
            connection.close()
            return
        if len(self.inside) >= PLACES and not self.make_room(owner, self.inside):
            with suppress(OSError):
                connection.send(FULL)
            connection.close()
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNTAKEN)
        made = VisitorConnection(self, owner, name)
        self.inside[made] = None
        opening = asyncio.get_running_loop().create_task(self._open(made, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def make_room(self, owner: str, taken: Collection["VisitorConnection"]) -> bool:
        """Cut a connection of the visitor that has the most; return whether that was fair.

        Args:
            owner: the newcomer.
            taken: the places in question, the oldest first.
        """
        most = giver(owner, (visit.owner for visit in taken))
        oldest = next((visit for visit in taken if visit.owner == most and visit.is_open), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.cut()
        return True

    def leave(self, visit: "VisitorConnection") -> None:
        """Free the place of a visitor's connection."""
        self.inside.pop(visit, None)
        self.streams.pop(visit, None)

    async def close(self) -> None:
        """Cut all connections, and wait until what worked for them has ended."""
        await asyncio.gather(*self._opening, return_exceptions=True)
        for visit in list(self.inside):
            visit.cut()
        await self.shared.end()

    async def _open(self, made: "VisitorConnection", connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: made, connection)
            made.is_open = True
        except OSError:  # gone already
            connection.close()
            self.leave(made)


class VisitorConnection(BoundedConnection):
    """A connection that has a place.

    Args:
        places: all of them.
        owner: the visitor.
        name: the visitor's name for the log.
    """

    def __init__(self, places: ConnectionPool, owner: str, name: str) -> None:
        super().__init__(places.shared, lambda: places.leave(self))
        self.owner = owner
        self.is_open = False
        """Whether it can be cut: the event loop has taken it over."""
        self._places = places
        visitor = Visitor(name=name, arrived=self.arrived, within=self.within, follows=self._follow)
        self.app_state = {"visitor": visitor}

    def _follow(self) -> bool:
        streams = self._places.streams
        if len(streams) >= STREAMS and not self._places.make_room(self.owner, streams):
            return False
        streams[self] = None
        return True


def _visitor(connection: socket.socket) -> tuple[str, str]:
    """Return which visitor it is that shares places, and a name for the log.

    Raises:
        OSError: it is gone already.
    """
    if connection.family == socket.AF_UNIX:
        user = f"uid {peer_of(connection).uid}"
        return user, user
    host, port, *_ = connection.getpeername()
    uid = tcp_diag.user_of_client(connection)
    return host if uid is None else f"uid {uid}", f"{host} port {port}"
