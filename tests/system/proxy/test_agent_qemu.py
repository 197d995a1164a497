"""One guest's QMP session for many clients while an agent manages the guest."""

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from qmpmem.agent import descriptor_limit
from qmpmem.api import qmp_session
from qmpmem.api.addresses import admin_path
from qmpmem.api.client import Client
from qmpmem.api.permissions import Permissions
from qmpmem.api.records import Why
from qmpmem.api.socket_choice import ways
from qmpmem.api.sockets import Listeners
from qmpmem.wire import sock_diag
from tests.rig.agent import EveryClient, Office, asking, own_listener, running, said, stop, talk
from tests.rig.command import PROGRAM, called, plain_environment
from tests.rig.foreign_qemu import started
from tests.rig.guests import RunningGuest, boot
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory, until
from tests.rig.talker import Talker, listening, talking
from tests.rig.users import IS_ROOT, needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

MIB: Final = 1 << 20
LAUNCHER: Final = str(Path(__file__).resolve().parents[3] / "launchers" / "kvm")
MANY: Final = 100


class World(NamedTuple):
    run: Path
    guest: RunningGuest


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Have web1, which runs, and an agent that manages it."""
    with ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        run = directory / "guests"
        run.mkdir()
        config = directory / "config.toml"
        config.write_text('period = "250ms"\ngrace = "0s"\non_stop = "keep"\n')
        extra = ["-name", "web1"]
        environ = {"QMPMEM_RUN_DIR": str(run)}
        guest = stack.enter_context(boot([LAUNCHER], extra=extra, environ=environ))
        stack.enter_context(running(run, "--config", str(config)))
        yield World(run, guest)


def actual(world: World) -> int:
    seen = json.loads(called("info", "web1", "--json", run=world.run).out)
    return int(seen["actual"])


async def test_the_agent_moves_the_balloon_while_a_hundred_clients_are_at_work(
    world: World,
) -> None:
    done = asyncio.Event()

    async def work(talker: Talker, number: int) -> int:
        count = 0
        while not done.is_set():
            answer = await talker.run("query-balloon", number)
            assert answer["id"] == number
            assert answer["return"]["actual"] > 0
            count += 1
        return count

    async def one(path: Path, number: int) -> int:
        async with talking(path) as talker:
            return await work(talker, number)

    def pin() -> None:
        assert called("set", "web1", "160M", "--wait", "--timeout", "60s", run=world.run).code == 0

    with listening(world.run, "web1") as (path, _):
        async with talking(path) as deaf, talking(path) as hears:
            for _ in range(1000):
                deaf.send("query-qmp-schema")
            tasks = [asyncio.create_task(one(path, number)) for number in range(MANY)]
            await asyncio.to_thread(pin)
            await hears.event("BALLOON_CHANGE")
            done.set()
            counts = await asyncio.gather(*tasks)
    assert min(counts) > 0
    assert abs(await asyncio.to_thread(actual, world) - 160 * MIB) < 9 * MIB
    assert called("unpin", "web1", run=world.run).code == 0


def test_a_balloon_that_is_moved_in_a_session_is_anothers_word(world: World) -> None:
    assert called("set", "web1", "100%", "--wait", run=world.run).code == 0
    assert called("unpin", "web1", run=world.run).code == 0
    client = asking(world.run)

    def verdict() -> str:
        return client.get("guests/web1/why", Why).explanation.verdict

    until(lambda: verdict() == "normal", seconds=30)
    moved = called("qmp", "web1", "balloon", f"value={100 * MIB}", run=world.run)
    assert (moved.code, moved.out) == (0, "{}\n")
    until(lambda: verdict() == "foreign", seconds=30)


def test_a_reset_in_a_session_is_one(world: World) -> None:
    client = asking(world.run)
    assert called("qmp", "web1", "system_reset", run=world.run).code == 0

    def began() -> object:
        return client.get("guests/web1/why", Why).reading.began

    until(lambda: began() == "reset", seconds=30)


class Held(NamedTuple):
    run: Path
    agent: "subprocess.Popen[str]"
    guest: int


@pytest.fixture
def held() -> Iterator[Held]:
    """Have a paused guest that an agent holds."""
    with (
        short_directory() as directory,
        paused(directory / "run", "web1") as children,
        running(directory / "run") as agent,
    ):
        yield Held(directory / "run", agent, children["web1"].pid)


QMP_SHELL: Final = PROGRAM.with_name("qmp-shell")


def test_qmp_shell_plugs_a_device_while_the_agent_holds_the_guest(
    held: Held, tmp_path: Path
) -> None:
    lines = (
        "device_add driver=virtio-rng-pci id=rng1",
        "qom-list path=/machine/peripheral",
        "device_del id=rng1",
    )
    with listening(held.run, "web1") as (path, _):
        done = subprocess.run(
            [QMP_SHELL, path],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            env=plain_environment() | {"HOME": str(tmp_path)},
            timeout=patient(30),
            check=False,
        )
    assert '"rng1"' in done.stdout, (done.stdout, done.stderr)
    assert called("list", "--json", run=held.run).out.count('"prelaunch"') == 1
    log = said(held.run)
    who = re.escape("uid 0 pid ") + r"\d+: qmp web1: "
    assert [*re.findall(who + "(.*)", log)] == [
        "a session begins",
        "device_add",
        "qom-list",
        "device_del",
        "the session has ended; commands: 4",
    ]


def test_what_is_no_query_is_logged_before_it_is_done(held: Held) -> None:
    assert called("qmp", "web1", "query-status", run=held.run).code == 0
    assert "query-status" not in said(held.run)
    assert called("qmp", "web1", "no such\ncommand", run=held.run).code == 6
    assert "no such\\ncommand" in said(held.run)
    assert called("qmp", "web1", "quit", run=held.run).code == 0
    until(lambda: "qmp web1: quit" in said(held.run))
    assert held.agent.poll() is None


async def test_many_sessions_begin_and_end_and_no_place_is_lost(held: Held) -> None:
    async def one() -> None:
        async with upgraded(held.run) as (reader, writer):
            assert b'"QMP"' in await reader.readline()
            writer.write(b'{"execute": "qmp_capabilities"}{"execute": "query-qmp-schema"}')

    for _ in range(2 * descriptor_limit.SESSIONS // 32):
        await asyncio.gather(*(one() for _ in range(32)))

    def all_ended() -> bool:
        return said(held.run).count("has ended") == 2 * descriptor_limit.SESSIONS

    await asyncio.to_thread(until, all_ended)
    answer = await asyncio.to_thread(lambda: called("qmp", "web1", "query-name", run=held.run))
    assert answer.code == 0


async def test_a_client_need_not_wait_for_the_answer_that_its_session_begins(held: Held) -> None:
    reader, writer = await asyncio.open_unix_connection(str(admin_path(asking(held.run).path)))
    said = b'{"execute": "qmp_capabilities"}\n{"execute": "query-name", "id": 1}\n'
    writer.write(request() + said)
    async with asyncio.timeout(patient(10)):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert b"QMP" in await reader.readline()
        assert json.loads(await reader.readline()) == {"return": {}}
        assert json.loads(await reader.readline()) == {"return": {}, "id": 1}
    writer.transport.abort()


async def test_a_hundred_that_begin_at_once_have_a_session_each(held: Held) -> None:
    """More than there are places for questions: an answer that one has no place is no end."""
    client = Client(asking(held.run).path, patience=patient(20))

    async def one() -> object:
        async with qmp_session.session(client, "web1", read_only=True) as session:
            return await session.query("query-name")

    assert await asyncio.gather(*(one() for _ in range(MANY))) == [{}] * MANY


async def test_one_session_too_many_is_refused_until_another_ends() -> None:
    limit = ("prlimit", "--nofile=96:96")
    with short_directory() as directory, paused(directory / "run", "web1") as _:
        run = directory / "run"
        with running(run, before=limit):
            async with AsyncExitStack() as stack:
                for _ in range(6):
                    first, _ = await stack.enter_async_context(upgraded(run))
                    assert b"QMP" in await first.readline()
                answer = await talk(admin_path(asking(run).path), request())
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"6 QMP sessions are open already" in answer
                refused = await asyncio.to_thread(
                    lambda: called("qmp", "web1", "query-name", run=run)
                )
                assert refused.code == 5
                assert called("list", run=run).code == 0
            await asyncio.to_thread(
                until, lambda: called("qmp", "web1", "query-name", run=run).code == 0
            )


async def test_the_agent_itself_lets_queries_through_alone(held: Held) -> None:
    async with upgraded(held.run, "?read_only=true") as (reader, writer):
        await reader.readline()
        writer.write(b'{"execute":"qmp_capabilities"}{"execute":"quit"}{"execute":"query-name"}')
        assert json.loads(await reader.readline()) == {"return": {}}
        assert "only reads" in json.loads(await reader.readline())["error"]["desc"]
        assert json.loads(await reader.readline()) == {"return": {}}


async def test_an_agent_that_ends_is_told_from_a_guest_that_ends(held: Held) -> None:
    with listening(held.run, "web1") as (path, child):
        async with talking(path) as talker:
            await asyncio.to_thread(stop, held.agent)
            assert await talker.answer() is None
        assert await asyncio.to_thread(child.wait, patient(20)) == 5
    assert called("qmp", "web1", "query-name", run=held.run).code == 0


def test_where_no_session_can_be_had_it_is_said(held: Held) -> None:
    fifo = held.run / "f"
    subprocess.run(["mkfifo", fifo], check=True)
    words = ("driver=blkdebug", f"config={fifo}", "node-name=x", "image.driver=null-co")
    late = called("qmp", "web1", "blockdev-add", *words, "--timeout", "1s", run=held.run)
    assert (late.code, "no answer to blockdev-add in 1s" in late.err) == (5, True)
    until(lambda: '"busy"' in called("list", "--json", run=held.run).out, seconds=20)
    with fifo.open("w"):
        pass
    until(lambda: '"prelaunch"' in called("list", "--json", run=held.run).out, seconds=20)
    assert called("qmp", "web1", "query-name", run=held.run).code == 0


def test_a_stopped_qemu_is_told_from_a_busy_one(held: Held) -> None:
    """Row F101."""
    assert called("qmp", "web1", "query-name", run=held.run).code == 0
    os.kill(held.guest, signal.SIGSTOP)
    try:
        for _ in range(2):
            began = time.monotonic()
            refused = called("qmp", "web1", "query-name", run=held.run)
            assert (refused.code, "stopped or hung" in refused.err) == (5, True), refused.err
            assert time.monotonic() - began < patient(6)
    finally:
        os.kill(held.guest, signal.SIGCONT)
    assert called("qmp", "web1", "query-name", run=held.run).code == 0
    fifo = held.run / "f"
    subprocess.run(["mkfifo", fifo], check=True)
    words = ("driver=blkdebug", f"config={fifo}", "node-name=x", "image.driver=null-co")
    with listening(held.run, "web1") as (path, _), ThreadPoolExecutor(max_workers=2) as apart:
        long = apart.submit(called, "qmp", "web1", "blockdev-add", *words, run=held.run)
        until(lambda: "qmp web1: blockdev-add" in said(held.run))
        waits = apart.submit(called, "qmp", "web1", "query-name", run=held.run)
        until(lambda: '"busy"' in called("list", "--json", run=held.run).out, seconds=20)
        assert asyncio.run(greeting(path))
        assert not long.done()
        assert not waits.done()
        with fifo.open("w"):
            pass
        assert waits.result(patient(20)).code == 0
        assert long.result(patient(20)).code == 0


async def greeting(path: Path) -> object:
    async with talking(path) as talker:
        return talker.greeting


def test_a_guest_that_the_agent_does_not_hold_is_held_as_long_as_it_is_used() -> None:
    """It is adopted, and has no balloon: its socket is its user's as well."""
    with short_directory() as here:
        path, run = here / "x.qmp", here / "run"
        qmp_session = f"unix:{path},server=on,wait=off"
        with started("-name", "x", "-qmp", qmp_session, wait_for=path):
            assert called("adopt", "x", str(path), run=run).code == 0
            with running(run) as agent, ExitStack() as stack:
                until(lambda: sock_diag.holder(str(path)) is None, seconds=20)
                assert called("qmp", "x", "query-name", "--json", run=run).code == 0
                shared, _ = stack.enter_context(listening(run, "x"))
                asyncio.run(stays_held(shared, path, agent.pid))
                stack.close()
                until(lambda: sock_diag.holder(str(path)) is None, seconds=20)
        assert "qmp x: a session begins" in said(run)


async def stays_held(shared: Path, path: Path, pid: int) -> None:
    async with talking(shared) as talker:
        for number in range(20):
            assert await talker.run("query-name", number) == {
                "return": {"name": "x"},
                "id": number,
            }
            holder = await asyncio.to_thread(sock_diag.holder, str(path))
            assert holder is not None
            assert holder.pid == pid
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("has_agent", [False, True])
def test_a_human_monitor_is_no_qmp(*, has_agent: bool) -> None:
    with short_directory() as here:
        path, run = here / "x.mon", here / "run"
        qmp_session = f"unix:{path},server=on,wait=off"
        with started("-name", "x", "-monitor", qmp_session, wait_for=path), ExitStack() as stack:
            called("adopt", "x", str(path), run=run)
            if has_agent:
                stack.enter_context(running(run))
            for words in (("query-name",), ("--listen",), ()):
                refused = called("qmp", "x", *words, run=run)
                assert refused.code == 6
                assert "only a human monitor" in refused.err


class upgraded:  # noqa: N801 - reads as a function
    """A session with the agent, as a client that knows nothing of ours opens one."""

    def __init__(self, run: Path, query: str = "") -> None:
        self._path = admin_path(asking(run).path)
        self._query = query

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await asyncio.open_unix_connection(str(self._path), limit=1 << 20)
        self._writer.write(request(self._query))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return reader, self._writer

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()


def request(query: str = "", guest: str = "web1", upgrade: str = "qmp") -> bytes:
    head = f"POST /v1/guests/{guest}/qmp{query} HTTP/1.1\r\nHost: qmpmem\r\nContent-Length: 0\r\n"
    head += f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n" if upgrade else ""
    return f"{head}\r\n".encode()


GROUPS: Final = Permissions(owner=0, readers=4711, writers=4712)


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    with short_directory() as directory:
        directory.chmod(0o755)
        with own_listener(directory, GROUPS if IS_ROOT else None) as made:
            yield made


@pytest.mark.parametrize("query", ["", "?read_only=true"])
@pytest.mark.parametrize("access", ["read", "none"])
async def test_a_reader_gets_no_session(listeners: Listeners, access: str, query: str) -> None:
    office = Office(Path("/proc/none"))
    office.add("web1")
    known = EveryClient(owner=0, access=access)  # type: ignore[arg-type]
    async with office.open(listeners, known) as client:
        for path in ways(client.path, "POST"):
            answer = await talk(path, request(query))
            assert_refused(answer)


def assert_refused(answer: bytes) -> None:
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b'"QMP"' not in answer


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request(upgrade=""), 426),
        (request(upgrade="websocket"), 426),
        (request(guest="none"), 400),
        (request(), 502),
    ],
)
async def test_what_is_no_question_for_a_session_is_refused(
    listeners: Listeners, asked: bytes, code: int
) -> None:
    office = Office(Path("/proc/none"))
    office.add("web1")
    async with office.open(listeners) as client:
        answer = await talk(admin_path(client.path), asked, seconds=20)
    assert int(answer.split(b" ", 2)[1]) == code


PROGRAM_OF_ANOTHER: Final = """
import os, socket, sys
os.setgroups(GROUPS); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(path)
    except PermissionError: print("-"); continue
    s.sendall(REQUEST)
    print(s.recv(100).split()[1].decode())
"""


@needs_root("may not take other groups")
@pytest.mark.parametrize(
    ("groups", "query", "seen"),
    [
        ([], "?read_only=true", "- -"),
        ([4711], "?read_only=true", "403 -"),
        ([4712], "?read_only=true", "- 400"),
        ([4711, 4712], "?read_only=true", "403 400"),
        # All of QMP can do what QEMU's user can: no group has it.
        ([4711, 4712], "?read_only=false", "403 403"),
        ([4712], "", "- 403"),
    ],
)
async def test_other_users_by_their_groups(
    listeners: Listeners, groups: list[int], query: str, seen: str
) -> None:
    """A process of uid 65534 asks for a session with a guest that there is not."""
    words = PROGRAM_OF_ANOTHER.replace("GROUPS", str(groups))
    words = words.replace("REQUEST", repr(request(query, guest="none")))
    office = Office(Path("/proc/none"))
    async with office.open(listeners, GROUPS) as client:
        child = await asyncio.create_subprocess_exec(
            *("/usr/bin/python3", "-c", words, client.path, admin_path(client.path)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await child.communicate()
    assert out.decode().split() == seen.split()
