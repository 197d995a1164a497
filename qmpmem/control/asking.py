"""Asking the agent from inside an event loop; `qmpmem.control.client` says how it is asked.

Rules of this file:
    Nothing here waits longer than it is told. Cancelling closes the connection, and the agent then
    knows that its answer is not wanted any more.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from qmpmem.control import client as wire
from qmpmem.control.client import Client
from qmpmem.control.patience import Patience
from qmpmem.control.records import Status
from qmpmem.control.rights import Peer, peer_of
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
        question: as `qmpmem.control.client.question` writes it.
        kind: what the answer is.
        seconds: how much longer than usual the answer may take.

    Raises:
        AgentUnreachable: there is no agent, or it does not answer.
        QmpmemError: as the agent says.
    """
    clock = asyncio.get_running_loop().time
    again, limit = wire.Again(clock()), client.patience + seconds
    answer = await _ask_once(client, question, limit)
    while pause := again.after(answer, clock()):
        await asyncio.sleep(pause)
        answer = await _ask_once(client, question, limit)
    return client.answer(answer, kind)


async def get(client: Client, path: str, kind: type[T]) -> T:
    """Ask for something, as in ``get(client, "status", Status)``."""
    return await ask(client, wire.question("GET", path), kind)


async def follow(client: Client, path: str, kind: type[T]) -> AsyncIterator[T]:
    """Follow a stream of lines until it ends.

    Raises:
        AgentUnreachable: there is no agent, or it falls silent.
        QmpmemError: as the agent says.
    """
    answer, asked = b"", wire.question("GET", path)
    peer = Peer(pid=0, uid=0, groups=frozenset())
    try:
        async with aclosing(_connections(client, "GET")) as connections:
            async for connection in connections:
                async with _asked(client, connection, asked) as (reader, peer):
                    head = await in_time(reader.until(b"\r\n\r\n"), client, peer, client.patience)
                    if wire.code_of(head) == wire.OK:
                        while line := await reader.line():
                            if line != b"\n":
                                yield client.decode(line, kind)
                        return
                    other = head + await in_time(reader.rest(), client, peer, client.patience)
                answer = wire.better(answer, other)
                if not wire.is_busy(answer):
                    break
        client.answer(answer, kind)
    except TimeoutError as error:
        raise wire.silent(peer) from error


async def ended(client: Client, guest: str | None) -> AgentUnreachable | GuestUnreachable:
    """Say what the end of a stream of events means.

    Args:
        client: whom the stream came from.
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
    answer, method = b"", question.partition(b" ")[0].decode()
    async with aclosing(_connections(client, method)) as connections:
        async for connection in connections:
            async with _asked(client, connection, question) as (reader, peer):
                other = await in_time(reader.rest(), client, peer, seconds)
            answer = wire.better(answer, other)
            if not wire.is_busy(answer):
                break
    return answer


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
        if len(self._buffer) > wire.LARGEST:
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
    async with aclosing(_connections(client, method)) as connections:
        return await anext(connections)


async def _connections(client: Client, method: str) -> AsyncGenerator[socket.socket]:
    """Connect, one after the other, to the sockets that this process may ask, as `Client` does.

    Without waiting for a queue that is full: asyncio reports that as EINVAL.
    """
    deadline = asyncio.get_running_loop().time() + client.patience
    while True:
        has_asked, errors = False, dict[Path, OSError]()
        for path in client.ways(method):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                connection.connect(str(path))
                client.expect_trusted(peer_of(connection), path)
            except OSError as error:
                connection.close()
                errors[path] = error
                if wire.stops(method, error):
                    break
                continue
            except AgentUnreachable:
                connection.close()
                raise
            has_asked = True
            yield connection
            if method != "GET":
                return
        if has_asked:
            return
        is_over = asyncio.get_running_loop().time() >= deadline
        if is_over or not any(isinstance(each, BlockingIOError) for each in errors.values()):
            raise client.no_connection(errors)
        await asyncio.sleep(AGAIN)


async def in_time(
    work: Coroutine[None, None, bytes], client: Client, peer: Peer, seconds: float
) -> bytes:
    """Wait for what an agent sends.

    Raises:
        AgentUnreachable: it does not come in so many seconds in which the agent has a processor.
    """
    clock = asyncio.get_running_loop().time
    patience = Patience(peer.pid, seconds, clock=clock, proc=client.proc)
    task, left = asyncio.ensure_future(work), patience.left()
    try:
        while left and not (await asyncio.wait((task,), timeout=left))[0]:
            left = await asyncio.to_thread(patience.left)
        if not task.done():
            raise wire.silent(peer, patience)
        return task.result()
    finally:
        task.cancel()
