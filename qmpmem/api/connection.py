"""One client's connection: its user, whether there is a place for it, how long it may take.

Theory of operation:
    This adds to a bounded connection (`qmpmem.api.bounded_connection`) what a server on a host with
    many users needs. A process that has no right to ask is told so, and gets no further. The number
    of places is limited, some users' questions are counted, and there is one question for each
    connection.

    There are two sockets: one to look, and one to change. By the one to look nothing can be
    changed, not even by root: a program that is given that socket, such as a monitoring program in
    a container with the host's root, can only look. The kernel decides which process may connect to
    which (`sockets`). What the process may do is asked of the kernel once more here, because a
    socket that systemd made has the mode that its unit sets.
"""

import asyncio
import logging
import math
import socket
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, Literal
from weakref import WeakSet

import msgspec

from qmpmem.agent import descriptor_limit
from qmpmem.api.bounded_connection import BoundedConnection, SharedState
from qmpmem.api.client_limits import RATE, Taken, UserRates, change_seats, look_seats
from qmpmem.api.fair_places import giver
from qmpmem.api.permissions import Peer, Permissions, peer_of
from qmpmem.api.records import Access, Failure, Problem
from qmpmem.guests import access as rules
from qmpmem.proxy.client_connection import Connection as Session

AT_WORK: Final = 4
"""Questions of users who may only look that are worked on at once; the others wait, so that the
rounds come in between."""
SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: qmp\r\n\r\n"
)
AT_ONCE: Final = 3
"""The priority of a question that is answered at once."""
LINGER: Final = 0.2
"""Seconds that a client which is turned away has to send what is not read."""
LEAVING: Final = 4
"""Clients that are turned away and may send at once; more are cut off."""
QUIET: Final = 60.0
"""Seconds between two lines of the log about the same user."""
TOLD: Final = 64
"""Most users that such lines are about in `QUIET` seconds."""

Door = Literal["look", "change"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The client that asks, as the application sees it."""

    peer: Peer
    access: Access
    """What may be asked by this connection: by the socket to look, nothing is changed."""
    permissions: Permissions
    """What each user may do, from which `access` follows."""
    turn: asyncio.Semaphore | None
    """Held while the question is worked on."""
    arrived: Callable[[], None]
    """Called when the whole question is there."""
    follows: Callable[[], str | None]
    """Called before a stream begins; returns why there is no place for it, or None."""
    waits: Callable[[], str | None]
    """Called before a question waits for something; returns why there is no place for it, or
    None."""
    refused: Callable[[str], None]
    """Called with the change that the caller may not make, which is logged."""
    becomes: Callable[[Session], None]
    """Answers that the connection is not HTTP any more, and lets the session use it."""
    within: Callable[[float], None]
    """Cuts the connection in so many seconds, unless `arrived` is called before."""


class ConnectionPool:
    """What all connections share.

    Args:
        app: the ASGI application.
        permissions: what each user may do.
        log: gets a line for each client that was turned away or refused.
        clients: how many clients there may be at once, by both sockets together.
    """

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - ASGI
        permissions: Permissions,
        log: logging.Logger,
        clients: int = descriptor_limit.CLIENTS,
    ) -> None:
        self.shared = SharedState(app)
        self.permissions = permissions
        self._log = log
        self.inside: dict[_Connection, None] = {}  # a set in the order of arrival
        self.taken: dict[Door, Taken] = {
            "look": Taken(look_seats(clients)),
            "change": Taken(change_seats(clients)),
        }
        self.turn = asyncio.Semaphore(AT_WORK)
        self._rates = UserRates()
        self._told: dict[Hashable, float] = {}
        self._opening: set[asyncio.Task[Any]] = set()
        self._leaving: set[socket.socket] = set()
        self.sessions: WeakSet[Session] = WeakSet()

    def receive(self, door: Door, connection: socket.socket) -> None:
        """Let a client in that has connected, or turn it away. Takes over its socket."""
        try:
            peer = peer_of(connection)
        except OSError:  # gone already
            connection.close()
            return
        has = self.permissions.of(peer)
        may: Access = "read" if has == "write" and door == "look" else has
        code, words = self._judge(door, peer, has)
        if code != HTTPStatus.OK:
            hint = rules.joining(rules.READERS, self.permissions.readers) if has == "none" else None
            if code == HTTPStatus.FORBIDDEN and has == "read":
                hint = rules.joining(rules.WRITERS, self.permissions.writers)
            self._turn_away(connection, _refusal(code, words, hint))
            self.tell(peer, words)
            return
        made = _Connection(self, door, peer, may, self._place(door, peer, has))
        self.inside[made] = None
        opening = asyncio.get_running_loop().create_task(self._open(made, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def leave(self, connection: "_Connection") -> None:
        """Free the place of a connection that has ended."""
        if connection in self.inside:
            del self.inside[connection]
            place = connection.place
            self.taken[connection.door].leave(
                place.counted,
                streams=place.streams,
                waits=place.waits,
                is_owner=place.is_owner,
            )

    def tell(self, peer: Peer, words: str) -> None:
        """Log that a user was turned away or refused: once a minute for each of `TOLD` users."""
        line = f"turned away uid {peer.uid} pid {peer.pid}: {words}"
        self._tell_once(peer.uid, line, logging.INFO)

    def warn(self, words: str) -> None:
        """Log what is wrong with the sockets; once a minute."""
        self._tell_once(None, f"warning: {words}", logging.WARNING)

    async def close(self) -> None:
        """Cut all connections, and wait until what worked for them has ended."""
        await asyncio.gather(*self._opening, return_exceptions=True)
        for leaving in list(self._leaving):
            self._close(leaving)
        for connection in list(self.inside):
            connection.cut()
        for session in list(self.sessions):
            session.cut()
        await self.shared.end()

    def _judge(self, door: Door, peer: Peer, has: Access) -> tuple[HTTPStatus, str]:
        """Return the status and the words that turn a client away; 200: it has taken a place."""
        if has == "none":
            return HTTPStatus.FORBIDDEN, rules.NO_LOOK
        if door == "change" and has != "write":
            return HTTPStatus.FORBIDDEN, rules.NO_CHANGE
        place = self._place(door, peer, has)
        counted = place.counted
        if counted is not None and not self._rates.take(counted, asyncio.get_running_loop().time()):
            words = f"uid {peer.uid} asks more often than {RATE:g} times a second"
            return HTTPStatus.TOO_MANY_REQUESTS, words
        taken = self.taken[door]
        refusal = taken.sit(counted, is_owner=place.is_owner)
        if refusal is not None and not taken.has_its_part(counted):
            rivals = self._rivals(door, place)
            if self._make_room(peer.uid, rivals):
                refusal = taken.sit(counted, is_owner=place.is_owner)
        if refusal is not None:
            return HTTPStatus.SERVICE_UNAVAILABLE, refusal
        return HTTPStatus.OK, ""

    def follow(self, connection: "_Connection") -> str | None:
        """Make a connection's place that of a stream; why not, or None."""
        taken, place = self.taken[connection.door], connection.place
        refusal = taken.follow(place.counted, is_owner=place.is_owner)
        if refusal is not None and not taken.has_its_streams(place.counted):
            rivals = self._rivals(connection.door, place)
            streams = [each for each in rivals if each.place.streams]
            if self._make_room(connection.peer.uid, streams):
                refusal = taken.follow(place.counted, is_owner=place.is_owner)
        return refusal

    def wait(self, connection: "_Connection") -> str | None:
        """Make a connection's place that of a question that waits; why not, or None."""
        taken, place = self.taken[connection.door], connection.place
        refusal = taken.wait(is_owner=place.is_owner)
        if refusal is not None:
            rivals = self._rivals(connection.door, place)
            lasting = [each for each in rivals if each.place.streams or each.place.waits]
            if self._make_room(connection.peer.uid, lasting):
                refusal = taken.wait(is_owner=place.is_owner)
        return refusal

    def _rivals(self, door: Door, place: "_Place") -> list["_Connection"]:
        """Return the connections whose places a newcomer could have, the oldest first."""
        here = [each for each in self.inside if each.door == door]
        return [each for each in here if place.is_owner or not each.place.is_owner]

    def _make_room(self, uid: int, taken: Sequence["_Connection"]) -> bool:
        """End a connection of the user that has the most; return whether that was fair.

        None that is answered at once is ended: it would be asked again.

        Args:
            uid: the newcomer's user.
            taken: the places in question, the oldest first.
        """
        most = giver(uid, [each.peer.uid for each in taken])
        theirs = (each for each in taken if each.peer.uid == most and each.is_open)
        chosen = min(theirs, key=_priority, default=None)
        if chosen is None or _priority(chosen) == AT_ONCE:
            return False
        words = f"uid {most} has most connections: one was ended for uid {uid}"
        self._tell_once(("ended", most), words, logging.INFO)
        self.leave(chosen)
        chosen.cut()
        return True

    def _place(self, door: Door, peer: Peer, has: Access) -> "_Place":
        """Return what a place is counted as. By the socket to look, none is kept for the owner."""
        is_owner = door == "look" or self.permissions.owns(peer)
        return _Place(counted=None if has == "write" else peer.uid, is_owner=is_owner)

    def _turn_away(self, connection: socket.socket, answer: bytes) -> None:
        """Answer without reading, and close: the kernel takes so few bytes at once.

        A client that has not sent all of its question then gets EPIPE, and some forget the answer
        for that. So a few clients may go on to send, into the kernel's buffer, for a moment.
        """
        with suppress(OSError):
            connection.send(answer)
            connection.shutdown(socket.SHUT_WR)
        if len(self._leaving) >= LEAVING:
            connection.close()
            return
        self._leaving.add(connection)
        asyncio.get_running_loop().call_later(LINGER, self._close, connection)

    def _close(self, connection: socket.socket) -> None:
        self._leaving.discard(connection)
        connection.close()

    async def _open(self, made: "_Connection", connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: made, connection)
            made.is_open = True
        except OSError:  # gone already
            connection.close()
            self.leave(made)

    def _tell_once(self, about: Hashable, line: str, level: int) -> None:
        now = asyncio.get_running_loop().time()
        self._told = {each: at for each, at in self._told.items() if now - at < QUIET}
        if about not in self._told and len(self._told) < TOLD:
            self._told[about] = now
            self._log.log(level, line)


def _priority(connection: "_Connection") -> int:
    """Return how much it costs to end a connection: 0 is the least."""
    if not connection.has_asked:
        return 0
    if connection.place.streams:
        return 1
    return 2 if connection.place.waits else AT_ONCE


class _Place(msgspec.Struct, kw_only=True):
    """What a connection has of `Taken`, to be given back."""

    counted: int | None
    is_owner: bool
    streams: bool = False
    waits: bool = False


class _Connection(BoundedConnection):
    """A connection that has a place."""

    def __init__(
        self, pool: ConnectionPool, door: Door, peer: Peer, may: Access, place: _Place
    ) -> None:
        super().__init__(pool.shared, lambda: pool.leave(self))
        self.door: Door = door
        self.peer = peer
        self.place = place
        self.has_asked = False
        """Whether the whole question is there."""
        self.is_open = False
        """Whether it can be cut: the event loop has taken it over."""
        self._pool = pool
        caller = Caller(
            peer=peer,
            access=may,
            permissions=pool.permissions,
            turn=None if place.counted is None else pool.turn,
            arrived=self._arrive,
            follows=self._follow,
            waits=self._wait,
            refused=lambda words: pool.tell(peer, words),
            becomes=self._become,
            within=self.within,
        )
        self.app_state = {"caller": caller}

    def _become(self, session: Session) -> None:
        """Let another protocol use the connection.

        uvicorn is told that its client has gone, so it writes no answer. This place is freed.
        """
        transport = self.transport
        if transport.is_closing():
            session.connection_lost(None)
            return
        self.connection_lost(ConnectionAbortedError())
        transport.write(SWITCHING)
        transport.set_protocol(session)
        self._pool.sessions.add(session)
        session.connection_made(transport)
        transport.resume_reading()
        rest, _ = self.conn.trailing_data  # of a client that did not wait for the answer
        if rest:
            session.data_received(rest)

    def _arrive(self) -> None:
        self.has_asked = True
        self.arrived()

    def _follow(self) -> str | None:
        refusal = self._pool.follow(self)
        self.place.streams = refusal is None
        return refusal

    def _wait(self) -> str | None:
        refusal = self._pool.wait(self)
        self.place.waits = refusal is None
        return refusal


def _refusal(code: HTTPStatus, words: str, hint: str | None) -> bytes:
    """Write the answer to a client that is turned away."""
    is_forbidden = code == HTTPStatus.FORBIDDEN
    problem = Problem(
        kind="KernelError" if is_forbidden else "AgentUnreachable",
        message=words,
        hint=hint,
        reason=None if is_forbidden else "busy",
    )
    body = msgspec.json.encode(Failure(error=problem))
    wait = f"Retry-After: {math.ceil(1 / RATE)}\r\n" if not is_forbidden else ""
    head = (
        f"HTTP/1.1 {code.value} {code.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{wait}Connection: close\r\n\r\n"
    )
    return head.encode() + body
