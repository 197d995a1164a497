"""One QMP session with one guest: the only user of qemu.qmp.

Rules of this file:
    Every wait for QEMU has a deadline. Every failure is a GuestUnreachable with one of the words of
    `qmpmem.wire.errors`, or a GuestRefused where QEMU answered "no". Nothing is logged.
    A command that ran into its deadline may still be carried out: read again, never assume.

Theory of operation:
    qemu.qmp does what it is good at: the reader task, the run states, matching answers to commands
    by id, and taking a session apart. `_Client` replaces its receiving half, which trusts the peer:
    lines of 10 MiB, json.loads, events kept for ever, log lines with their whole content. It also
    replaces its writer task, which waits in a queue of 3 KiB for one short request at a time.
    Greeting and negotiation are ours (await_greeting and negotiate off), so that they run like
    everything else: one way in, and one deadline. A stray event before the greeting, which QEMU 7.2
    sends now and then to a client that comes back, does no harm.

    One in-band command is in flight at a time. When its answer does not come, QEMU may be dead,
    stopped or at work. The monitor's own thread answers an out-of-band command even while the main
    loop is blocked (docs/interop/qmp-spec, "Out-of-band execution"), so that tells busy from dead.
    Until the lost answer arrives no other command is sent: it would only queue up behind it. So
    at most two requests ever lie in a stopped QEMU's socket, which takes 132 kB and then blocks.

    Requests are short: QEMU reads them one byte per system call, some 5 us each.
"""

import asyncio
import base64
import logging
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, Protocol, cast

from qemu.qmp import ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.units import PAGE
from qmpmem.wire import addresses, limits, sock_diag, unix_socket
from qmpmem.wire.errors import REASONS, SENT, Reason, one_line, unreachable
from qmpmem.wire.events import Event
from qmpmem.wire.limits import Deadlines, MalformedError
from qmpmem.wire.messages import Arguments, check_request, read_greeting
from qmpmem.wire.receiver import Receiver, Statistics
from qmpmem.wire.unix_socket import Peer, peer_of

__all__ = ["REASONS", "Deadlines", "Event", "Peer", "Reason", "Session", "Statistics", "connect"]

PROBE: Final = "x"
"""A command that no QEMU has. Out of band, the monitor's own thread answers "CommandNotFound" at
once: that is as good an answer as any, and unlike migrate-pause or yank it can do no harm."""

GRACE: Final = 0.5
"""Seconds without a greeting after which another client that is attached counts as holding the
monitor. A free QEMU greets within 1 ms, and `qmpmem list` holds each monitor for some 100 ms."""

TURN: Final = 16 * 1024
"""Bytes that are handled, in at most about 1 ms, before the event loop gets its turn: the reader of
a full buffer never waits, so it would keep the loop to itself."""

SHARED_LINE: Final = 10 << 20
"""Most bytes of an answer to a client that shares a session. query-qmp-schema has 207 KB in QEMU
7.2; qemu.qmp and libvirt (QEMU_MONITOR_MAX_RESPONSE) take as much as this."""

SEAM: Final = (
    # Overridden, because the original trusts the peer, logs whole messages or keeps too much:
    "_establish_session",  # starts our reader alone; the original also starts a writer task
    "_issue",  # as the original, without a log line; forgets the id when sending fails
    "_bh_recv_message",  # one line, judged by `Receiver`
    "_execute",  # as the original, and keeps the id of an answer that is no longer waited for
    "_do_send",  # leaves to be read what a QEMU that has gone said before
    "_bh_flush_writer",  # the connection was cut, so there is nothing to flush
    "_get_exec_id",  # shorter ids, which are not those of the client before
    "_cb_outbound",  # the original formats every message for a debug log
    "_readline",  # raises ValueError for a line over the limit; some may be longer than others
    # Called:
    "_do_connect",  # takes a connected socket
    "_bh_loop_forever",  # runs the reader until it raises
    "_set_state",  # to RUNNING, when the reader has begun
    "_send",  # writes to the socket; here without the original's queue
    # Set or read:
    "_listeners",  # events take another way
    "_runstate_changed",  # one event for all clients, for which nothing waits
    "_reader",  # to read what is longer than its own limit
    "_writer",  # to abort its transport, and to write what another client of a shared session asks
    "_pending",  # answers by id
    "_reader_task",
    "_bh_tasks",  # what disconnect() waits for
    "_execute_id",
)
"""What this module uses of qemu.qmp's private parts (qemu/qmp/protocol.py and qmp_client.py of
0.0.6). tests/unit/test_seams.py checks that this is all of it, and that those parts are
unchanged."""

_SILENT: Final = logging.getLogger("qmpmem.wire.silent")
"""Where qemu.qmp's log lines end: it logs what it also raises, and whole messages at DEBUG."""
_SILENT.disabled = True

_NOBODY: Final = asyncio.Event()
"""The event that all clients set when their run state changes: nothing waits for it here."""


class Tap(Protocol):
    """A second user of a session: it has commands of its own, and gets what QEMU sends unasked."""

    @property
    def is_awaiting(self) -> bool:
        """Tell whether it waits for an answer, which may be as long as `SHARED_LINE`."""
        ...

    def take_answer(self, line: bytes) -> bool:
        """Take in a line if it answers a command of this user; tell whether it does."""
        ...

    def take_event(self, line: bytes) -> None:
        """Take in a line that was checked, and is no answer to a command of the session itself."""
        ...

    def end(self) -> None:
        """Learn that the session has ended."""
        ...


class Session:
    """An open session. Commands of several tasks take turns; no deadline runs while one waits.

    Attributes:
        guest: the guest's id, for messages.
        peer: the process that listens on the socket.
        version: QEMU's major, minor and micro version. Probe for features; never compare this.
    """

    grain: int = PAGE
    lacks: str | None = None

    def __init__(self, client: "_Client", guest: str, peer: Peer, deadlines: Deadlines) -> None:
        self.guest = guest
        self.peer = peer
        self.version = (0, 0, 0)
        self._client = client
        self._receiver = client.receiver
        self._deadlines = deadlines
        self._turn = asyncio.Lock()
        self._probing = asyncio.Lock()
        self._oob = False
        self._is_next = False

    @property
    def statistics(self) -> Statistics:
        """Return what went wrong so far and did not end the session."""
        return self._receiver.statistics

    async def query(self, command: str, arguments: Arguments | None = None) -> object:
        """Run a command that changes nothing, and return what QEMU returns.

        Raises:
            GuestRefused: QEMU answered with an error.
            GuestUnreachable: there is no answer (busy, timeout), or no session any more.
        """
        return await self._run(command, arguments, self._deadlines.query)

    async def change(self, command: str, arguments: Arguments | None = None) -> object:
        """Run a command that changes something, and return what QEMU returns.

        Raises:
            GuestRefused: QEMU answered with an error.
            GuestUnreachable: as `query`. The change may still happen, now or later.
        """
        return await self._run(command, arguments, self._deadlines.change)

    @property
    def can_prove(self) -> bool:
        """Tell whether QEMU can show at any time that it is not stopped."""
        return self._oob

    async def prove(self) -> None:
        """Have QEMU show that it is neither stopped nor hung; it may be at work for long.

        The deadline is what a query has in all.

        Raises:
            GuestUnreachable: it does not answer, or there is no session any more.
        """
        limit = self._deadlines.query + self._deadlines.probe
        try:
            async with asyncio.timeout(limit):
                await self._probe()
        except TimeoutError as error:
            text = f"no answer to a probe in {limit:g} s: stopped or hung"
            raise unreachable(self.guest, "timeout", text) from error
        except QMPError as error:
            raise self._over(error) from error

    async def events(self) -> AsyncIterator[Event]:
        """Yield events as they come, those before this call included. Each goes to one reader.

        Raises:
            GuestUnreachable: the session ended.
        """
        while True:
            await self._receiver.until(lambda: len(self._receiver.events) > 0)
            yield self._receiver.events.take()

    @property
    def greeting(self) -> object:
        """Return what QEMU told of itself: the value of ``QMP`` in its greeting."""
        return self._receiver.greeting.get("QMP")

    def over(self) -> GuestUnreachable:
        """Return the error that tells why the session is over."""
        return self._receiver.over()

    def share(self, tap: Tap) -> None:
        """Let a second user use the session as well, until its end; there can be only one."""
        self._client.tap = tap

    def write(self, line: bytes) -> None:
        """Send a request of the session's second user: one line as QEMU reads it, with its end.

        Its id must be none of the session's own, which are strings. The session takes no turns with
        that user: at most one request may be unanswered, so that QEMU reads on.
        """
        self._client.write(line)

    def listen(self, hear: Callable[[], None]) -> None:
        """Have a function called whenever events may have come, and when the session has ended.

        This serves an agent that watches thousands: for each a task that waits would cost 3 KiB.
        """
        self._receiver.hear = hear

    def take_events(self) -> Iterator[Event]:
        """Yield the events that wait, as `events` would."""
        while self._receiver.events:
            yield self._receiver.events.take()

    async def shake_hands(self, connection: socket.socket, path: str) -> None:
        """Take a connection over, wait for the greeting and negotiate. Part of `connect`."""
        own = os.fstat(connection.fileno()).st_ino
        limit = self._deadlines.handshake
        try:
            async with asyncio.timeout(limit) as deadline:
                await self._client.take_over(connection)
                await self._await_greeting(path, own, deadline)
                enable: dict[str, object] = {"enable": ["oob"]} if self._oob else {}
                await self._client.execute("qmp_capabilities", enable)
        except TimeoutError as error:
            if not self._receiver.greeting:  # QEMU may have come to serve another client only now
                await self._check_free(path, own)
            raise self._no_handshake(path, limit) from error
        except QMPError as error:
            raise self._over(error) from error

    def _no_handshake(self, path: str, limit: float) -> GuestUnreachable:
        """Return the error that tells how far QEMU came.

        Where it speaks OOB, the monitor's own thread greets. The main loop, which has to agree to
        the capabilities, may be blocked all the while.
        """
        if not self._receiver.greeting and self._is_next:
            return _at_work(path, self.guest)
        if not self._receiver.greeting:
            text = f"{path}: connected, but no greeting in {limit:g} s: stopped or hung"
            return unreachable(self.guest, "handshake-timeout", text)
        text = f"{path}: a greeting, but no answer to the negotiation in {limit:g} s"
        return unreachable(self.guest, "busy" if self._oob else "handshake-timeout", text)

    async def _await_greeting(self, path: str, own: int, deadline: asyncio.Timeout) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(GRACE, self._deadlines.handshake / 2)):
                await self._receiver.until(lambda: bool(self._receiver.greeting))
        if not self._receiver.greeting:
            with _stopped(deadline):
                await self._check_free(path, own)
        await self._receiver.until(lambda: bool(self._receiver.greeting))
        try:
            version, self._oob = read_greeting(self._receiver.greeting)
        except MalformedError as error:
            raise unreachable(self.guest, "protocol", str(error)) from error
        self.version = (version.major, version.minor, version.micro)

    async def _check_free(self, path: str, own: int) -> None:
        held = await addresses.find_holder(path, besides=own)
        self._is_next = held is not None and held.leaves
        if held is not None and not held.leaves:
            raise sock_diag.taken(path, self.guest, held)

    async def _run(self, command: str, arguments: Arguments | None, deadline: float) -> object:
        try:
            check_request(command, arguments)
        except MalformedError as error:
            raise unreachable(self.guest, "protocol", str(error)) from error
        async with self._turn:
            sent = False
            try:
                async with asyncio.timeout(deadline):
                    await self._receiver.until(self._may_send)
                    sent = True
                    return await self._client.execute(command, arguments)
            except TimeoutError as error:
                raise await self._silence(command, deadline, sent=sent) from error
            except ExecuteError as error:
                raise _refusal(self.guest, command, error) from error
            except QMPError as error:
                raise self._over(error) from error

    def _may_send(self) -> bool:
        """Tell whether no unanswered command would hold up the next one; a probe does not."""
        return all(command == PROBE for command in self._receiver.lost.values())

    async def _silence(self, command: str, deadline: float, *, sent: bool) -> GuestUnreachable:
        """Find out what a missing answer means."""
        text = f"no answer to {command} in {deadline:g} s"
        if not self._oob:
            return unreachable(self.guest, "timeout", text)
        try:
            async with asyncio.timeout(self._deadlines.probe):
                await self._probe()
        except TimeoutError:
            return unreachable(self.guest, "timeout", f"{text}, nor to a probe: stopped or hung")
        except GuestUnreachable as error:
            return error
        except QMPError as error:
            return self._over(error)
        text = f"{text}, but QEMU is alive and at work"
        return unreachable(self.guest, "busy", text, hint=SENT if sent else None)

    async def _probe(self) -> None:
        lost = self._receiver.lost
        async with self._probing:
            if PROBE in lost.values():
                await self._receiver.until(lambda: PROBE not in lost.values())
                return
            with suppress(ExecuteError):
                await self._client.execute(PROBE, oob=True)

    def _over(self, error: QMPError) -> GuestUnreachable:
        if not isinstance(error, ExecInterruptedError):
            self._client.cut("protocol", one_line(str(error).partition("\n")[0]))
        return self._receiver.over()


@asynccontextmanager
async def connect(
    path: str,
    *,
    guest: str,
    expect_pid: int | None = None,
    deadlines: Deadlines | None = None,
    serves_many: bool = False,
) -> AsyncGenerator[Session]:
    """Open a session with the QEMU behind a socket; leaving the context always closes it.

    Args:
        path: the socket, by an address of `qmpmem.wire.addresses`.
        guest: the guest's id, for messages.
        expect_pid: the process that must be listening there (unix(7): SO_PEERCRED), if known.
        deadlines: how long to wait; the defaults of `Deadlines` if not given.
        serves_many: whether a broker listens there. Where its backlog is full, there is room soon;
            at QEMU's own, there is none before other clients have left.

    Raises:
        GuestUnreachable: on entering the context.
    """
    deadlines = deadlines or Deadlines()
    patience = deadlines.handshake if serves_many else 0.0
    try:
        connection, found = await addresses.connected(path, guest, expect_pid, patience)
    except BlockingIOError as error:
        raise _none_served(path, guest) if serves_many else await no_room(path, guest) from error
    with connection:
        context = session_over(connection, path, guest, deadlines, found)
        async with context as session:
            yield session


@asynccontextmanager
async def session_over(
    connection: socket.socket,
    path: str,
    guest: str,
    deadlines: Deadlines,
    found: Peer | None = None,
) -> AsyncGenerator[Session]:
    """Open a session over a socket that is connected already, and close both in the end.

    Raises:
        GuestUnreachable: on entering the context.
    """
    client = _Client(guest)
    session = Session(client, guest, found or peer_of(connection), deadlines)
    try:
        await session.shake_hands(connection, path)
        yield session
    finally:
        await client.close()


class _Client(QMPClient):
    """qemu.qmp's client, with a receiving half that does not trust the peer.

    `SEAM` lists what of qemu.qmp it overrides and reads.
    """

    def __init__(self, guest: str) -> None:
        super().__init__(readbuflen=limits.LINE)
        self._listeners.clear()  # events take our way, and its queue is 3 KiB
        del self.events
        self.logger = _SILENT
        self.await_greeting = False
        self.negotiate = False
        self._clock = asyncio.get_running_loop().time
        self._handled = 0
        self._runstate_changed = _NOBODY
        # QEMU now and then sends a late answer to the next client, so ids must differ between them.
        self._token = base64.b64encode(os.urandom(2)).decode()[:2]
        self.receiver = Receiver(guest, self._clock())
        self._answered = ""
        """The id of the request whose answer came last."""
        self.tap: Tap | None = None

    async def take_over(self, connection: socket.socket) -> None:
        """Start reader and writer on a connected socket, which is closed with the session.

        This replaces `connect`, which in the end asserts that the session runs: a peer that closes
        at once has ended it by then.
        """
        await self._do_connect(connection)
        await self._establish_session()

    def cut(self, reason: Reason, text: str) -> None:
        """End the session at once, and note why.

        Aborting drops what QEMU has not read. Closing in order would wait until QEMU has read it,
        and a stopped QEMU reads nothing.
        """
        self.receiver.end(reason, text)
        if self.tap is not None:
            self.tap.end()
        if self._writer is not None:
            self._writer.transport.abort()

    def write(self, line: bytes) -> None:
        """Send bytes to QEMU; after the end of the session, do nothing."""
        if self._writer is not None and self.receiver.ended is None:
            unix_socket.send(self._writer.transport, line)

    async def close(self) -> None:
        """Close the session, to the end even when cancelled: nothing in it waits for QEMU."""
        self.cut("closed", "the session was closed")
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

    async def _establish_session(self) -> None:
        self._pending = {}
        reader = self._bh_loop_forever(self._bh_recv_message, "Reader")
        self._reader_task = asyncio.create_task(reader)
        self._bh_tasks = cast("asyncio.Future[tuple[None, None]]", self._reader_task)
        self._set_state(Runstate.RUNNING)
        await asyncio.sleep(0)

    async def _issue(self, msg: Message) -> str:
        identity = str(msg["id"])
        self._pending[identity] = asyncio.Queue(maxsize=1)
        try:
            await self._send(msg)
        except BaseException:
            del self._pending[identity]
            raise
        return identity

    async def _bh_recv_message(self) -> None:
        """Read one line, and take it where it belongs. Only EOFError ends this."""
        try:
            line = await self._readline()
            self._route(line)
        except EOFError:
            self.cut("closed", "QEMU closed the connection")
            raise
        except OSError as error:
            self.cut("closed", f"the connection broke: {error.strerror or error}")
            raise EOFError from error
        except MalformedError as error:
            self.cut(error.reason, str(error))
            raise EOFError from error
        self._handled += len(line) + limits.FLOOD_LINE
        if self._handled > TURN:
            self._handled = 0
            await asyncio.sleep(0)

    def _route(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            raise EOFError
        if self.tap is not None and self.tap.take_answer(line):
            return
        waiting = {name for name, queue in self._pending.items() if name and queue.empty()}
        answer = self.receiver.take(line, self._clock(), waiting)
        if answer is not None:
            self._answered = answer[0]
            self._pending[answer[0]].put_nowait(Message(answer[1], eager=False))
        elif self.tap is not None:
            self.tap.take_event(line)

    async def _readline(self) -> bytes:
        """Read a line, which may be longer where the session's second user waits for it.

        A line that is over the reader's limit stays in its buffer (asyncio: readuntil), so its
        pieces are taken one by one. The second user may begin to wait while this waits.
        """
        reader = self._reader
        if reader is None:
            raise EOFError
        pieces: list[bytes] = []
        while True:
            try:
                pieces.append(await reader.readuntil(b"\n"))
                return b"".join(pieces)
            except asyncio.IncompleteReadError as error:
                raise EOFError from error
            except asyncio.LimitOverrunError as error:
                pieces.append(await reader.readexactly(error.consumed))
            is_awaiting = self.tap is not None and self.tap.is_awaiting
            most = SHARED_LINE if is_awaiting else limits.LINE
            if sum(map(len, pieces)) > most:
                raise MalformedError(f"a line of over {most} bytes")

    async def _execute(self, msg: Message, assign_id: bool = True) -> Message:  # noqa: FBT001, FBT002 - the signature is qemu.qmp's
        try:
            return await super()._execute(msg, assign_id)
        except asyncio.CancelledError:
            # After a pause of our own, the answer comes in the same turn of the loop as the
            # deadline. A task that waited for it as for a lost one would wait for ever.
            if str(msg["id"]) != self._answered:
                command = msg.get("execute") or msg.get("exec-oob")
                self.receiver.lost[str(msg["id"])] = str(command)
            raise

    def _do_send(self, msg: Message) -> None:
        self.write(bytes(msg))

    async def _bh_flush_writer(self) -> None:
        """Flush nothing: the connection was cut. To wait for it would raise, or wait for ever."""

    def _get_exec_id(self) -> str:
        self._execute_id += 1
        return f"{self._token}{self._execute_id:x}"

    def _cb_outbound(self, msg: Message) -> Message:
        return msg  # the original formats every message for a debug log


async def no_room(path: str, guest: str) -> GuestUnreachable:
    """Return the error that tells why a backlog is full: QEMU serves one client long, or none."""
    try:
        held = await asyncio.to_thread(sock_diag.holder, path)
    except OSError:
        return unreachable(guest, "taken", f"{path}: others hold the monitor and wait for it")
    if held is not None and held.leaves:
        return _at_work(path, guest)
    if held is not None:
        return sock_diag.taken(path, guest, held)
    return _none_served(path, guest)


def _none_served(path: str, guest: str) -> GuestUnreachable:
    text = f"{path}: clients wait, and none is served: stopped or hung"
    return unreachable(guest, "handshake-timeout", text)


@contextmanager
def _stopped(deadline: asyncio.Timeout) -> Generator[None]:
    """Stop a deadline meanwhile: time that we take ourselves is not QEMU's."""
    clock = asyncio.get_running_loop().time
    end, began = deadline.when(), clock()
    deadline.reschedule(None)
    try:
        yield
    finally:
        deadline.reschedule(None if end is None else end + clock() - began)


def _at_work(path: str, guest: str) -> GuestUnreachable:
    """Return the error for a QEMU that still works on the request of a client that has left.

    QEMU starts like that where its launcher asked for a size (launchers/kvm_current.py).
    """
    text = f"{path}: no greeting yet: QEMU is starting, or works on another client's last request"
    return unreachable(guest, "busy", text)


def _refusal(guest: str, command: str, error: ExecuteError) -> GuestRefused:
    text = f"guest {guest}: {command}: {one_line(str(error))}"
    return GuestRefused(text, error_class=one_line(error.error_class))
