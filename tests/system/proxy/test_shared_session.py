"""A session that is shared, with a server in QEMU's place that says what a test needs."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from qmpmem.agent.session_lending import SessionLending
from qmpmem.errors import GuestUnreachable
from qmpmem.proxy import client_connection, shared_session
from qmpmem.proxy.client import QUEUE, Client
from qmpmem.proxy.client_connection import DROPPED, LAST_WORDS, Connection
from qmpmem.proxy.fair_share import FairShare
from qmpmem.proxy.framing import Framer
from qmpmem.proxy.multiplexer import TURN
from qmpmem.proxy.shared_session import AT_ONCE, SharedSession
from qmpmem.wire import limits
from qmpmem.wire.qmp import SHARED_LINE, Deadlines, Session, session_over
from tests.rig.patience import patient
from tests.rig.talker import Talker
from tests.rig.waiting import until

VERSION: Final = {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}
Answer = Callable[[dict[str, Any]], bytes]


class World:
    """A shared session, and the socket at which a test plays QEMU."""

    def __init__(
        self, session: Session, share: SharedSession, writer: asyncio.StreamWriter
    ) -> None:
        self.session = session
        self.share = share
        self.writer = writer
        self.talkers: list[Talker] = []

    async def end(self) -> None:
        """Have all sockets closed."""
        for talker in self.talkers:
            talker.writer.transport.abort()
        await self.share.ended()

    async def client(self, *, negotiates: bool = True) -> Talker:
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(self.share.open, theirs)
        talker = Talker(*await asyncio.open_unix_connection(sock=ours, limit=SHARED_LINE))
        self.talkers.append(talker)
        talker.greeting = await talker.read()
        if negotiates:
            await talker.run("qmp_capabilities")
        return talker


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def done(message: dict[str, Any]) -> bytes:
    return line({"return": {}, "id": message["id"]})


@asynccontextmanager
async def world(
    answer: Answer = done, capabilities: Sequence[str] = (), deadlines: Deadlines | None = None
) -> AsyncIterator[World]:
    """Have a QEMU that answers each command by a function."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs, limit=1 << 20)

    async def serve() -> None:
        writer.write(line({"QMP": {"version": VERSION, "capabilities": capabilities}}))
        framer = Framer(1 << 20)
        while content := await reader.read(65536):
            framer.feed(content)
            while (text := framer.take()) is not None:
                message = json.loads(text)
                is_first = message.get("execute") == "qmp_capabilities"
                writer.write(done(message) if is_first else answer(message))

    serving = asyncio.create_task(serve())
    try:
        async with session_over(ours, "none", "g", deadlines or Deadlines()) as session:
            made = World(session, SharedSession(session), writer)
            yield made
        await made.end()
    finally:
        serving.cancel()
        await asyncio.wait((serving,))
        writer.transport.abort()


def event(size: int) -> bytes:
    return line({"event": "STOP", "data": {"text": "x" * size}})


async def test_a_client_that_does_not_read_is_dropped_and_the_others_hear_all() -> None:
    """Row F90."""
    async with world() as given:
        deaf, quick = await given.client(), await given.client()
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        heard = b""
        size, count = 100_000, 40
        for number in range(count):
            given.writer.write(event(size))
            assert (await quick.event("STOP"))["event"] == "STOP"
            assert await given.session.query("query-status") == {}, number
        assert given.share.clients == 1
        deaf.reader._transport.resume_reading()  # type: ignore[attr-defined]
        # What the kernel and the transport had of it, and then the end.
        async with asyncio.timeout(patient(10)):
            with suppress(ConnectionError):
                heard = await deaf.reader.read()
        assert len(heard) < QUEUE + (1 << 20)
        assert await quick.run("x", 1) == {"return": {}, "id": 1}


async def test_a_long_answer_is_passed_on_and_one_without_end_is_not() -> None:
    sizes = iter((limits.LINE * 3, SHARED_LINE + 1))

    def answer(message: dict[str, Any]) -> bytes:
        return line({"return": "x" * next(sizes), "id": message["id"]})

    async with world(answer) as given:
        client = await given.client()
        # The first: the session's reader waits for it since before it was shared.
        assert len((await client.run("x"))["return"]) == limits.LINE * 3
        assert await client.run("x") is None
        assert given.session.over().reason == "protocol"


@pytest.mark.parametrize("end", [b"", b"\r\n"])
async def test_what_no_client_asked_for_is_no_longer_than_ever(end: bytes) -> None:
    async with world() as given:
        client = await given.client()
        given.writer.write(b'{"return": "' + b"x" * (2 * limits.LINE) + end)
        assert await client.read() is None
        with pytest.raises(GuestUnreachable):
            await given.session.query("query-status")


async def test_the_sessions_own_commands_and_a_clients_cross_and_each_gets_its_own() -> None:
    def answer(message: dict[str, Any]) -> bytes:
        return line({"return": message["execute"], "id": message["id"]})

    async with world(answer) as given:
        clients = [await given.client() for _ in range(5)]

        async def own() -> None:
            for number in range(200):
                assert await given.session.query(f"own-{number}") == f"own-{number}"

        async def other(client: Talker, name: int) -> None:
            for number in range(100):
                answer = await client.run(f"c{name}-{number}", number)
                assert answer == {"return": f"c{name}-{number}", "id": number}

        await asyncio.gather(own(), *(other(each, name) for name, each in enumerate(clients)))
        assert given.session.statistics.stray == 0


async def test_an_error_without_an_id_is_the_clients_and_the_session_goes_on() -> None:
    def answer(message: dict[str, Any]) -> bytes:
        if message["execute"] == "odd":
            return line({"error": {"class": "GenericError", "desc": "JSON parse error"}})
        return done(message)

    async with world(answer) as given:
        client = await given.client()
        assert "error" in await client.run("odd", 1)
        assert await given.session.query("query-status") == {}


async def test_at_the_end_all_that_was_said_is_heard_and_no_client_is_waited_for() -> None:
    async with world() as given:
        deaf, quick = await given.client(), await given.client()
        quick.send("x", 1)
        given.writer.write(event(10))
        assert await quick.answer() == {"return": {}, "id": 1}
        given.writer.close()
        assert await quick.answer() is None
        async with asyncio.timeout(patient(LAST_WORDS + 1)):
            quick.writer.close()
            await given.share.ended()
        del deaf


async def test_a_client_that_comes_too_late_is_greeted_and_sent_away() -> None:
    async with world() as given:
        given.writer.close()
        await given.share.heard_out()
        late = await given.client(negotiates=False)
        assert "QMP" in late.greeting
        assert await late.read() is None


async def test_what_a_client_sends_and_is_not_looked_at_stays_with_it() -> None:
    """QEMU is at work for it, and it goes on to send: 8 MiB."""

    def answer(message: dict[str, Any]) -> bytes:
        return b"" if message["execute"] == "long" else done(message)

    async with world(answer) as given:
        client, other = await given.client(), await given.client()
        client.send("long")
        client.writer.write(b'{"execute": "x"}\n' * (1 << 19))
        for _ in range(50):
            assert await given.session.query("query-status") == {}
            await asyncio.sleep(0)
        [held] = [each for each in given.share._connections if each.is_busy]
        assert len(held.framer) < 1 << 20
        assert client.writer.transport.get_write_buffer_size() > 4 << 20
        other.send("y", 1)
        given.writer.write(line({"return": {}, "id": held_id(given)}))
        assert await other.answer() == {"return": {}, "id": 1}


@pytest.mark.parametrize("message", [b"{}", b"a\n", b'{"execute": 1}'])
async def test_a_client_that_is_refused_again_and_again_holds_up_no_other(
    message: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop has other work done between so many of its messages."""
    count, answered, most = 4000, 0, 0
    put = Client.put

    def counted(self: Client, line: bytes) -> None:
        nonlocal answered
        answered += 1
        put(self, line)

    async def look() -> None:
        nonlocal answered, most
        while True:
            most, answered = max(most, answered), 0
            await asyncio.sleep(0)

    async with world() as given:
        client = await given.client()
        monkeypatch.setattr(Client, "put", counted)
        looking = asyncio.create_task(look())
        client.writer.write(message * count)
        client.writer.write_eof()
        heard = 0
        while (answer := await client.read()) is not None:
            assert "error" in answer
            heard += 1
        looking.cancel()
        assert heard == count
        assert most <= 2 * TURN
        assert given.share.clients == 0


async def test_clients_with_long_messages_have_a_part_of_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_session, "PACE", FairShare())
    message = b'{"a": [' + b"[]," * 30_000 + b"1]}"
    async with world() as given:
        many = [await given.client() for _ in range(4)]
        clock, began = asyncio.get_running_loop().time, asyncio.get_running_loop().time()
        used, done = time.thread_time(), 0
        for each in many:
            each.writer.write(message * 2)
        for _ in range(2):
            for each in many:
                assert "error" in await each.read()
                done += 1
        spent, took = time.thread_time() - used, clock() - began
        assert done == 8
        assert spent < took * 0.75, "the rest is other work's"
        assert await given.session.query("query-status") == {}


async def test_to_read_counts_as_well_and_a_user_that_is_late_is_not_read_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row F97: sent byte by byte, messages cost more to read than to judge."""
    monkeypatch.setattr(shared_session, "PACE", FairShare())
    monkeypatch.setattr(client_connection, "READ", 10.0)
    async with world() as given:
        connected: list[Connection] = []

        async def one(user: str) -> socket.socket:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)  # noqa: FBT003 - its only argument
            connected.append(given.share.open(user=user))
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connected[-1], theirs)
            return ours

        async def others_work() -> None:
            for _ in range(20):
                assert await given.session.query("query-status") == {}

        with await one("flood") as flood, await one("flood") as same, await one("other") as other:
            for each in (flood, same):
                each.send(b"{")
            await others_work()
            kept = [len(each.client.framer) for each in connected]
            assert kept == [1, 1, 0]
            for each in (flood, same):  # late now, and read once more at most
                each.send(b"{")
            await others_work()
            for each in (flood, same):
                each.send(b"{")
            await others_work()
            assert all(len(each.client.framer) <= 2 for each in connected)
            other.send(b'{"execute": "qmp_capabilities"}')
            await until(lambda: b'"return"' in read(other))


def read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except BlockingIOError:
        return b""


async def test_few_clients_that_are_behind_go_on_at_once() -> None:
    async with world() as given:
        for _ in range(AT_ONCE * 2 + 1):
            await given.client()
        for client in given.share._connections:
            given.share._core.receive(client, b"a\n", is_late=True)
        counts: list[int] = []
        while given.share._core.is_behind:
            given.share._go_on()
            counts.append(len(given.share._core.behind))
        assert counts == [AT_ONCE + 1, 1, 0]


async def test_what_waits_for_a_client_that_has_gone_is_not_written_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """asyncio writes a line into the log each time."""
    async with world() as given:
        client, other = await given.client(), await given.client()
        client.writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        for _ in range(20):
            given.share.take_event(event(100))
        assert await other.event("STOP")
    assert [each.getMessage() for each in caplog.records if each.name == "asyncio"] == []


def never_long(message: dict[str, Any]) -> bytes:
    """Answer all but the command ``long``."""
    return b"" if message["execute"] == "long" else done(message)


@pytest.mark.parametrize("count", [1, 3, 1 << 16], ids=["one", "some", "more than is read"])
async def test_a_client_that_has_gone_costs_nothing_more(count: int) -> None:
    """Row F95: QEMU is at work for another, and nothing more is read from the one that leaves."""
    asked: list[str] = []

    def answer(message: dict[str, Any]) -> bytes:
        asked.append(message["execute"])
        return never_long(message)

    async with world(answer) as given:
        other, leaves = await given.client(), await given.client()
        other.send("long", 1)
        await until(lambda: asked == ["long"])
        leaves.writer.write(b'{"execute": "x"}' * count)
        [seen] = [each for each in given.share._connections if each is not held_by(given)]
        await until(lambda: seen.is_busy)
        leaves.writer.transport.abort()
        await until(lambda: given.share.clients == 1)
        given.writer.write(line({"return": {}, "id": held_id(given)}))
        assert await other.answer() == {"return": {}, "id": 1}
        assert await other.run("y") == {"return": {}}
        assert asked == ["long", "y"]


async def test_a_client_that_only_sends_no_more_gets_all_its_answers() -> None:
    """Row F95: it is a pipe that has ended."""
    count = 1 << 13
    async with world(never_long) as given:
        other, pipe = await given.client(), await given.client()
        other.send("long", 1)
        pipe.writer.write(b'{"execute": "x"}' * count)
        pipe.writer.write_eof()
        await given.session.query("query-status")
        given.writer.write(line({"return": {}, "id": held_id(given)}))
        for _ in range(count):
            assert await pipe.answer() == {"return": {}}
        assert await pipe.answer() is None
        assert given.share.clients == 1


async def test_a_client_that_sends_no_more_to_a_session_that_is_over_hears_a_clean_end() -> None:
    """Row F95: both ends have ended their parts then, and much of what it sent is not read."""
    async with world(never_long) as given:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003 - its only argument
        with ours:
            await asyncio.get_running_loop().connect_accepted_socket(given.share.open, theirs)
            ours.send(b'{"execute": "qmp_capabilities"}{"execute": "long"}')
            with suppress(BlockingIOError):
                while True:
                    ours.send(b'{"execute": "x"}' * 100)
                    await asyncio.sleep(0)
            ours.shutdown(socket.SHUT_WR)
            given.writer.close()
            await until(lambda: given.share.clients == 0)
            while ours.recv(1 << 16):  # no ConnectionResetError
                pass


async def test_what_waits_is_counted_over_all_sessions_of_the_process() -> None:
    async with world(never_long) as first, world(never_long) as second:
        before = shared_session.KEPT._total
        for given in (first, second):
            client = await given.client()
            client.send("long", text="x" * 10_000)
        await until(lambda: shared_session.KEPT._total - before > 20_000)
    assert shared_session.KEPT._total == before


async def test_what_a_client_sent_just_before_it_left_is_begun() -> None:
    asked: list[str] = []

    def answer(message: dict[str, Any]) -> bytes:
        asked.append(message["execute"])
        return done(message)

    async with world(answer) as given:
        client = await given.client(negotiates=False)
        client.writer.write(b'{"execute": "qmp_capabilities"}{"execute": "x"}')
        client.writer.transport.abort()
        await until(lambda: given.share.clients == 0)
        await until(lambda: asked == ["x"])


async def test_a_client_that_is_dismissed_hears_why() -> None:
    async with world() as given:
        client, other = await given.client(), await given.client()
        [first, _] = given.share._connections.values()
        first.dismiss("for a reason")
        assert (await client.read())["error"]["desc"] == "for a reason"
        assert await client.read() is None
        assert given.share.clients == 1
        assert await other.run("x") == {"return": {}}


async def test_one_that_goes_on_to_send_after_its_end_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "LAST_WORDS", 3600.0)
    async with world() as given:
        client = await given.client()
        client.writer.write(b"{" * (limits.LINE + 1))
        assert "error" in await client.read()
        assert given.share.clients == 1
        client.writer.write(b"x" * (2 * DROPPED))
        await until(lambda: given.share.clients == 0)


async def test_watching_for_clients_that_go_leaves_no_descriptor_open() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async with world() as given:
        before = await asyncio.to_thread(count)
        for _ in range(3):
            client = await given.client()
            client.writer.transport.abort()
            await until(lambda: given.share.clients == 0)
        await asyncio.sleep(0)
        assert await asyncio.to_thread(count) == before


SHORT: Final = Deadlines(query=0.2, probe=0.1)


def no_probe(message: dict[str, Any]) -> bytes:
    """Answer commands alone."""
    return done(message) if "execute" in message else b""


def not_found(message: dict[str, Any]) -> bytes:
    """Answer a probe as QEMU does, and no command."""
    told = {"class": "CommandNotFound", "desc": "no such command"}
    return b"" if "execute" in message else line({"error": told, "id": message["id"]})


async def test_a_client_of_a_qemu_that_is_stopped_is_told_so_in_the_greetings_place() -> None:
    """Row F101."""
    async with world(no_probe, ["oob"], SHORT) as given:
        for _ in range(2):
            client = await given.client(negotiates=False)
            assert client.greeting["error"]["reason"] == "timeout"
            assert "stopped or hung" in client.greeting["error"]["desc"]
            assert await client.read() is None
            client.writer.transport.abort()
        await until(lambda: given.share.clients == 0)


async def test_a_qemu_that_works_for_long_greets_and_its_answer_is_waited_for() -> None:
    """Row F101."""
    async with world(not_found, ["oob"], SHORT) as given:
        first, second = await given.client(), await given.client()
        first.send("long", 1)
        await until(lambda: held_by(given) is not None)
        third = await given.client()
        second.send("x", 2)
        with pytest.raises(GuestUnreachable) as raised:  # after the deadlines
            await given.session.query("own")
        assert raised.value.reason == "busy"
        given.writer.write(line({"return": {}, "id": held_id(given)}))
        assert await first.answer() == {"return": {}, "id": 1}
        await until(lambda: held_by(given) is not None)
        given.writer.write(line({"return": {}, "id": held_id(given)}))
        assert await second.answer() == {"return": {}, "id": 2}
        assert third.greeting["QMP"]


async def test_a_client_that_sends_before_it_is_greeted_is_answered_after_that() -> None:
    probes: list[dict[str, Any]] = []

    def answer(message: dict[str, Any]) -> bytes:
        if "execute" in message:
            return done(message)
        probes.append(message)
        return b""

    async with world(answer, ["oob"]) as given:
        ours, theirs = socket.socketpair()
        talker = Talker(*await asyncio.open_unix_connection(sock=ours))
        given.talkers.append(talker)
        talker.send("qmp_capabilities", 1)
        talker.send("x", 2)
        connected = given.share.open()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connected, theirs)
        connected.data_received(b'{"execute": "y", "id": 0}')
        await until(lambda: len(probes) == 1)
        given.writer.write(not_found(probes[0]))
        assert "QMP" in await talker.read()
        assert [(await talker.answer())["id"] for _ in range(3)] == [0, 1, 2]


async def test_a_client_that_goes_before_it_is_greeted_leaves_at_once() -> None:
    """Row F101: it keeps no place until then."""
    async with world(no_probe, ["oob"]) as given:
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(given.share.open, theirs)
        assert given.share.clients == 1
        ours.close()
        await until(lambda: given.share.clients == 0, seconds=2)


async def test_those_who_come_together_cost_qemu_one_probe() -> None:
    probes = 0

    def answer(message: dict[str, Any]) -> bytes:
        nonlocal probes
        probes += "execute" not in message
        return done(message) if "execute" in message else not_found(message)

    async with world(answer, ["oob"]) as given:
        await asyncio.gather(*(given.client() for _ in range(50)))
        assert probes < 50


def held_by(given: World) -> Client | None:
    return given.share._core.served


def held_id(given: World) -> int:
    in_flight = given.share._core._in_flight
    assert in_flight is not None
    return in_flight[0]


async def test_what_a_guest_said_last_reaches_the_client_that_asked() -> None:
    """Its process is seen to end, and it is let go, before its answer to ``quit`` is read."""
    quits = asyncio.Event()

    def answer(message: dict[str, Any]) -> bytes:
        if message["execute"] == "quit":
            asyncio.get_running_loop().call_later(0.01, quits.set)
            return b""
        return done(message)

    async with world(answer) as given:
        lending = SessionLending("g", lambda: None)
        begun = asyncio.Event()

        async def hold() -> None:
            try:
                async with lending.having(given.session):
                    begun.set()
                    await asyncio.Event().wait()
            finally:
                await given.session._client.close()

        holding = asyncio.create_task(hold())
        await begun.wait()
        given.share = await lending.take(lambda: None)
        client = await given.client()
        client.send("quit", 1)
        await quits.wait()
        holding.cancel()
        await asyncio.sleep(0)
        given.writer.write(line({"return": {}, "id": held_id(given)}))
        given.writer.close()
        assert await client.answer() == {"return": {}, "id": 1}
        with pytest.raises(asyncio.CancelledError):
            await holding
