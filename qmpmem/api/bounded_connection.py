"""A connection that is bounded: one question, so long to arrive, so long to be taken.

Theory of operation:
    uvicorn's protocol takes requests apart, by h11. A question must be there, whole, in `ARRIVAL`
    seconds, and an answer be taken in `TAKING`, or the connection is cut: so no client holds a
    place for nothing, nor more memory than its answer.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD: Final = 16 * 1024
"""Bytes of a request before its body."""
PIECE: Final = 16 * 1024
"""Bytes that are read at once. What a refused body had in the kernel's buffers is never read."""
ARRIVAL: Final = 5.0
TAKING: Final = 5.0
SEAM: Final = (
    # Overridden, each of which calls the original:
    "connection_made",  # sets `transport`
    "connection_lost",
    "data_received",
    "send_400_response",  # called when what came is no HTTP
    "on_response_complete",  # called when the last byte of an answer was handed to the transport
    # Read or set:
    "transport",
    "loop",
    "conn",  # h11's, for what came after the question
    "cycle",  # the question being answered; its `response_started`
    "app_state",  # becomes the ASGI scope's `state`
)
"""What this module and those of its subclasses use of H11Protocol, which uvicorn documents for no
other program (uvicorn/protocols/http/h11_impl.py of 0.54); beside it, of ServerState
`default_headers` and `tasks`, and flow_control.CLOSE_HEADER. tests/unit/test_seams.py holds this to
be all of it, and those parts to be as they were."""


class SharedState:
    """What all connections of a server share.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - ASGI
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
        self.state = ServerState()
        self.state.default_headers = [CLOSE_HEADER]
        self.piece = memoryview(bytearray(PIECE))
        """Read into by one connection at a time, which copies it at once."""

    async def end(self) -> None:
        """Break off what still works for connections, and wait until it has ended."""
        for task in list(self.state.tasks):
            task.cancel()
        await asyncio.gather(*self.state.tasks, return_exceptions=True)


class BoundedConnection(H11Protocol, asyncio.BufferedProtocol):
    """A connection that has a place. It reads by small pieces: asyncio's own have 256 KiB.

    Args:
        shared: what it shares with the others.
        left: called when it has ended.
    """

    def __init__(self, shared: SharedState, left: Callable[[], None]) -> None:
        super().__init__(shared.config, shared.state, {})
        self._piece = shared.piece
        self._left = left
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the question."""
        super().connection_made(transport)
        self.within(ARRIVAL)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - BufferedProtocol's
        """Return where the next piece goes."""
        return self._piece

    def buffer_updated(self, nbytes: int) -> None:
        """Take a piece."""
        self.data_received(bytes(self._piece[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take a piece, unless the connection is being cut."""
        if not self.transport.is_closing():
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer that this is no HTTP; an answer that has begun is ended instead.

        uvicorn would begin a second one, which h11 refuses by raising LocalProtocolError.
        """
        has_begun = getattr(self.cycle, "response_started", False)  # None before a question
        if has_begun:
            self.transport.close()
        else:
            super().send_400_response(msg)
        self.within(TAKING)

    def on_response_complete(self) -> None:
        """Wait for the answer to be taken."""
        super().on_response_complete()
        self.within(TAKING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place of this connection."""
        self.arrived()
        self._left()
        super().connection_lost(exc)

    def cut(self) -> None:
        """End the connection at once, and forget what was not taken."""
        self.transport.abort()

    def within(self, seconds: float) -> None:
        """Cut the connection in so many seconds, unless `arrived` is called before."""
        self.arrived()
        self._timer = self.loop.call_later(seconds, self.cut)

    def arrived(self) -> None:
        """Let the connection last."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
