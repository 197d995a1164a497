"""A scriptable QMP server: what a hostile, broken or slow QEMU sends, step by step.

    script = [greet(), negotiate(), expect("query-balloon"), say('{"return": 5, "id": $ID}')]
    async with FakeQmp(path, script) as fake:
        ...
    assert fake.conversations[0].commands == ["qmp_capabilities", "query-balloon"]

Theory of operation:
    One asyncio server per socket path, many in a process. Each client gets the next script, the
    last one again and again. After its last step a conversation holds the connection open, reads
    and ignores, until the client leaves. Raw sockets, not streams: a server that must not read
    really does not.
"""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from qmpmem.wire.unix_socket import peer_of

GREETING: Final = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, '
    b'"package": "Debian 1:7.2"}, "capabilities": ["oob"]}}\r\n'
)
OLD_GREETING: Final = GREETING.replace(b'["oob"]', b"[]")
STAMP: Final = '"timestamp": {"seconds": 1700000000, "microseconds": 250000}'
CHUNK: Final = 4096

ANSWERS: Final[Mapping[str, object]] = {
    "qmp_capabilities": {},
    "query-status": {"status": "running", "running": True, "singlestep": False},
    "query-balloon": {"actual": 268435456},
}


class Conversation:
    """One client's connection, and what was said on it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.client = peer_of(connection).pid
        """The process that connected."""
        self.requests: list[dict[str, object]] = []
        self.sent = 0
        """Bytes that the kernel took: read by the client, or waiting in the socket's buffer."""
        self.budget: int | None = None
        """Bytes after which the connection breaks off."""
        self.mistakes: list[str] = []
        """Where the client did not do what the script expected."""
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    @property
    def commands(self) -> list[object]:
        return [request.get("execute", request.get("exec-oob")) for request in self.requests]

    async def send(self, data: bytes) -> None:
        """Send bytes; $T stands for what all ids of this client start with."""
        if b"$T" in data:
            data = data.replace(b"$T", str(self.requests[-1]["id"])[:2].encode())
        if self.budget is not None and self.sent + len(data) >= self.budget:
            await self._loop.sock_sendall(self.connection, data[: self.budget - self.sent])
            raise EOFError
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK]
            await self._loop.sock_sendall(self.connection, piece)
            self.sent += len(piece)

    async def request(self) -> dict[str, object]:
        """Wait for the next request; EOFError where the client left."""
        while True:
            text, found, rest = self._buffer.partition(b"}")
            while found and not _is_whole(text + found):
                more, found, rest = rest.partition(b"}")
                text += b"}" + more
            if found:
                self._buffer = rest
                self.requests.append(json.loads(text + found))
                return self.requests[-1]
            data = await self._loop.sock_recv(self.connection, CHUNK)
            if not data:
                raise EOFError
            self._buffer += data

    def fill_in(self, text: str) -> bytes:
        """Put the last request's id in the place of $ID, that of the one before in $BEFORE."""
        ids = [json.dumps(request.get("id")) for request in self.requests]
        text = text.replace("$BEFORE", ids[-2]) if "$BEFORE" in text else text
        return (text.replace("$ID", ids[-1]) if "$ID" in text else text).encode()


Step = Callable[[Conversation], Awaitable[None]]


class FakeQmp:
    """A QMP server on a unix socket that follows scripts."""

    def __init__(self, path: Path, *scripts: Sequence[Step], backlog: int = 64) -> None:
        self.path = path
        self.conversations: list[Conversation] = []
        self._scripts = scripts
        self._backlog = backlog
        self._tasks = asyncio.TaskGroup()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.serving: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(self._backlog)
        await self._tasks.__aenter__()
        if self._scripts:  # without a script no task accepts: the clients stay in the backlog
            self.serving.append(self._tasks.create_task(self._accept()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self.serving:
            task.cancel()
        self._listener.close()
        if isinstance(error, asyncio.CancelledError):
            await self._tasks.__aexit__(kind, error, trace)
        else:  # the body's own error stays outside of the group, and readable
            await self._tasks.__aexit__(None, None, None)
        os.unlink(self.path)  # noqa: PTH108 - Path.unlink is no different in a test's loop

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            script = self._scripts[min(len(self.conversations), len(self._scripts) - 1)]
            conversation = Conversation(connection)
            self.conversations.append(conversation)
            self.serving.append(self._tasks.create_task(follow(conversation, script)))


async def follow(conversation: Conversation, script: Sequence[Step]) -> None:
    """Go through a script, then hold the connection until the client leaves."""
    with conversation.connection:
        try:
            for step in script:
                await step(conversation)
            while True:
                await conversation.request()
        except (EOFError, OSError):  # the client left, or a step closed the connection itself
            return


# The steps.


def send(data: bytes) -> Step:
    """Send these bytes."""

    async def step(conversation: Conversation) -> None:
        await conversation.send(data)

    return step


def say(text: str) -> Step:
    """Send a line; $ID stands for the id of the last request, $BEFORE for the one before it."""

    async def step(conversation: Conversation) -> None:
        await conversation.send(conversation.fill_in(text) + b"\r\n")

    return step


def drip(data: bytes, every: float) -> Step:
    """Send one byte every so many seconds."""

    async def step(conversation: Conversation) -> None:
        for at in range(len(data)):
            await conversation.send(data[at : at + 1])
            await asyncio.sleep(every)

    return step


def greet() -> Step:
    """Greet as QEMU 7.2 does."""
    return send(GREETING)


def expect(command: str | None = None) -> Step:
    """Wait for a request, and note a mistake where it is another one."""

    async def step(conversation: Conversation) -> None:
        await conversation.request()
        if command is not None and conversation.commands[-1] != command:
            conversation.mistakes.append(f"{conversation.commands[-1]}, expected {command}")

    return step


def answer(value: object = None) -> Step:
    """Answer the last request, with what a healthy guest would say where no value is given."""

    async def step(conversation: Conversation) -> None:
        known = ANSWERS.get(str(conversation.commands[-1]), {}) if value is None else value
        reply = {"return": known, "id": conversation.requests[-1].get("id")}
        await conversation.send(json.dumps(reply).encode() + b"\r\n")

    return step


def refuse(error_class: str = "GenericError", text: str = "no") -> Step:
    """Answer the last request with an error."""
    error = json.dumps({"class": error_class, "desc": text})
    return say(f'{{"id": $ID, "error": {error}}}')


def negotiate() -> Step:
    """Expect qmp_capabilities and agree."""
    return together(expect("qmp_capabilities"), answer())


def event(name: str, data: str = "{}") -> Step:
    """Send an event."""
    return say(f'{{{STAMP}, "event": "{name}", "data": {data}}}')


def pause(seconds: float) -> Step:
    """Do nothing for a while."""

    async def step(_: Conversation) -> None:
        await asyncio.sleep(seconds)

    return step


def serve() -> Step:
    """Answer everything as a healthy guest does, until the client leaves."""

    async def step(conversation: Conversation) -> None:
        while True:
            request = await conversation.request()
            given = {"error": {"class": "CommandNotFound", "desc": "not found"}}
            known = ANSWERS.get(str(request.get("execute")))
            reply = given if known is None else {"return": known}
            await conversation.send(json.dumps(reply | {"id": request.get("id")}).encode() + b"\n")

    return step


def hang() -> Step:
    """Neither read nor write nor close, for an hour."""
    return pause(3600)


def half_close() -> Step:
    """Send no more, but go on reading."""

    async def step(conversation: Conversation) -> None:
        conversation.connection.shutdown(socket.SHUT_WR)

    return step


def break_off(after: int) -> Step:
    """Close after so many bytes, wherever in the script that is."""

    async def step(conversation: Conversation) -> None:
        conversation.budget = after

    return step


def close() -> Step:
    """Close, with nothing left unread."""

    async def step(conversation: Conversation) -> None:
        conversation.connection.close()

    return step


def reset() -> Step:
    """Close with a request unread, which the client sees as a reset (unix(7): ECONNRESET)."""

    async def step(conversation: Conversation) -> None:
        unread = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(conversation.connection, unread.set)
        await unread.wait()
        loop.remove_reader(conversation.connection)
        conversation.connection.close()

    return step


def small_buffer() -> Step:
    """Let the kernel hold as little as it can of what the client has not read."""

    async def step(conversation: Conversation) -> None:
        conversation.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHUNK)

    return step


def together(*steps: Step) -> Step:
    """Make one step of several."""

    async def step(conversation: Conversation) -> None:
        for each in steps:
            await each(conversation)

    return step


def times(count: int, *steps: Step) -> Step:
    """Do the steps again and again."""
    return together(*(steps * count))


def _is_whole(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
