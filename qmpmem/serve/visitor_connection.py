"""One visitor's connection to the page, and the places for all of them."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from qmpmem.api.bounded_connection import BoundedConnection, SharedState
from qmpmem.api.permissions import peer_of

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
        self.inside: set[VisitorConnection] = set()
        self.streams: set[VisitorConnection] = set()
        self._opening: set[asyncio.Task[None]] = set()

    def receive(self, connection: socket.socket) -> None:
        """Let a visitor in that has connected, or turn it away. Takes over its socket."""
        name = _name(connection)
        if name is None or len(self.inside) >= PLACES:
            with suppress(OSError):
                connection.send(FULL)
            connection.close()
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNTAKEN)
        made = VisitorConnection(self, name)
        self.inside.add(made)
        opening = asyncio.get_running_loop().create_task(self._open(made, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def leave(self, visit: "VisitorConnection") -> None:
        """Free the place of a visitor's connection."""
        self.inside.discard(visit)
        self.streams.discard(visit)

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
        except OSError:  # gone already
            connection.close()
            self.leave(made)


class VisitorConnection(BoundedConnection):
    """A connection that has a place."""

    def __init__(self, places: ConnectionPool, name: str) -> None:
        super().__init__(places.shared, lambda: places.leave(self))
        self._places = places
        visitor = Visitor(name=name, arrived=self.arrived, within=self.within, follows=self._follow)
        self.app_state = {"visitor": visitor}

    def _follow(self) -> bool:
        if len(self._places.streams) >= STREAMS:
            return False
        self._places.streams.add(self)
        return True


def _name(connection: socket.socket) -> str | None:
    """Return a name for the other end; None: it is gone already."""
    try:
        if connection.family == socket.AF_UNIX:
            return f"uid {peer_of(connection).uid}"
        host, port, *_ = connection.getpeername()
    except OSError:
        return None
    return f"{host} port {port}"
