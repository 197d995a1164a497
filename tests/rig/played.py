"""A QMP session that is played from memory: the client is the real one, its connection no socket.

    with asyncio.Runner(loop_factory=PlayedLoop) as runner:
        runner.get_loop().next = Part(pieces=pieces)
        runner.run(talk())

Theory of operation:
    asyncio makes a transport of the client's socket, and hands it to stream reader and writer. The
    loop of this module makes one of its own instead, without system calls. All above it is the
    program's: reader and writer of asyncio, the library, and qmpmem/wire. The clock of the loop
    jumps, so the deadlines are the real ones.

    The socket that the client is given is one of a pair that stays the same for all sessions. The
    client asks it which file it is, and nothing else.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Final

from qmpmem.records import Record
from tests.rig.clock import Jumping, VirtualLoop

TURN: Final = b'"id":"'
MOST_READS: Final = 200


class Part(Record, frozen=True):
    """What the server does in one session.

    Attributes:
        pieces: the first is sent at once, each other after one more request. ``"id": "1"`` stands
            for the id of the first request.
        closes: whether the server closes the connection after the last of them.
        delays: seconds before each piece; those that are missing are 0.
        cut: bytes of each read, more where those were over `MOST_READS`; 0: all of a piece.
    """

    pieces: tuple[bytes, ...]
    closes: bool = False
    delays: tuple[float, ...] = ()
    cut: int = 0


class Line(asyncio.Transport):
    """The client's end of a connection, with the server behind it."""

    def __init__(self, loop: "PlayedLoop", protocol: asyncio.Protocol, part: Part) -> None:
        super().__init__()
        self._loop = loop
        self._protocol: asyncio.BaseProtocol = protocol
        self._part = part
        self._left = list(enumerate(part.pieces))[::-1]
        self._token = b""
        self._is_over = False
        self._is_paused = False
        self._waiting: list[Callable[[], None]] = []
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self._answer)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        content = bytes(data)
        self._token = content.partition(TURN)[2][:2]
        for _ in range(content.count(TURN)):
            self._answer()

    def _answer(self) -> None:
        if self._left:
            number, piece = self._left.pop()
            delay = self._part.delays[number] if number < len(self._part.delays) else 0.0
            content = piece.replace(b'"id": "', b'"id": "' + self._token)
            self._loop.call_later(delay, self._send, content)
        elif self._part.closes:
            self._loop.call_soon(self._end)

    def _send(self, content: bytes) -> None:
        size = max(self._part.cut or len(content), len(content) // MOST_READS, 1)
        for at in range(0, len(content), size):
            self._deliver(lambda piece=content[at : at + size]: self._feed(piece))  # type: ignore[misc]

    def _feed(self, piece: bytes) -> None:
        if isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(piece)

    def _end(self) -> None:
        self._deliver(self.abort)

    def _deliver(self, work: Callable[[], None]) -> None:
        if not self._is_over:
            self._waiting.append(work)
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._waiting and not (self._is_paused or self._is_over):
            self._waiting.pop(0)()

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        for _ in self._waiting:
            self._loop.call_soon(self._go_on)

    def abort(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._waiting.clear()
            self._loop.call_soon(self._protocol.connection_lost, None)

    close = abort

    def is_closing(self) -> bool:
        return self._is_over

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class _NoFiles(Jumping):
    """A selector with nothing to look at but the loop's own pipe, which no thread writes to."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if len(self.get_map()) > 1:
            return super().select(timeout)
        if timeout is None:
            raise AssertionError("all tasks wait for each other: no timer runs")
        self.now += timeout
        return []


class PlayedLoop(VirtualLoop):
    """A loop in which a client connects to what is played next."""

    next: Part

    def __init__(self) -> None:
        super().__init__(selector=_NoFiles())

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.Protocol],
        *_: object,
        **_named: object,
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        protocol = protocol_factory()
        line = Line(self, protocol, self.next)
        await asyncio.sleep(0)
        return line, protocol
