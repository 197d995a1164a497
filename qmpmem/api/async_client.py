"""Asking the agent from inside an event loop, as `qmpmem.api.client` does outside of one.

Rules of this file:
    Nothing here waits longer than it is told. Cancelling closes the connection, and the agent then
    knows that its answer is not wanted any more.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

from qmpmem.api import messages
from qmpmem.api.client import LARGEST, Client, silent
from qmpmem.api.deadlines import AnswerDeadline
from qmpmem.api.messages import Retries, method_of
from qmpmem.api.permissions import Peer, peer_of
from qmpmem.api.records import Status
from qmpmem.api.socket_choice import Attempt, advance, walk
from qmpmem.errors import AgentUnreachable, GuestUnreachable

T = TypeVar("T")

PIECE: Final = 64 * 1024
"""Bytes that are read at once."""
SILENCE: Final = 60.0
"""Seconds without a line after which an agent counts as hung. It sends an empty one each 15."""
AGAIN: Final = 0.05
"""Seconds before a socket whose backlog is full is tried once more."""


async def ask(client: Client, question: bytes, kind: type[T], *, seconds: float = 0.0) -> T:
    """Ask for something to be done.

    Args:
        client: the agent's address.
        question: as `qmpmem.api.messages.question` writes it.
        kind: what the answer is.
        seconds: how much longer than usual the answer may take.

    Raises:
        AgentUnreachable: there is no agent, or it does not answer.
        QmpmemError: as the agent says.
    """
    clock = asyncio.get_running_loop().time
    again, limit = Retries(clock()), client.patience + seconds
    answer = await _ask_once(client, question, limit)
    while pause := again.after(answer, clock()):
        await asyncio.sleep(pause)
        answer = await _ask_once(client, question, limit)
    return client.answer(answer, kind)


async def get(client: Client, path: str, kind: type[T]) -> T:
    """Ask for something, as in ``get(client, "status", Status)``."""
    return await ask(client, messages.question("GET", path), kind)


async def scrape(client: Client, accept: str, encoding: str = "identity") -> bytes:
    """Return the metrics as they are written for Prometheus.

    Args:
        client: the agent's address.
        accept: the media type, as in `qmpmem.metrics.content_type`.
        encoding: ``gzip`` or ``identity``.

    Raises:
        AgentUnreachable: there is no agent, or it does not answer.
        QmpmemError: as the agent says.
    """
    asked = (
        f"GET /metrics HTTP/1.0\r\nHost: qmpmem\r\nAccept: {accept}\r\n"
        f"Accept-Encoding: {encoding}\r\n\r\n"
    )
    answer = await _ask_once(client, asked.encode(), client.patience)
    return messages.body_of(answer, client.path)


async def follow(client: Client, path: str, kind: type[T]) -> AsyncIterator[T]:
    """Follow a stream of lines until it ends.

    Raises:
        AgentUnreachable: there is no agent, or it falls silent.
        QmpmemError: as the agent says.
    """
    asked, peer = messages.question("GET", path), Peer(pid=0, uid=0, groups=frozenset())
    steps = walk(client.path, "GET")
    step = advance(steps)
    try:
        while isinstance(step, Attempt):
            try:
                connection = await _connected(client, step)
            except OSError as error:
                step = advance(steps, error)
                continue
            async with _asked(client, connection, asked) as (reader, peer):
                head = await in_time(reader.until(b"\r\n\r\n"), client, peer, client.patience)
                if messages.code_of(head) == messages.OK:
                    while line := await reader.line():
                        if line != b"\n":
                            yield client.decode(line, kind)
                    return
                rest = await in_time(reader.rest(), client, peer, client.patience)
            step = advance(steps, head + rest)
        client.answer(client.result(step), kind)
    except TimeoutError as error:
        raise silent(peer) from error


async def ended(client: Client, guest: str | None) -> AgentUnreachable | GuestUnreachable:
    """Return what the end of a stream of events means.

    Args:
        client: of the agent that the stream came from.
        guest: the id of the guest that was followed; None: it was all of them.
    """
    over = AgentUnreachable("the agent has ended", reason="none")
    if guest is None:
        return over
    try:
        await get(client, "status", Status)
    except AgentUnreachable:
        return over
    return GuestUnreachable(f"guest {guest}: it has ended", reason="closed")


async def _ask_once(client: Client, question: bytes, seconds: float) -> bytes:
    """Ask at each socket that this process may ask, until one has a place."""
    steps = walk(client.path, method_of(question))
    step = advance(steps)
    while isinstance(step, Attempt):
        try:
            connection = await _connected(client, step)
        except OSError as error:
            step = advance(steps, error)
            continue
        async with _asked(client, connection, question) as (reader, peer):
            answer = await in_time(reader.rest(), client, peer, seconds)
        step = advance(steps, answer)
    return client.result(step)


class _Reader:
    """Reads from a connection, and keeps what came before it was reset.

    An agent that turns a client away has not read its question, so the kernel resets the connection
    right after the answer, and asyncio's streams then forget the answer.
    """

    def __init__(self, connection: socket.socket, client: Client) -> None:
        self._connection = connection
        self._client = client
        self._buffer = bytearray()

    async def until(self, end: bytes) -> bytes:
        """Read up to this end and with it; less only where the connection ends before."""
        searched = 0
        while (found := self._buffer.find(end, searched)) < 0:
            searched = max(0, len(self._buffer) + 1 - len(end))
            if not await self._more():
                found = len(self._buffer)
                break
        return self._take(found + len(end))

    async def rest(self) -> bytes:
        """Read to the end of the connection."""
        while await self._more():
            pass
        return self._take(len(self._buffer))

    async def line(self) -> bytes:
        """Read a line; nothing at the end.

        Raises:
            TimeoutError: none comes in `SILENCE` seconds.
        """
        async with asyncio.timeout(SILENCE):
            line = await self.until(b"\n")
        return line if line.endswith(b"\n") else b""

    async def _more(self) -> bool:
        try:
            piece = await asyncio.get_running_loop().sock_recv(self._connection, PIECE)
        except ConnectionError:  # it did not read all of the question: it has answered
            return False
        self._buffer += piece
        if len(self._buffer) > LARGEST:
            raise AgentUnreachable(f"{self._client.path}: answers without end", reason="protocol")
        return bool(piece)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


@asynccontextmanager
async def _asked(
    client: Client, connection: socket.socket, question: bytes
) -> AsyncGenerator[tuple[_Reader, Peer]]:
    with connection:
        peer = peer_of(connection)
        with suppress(ConnectionError):  # turned away; why, is in what it sent before
            await asyncio.get_running_loop().sock_sendall(connection, question)
        yield _Reader(connection, client), peer


async def connect(client: Client, method: str) -> socket.socket:
    """Connect to the socket that such a question goes to.

    Raises:
        AgentUnreachable: there is no agent, or it takes no connection.
        KernelError: this user may not connect.
    """
    steps = walk(client.path, method)
    step = advance(steps)
    while isinstance(step, Attempt):
        try:
            return await _connected(client, step)
        except OSError as error:
            step = advance(steps, error)
    raise client.no_connection({} if isinstance(step, bytes) else step)


async def _connected(client: Client, attempt: Attempt) -> socket.socket:
    """Connect to a socket; the caller closes the connection.

    asyncio reports a queue that is full as EINVAL, so it is not told to connect: where the attempt
    waits, this tries again, for as long as an answer may take.

    Raises:
        AgentUnreachable: the process that listens is not to be trusted.
        OSError: as connect(2).
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + (client.patience if attempt.waits else 0.0)
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(str(attempt.path))
            client.expect_trusted(peer_of(connection), attempt.path)
        except BlockingIOError:
            connection.close()
            if clock() >= deadline:
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection
        await asyncio.sleep(AGAIN)


async def in_time(
    work: Coroutine[None, None, bytes], client: Client, peer: Peer, seconds: float
) -> bytes:
    """Wait for what an agent sends.

    Raises:
        AgentUnreachable: it does not come in so many seconds in which the agent has a processor.
    """
    clock = asyncio.get_running_loop().time
    patience = AnswerDeadline(peer.pid, seconds, clock=clock, proc=client.proc)
    task, left = asyncio.ensure_future(work), patience.left()
    try:
        while left and not (await asyncio.wait((task,), timeout=left))[0]:
            left = await asyncio.to_thread(patience.left)
        if not task.done():
            raise silent(peer, patience)
        return task.result()
    finally:
        task.cancel()
