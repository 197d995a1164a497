"""A connection that is bounded: what comes that is no HTTP, whatever has been answered by then."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import pytest
from starlette.types import Receive, Scope, Send

from qmpmem.api import bounded_connection
from qmpmem.api.bounded_connection import BoundedConnection, SharedState

HEAD: Final = b"PUT /%s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
JUNK: Final = {
    "a chunk's size that is none": b"zz\r\n",
    "a chunk's end that is none": b"2\r\nabcd",
    "a trailer that is none": b"0\r\n:\r\n\r\n",
    "a chunk's size too long": b"1" * 40 + b"\r\n",
}
ANSWER: Final = {"type": "http.response.start", "status": 200, "headers": []}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Begin to answer before the body was read, or do not; go on while anything comes."""
    if scope["path"] == "/begun":
        await send(ANSWER)
        await send({"type": "http.response.body", "body": b"answer", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


class Line(NamedTuple):
    client: socket.socket
    left: asyncio.Event
    errors: list[dict[str, Any]]

    async def read(self, until: Callable[[bytes], bool]) -> bytes:
        """Read until there is as much, or nothing more comes."""
        loop, read = asyncio.get_running_loop(), b""
        while not until(read) and (piece := await loop.sock_recv(self.client, 4096)):
            read += piece
        return read


@asynccontextmanager
async def connected() -> AsyncIterator[Line]:
    loop = asyncio.get_running_loop()
    shared, left, errors = SharedState(application), asyncio.Event(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    client, server = socket.socketpair()
    client.settimeout(0)
    await loop.connect_accepted_socket(lambda: BoundedConnection(shared, left.set), server)
    with client:
        yield Line(client, left, errors)
    await left.wait()
    await shared.end()


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        (b"none", b"", b"HTTP/1.1 400 Bad Request\r\n"),
        (b"begun", b"HTTP/1.1 200 OK\r\n", b""),
    ],
)
async def test_what_is_no_http_is_answered_once(
    path: bytes, before: bytes, after: bytes, junk: bytes
) -> None:
    async with asyncio.timeout(20), connected() as line:
        line.client.send(HEAD % path)
        head = await line.read(lambda read: not before or b"answer" in read)
        assert head.startswith(before)
        line.client.send(junk)
        rest = await line.read(lambda _: False)
        await line.left.wait()
        assert line.errors == []
    assert rest.startswith(after)
    assert (head + rest).count(b"HTTP/1.1 ") == 1


async def test_an_answer_that_is_not_taken_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ended for junk does not last longer than any other."""
    monkeypatch.setattr(bounded_connection, "TAKING", 0.05)
    async with asyncio.timeout(20), connected() as line:
        line.client.send(HEAD % b"begun")
        await line.read(lambda read: b"answer" in read)
        line.client.send(b"zz\r\n")
        await line.left.wait()
