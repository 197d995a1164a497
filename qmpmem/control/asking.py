"""Asking the agent from inside an event loop; `qmpmem.control.client` says how it is asked.

Rules of this file:
    Nothing here waits longer than it is told. Cancelling closes the connection, and the agent then
    knows that its answer is not wanted any more.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from qmpmem.control import client as wire
from qmpmem.control.client import Client
from qmpmem.control.patience import Patience
from qmpmem.control.records import Status
from qmpmem.control.rights import Peer, peer_of
from qmpmem.errors import AgentUnreachable, GuestUnreachable

T = TypeVar("T")

LINE: Final = 64 << 20
"""Bytes of a line: a round with 60,000 guests."""
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
    async with _asked(client, question) as (reader, peer):
        limit = client.patience + seconds
        content = await in_time(_read_all(reader, client), client, peer, limit)
        return client.answer(content, kind)


async def get(client: Client, path: str, kind: type[T]) -> T:
    """Ask for something, as in ``get(client, "status", Status)``."""
    return await ask(client, wire.question("GET", path), kind)


async def follow(client: Client, path: str, kind: type[T]) -> AsyncIterator[T]:
    """Follow a stream of lines until it ends.

    Raises:
        AgentUnreachable: there is no agent, or it falls silent.
        QmpmemError: as the agent says.
    """
    peer = Peer(pid=0, uid=0, groups=frozenset())
    try:
        async with _asked(client, wire.question("GET", path)) as (reader, peer):
            head = await in_time(_head(reader), client, peer, client.patience)
            if wire.code_of(head) != wire.OK:
                rest = _read_all(reader, client)
                client.answer(head + await in_time(rest, client, peer, client.patience), kind)
            while line := await _line(reader):
                if line != b"\n":
                    yield client.decode(line, kind)
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


@asynccontextmanager
async def _asked(
    client: Client, question: bytes
) -> AsyncGenerator[tuple[asyncio.StreamReader, Peer]]:
    connection = await connect(client)
    try:
        peer = peer_of(connection)
        client.expect_trusted(peer)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE)
    except BaseException:
        connection.close()
        raise
    try:
        writer.write(question)
        yield reader, peer
    finally:
        writer.transport.abort()


async def connect(client: Client) -> socket.socket:
    """Connect without waiting for a backlog that is full: asyncio reports that as EINVAL.

    Raises:
        AgentUnreachable: there is no agent, or it takes no connection.
        KernelError: this user may not connect.
    """
    deadline = asyncio.get_running_loop().time() + client.patience
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(str(client.path))
        except OSError as error:
            connection.close()
            is_over = asyncio.get_running_loop().time() >= deadline
            if is_over or not isinstance(error, BlockingIOError):
                raise client.no_connection(error) from error
            await asyncio.sleep(AGAIN)
        else:
            return connection


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


async def _read_all(reader: asyncio.StreamReader, client: Client) -> bytes:
    pieces: list[bytes] = []
    left = wire.LARGEST
    while piece := await _read(reader):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise AgentUnreachable(f"{client.path}: answers without end", reason="protocol")
    return b"".join(pieces)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(64 * 1024)
    except ConnectionError:  # it did not read all of the question: it has answered
        return b""


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionError:
        return b""


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Read a line; nothing at the end."""
    try:
        async with asyncio.timeout(SILENCE):
            line = await reader.readline()
    except ConnectionError:
        return b""
    return line if line.endswith(b"\n") else b""
