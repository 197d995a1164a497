"""A guest's session that several clients use, over the transports of an event loop.

Theory of operation:
    QEMU greets no client while it is stopped or hung, and clients take that for the sign of it.
    So it is here: a client is greeted once QEMU has answered a probe out of band, which it does
    also while it works on something long. Where it does not answer, the client is told why in the
    greeting's place. A QEMU without such probes is taken to live.

Rules of this file:
    Nothing here waits, for a client or for QEMU: what cannot be written now is kept, and bounded,
    by `multiplexer`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from typing import Final

from qmpmem.errors import GuestUnreachable
from qmpmem.proxy.allowed_commands import Permit, everything
from qmpmem.proxy.client import Client
from qmpmem.proxy.client_connection import Connection, Heard
from qmpmem.proxy.fair_share import FairShare
from qmpmem.proxy.kept_bytes import KeptBytes
from qmpmem.proxy.multiplexer import Multiplexer
from qmpmem.wire.messages import write_refusal
from qmpmem.wire.qmp import Session

PAUSE: Final = 0.005
"""Seconds between two turns of clients that have sent more than is looked at in one."""

SLICE: Final = 0.005
"""Seconds of a processor that such turns may take before other work is done."""

AT_ONCE: Final = 8
"""Clients that have such a turn before other work is done: they are read from after it."""

PACE: Final = FairShare()
"""The share of the event loop's time that all sessions of this process have together; a process has
one event loop."""

KEPT: Final = KeptBytes()
"""What all sessions of this process keep of what their clients sent."""

MOST: Final = 100_000
"""Clients that one session may have, where nothing else bounds them."""

_FIRST: Final = 1 << 20
_MANY: Final = 1 << 30
"""The bound below which a session begins, by chance, to number its commands for QEMU: the ids are
others in each session, and short."""


class SharedSession:
    """What several clients use at the same time, as their number comes and goes.

    Args:
        session: the session with the guest, which its owner goes on using.
        idle: called when the last client has gone.
        most: clients; one more is sent away.
    """

    def __init__(
        self, session: Session, idle: Callable[[], None] = lambda: None, most: int = MOST
    ) -> None:
        self._most = most
        self._session = session
        first = random.randrange(_FIRST, _MANY)  # noqa: S311 - no secret; only others than before
        self._core = Multiplexer(session.greeting, first)
        self._connections: dict[Client, Connection] = {}
        self._newcomers: dict[Connection, None] = {}  # a set in the order of arrival
        self._proving: asyncio.Task[None] | None = None
        self.has_ended = False
        self._over = asyncio.Event()
        self._heard_out = asyncio.Event()
        self._idle = idle
        self._pause: asyncio.TimerHandle | None = None
        session.share(self)

    @property
    def clients(self) -> int:
        """Count the clients."""
        return len(self._connections)

    @property
    def is_awaiting(self) -> bool:
        """Tell whether QEMU has a command of a client."""
        return self._core.served is not None

    def open(
        self,
        permit: Permit = everything,
        heard: Heard | None = None,
        user: Hashable = None,
    ) -> Connection:
        """Make the protocol of one more client.

        Args:
            permit: what it may have QEMU do.
            heard: told of its commands, and of its end.
            user: whose client it is; users have the same share of QEMU and of the event loop.
        """
        return Connection(self, Client(permit, user, KEPT), heard)

    async def ended(self) -> None:
        """Wait for the end of the session with the guest, and until its clients have heard of it.

        Those that do not read are waited for no longer than `client_connection.LAST_WORDS`.
        """
        await self._over.wait()

    async def heard_out(self) -> None:
        """Wait until QEMU has said all that it will say in this session."""
        await self._heard_out.wait()

    def take_answer(self, line: bytes) -> bool:
        """Take in a line from QEMU where it answers a client's command; whether it does."""
        client = self._core.served
        if client is None:
            return False
        with self._counted(client) as is_late:
            is_an_answer = self._core.take_answer(line, is_late=is_late)
            if is_an_answer:
                self.flush()
        return is_an_answer

    def take_event(self, line: bytes) -> None:
        """Pass an event on."""
        self._core.take_event(line)
        self.flush()

    def end(self) -> None:
        """End all clients' sessions: that with the guest has ended."""
        if self.has_ended:
            return
        self.has_ended = True
        self._heard_out.set()
        self._newcomers.clear()
        self._tell_if_over()
        for connection in list(self._connections.values()):
            connection.finish()

    def attach(self, connection: Connection) -> None:
        """Begin a client's session, as soon as QEMU has shown that it lives."""
        if len(self._connections) >= self._most:
            connection.cut()
            return
        self._connections[connection.client] = connection
        if self._session.can_prove and not self.has_ended:
            self._newcomers[connection] = None
            self._proving = self._proving or asyncio.create_task(self._prove())
            return
        self._core.attach(connection.client)
        self.flush()
        if self.has_ended:
            connection.finish()

    def detach(self, connection: Connection) -> None:
        """End a client's session."""
        known = self._connections.pop(connection.client, None)
        self._newcomers.pop(connection, None)
        self._core.detach(connection.client)
        self._tell_if_over()
        if known is not None and not self._connections:
            self._idle()
        self.flush()

    def receive(self, client: Client, data: bytes, spent: float = 0.0) -> None:
        """Take in what a client sent.

        Args:
            client: that client.
            data: what it sent.
            spent: seconds of a processor that it took to read it.
        """
        with self._counted(client, len(data), spent) as is_late:
            self._core.receive(client, data, is_late=is_late)
            self.flush()

    def take_output(self, client: Client) -> bytes:
        """Return what waits to be written to a client."""
        return self._core.take_output(client)

    async def _prove(self) -> None:
        """Greet the newcomers, or turn them away."""
        problem: GuestUnreachable | None = None
        try:
            await self._session.prove()
        except GuestUnreachable as error:
            problem = error
        self._proving = None
        newcomers, self._newcomers = self._newcomers, {}
        for each in newcomers:
            if problem is None:
                self._core.attach(each.client)
            else:
                each.turn_away(write_refusal(problem, self._session.guest))
        self.flush()

    def _tell_if_over(self) -> None:
        if self.has_ended and not self._connections:
            self._over.set()

    def flush(self) -> None:
        """Send what can be sent, to QEMU and to the clients."""
        while touched := self._core.take_touched():
            for client in touched:
                self._connections[client].write()
        request = None if self.has_ended else self._core.take_request()
        if request is not None:
            self._connections[request.client].tell(request.command)
            self._session.write(request.line)
        if self._core.is_behind and self._pause is None:
            self._wait()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        soonest = min(_late(client, len(client.framer)) for client in self._core.behind)
        self._pause = loop.call_later(max(PAUSE, soonest), self._go_on)

    def _go_on(self) -> None:
        """Have clients that are behind take a turn each, as long as that takes not too much."""
        self._pause = None
        began, went = time.thread_time(), 0
        for client in self._core.behind:
            if went >= AT_ONCE or time.thread_time() - began > SLICE:
                break
            with self._counted(client) as is_late:
                if not is_late:
                    went += 1
                    self._core.go_on(client)
                    self.flush()
        self.flush()

    @contextmanager
    def _counted(self, client: Client, more: int = 0, before: float = 0.0) -> Generator[bool]:
        """Count the time that a client takes; yields whether its user has taken too much.

        Args:
            client: that client.
            more: bytes that it has sent, beside those which wait.
            before: seconds that were spent on those already.
        """
        size = len(client.framer) + more
        began = time.thread_time()
        yield _late(client, size) > 0
        spent = before + time.thread_time() - began
        PACE.spend(client.user, size, spent, asyncio.get_running_loop().time())


def _late(client: Client, size: int) -> float:
    """Return for how many seconds so many bytes of a client have to wait."""
    return PACE.wait(client.user, size, asyncio.get_running_loop().time())
