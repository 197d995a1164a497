"""One guest's monitor, shared by the clients of the socket that a broker shows.

Theory of operation:
    The monitor is held while it is of use to a client, and no longer: without an agent, the guest's
    own socket is free for root's commands. A client that connects waits in the kernel's queue until
    there is a session with the guest, without a greeting, as QEMU has it wait; where there is none,
    it is told why.

    The kernel says of each client which user it is (unix(7): SO_PEERCRED). The guests' own user,
    and root, may have all of QMP; each other user that gets here, which is the agent's, may move
    the guest's memory and read (`qmpmem.proxy.allowed_commands.balloon`).

Rules of this file:
    Whatever goes wrong with a guest, or a client, ends in a line of the log. Nothing but
    cancellation leaves `GuestSessions.run`.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from qmpmem.agent.session_lending import LAST_WORDS
from qmpmem.api.accepting import Acceptor
from qmpmem.api.fair_places import FairPlaces, Place
from qmpmem.api.permissions import Peer, peer_of
from qmpmem.api.qmp_log import LOST, QmpLog, SessionCounts
from qmpmem.broker.directory import BACKLOG
from qmpmem.errors import GuestUnreachable
from qmpmem.guests import read_guest
from qmpmem.guests.inventory import LiveGuest
from qmpmem.proxy import allowed_commands
from qmpmem.proxy.client_connection import Connection
from qmpmem.proxy.shared_session import SharedSession
from qmpmem.wire.messages import write_refusal
from qmpmem.wire.qmp import Session

PAUSE: Final = 0.1
"""Seconds that are waited after an attempt to connect to a guest failed."""
CLIENTS: Final = 64
"""Clients that one guest may have at once."""
AGENTS: Final = 8
"""Clients of one guest that may be neither root's nor the guests' user's. An agent has one,
sometimes two."""
UNUSED: Final = 5.0
"""Seconds after which a session that no client came to use is ended."""


class GuestSessions:
    """Serves the clients of one guest.

    Args:
        found: the guest.
        listener: where its clients connect; closed here.
        log: gets lines about what went wrong, and about clients that have all of QMP.
        ended: called when the guest seems to have ended.
    """

    def __init__(
        self,
        found: LiveGuest,
        listener: socket.socket,
        log: logging.Logger,
        ended: Callable[[], None],
    ) -> None:
        self.found = found
        self._listener = listener
        self._log = log
        self._ended = ended
        self._counts = SessionCounts(log.info)
        self._said = ""

    def close(self) -> None:
        """Close the socket on which clients connect."""
        self._counts.close()
        self._listener.close()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await _readable(self._listener)
            try:
                async with read_guest.open_session(self.found) as session:
                    self._said = ""
                    if isinstance(session, Session):
                        await self._serve(session)
            except GuestUnreachable as error:
                self._turn_away(error)
                await asyncio.sleep(PAUSE)

    def _turn_away(self, error: GuestUnreachable) -> None:
        """Tell the clients that wait why there is no session; they come again by themselves."""
        if error.reason == "gone":
            self._ended()
        elif error.message != self._said:
            self._said = error.message
            self._log.warning(error.message)
        line = write_refusal(error, self.found.record.id)
        with suppress(OSError):  # BlockingIOError: there are no more
            for _ in range(BACKLOG):
                with self._listener.accept()[0] as connection:
                    connection.setblocking(False)  # noqa: FBT003 - its only argument
                    with suppress(OSError):  # it has gone
                        connection.send(line)

    async def _serve(self, session: Session) -> None:
        """Share a session until it ends, or no client uses it."""
        idle = asyncio.Event()
        share = SharedSession(session, idle=idle.set, most=CLIENTS)
        reception = _Acceptor(share, self.found.record.id, self._log, self._counts)
        entrance = Acceptor(self._listener, reception.receive, self._log.warning)
        entrance.open()
        heard_out = asyncio.ensure_future(share.heard_out())
        try:
            while not heard_out.done():
                unused = asyncio.ensure_future(idle.wait())
                waiting = (heard_out, unused)
                await asyncio.wait(waiting, timeout=UNUSED, return_when=asyncio.FIRST_COMPLETED)
                unused.cancel()
                idle.clear()
                # The next client may have come as the last one left.
                if not share.clients and not reception.is_opening:
                    break
        finally:
            entrance.close()
            reception.close()
            heard_out.cancel()
            if share.clients:  # as the answer to `quit`, of a guest that was seen to end
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS):
                        await share.heard_out()
        if share.has_ended:
            self._ended()


class _Acceptor:
    """Lets clients in to one session.

    Args:
        share: the session.
        guest: its guest's id.
        log: gets a line for each client that has all of QMP.
        counts: counts what too many lines would tell.
    """

    def __init__(
        self, share: SharedSession, guest: str, log: logging.Logger, counts: SessionCounts
    ) -> None:
        self._share = share
        self._guest = guest
        self._log = log
        self._counts = counts
        self._places = FairPlaces(CLIENTS, AGENTS)
        self._opening = set[asyncio.Task[object]]()

    @property
    def is_opening(self) -> bool:
        """Tell whether there is a client that has no session yet."""
        return bool(self._opening)

    def close(self) -> None:
        """Let none in that has no session yet."""
        for each in self._opening:
            each.cancel()

    def receive(self, connection: socket.socket) -> None:
        """Connect a client to the session that its user may have, or turn it away."""
        try:
            peer = peer_of(connection)
        except OSError:  # gone already
            connection.close()
            return
        place = self._places.take(peer.uid, is_owner=_is_owner(peer))
        if place is None:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        make = partial(self._open, peer, place)
        opening = loop.create_task(loop.connect_accepted_socket(make, connection))
        self._opening.add(opening)
        opening.add_done_callback(partial(self._opened, place, connection))

    def _opened(
        self, place: Place, connection: socket.socket, opening: asyncio.Task[object]
    ) -> None:
        self._opening.discard(opening)
        if opening.cancelled():
            self._places.leave(place)
            if not place.is_open:  # no transport has it yet, to close it
                connection.close()
        elif (error := opening.exception()) is not None:
            self._places.leave(place)
            self._log.warning("guest %s: a client got no session: %s", self._guest, error)

    def _open(self, peer: Peer, place: Place) -> Connection:
        """Make a client's session: all of QMP for root and the guests' user, a part for others."""
        note = partial(self._note, peer)
        leave = partial(self._places.leave, place)
        if place.is_owner:
            uses = QmpLog(note, leave)
            uses.begin(read_only=False)
            made = self._share.open(allowed_commands.everything, uses.hear, peer.uid)
        else:
            made = self._share.open(allowed_commands.balloon, partial(_hear_end, leave), peer.uid)
        place.hold(made, partial(self._note_loss, peer))
        return made

    def _note_loss(self, peer: Peer, words: str) -> None:
        if self._counts.may_tell(peer.uid, LOST):
            self._note(peer, words)

    def _note(self, peer: Peer, words: str) -> None:
        self._log.info("uid %s pid %s: qmp %s: %s", peer.uid, peer.pid, self._guest, words)


def _is_owner(peer: Peer) -> bool:
    return peer.uid in (0, os.geteuid())


def _hear_end(end: Callable[[], None], command: str | None) -> None:
    """Hear of a client's commands, and end where it has gone."""
    if command is None:
        end()


async def _readable(listener: socket.socket) -> None:
    """Wait until a client waits."""
    loop = asyncio.get_running_loop()
    waiting = asyncio.Event()
    loop.add_reader(listener.fileno(), waiting.set)
    try:
        await waiting.wait()
    finally:
        loop.remove_reader(listener.fileno())
