"""What a broker shows, and when it holds a guest's monitor: without QEMU, and with any user."""

import asyncio
import grp
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from qmpmem.api.permissions import Peer
from qmpmem.api.qmp_log import SessionCounts
from qmpmem.broker.directory import Directory, opened
from qmpmem.broker.sessions import AGENTS, GuestSessions, _Acceptor
from qmpmem.cli.broker_run import group_number
from qmpmem.errors import ConfigError, GuestUnreachable, KernelError
from qmpmem.guests import rundir
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.rundir import GuestRecord
from qmpmem.proxy.client_connection import Connection
from qmpmem.proxy.shared_session import SharedSession
from qmpmem.records import replace
from qmpmem.wire import kernel, sock_diag, unix_socket
from qmpmem.wire.limits import Deadlines
from qmpmem.wire.qmp import connect, session_over
from tests.rig.agent import record
from tests.rig.fakeqmp import FakeQmp, expect, greet, hang, negotiate, refuse, say, serve
from tests.rig.logs import level_of, log_to
from tests.rig.qemu import short_directory
from tests.rig.talker import talking
from tests.rig.waiting import until

GROUP: Final = os.getegid()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_shown_is_a_guest_of_the_brokers_user(tmp_path: Path) -> None:
    known = record("g", uid=12345, daemonize=True, cgroup="/sys/fs/cgroup/x", domain="d")
    with opened(tmp_path / "broker", GROUP) as directory:
        with directory.show(known, 77, 88) as listener:
            assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        shown = rundir.read_record(tmp_path / "broker" / "g")
        assert isinstance(shown, GuestRecord)
        assert (shown.pid, shown.start_time, shown.listener) == (77, 88, os.getpid())
        assert (shown.uid, shown.shared, shown.daemonize) == (os.geteuid(), True, False)
        assert (shown.cgroup, shown.domain) == (None, "d")
        modes = {path: mode(tmp_path / "broker" / path) for path in ("", "g", "g/qmp.sock")}
        assert modes == {"": 0o750, "g": 0o750, "g/qmp.sock": 0o660}
        assert mode(tmp_path / "broker/g/record.json") == 0o640
        directory.hide("g")
        directory.hide("g")
        assert [path.name for path in (tmp_path / "broker").iterdir()] == [".lock"]


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_are_the_same_whatever_the_umask_is(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with opened(tmp_path / "broker", GROUP) as directory:
            directory.show(record("g"), 1, 1).close()
            found = [mode(tmp_path / "broker" / path) for path in ("g", "g/qmp.sock")]
            found.append(mode(tmp_path / "broker/g/record.json"))
    finally:
        os.umask(before)
    assert found == [0o750, 0o660, 0o640]


def test_what_a_broker_that_was_killed_left_is_replaced_in_place(tmp_path: Path) -> None:
    shown = tmp_path / "broker"
    for guest in ("old", "g"):
        (shown / guest).mkdir(parents=True)
        (shown / guest / "more").touch()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(shown / guest / "qmp.sock"))
    before = (shown / "g").stat().st_ino
    with opened(shown, GROUP) as directory:
        with pytest.raises(ConfigError, match="a broker runs already"), opened(shown, GROUP):
            pass
        assert (shown / "old").exists()  # until it is known which guests there are
        directory.show(record("g", created=1.0), 2, 2).close()
        directory.hide_others({"g"})
        assert {path.name for path in shown.iterdir()} == {".lock", "g"}
        assert (shown / "g").stat().st_ino == before
        read = rundir.read_record(shown / "g")
        assert isinstance(read, GuestRecord)
        assert (read.pid, mode(shown / "g/qmp.sock")) == (2, 0o660)
    assert {path.name for path in shown.iterdir()} == {".lock"}


def test_a_guest_that_another_broker_shows_is_the_same_guest() -> None:
    first = LiveGuest(record=record("g", listener=1, shared=True), pid=7)
    again = replace(first, record=replace(first.record, listener=2))
    assert again.is_shown_anew(first)
    for other in (
        replace(again, pid=8),
        replace(again, record=replace(again.record, shared=False)),
        replace(again, record=replace(again.record, start_time=2)),
        replace(again, record=replace(again.record, name="h")),
    ):
        assert not other.is_shown_anew(first)


def test_no_directory_of_another_stands_in_for_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for path in (tmp_path / "link", tmp_path / "file", open_to_all / "broker"):
        with pytest.raises(KernelError), opened(path, GROUP):
            pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


class Place(NamedTuple):
    """A guest's monitor, and where a broker shows it."""

    own: Path
    shown: Path
    directory: Directory

    async def is_held(self) -> bool:
        return await asyncio.to_thread(sock_diag.holder, str(self.own)) is not None

    async def is_free(self) -> bool:
        return not await self.is_held()


@pytest.fixture
def place() -> Iterator[Place]:
    with short_directory() as made, opened(made / "broker", GROUP) as directory:
        yield Place(made / "own.sock", made / "broker/g/qmp.sock", directory)


@asynccontextmanager
async def kept(place: Place) -> AsyncIterator[list[str]]:
    """Have a keeper of a guest with this monitor; yields what it said."""
    process = await asyncio.to_thread(kernel.process, os.getpid())
    assert process is not None
    known = record("g", socket=str(place.own), start_time=process.start_time)
    args = known, process.pid, process.start_time
    listener = await asyncio.to_thread(place.directory.show, *args)
    said: list[str] = []
    keeper = GuestSessions(
        LiveGuest(record=known, pid=process.pid), listener, log_to(said), lambda: None
    )
    task = asyncio.create_task(keeper.run())
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.wait((task,))
        keeper.close()


async def test_a_monitor_is_held_while_a_client_is_there(place: Place) -> None:
    async with FakeQmp(place.own, [greet(), negotiate(), serve()]), kept(place):
        assert not await place.is_held()
        for _ in range(2):
            async with talking(place.shown), talking(place.shown):
                assert await place.is_held()
            await until(place.is_free)


async def test_a_client_is_told_why_there_is_no_session(place: Place) -> None:
    async def ask() -> GuestUnreachable:
        with pytest.raises(GuestUnreachable) as raised:
            async with connect(str(place.shown), guest="g"):
                pass
        return raised.value

    async with kept(place) as said:
        assert (await ask()).reason == "lost"  # this process lives, and has no such file
        async with FakeQmp(place.own, [greet(), negotiate()]), connect(str(place.own), guest="g"):
            pass
        # A client that is served, and stays: QEMU accepts no other.
        async with (
            FakeQmp(place.own, [greet(), negotiate()]) as fake,
            connect(str(place.own), guest="g"),
        ):
            fake.serving[0].cancel()
            error = await ask()
        assert (error.reason, str(place.own) in error.message) == ("taken", True)
        assert error.message.startswith("guest g: ")
        assert "guest g: guest g" not in error.message
        assert said[1:] == [error.message]
        assert level_of(said[1]) == "WARNING"
        async with (
            FakeQmp(place.own, [greet(), negotiate(), serve()]),
            connect(str(place.shown), guest="g") as session,
        ):
            assert session.version == (7, 2, 22)


async def test_a_client_is_told_that_qemu_hangs(place: Place) -> None:
    """Row F101: another client came before it did."""
    steps = [greet(), negotiate(), expect(), refuse("CommandNotFound"), hang()]
    async with FakeQmp(place.own, steps), kept(place), connect(str(place.shown), guest="g"):
        with pytest.raises(GuestUnreachable) as raised:
            async with connect(str(place.shown), guest="g"):
                pass
        assert raised.value.reason in ("timeout", "handshake-timeout")
        assert "stopped or hung" in raised.value.message


FLOOD: Final = """
import socket, sys
print("begun", flush=True)
while True:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(2)
        try:
            s.connect(sys.argv[1])
            s.send(b'{"execute":"qmp_capabilities"}{"execute":"query-status"}' * 10)
        except OSError: pass
"""


async def test_connections_that_come_and_go_keep_no_client_out(place: Place) -> None:
    """Row F99: they fill the backlog again as fast as a broker accepts them.

    The session with QEMU ends as the last client leaves, and not where another has just come.
    """
    async with FakeQmp(place.own, [greet(), negotiate(), serve()]), kept(place):
        flood = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FLOOD, str(place.shown), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert flood.stdout is not None
            assert await flood.stdout.readline() == b"begun\n"
            for _ in range(5):
                async with connect(str(place.shown), guest="g", serves_many=True) as session:
                    assert await session.query("query-status")
        finally:
            flood.kill()
            await flood.communicate()


@pytest.mark.parametrize(
    "line",
    [
        '{"error": {"class": "GenericError", "desc": "x", "reason": "taken"}}',
        '{"error": {"class": "GuestUnreachable", "desc": "x", "reason": "x"}}',
        '{"error": {"class": "GuestUnreachable", "desc": 1, "reason": "taken"}}',
        '{"error": {"class": "GuestUnreachable"}}',
        '{"error": 5}',
    ],
)
async def test_what_is_no_word_of_a_broker_is_none(place: Place, line: str) -> None:
    async with FakeQmp(place.own, [say(line)]):
        with pytest.raises(GuestUnreachable) as raised:
            async with connect(str(place.own), guest="g"):
                pass
    assert raised.value.reason == "protocol"


async def test_such_a_word_counts_only_instead_of_a_greeting(place: Place) -> None:
    line = '{"error": {"class": "GuestUnreachable", "desc": "x", "reason": "taken"}}'
    async with FakeQmp(place.own, [greet(), say(line)]):
        with pytest.raises(GuestUnreachable) as raised:
            async with connect(str(place.own), guest="g"):
                pass
    assert raised.value.reason == "protocol"


async def test_agents_leave_room_for_root(place: Place) -> None:
    async with FakeQmp(place.own, [greet(), negotiate()]):
        connection = unix_socket.open_socket(str(place.own), "g")
        async with session_over(connection, "none", "g", Deadlines()) as session:
            said: list[str] = []
            share, log = SharedSession(session), log_to(said)
            reception = _Acceptor(share, "g", log, SessionCounts(log.info))
            agent, another = os.geteuid() + 1, os.geteuid() + 2
            held = [enter(reception, agent) for _ in range(AGENTS)]
            assert all(made is not None for made in held)
            assert enter(reception, agent) is None
            assert said == []
            assert enter(reception, os.geteuid()) is not None
            assert said == [f"uid {os.geteuid()} pid 1: qmp g: a session begins"]
            assert level_of(said[0]) == "INFO"
            # Another user without rights has fewer: the agent's loses one, and gets it back later.
            assert enter(reception, another) is not None
            assert "ended for one of" in said[1]
            assert said[1].startswith(f"uid {agent} pid 1: qmp g: ")
            assert held[1] is not None
            held[1].connection_lost(None)
            assert enter(reception, agent) is not None
            assert enter(reception, agent) is None


async def test_a_client_that_got_no_session_leaves_its_place(place: Place) -> None:
    async with FakeQmp(place.own, [greet(), negotiate()]):
        connection = unix_socket.open_socket(str(place.own), "g")
        async with session_over(connection, "none", "g", Deadlines()) as session:
            share, log = SharedSession(session), log_to([])
            reception = _Acceptor(share, "g", log, SessionCounts(log.info))
            ours, theirs = socket.socketpair()
            with ours, theirs:
                reception.receive(theirs)
                assert len(reception._places) == 1
                reception.close()
                await until(lambda: len(reception._places) == 0)


def enter(reception: _Acceptor, uid: int) -> Connection | None:
    """Have a client come that never sends anything."""
    place = reception._places.take(uid, is_owner=uid == os.geteuid())
    peer = Peer(pid=1, uid=uid, groups=frozenset())
    return None if place is None else reception._open(peer, place)


@pytest.mark.parametrize(
    "group", ["²", "9" * 5000, "99999999999", str(2**32 - 1), "-1", "", "no such group", "a\0b"]
)
def test_a_group_that_is_none_is_said_in_a_line(group: str) -> None:
    with pytest.raises(ConfigError, match="no such group"):
        group_number(group)
    assert group_number("4711") == 4711
    assert group_number(grp.getgrgid(os.getegid()).gr_name) == os.getegid()
