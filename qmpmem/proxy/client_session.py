"""One client of a shared session in this process: a pair of files, or a single command.

Theory of operation:
    The client's end is a socket, as any other's, so that it has the same bounds. Standard input and
    output may be files, pipes or terminals, which an event loop cannot wait for alike: threads read
    and write them, and the end of the program does not wait for those.
"""

import asyncio
import json
import os
import re
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, TypeVar, cast

import msgspec

from qmpmem.errors import ConfigError, GuestRefused
from qmpmem.proxy.client_connection import Connection
from qmpmem.proxy.requests import CAPABILITIES
from qmpmem.proxy.shared_session import SharedSession
from qmpmem.wire.errors import one_line, unreachable
from qmpmem.wire.qmp import SHARED_LINE

T = TypeVar("T")

_PIECE: Final = 64 * 1024
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")

Make = Callable[[], Connection]


async def pass_through(
    share: SharedSession, make: Make, source: int, sink: int, guest: str
) -> None:
    """Be a client that sends what a file says, until it ends and all of it is answered.

    Args:
        share: the session.
        make: makes a client's protocol.
        source: a descriptor to read.
        sink: a descriptor to write to.
        guest: the guest's id, for messages.

    Raises:
        GuestUnreachable: what QEMU said was not taken, until it was too much.
        OSError: it could not be written.
    """
    async with _connected(make) as (reader, writer):
        feeding = asyncio.create_task(_feed(writer, source))
        try:
            while content := await _read(reader):
                await _apart(partial(_write_all, sink, content))
            if not share.has_ended and not feeding.done():
                text = "events came faster than they were read: the session was ended"
                raise unreachable(guest, "flood", text)
        finally:
            feeding.cancel()


async def ask(make: Make, command: str, arguments: Mapping[str, object], guest: str) -> object:
    """Be a client that runs one command, and return what QEMU returns.

    Args:
        make: makes a client's protocol.
        command: its name.
        arguments: what JSON can write.
        guest: the guest's id, for messages.

    Raises:
        GuestRefused: QEMU answered with an error, or the session does not allow the command.
        GuestUnreachable: the session ended before the answer.
    """
    async with _connected(make) as (reader, writer):
        writer.write(json.dumps({"execute": CAPABILITIES}).encode())
        message = {"execute": command, "arguments": arguments, "id": 1}
        writer.write(json.dumps(message).encode())
        while line := await reader.readline():
            answer = msgspec.json.decode(line, type=dict[str, object])
            # An error without an id answers a text that is not a message, as where a word of the
            # command line is not text; the negotiation before has no error.
            if answer.get("id") == 1 or "error" in answer:
                return _value(answer, command, guest)
    raise unreachable(guest, "closed", f"the session ended before an answer to {command}")


def read_arguments(words: Sequence[str]) -> dict[str, object]:
    """Read a command's arguments, written as for qmp-shell.

    ``a=1 b.c=true d=text e=["x"]``: a dot makes an object; a value that is a whole number, true,
    false, or JSON's object, list or string is that; any other is a text.

    Raises:
        ConfigError: a word of another form, or a name that is given twice.
    """
    found: dict[str, object] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not all(key.split(".")):
            raise ConfigError(f"argument {word!r}: expected KEY=VALUE")
        *path, last = key.split(".")
        place = found
        for part in path:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"argument {word!r}: {part} has a value already")
            place = cast("dict[str, object]", inner)
        if last in place:
            raise ConfigError(f"argument {word!r}: {key} is given twice")
        place[last] = _read_value(text, word)
    return found


def _read_value(text: str, word: str) -> object:
    if _INTEGER.fullmatch(text):
        return int(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if not text.startswith(("{", "[", '"')):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ConfigError(f"argument {word!r}: not JSON: {error}") from error


def _value(answer: Mapping[str, object], command: str, guest: str) -> object:
    if "error" not in answer:
        return answer.get("return")
    error = answer["error"]
    known = cast("dict[str, object]", error) if isinstance(error, dict) else {}
    text = f"guest {guest}: {command}: {one_line(str(known.get('desc', 'an error')))}"
    kind = one_line(str(known.get("class", "GenericError")))
    raise GuestRefused(text, error_class=kind)


@asynccontextmanager
async def _connected(
    make: Make,
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(make, theirs)
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=SHARED_LINE)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_PIECE)
    except ConnectionError:
        return b""


async def _feed(writer: asyncio.StreamWriter, source: int) -> None:
    with suppress(ConnectionError):
        while content := await _apart(partial(os.read, source, _PIECE)):
            writer.write(content)
            await writer.drain()
        writer.write_eof()


async def _apart(work: Callable[[], T]) -> T:
    """Run what may block for ever in a thread that the end of the program does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("T", result))

    def run() -> None:
        result, problem = None, None
        try:
            result = work()
        except OSError as error:
            problem = error
        with suppress(RuntimeError):  # the loop is closed: the program ends
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True).start()
    return await future


def _write_all(sink: int, content: bytes) -> None:
    while content:
        content = content[os.write(sink, content) :]
