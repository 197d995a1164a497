"""The transport of one client of a session that is shared.

Rules of this file:
    Nothing here waits for a client: what it does not read is kept by `client`, and bounded there.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

from qmpmem.proxy import hang_ups, requests
from qmpmem.proxy.client import Client

LAST_WORDS: Final = 5.0
"""Seconds that a client has to read what was written to it when its session ended."""

DROPPED: Final = 1 << 20
"""Bytes that a client may go on to send after the end of its session before it is cut."""

READ: Final = 20e-6
"""Seconds of a processor that the event loop takes for a read, beside the read itself. The kernel
takes 0.3 us more for each piece in which that was sent."""

_PIECE: Final = memoryview(bytearray(64 * 1024))
"""Read into by one connection at a time, which copies it at once."""


Heard = Callable[[str | None], None]
"""Called with the name of each command that is sent to QEMU; None: the client has gone."""


class Share(Protocol):
    """What a connection asks of the session, `qmpmem.proxy.shared_session.SharedSession`."""

    def attach(self, connection: "Connection", /) -> None:
        """Begin a client's session."""
        ...

    def detach(self, connection: "Connection", /) -> None:
        """End a client's session."""
        ...

    def receive(self, client: Client, data: bytes, spent: float, /) -> None:
        """Take in what a client sent, which took so many seconds of a processor to read."""
        ...

    def take_output(self, client: Client, /) -> bytes:
        """Return what waits to be written to a client."""
        ...

    def flush(self) -> None:
        """Send what can be sent."""
        ...


class Connection(asyncio.BufferedProtocol):
    """One client's transport. It reads no more at once than it may keep."""

    def __init__(self, share: Share, client: Client, heard: Heard | None) -> None:
        self.client = client
        self._share = share
        self._heard = heard
        self._transport: asyncio.Transport | None = None
        self._can_write = True
        self._has_said_all = False
        self._is_over = False
        self._dropped = 0
        self._read_began: float | None = None

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
        self._hold()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - BufferedProtocol's
        """Return where the next piece goes: the event loop reads it at once."""
        self._read_began = time.thread_time()
        return _PIECE if self._is_over else _PIECE[: max(1, self.client.room)]

    def buffer_updated(self, nbytes: int) -> None:
        """Take a piece."""
        self.data_received(bytes(_PIECE[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent; no more is read while it has too much waiting."""
        if not self._is_over:
            began, self._read_began = self._read_began, None
            spent = 0.0 if began is None else time.thread_time() - began
            self._share.receive(self.client, data, READ + spent)
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

    def turn_away(self, line: bytes) -> None:
        """End before the greeting, for a reason that the client is told in its place."""
        self.client.put(line)
        self.client.ending = "flush"
        self.write()

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
