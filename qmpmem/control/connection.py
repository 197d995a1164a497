"""One client's connection: who it is, whether there is a place for it, how long it may take.

Theory of operation:
    uvicorn's protocol takes requests apart, by h11. Around it stands what a server on a host with
    strangers needs: nobody without rights gets as far as being read, there are places for so many
    and no more, some of them only for who may write, and one question for each connection. A
    question must be there, whole, in `ARRIVAL` seconds, and an answer be taken in `TAKING`, or the
    connection is cut: so nobody holds a place for nothing, nor more memory than his answer.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast
from weakref import WeakSet

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from qmpmem import access as rules
from qmpmem.control.records import Access, Failure, Problem
from qmpmem.control.rights import Peer, Rights, peer_of
from qmpmem.proxy.sharing import Connection as Session

CLIENTS: Final = 64
READERS: Final = 56
"""Places that who may only read can take: they cannot keep out who must act."""
STREAMS: Final = 32
"""Places that streams can take, which last for as long as their clients want: the others are left
to questions, which last seconds."""
HEAD: Final = 16 * 1024
"""Bytes of a request before its body."""
ARRIVAL: Final = 5.0
TAKING: Final = 5.0
SEAM: Final = (
    # Overridden, each of which calls the original:
    "connection_made",  # sets `transport`
    "connection_lost",
    "data_received",
    "on_response_complete",  # called when the last byte of an answer was handed to the transport
    # Read or set:
    "transport",
    "loop",
    "app_state",  # becomes the ASGI scope's `state`
)
"""What this module uses of H11Protocol, which uvicorn documents for no other program
(uvicorn/protocols/http/h11_impl.py of 0.54); beside it, of ServerState `default_headers` and
`tasks`, and flow_control.CLOSE_HEADER. tests/unit/test_seams.py holds this to be all of it, and
those parts to be as they were."""
SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: qmp\r\n\r\n"
)
QUIET: Final = 60.0
"""Seconds between two lines about the same user."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as the application sees it."""

    peer: Peer
    access: Access
    rights: Rights
    """By which that was found."""
    arrived: Callable[[], None]
    """To be called when the whole question is there."""
    follows: Callable[[], bool]
    """To be called before a stream begins; whether there is a place for it."""
    refused: Callable[[str], None]
    """To be called with the change that the caller may not make: it is logged."""
    becomes: Callable[[Session], None]
    """Answers that the connection is not HTTP's any more, and hands it over."""
    within: Callable[[float], None]
    """Says in how many seconds the connection is cut, unless `arrived` is called before."""


class Doors:
    """What all connections share.

    Args:
        app: the ASGI application.
        rights: who may do what.
        log: told of who was turned away or refused, in a line.
    """

    def __init__(self, app: Any, rights: Rights, log: Callable[[str], None]) -> None:  # noqa: ANN401 - ASGI
        self.config = Config(
            app,
            loop="none",
            lifespan="off",
            ws="none",
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
            log_level="critical",
            access_log=False,
            h11_max_incomplete_event_size=HEAD,
        )
        self.config.load()
        self.rights = rights
        self.log = log
        self.state = ServerState()
        self.state.default_headers = [CLOSE_HEADER]
        self.inside: dict[asyncio.Protocol, Access] = {}
        self.streams: set[asyncio.Protocol] = set()
        self.sessions: WeakSet[Session] = WeakSet()
        self._told: dict[int, float] = {}

    def open(self) -> asyncio.Protocol:
        """Make the protocol for one more connection."""
        return _Connection(self)

    def follow(self, connection: asyncio.Protocol) -> bool:
        """Count a connection as a stream, where there is a place for one more."""
        if len(self.streams) >= STREAMS:
            return False
        self.streams.add(connection)
        return True

    def admit(self, connection: asyncio.Protocol, access: Access) -> tuple[int, str] | None:
        """Give a connection a place, or say with which status and words it is turned away."""
        readers = sum(1 for each in self.inside.values() if each == "read")
        if access == "none":
            return 403, rules.NO_LOOK
        if len(self.inside) >= CLIENTS or (access == "read" and readers >= READERS):
            return 503, f"{len(self.inside)} others are asking already"
        self.inside[connection] = access
        return None

    def tell(self, peer: Peer, words: str) -> None:
        """Log that a user was turned away or refused; once a minute each, for so many."""
        now = asyncio.get_running_loop().time()
        self._told = {uid: at for uid, at in self._told.items() if now - at < QUIET}
        if peer.uid not in self._told and len(self._told) < CLIENTS:
            self._told[peer.uid] = now
            self.log(f"turned away uid {peer.uid} pid {peer.pid}: {words}")

    async def close(self) -> None:
        """Cut all connections, and wait until what worked for them has ended."""
        for connection in list(self.inside):
            cast("_Connection", connection).cut()
        for session in list(self.sessions):
            session.cut()
        for task in list(self.state.tasks):
            task.cancel()
        await asyncio.gather(*self.state.tasks, return_exceptions=True)


class _Connection(H11Protocol):
    def __init__(self, doors: Doors) -> None:
        super().__init__(doors.config, doors.state, {})
        self._doors = doors
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        try:
            peer = peer_of(transport.get_extra_info("socket"))
        except OSError:  # gone already
            self.cut()
            return
        access = self._doors.rights.of(peer)
        refusal = self._doors.admit(self, access)
        if refusal is not None:
            self._turn_away(peer, *refusal)
            return
        caller = Caller(
            peer=peer,
            access=access,
            rights=self._doors.rights,
            arrived=self._stop_timer,
            follows=lambda: self._doors.follow(self),
            refused=lambda words: self._doors.tell(peer, words),
            becomes=self._become,
            within=self._start_timer,
        )
        self.app_state = {"caller": caller}
        self._start_timer(ARRIVAL)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._start_timer(TAKING)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._doors.inside.pop(self, None)
        self._doors.streams.discard(self)
        super().connection_lost(exc)

    def _become(self, session: Session) -> None:
        """Hand the connection to another protocol.

        uvicorn hears that its client has gone, so it writes no answer; this place is given back.
        """
        transport = self.transport
        if transport.is_closing():
            session.connection_lost(None)
            return
        self.connection_lost(ConnectionAbortedError())
        transport.write(SWITCHING)
        transport.set_protocol(session)
        self._doors.sessions.add(session)
        session.connection_made(transport)
        transport.resume_reading()

    def cut(self) -> None:
        """End the connection at once, and forget what was not taken."""
        self.transport.abort()

    def _turn_away(self, peer: Peer, code: int, words: str) -> None:
        kind = "KernelError" if code == 403 else "AgentUnreachable"  # noqa: PLR2004 - Forbidden
        hint = rules.joining(rules.READERS, self._doors.rights.readers) if code == 403 else None  # noqa: PLR2004
        problem = Problem(kind=kind, message=words, hint=hint)
        body = msgspec.json.encode(Failure(error=problem))
        head = (
            f"HTTP/1.1 {code} {'Forbidden' if code == 403 else 'Service Unavailable'}\r\n"  # noqa: PLR2004
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._doors.tell(peer, words)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.cut)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
