"""A guest's session that several clients use, over the transports of an event loop.

Rules of this file:
    Nothing here waits, for a client or for QEMU: what cannot be written now is kept, and bounded,
    by `multiplexer`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from typing import Final, cast

from qmpmem.proxy import hang_ups, requests
from qmpmem.proxy.allowed_commands import Permit, everything
from qmpmem.proxy.fair_share import FairShare
from qmpmem.proxy.kept_bytes import KeptBytes
from qmpmem.proxy.multiplexer import Client, Multiplexer
from qmpmem.wire.qmp import Session

LAST_WORDS: Final = 5.0
"""Seconds that a client has to read what was written to it when its session ended."""

DROPPED: Final = 1 << 20
"""Bytes that a client may go on to send after the end of its session before it is cut."""

PAUSE: Final = 0.005
"""Seconds between two turns of clients that have sent more than is looked at in one."""

SLICE: Final = 0.005
"""Seconds of a processor that such turns may take before other work is done."""

PACE: Final = FairShare()
"""The share of the event loop's time that all sessions of this process have together; a process has
one event loop."""

KEPT: Final = KeptBytes()
"""What all sessions of this process keep of what their clients sent."""

_PIECE: Final = memoryview(bytearray(64 * 1024))
"""Read into by one connection at a time, which copies it at once."""

MOST: Final = 100_000
"""Clients that one session may have, where nothing else bounds them."""

_FIRST: Final = 1 << 20
_MANY: Final = 1 << 30
"""The bound below which a session begins, by chance, to number its commands for QEMU: the ids are
others in each session, and short."""

Heard = Callable[[str | None], None]
"""Called with the name of each command that is sent to QEMU; None: the client has gone."""


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
    ) -> "Connection":
        """Make the protocol of one more client.

        Args:
            permit: what it may have QEMU do.
            heard: told of its commands, and of its end.
            user: whose client it is; users have the same share of QEMU and of the event loop.
        """
        return Connection(self, Client(permit, user, KEPT), heard)

    async def ended(self) -> None:
        """Wait for the end of the session with the guest, and until its clients have heard of it.

        Those that do not read are waited for no longer than `LAST_WORDS`.
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
        self._tell_if_over()
        for connection in list(self._connections.values()):
            connection.finish()

    def attach(self, connection: "Connection") -> None:
        """Begin a client's session."""
        if len(self._connections) >= self._most:
            connection.cut()
            return
        self._connections[connection.client] = connection
        self._core.attach(connection.client)
        self.flush()
        if self.has_ended:
            connection.finish()

    def detach(self, connection: "Connection") -> None:
        """End a client's session."""
        known = self._connections.pop(connection.client, None)
        self._core.detach(connection.client)
        self._tell_if_over()
        if known is not None and not self._connections:
            self._idle()
        self.flush()

    def receive(self, client: Client, data: bytes) -> None:
        """Take in what a client sent."""
        with self._counted(client, len(data)) as is_late:
            self._core.receive(client, data, is_late=is_late)
            self.flush()

    def take_output(self, client: Client) -> bytes:
        """Return what waits to be written to a client."""
        return self._core.take_output(client)

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
        began = time.thread_time()
        for client in self._core.behind:
            if time.thread_time() - began > SLICE:
                break
            with self._counted(client) as is_late:
                if not is_late:
                    self._core.go_on(client)
                    self.flush()
        self.flush()

    @contextmanager
    def _counted(self, client: Client, more: int = 0) -> Generator[bool]:
        """Count the time that a client takes; yields whether its user has taken too much.

        Args:
            client: that client.
            more: bytes that it has sent, beside those which wait.
        """
        size = len(client.framer) + more
        began = time.thread_time()
        yield _late(client, size) > 0
        spent = time.thread_time() - began
        PACE.spend(client.user, size, spent, asyncio.get_running_loop().time())


def _late(client: Client, size: int) -> float:
    """Return for how many seconds so many bytes of a client have to wait."""
    return PACE.wait(client.user, size, asyncio.get_running_loop().time())


class Connection(asyncio.BufferedProtocol):
    """One client's transport. It reads no more at once than it may keep."""

    def __init__(self, share: SharedSession, client: Client, heard: Heard | None) -> None:
        self.client = client
        self._share = share
        self._heard = heard
        self._transport: asyncio.Transport | None = None
        self._can_write = True
        self._has_said_all = False
        self._is_over = False
        self._dropped = 0

    @property
    def is_idle(self) -> bool:
        """Tell whether the client has nothing to be done."""
        return not (self.client.is_busy or self.client.is_behind)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Attach the client to the guest's session, which greets it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what sockets and pipes have
        self._transport = transport
        hang_ups.of_this_loop().watch(_descriptor(transport), self._hang_up)
        self._share.attach(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - BufferedProtocol's
        """Return where the next piece goes."""
        return _PIECE if self._is_over else _PIECE[: max(1, self.client.room)]

    def buffer_updated(self, nbytes: int) -> None:
        """Take a piece."""
        self.data_received(bytes(_PIECE[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent; no more is read while it has too much waiting."""
        if not self._is_over:
            self._share.receive(self.client, data)
            self._hold()
            return
        self._dropped += len(data)
        if self._dropped > DROPPED:
            self.cut()

    def eof_received(self) -> bool:
        """Go on until all that the client sent is answered; it may be a pipe that has ended."""
        self._has_said_all = True
        if self._is_over and self._transport is not None:
            self._transport.close()
        self._end_if_done()
        return True

    def pause_writing(self) -> None:
        """Keep what comes: the client does not read."""
        self._can_write = False

    def resume_writing(self) -> None:
        """Write what was kept."""
        self._can_write = True
        self.write()
        self._share.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Forget the client."""
        if self._transport is not None:
            hang_ups.of_this_loop().forget(_descriptor(self._transport))
        self._transport = None
        if self._heard is not None:
            self._heard(None)
        self._share.detach(self)

    def tell(self, command: str) -> None:
        """Tell of a command of this client."""
        if self._heard is not None:
            self._heard(command)

    def write(self) -> None:
        """Write what waits, as far as the client reads."""
        if self._transport is None or self._is_over or self._transport.is_closing():
            return
        if self.client.ending == "abort":
            self._transport.abort()
            return
        if self._can_write and self.client.waiting:
            self._transport.write(self._share.take_output(self.client))
        if self.client.ending == "flush":
            self.finish()
        self._hold()
        self._end_if_done()

    def cut(self) -> None:
        """End at once, and forget what was not read."""
        if self._transport is not None:
            self._transport.abort()

    def dismiss(self, words: str) -> None:
        """End at once, for a reason that the client is told where it can be written now."""
        transport = self._transport
        if transport is not None and not self._is_over and not transport.get_write_buffer_size():
            transport.write(requests.refusal(words).line)
        self.cut()

    def finish(self) -> None:
        """Write what waits, and end; a client that does not read it is not waited for.

        What the client still sends is read and dropped until it has read the end: a socket that is
        closed before makes its next write fail, and libraries then forget what they did not read.
        """
        transport = self._transport
        if transport is None or self._is_over:
            return
        self._is_over = True
        transport.write(self._share.take_output(self.client))
        if self._has_said_all:
            transport.close()
        else:
            transport.write_eof()
            transport.resume_reading()
        asyncio.get_running_loop().call_later(LAST_WORDS, transport.abort)

    def _hold(self) -> None:
        """Read no more from a client than is looked at."""
        if self._transport is None or self._is_over or self._has_said_all:
            return
        if self.client.is_full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _end_if_done(self) -> None:
        if self._has_said_all and self.is_idle and not self.client.waiting:
            self.finish()

    def _hang_up(self) -> None:
        """End the session of a client that has gone: it hears no answer, so nothing more is asked.

        Where the session is over already, the client's end is read, or waited for no longer than
        `LAST_WORDS`.
        """
        if not self._is_over:
            self.cut()


def _descriptor(transport: asyncio.BaseTransport) -> int:
    return cast("int", transport.get_extra_info("socket").fileno())
