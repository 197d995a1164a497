"""QEMU's human monitor, as far as it can replace QMP: sizes, and no statistics.

Rules of this file:
    As in `qmpmem.wire.qmp`, every wait has a deadline, and every failure is a GuestUnreachable with
    a word of `qmpmem.wire.errors`, or a GuestRefused where QEMU answered "no".
    What comes is text for people. Each command has one pattern that all of its answer must match;
    anything else is no answer. The guest's size is the only part of it that a guest chooses.

Theory of operation:
    The monitor greets with a line and a prompt. It echoes each character and draws the line anew
    with it (QEMU: util/readline.c), so a command's echo grows by the square of its length: commands
    are short. The echo ends with the first line break, and the answer before the next prompt.
    Sizes are whole MiB here, in `balloon` and in `info balloon` (QEMU: hmp-commands.hx).

    A command is asked by its name in QMP and answered in its shape there, so that `wire.commands`
    works with both. A command without a counterpart is refused with CommandNotFound, as by an older
    QEMU.
"""

import asyncio
import os
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.units import MIB
from qmpmem.wire import addresses, sock_diag
from qmpmem.wire.errors import NO_STATISTICS, one_line, unreachable
from qmpmem.wire.events import Event
from qmpmem.wire.limits import Deadlines
from qmpmem.wire.messages import Arguments
from qmpmem.wire.receiver import Statistics
from qmpmem.wire.unix_socket import Peer

_PROMPT: Final = b"(qemu) "
_LIMIT: Final = 64 * 1024
"""Most bytes of an answer with its echo: the longest echo here has some 4 KiB."""

_STATUS: Final = re.compile(
    r"VM status: (?P<word>running|paused)(?: \(single step mode\))?"
    r"(?: \((?P<state>[a-z-]{1,32})\))?"
)
_BALLOON: Final = re.compile(r"balloon: actual=(\d{1,13})")
_MEMORY: Final = re.compile(r"base memory: (\d{1,20})(?:\nplugged memory: (\d{1,20}))?")
_KVM: Final = re.compile(r"kvm support: (enabled|disabled|not compiled)")
_ENTRY: Final = re.compile(r"([\w.\[\]-]{1,128}) \(([\w.<>\[\]:, -]{1,128})\)")
_OBJECT: Final = re.compile(r"/[\w./\[\]-]{1,200}")
_WORD: Final = re.compile(r"[\w-]{1,64}")
_NO_BALLOON: Final = re.compile(r"(?:Error: )?No balloon device has been activated")


class HumanSession:
    """A session with a human monitor. Commands of several tasks take turns.

    Attributes:
        guest: the guest's id, for messages.
        peer: the process that listens on the socket.
    """

    grain: int = MIB
    lacks: str | None = NO_STATISTICS

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, guest: str, peer: Peer
    ) -> None:
        self.guest = guest
        self.peer = peer
        self.deadlines = Deadlines()
        self.statistics = Statistics(late=0, stray=0, dropped_events=0, malformed_events=0)
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()
        self._is_over = False

    async def query(self, command: str, arguments: Arguments | None = None) -> object:
        """Run a command that changes nothing, by its name in QMP; as `qmp.Session.query`."""
        ask = _QUERIES.get(command)
        if ask is None:
            raise self._refusal("CommandNotFound", f"{command}: {NO_STATISTICS}")
        try:
            return ask(await self._run(_line(command, arguments or {}), self.deadlines.query))
        except _Odd as error:
            raise self._refusal(error.error_class, f"{command}: {one_line(error.text)}") from error

    async def change(self, command: str, arguments: Arguments | None = None) -> object:
        """Set the balloon, by its name in QMP; as `qmp.Session.change`."""
        value = (arguments or {}).get("value")
        if command != "balloon" or not isinstance(value, int):
            raise self._refusal("CommandNotFound", f"{command}: not over a human monitor")
        said = await self._run(f"balloon {value // MIB}", self.deadlines.change)
        if said:
            kind = "DeviceNotActive" if _NO_BALLOON.fullmatch(said) else "GenericError"
            raise self._refusal(kind, f"balloon: {one_line(said)}")
        return {}

    def events(self) -> AsyncIterator[Event]:
        """Refuse: there are no events.

        Raises:
            GuestRefused: always.
        """
        raise self._refusal("CommandNotFound", "no events over a human monitor")

    def listen(self, hear: Callable[[], None]) -> None:
        """Do nothing: there are no events."""

    def take_events(self) -> Iterator[Event]:
        """Return no events."""
        return iter(())

    async def greet(self, path: str, own: int) -> None:
        """Wait for the prompt; `own` is the inode of our socket. Part of `connect`."""
        try:
            async with asyncio.timeout(self.deadlines.handshake):
                greeting = await self._until_prompt()
        except TimeoutError as error:
            held = await addresses.find_holder(path, besides=own)
            if held is not None:
                raise sock_diag.taken(path, self.guest, held) from error
            text = f"{path}: connected, but no prompt in {self.deadlines.handshake:g} s"
            raise unreachable(self.guest, "handshake-timeout", text) from error
        if not greeting.startswith("QEMU "):
            raise unreachable(self.guest, "protocol", f"{path}: expected QEMU's human monitor")

    async def _run(self, line: str, deadline: float) -> str:
        """Return what QEMU answers to a line, without echo and prompt."""
        async with self._turn:
            if self._is_over:
                raise unreachable(self.guest, "closed", "the session ended")
            try:
                async with asyncio.timeout(deadline):
                    self._writer.write(f"{line}\n".encode())
                    said = await self._until_prompt()
            except TimeoutError as error:
                # Its answer would be taken for that to the next command.
                self._is_over = True
                text = f"no answer to {line} in {deadline:g} s: stopped, hung or busy"
                raise unreachable(self.guest, "timeout", text) from error
            except GuestUnreachable:
                self._is_over = True
                raise
        _, _, answer = said.partition("\n")
        return answer.strip("\n")

    async def _until_prompt(self) -> str:
        try:
            content = await self._reader.readuntil(_PROMPT)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise unreachable(self.guest, "closed", "the guest closed the connection") from error
        except asyncio.LimitOverrunError as error:
            text = "a longer answer than any of a human monitor"
            raise unreachable(self.guest, "protocol", text) from error
        text = content.removesuffix(_PROMPT).decode("ascii", "backslashreplace")
        return text.replace("\r\n", "\n")

    def _refusal(self, error_class: str, text: str) -> GuestRefused:
        return GuestRefused(f"guest {self.guest}: {text}", error_class=error_class)


class _Odd(Exception):  # noqa: N818 - becomes a refusal
    """An answer of another form than the command has when it works."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.error_class = "DeviceNotActive" if _NO_BALLOON.fullmatch(text) else "GenericError"


@asynccontextmanager
async def session_over(
    connection: socket.socket, path: str, peer: Peer, guest: str, deadlines: Deadlines
) -> AsyncGenerator[HumanSession]:
    """Open a session over a socket that is connected already, and close both in the end.

    Raises:
        GuestUnreachable: on entering the context.
    """
    own = os.fstat(connection.fileno()).st_ino
    reader, writer = await asyncio.open_connection(sock=connection, limit=_LIMIT)
    try:
        session = HumanSession(reader, writer, guest, peer)
        session.deadlines = deadlines
        await session.greet(path, own)
        yield session
    finally:
        # Aborting drops what QEMU has not read: a stopped QEMU reads nothing.
        writer.transport.abort()


def _line(command: str, arguments: Arguments) -> str:
    match command:
        case "qom-list" if _OBJECT.fullmatch(str(arguments.get("path"))):
            return f"qom-list {arguments['path']}"
        case "qom-get" if _OBJECT.fullmatch(str(arguments.get("path"))) and _WORD.fullmatch(
            str(arguments.get("property"))
        ):
            return f"qom-get {arguments['path']} {arguments['property']}"
        case _:
            return _LINES.get(command, "info version")


def _status(said: str) -> object:
    match = _match(_STATUS, said)
    return {"status": match["state"] or match["word"]}


def _balloon(said: str) -> object:
    return {"actual": int(_match(_BALLOON, said)[1]) * MIB}


def _memory(said: str) -> object:
    base, plugged = _match(_MEMORY, said).groups()
    return {"base-memory": int(base), "plugged-memory": int(plugged or 0)}


def _kvm(said: str) -> object:
    return {"enabled": _match(_KVM, said)[1] == "enabled"}


def _entries(said: str) -> object:
    entries = [_match(_ENTRY, line) for line in said.split("\n") if line]
    return [{"name": entry[1], "type": entry[2]} for entry in entries]


def _value(said: str) -> object:
    try:
        value = msgspec.json.decode(said.encode())
    except msgspec.DecodeError as error:
        raise _Odd(said) from error
    if not isinstance(value, bool | int | str):  # a report is longer than this file accepts
        raise _Odd(NO_STATISTICS)
    return value


def _match(pattern: re.Pattern[str], said: str) -> re.Match[str]:
    match = pattern.fullmatch(said)
    if match is None:
        raise _Odd(said)
    return match


_LINES: Final = {
    "query-status": "info status",
    "query-balloon": "info balloon",
    "query-memory-size-summary": "info memory_size_summary",
    "query-kvm": "info kvm",
}
_QUERIES: Final[dict[str, Callable[[str], object]]] = {
    "query-status": _status,
    "query-balloon": _balloon,
    "query-memory-size-summary": _memory,
    "query-kvm": _kvm,
    "qom-list": _entries,
    "qom-get": _value,
}
