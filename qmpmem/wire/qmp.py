"""One QMP session with one guest: the only user of qemu.qmp.

Rules of this file:
    Every wait for QEMU has a deadline. Every failure is a GuestUnreachable with one of the words of
    `qmpmem.wire.reasons`, or a GuestRefused where QEMU answered "no". Nothing is logged.
    A command that ran into its deadline may still be carried out: read again, never assume.

Theory of operation:
    qemu.qmp keeps what it is good at: the reader and writer tasks, the run states, matching answers
    to commands by id, and taking a session apart. `_Client` replaces its receiving half, which
    trusts the peer: lines of 10 MiB, json.loads, events kept for ever, log lines with their whole
    content. It also leaves greeting and negotiation to us (await_greeting and negotiate off), so
    that they run like everything else: one way in, one deadline, and a stray event before the
    greeting, which QEMU 7.2 sends now and then to a client that comes back, does no harm.

    One in-band command is in flight at a time. When its answer stays out, QEMU may be dead, stopped
    or at work; an out-of-band command is answered by the monitor's own thread even while the main
    loop is blocked (docs/interop/qmp-spec, "Out-of-band execution"), so it tells busy from dead.
    Until the lost answer arrives no other command is sent: it would only queue up behind it. So
    at most two requests ever lie in a stopped QEMU's socket, whose 132 kB we could fill otherwise.

    Requests are short: QEMU reads them one byte per system call, some 5 us each.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import msgspec
from qemu.qmp import ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.records import Record
from qmpmem.wire import limits, peer
from qmpmem.wire.events import Event, EventQueue
from qmpmem.wire.limits import MalformedError
from qmpmem.wire.peer import Peer
from qmpmem.wire.reasons import REASONS, Reason, one_line, unreachable

__all__ = ["REASONS", "Deadlines", "Event", "Peer", "Reason", "Session", "Statistics", "connect"]

Arguments = Mapping[str, int | bool | str]

PROBE: Final = "x"
"""A command that no QEMU has. Out of band, "CommandNotFound" comes from the monitor's own thread
at once: as good an answer as any, and unlike migrate-pause or yank it can do no harm."""

TURN: Final = 64
"""Lines handled before the event loop gets its turn, about 0.5 ms: the reader of a full buffer
never waits, so it would keep the loop to itself."""

_SILENT: Final = logging.getLogger("qmpmem.wire.silent")
_SILENT.disabled = True
"""Where qemu.qmp's log lines end: it logs what it also raises, and whole messages at DEBUG."""


class Deadlines(Record, frozen=True):
    """How long QEMU may take, in seconds. An idle one answers within 1 ms, a starved one in 1 s."""

    handshake: float = 5.0
    """From the connection to the end of the negotiation, all of it."""
    query: float = 3.0
    change: float = 5.0
    """For commands that change something: device_add on a loaded host takes its time."""
    probe: float = 1.0
    """For the out-of-band probe, sent after one of the above has passed."""


class Statistics(Record, frozen=True):
    """What went wrong in a session and was survived."""

    late: int
    """Answers that came after their deadline."""
    stray: int
    """Answers to nothing we asked, second answers, and other lines without meaning."""
    dropped_events: int
    """Events that came too fast, or waited too long for a reader."""
    malformed_events: int


class Session:
    """An open session. Commands of several tasks take turns; waiting for one's turn is no time-out.

    Attributes:
        guest: the guest's id, for messages.
        peer: the process that listens on the socket.
        version: QEMU's major, minor and micro version. Probe for features; never compare this.
    """

    def __init__(self, client: "_Client", guest: str, peer: Peer, deadlines: Deadlines) -> None:
        self.guest = guest
        self.peer = peer
        self.version = (0, 0, 0)
        self._client = client
        self._deadlines = deadlines
        self._turn = asyncio.Lock()
        self._oob = False

    @property
    def statistics(self) -> Statistics:
        """What went wrong so far and was survived."""
        client = self._client
        return Statistics(
            late=client.late,
            stray=client.stray,
            dropped_events=client.inbox.dropped,
            malformed_events=client.inbox.malformed,
        )

    async def query(self, command: str, arguments: Arguments | None = None) -> object:
        """Run a command that changes nothing, and return what QEMU returns.

        Raises:
            GuestRefused: QEMU answered with an error.
            GuestUnreachable: no answer (busy, timeout), or no session any more.
        """
        return await self._run(command, arguments, self._deadlines.query)

    async def change(self, command: str, arguments: Arguments | None = None) -> object:
        """Run a command that changes something, and return what QEMU returns.

        Raises:
            GuestRefused: QEMU answered with an error.
            GuestUnreachable: as `query`. The change may still happen, now or later.
        """
        return await self._run(command, arguments, self._deadlines.change)

    async def events(self) -> AsyncIterator[Event]:
        """Yield events as they come, those before this call included. One reader gets each.

        Raises:
            GuestUnreachable: the session ended.
        """
        while True:
            await self._client.until(lambda: len(self._client.inbox) > 0)
            event = self._client.inbox.take()
            if event is None:
                raise self._over()
            yield event

    async def shake_hands(self) -> None:
        """Wait for the greeting and negotiate. Part of `connect`."""
        greeting = await self._client.greeted()
        if greeting is None:
            raise self._over()
        self.version, self._oob = _read_greeting(self.guest, greeting)
        try:
            await self._client.execute(
                "qmp_capabilities", {"enable": ["oob"]} if self._oob else None
            )
        except ExecuteError as error:
            text = f"no negotiation: {one_line(str(error))}"
            raise unreachable(self.guest, "protocol", text) from error
        except QMPError as error:
            raise self._over(error) from error

    async def _run(self, command: str, arguments: Arguments | None, deadline: float) -> object:
        _check_request(self.guest, command, arguments)
        async with self._turn:
            try:
                async with asyncio.timeout(deadline):
                    await self._client.until(lambda: not self._client.lost)
                    return await self._client.execute(command, arguments)
            except TimeoutError as error:
                raise await self._silence(command, deadline) from error
            except ExecuteError as error:
                raise _refusal(self.guest, command, error) from error
            except QMPError as error:
                raise self._over(error) from error

    async def _silence(self, command: str, deadline: float) -> GuestUnreachable:
        """Find out what a missing answer means."""
        text = f"no answer to {command} in {deadline:g} s"
        if not self._oob:
            return unreachable(self.guest, "timeout", text)
        try:
            async with asyncio.timeout(self._deadlines.probe):
                await self._probe()
        except TimeoutError:
            return unreachable(self.guest, "timeout", f"{text}, nor to a probe: stopped or hung")
        except QMPError as error:
            return self._over(error)
        return unreachable(self.guest, "busy", f"{text}, but QEMU is alive and at work")

    async def _probe(self) -> None:
        if PROBE in self._client.lost.values():
            await self._client.until(lambda: PROBE not in self._client.lost.values())
            return
        with suppress(ExecuteError):
            await self._client.execute(PROBE, oob=True)

    def _over(self, error: QMPError | None = None) -> GuestUnreachable:
        if error is not None and not isinstance(error, ExecInterruptedError):
            self._client.end("protocol", one_line(str(error)))
        end = self._client.ended or _End("closed", "the session is over")
        return unreachable(self.guest, end.reason, end.text)


@asynccontextmanager
async def connect(
    path: str, *, guest: str, expect_pid: int | None = None, deadlines: Deadlines | None = None
) -> AsyncGenerator[Session]:
    """Open a session with the QEMU behind a unix socket; leaving the context closes it, always.

    Args:
        path: the socket.
        guest: the guest's id, for messages.
        expect_pid: the process that must be listening there (unix(7): SO_PEERCRED), if known.
        deadlines: how long to wait; the defaults of `Deadlines` if not given.

    Raises:
        GuestUnreachable: on entering the context.
    """
    deadlines = deadlines or Deadlines()
    connection = peer.open_socket(path, guest)
    client = _Client()
    try:
        listener = peer.peer_of(connection)
        if expect_pid not in (None, listener.pid):
            text = f"{path}: process {listener.pid} listens there, expected {expect_pid}"
            raise unreachable(guest, "wrong-peer", text)
        session = Session(client, guest, listener, deadlines)
        try:
            async with asyncio.timeout(deadlines.handshake):
                await client.connect(connection)
                await session.shake_hands()
        except TimeoutError as error:
            text = f"{path}: connected, but no greeting in {deadlines.handshake:g} s"
            raise unreachable(guest, "handshake-timeout", text) from error
        yield session
    finally:
        await client.close()
        connection.close()


class _End(NamedTuple):
    reason: Reason
    text: str


class _Number(Record, frozen=True):
    major: int
    minor: int
    micro: int


class _Version(Record, frozen=True):
    qemu: _Number


class _Qmp(Record, frozen=True):
    version: _Version
    capabilities: list[object]


class _Greeting(Record, frozen=True):
    """What QEMU says first (docs/interop/qmp-spec, "Server Greeting")."""

    greeting: _Qmp = msgspec.field(name="QMP")


class _Client(QMPClient):
    """qemu.qmp's client with a receiving half that trusts nobody."""

    def __init__(self) -> None:
        super().__init__(readbuflen=limits.LINE)
        self.logger = _SILENT
        self.await_greeting = False
        self.negotiate = False
        self._clock = asyncio.get_running_loop().time
        self.inbox = EventQueue(self._clock())
        self.lost: dict[str, str] = {}
        """Commands that nobody waits for any more, by id; their answers are still out."""
        self.ended: _End | None = None
        self.late = 0
        self.stray = 0
        self._flood = limits.FloodGauge(
            self._clock(), burst=limits.FLOOD_BURST, rate=limits.FLOOD_RATE
        )
        self._hello: Mapping[str, object] | None = None
        self._news = asyncio.Event()
        self._lines = 0

    async def greeted(self) -> Mapping[str, object] | None:
        """Wait for the greeting; None where the session ended before it."""
        await self.until(lambda: self._hello is not None)
        return self._hello

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, or the session ended."""
        while not condition() and self.ended is None:
            await self._news.wait()

    def end(self, reason: Reason, text: str) -> None:
        """Say why the session is over (the first reason counts) and cut the connection.

        Aborting drops what QEMU did not read; closing in order would wait for it, and a stopped
        QEMU reads nothing.
        """
        self.ended = self.ended or _End(reason, text)
        if self._writer is not None:
            self._writer.transport.abort()
        self._tell()

    async def close(self) -> None:
        """Take the session apart. Does so to the end even when cancelled: it takes no time."""
        self.end("closed", "the session was closed")
        if self.runstate is Runstate.IDLE:
            return
        closing = asyncio.ensure_future(self.disconnect())
        cancelled = False
        while not closing.done():
            try:
                await asyncio.wait((closing,))
            except asyncio.CancelledError:
                cancelled = True
        with suppress(EOFError):
            closing.result()
        if cancelled:
            raise asyncio.CancelledError

    # What follows overrides qemu.qmp's own (qemu/qmp/protocol.py and qmp_client.py, 0.0.6).

    async def _bh_recv_message(self) -> None:
        """Read one line and take it where it belongs. EOFError is the only way this ends."""
        try:
            line = await self._readline()
        except EOFError:
            self.end("closed", "QEMU closed the connection")
            raise
        except ValueError as error:  # StreamReader's word for a line over its limit
            self.end("protocol", f"a line of over {limits.LINE} bytes")
            raise EOFError from error
        except OSError as error:
            self.end("closed", f"the connection broke: {error.strerror}")
            raise EOFError from error
        if not line.endswith(b"\n"):
            self.end("closed", "QEMU closed the connection")
            raise EOFError
        try:
            self._route(line)
        except MalformedError as error:
            self.end("protocol", str(error))
            raise EOFError from error
        self._lines += 1
        if self._lines % TURN == 0:
            await asyncio.sleep(0)

    def _route(self, line: bytes) -> None:
        message = limits.parse_line(line)
        if self._is_answer(message):
            return
        now = self._clock()
        if not self._flood.take(len(line) + limits.FLOOD_LINE, now):
            self.end("flood", "more unasked lines than any QEMU sends")
            raise EOFError
        if "event" in message:
            self.inbox.offer(message, len(line), now)
        elif "QMP" in message and self._hello is None:
            self._hello = message
        elif "error" in message and "id" not in message:
            # qmp-spec, "Error": an error without an id is QEMU not understanding a request.
            raise MalformedError("QEMU did not understand a request")
        else:
            self.stray += 1
            return
        self._tell()

    def _is_answer(self, message: dict[str, object]) -> bool:
        identity = message.get("id")
        if not isinstance(identity, str) or "event" in message:
            return False
        waiting = self._pending.get(identity)
        if waiting is not None and waiting.empty():
            waiting.put_nowait(Message(message, eager=False))
            return True
        if identity in self.lost:
            del self.lost[identity]
            self.late += 1
            self._tell()
            return True
        return False

    async def _execute(self, msg: Message, assign_id: bool = True) -> Message:  # noqa: FBT001, FBT002 - the signature is qemu.qmp's
        try:
            return await super()._execute(msg, assign_id)
        except asyncio.CancelledError:
            self.lost[str(msg["id"])] = str(msg.get("execute") or msg.get("exec-oob"))
            raise

    async def _bh_loop_forever(self, async_fn: Callable[[], object], name: str) -> None:
        try:
            await super()._bh_loop_forever(async_fn, name)  # type: ignore[arg-type]
        finally:
            self.end("closed", "the session is over")

    def _get_exec_id(self) -> str:
        self._execute_id += 1
        return f"{self._execute_id:x}"

    def _cb_outbound(self, msg: Message) -> Message:
        return msg  # the original formats every message for a debug log

    def _tell(self) -> None:
        self._news.set()
        self._news.clear()


def _check_request(guest: str, command: str, arguments: Arguments | None) -> None:
    """Refuse what would break the session: QEMU answers half a request with an error without id."""
    size = len(command)
    for name, value in (arguments or {}).items():
        text = str(value)
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise unreachable(guest, "protocol", f"{command} {name}: not a text QEMU can read")
        size += len(name) + len(text)
    if size > limits.REQUEST:
        text = f"{command}: a request of over {limits.REQUEST} bytes"
        raise unreachable(guest, "protocol", text)


def _refusal(guest: str, command: str, error: ExecuteError) -> GuestRefused:
    text = f"guest {guest}: {command}: {one_line(str(error))}"
    return GuestRefused(text, error_class=one_line(error.error_class))


def _read_greeting(guest: str, message: Mapping[str, object]) -> tuple[tuple[int, int, int], bool]:
    try:
        greeting = msgspec.convert(message, _Greeting).greeting
    except msgspec.ValidationError as error:
        raise unreachable(guest, "protocol", f"a greeting that is not QEMU's: {error}") from error
    number = greeting.version.qemu
    return (number.major, number.minor, number.micro), "oob" in greeting.capabilities
