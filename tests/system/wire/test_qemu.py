"""Sessions with real QEMUs: healthy, stopped, busy, held by others, killed.

Rows F19, F23, F24 and F27, and the wire's part of F44 and F47.
"""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.wire import kernel
from qmpmem.wire.qmp import Deadlines, Session, connect
from tests.rig.hostile import standing
from tests.rig.patience import within
from tests.rig.qemu import BALLOON, EMULATOR, SMALL, listens, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

SHORT = Deadlines(handshake=2.0, query=0.5, change=0.5, probe=1.0)


class Guest(NamedTuple):
    process: subprocess.Popen[bytes]
    socket: str
    second: str
    """Another monitor of the same QEMU, for people."""


@contextmanager
def guest(*words: str) -> Iterator[Guest]:
    with short_directory() as directory:
        one, two = directory / "q", directory / "p"
        monitors = [
            word for path in (one, two) for word in ("-qmp", f"unix:{path},server=on,wait=off")
        ]
        process = subprocess.Popen([EMULATOR, *words, *SMALL, "-m", "64", *BALLOON, *monitors])
        try:
            until(lambda: listens(one) and listens(two), seconds=30, what="QEMU listens")
            yield Guest(process, str(one), str(two))
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@pytest.fixture
def paused() -> Iterator[Guest]:
    with guest("-S") as started:
        yield started


def has_stopped(pid: int) -> bool:
    """Return whether each thread of a process has stopped or ended."""
    tasks = Path(f"/proc/{pid}/task")
    threads = [kernel.process(task, tasks) for task in kernel.pids(tasks)]
    return all(thread.state == "T" for thread in threads if thread is not None)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and wait until each of its threads has stopped."""
    process.send_signal(signal.SIGSTOP)
    until(lambda: has_stopped(process.pid), what="all threads have stopped")


def talk_to(
    found: Guest, talk: Callable[[Session], Awaitable[object]], deadlines: Deadlines = SHORT
) -> object:
    """Open a session, talk, and check that nothing of it is left."""

    async def run() -> object:
        async with connect(
            found.socket, guest="g", expect_pid=found.process.pid, deadlines=deadlines
        ) as session:
            value = await talk(session)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return value

    with standing():
        return asyncio.run(run())


async def reason_of(attempt: Awaitable[object]) -> str:
    try:
        await attempt
    except GuestUnreachable as error:
        return error.reason
    return "ok"


def test_a_plain_session(paused: Guest) -> None:
    async def talk(session: Session) -> None:
        assert session.version > (7, 0, 0)
        assert (session.peer.pid, session.peer.uid) == (paused.process.pid, os.getuid())
        assert await session.query("query-balloon") == {"actual": 64 << 20}
        path = "/machine/peripheral/qmpmem0"
        where = {"path": path, "property": "guest-stats-polling-interval"}
        assert await session.change("qom-set", {**where, "value": 2}) == {}
        assert await session.query("qom-get", where) == 2
        with pytest.raises(GuestRefused, match=r"g: device_add: .*not a valid device") as caught:
            await session.change("device_add", {"driver": "nonsense", "id": "n"})
        assert caught.value.error_class == "GenericError"
        with pytest.raises(GuestRefused) as caught:
            await session.query("no-such-command")
        assert caught.value.error_class == "CommandNotFound"

    talk_to(paused, talk, Deadlines())


def test_a_thousand_questions_and_twenty_sessions_in_a_row(paused: Guest) -> None:
    async def ask(session: Session) -> None:
        for _ in range(50):
            assert await session.query("query-balloon") == {"actual": 64 << 20}
        assert session.statistics.stray == 0

    for _ in range(20):
        talk_to(paused, ask, Deadlines())


def test_events_come(paused: Guest) -> None:
    async def watch(session: Session) -> list[str]:
        await session.change("cont")
        await session.change("stop")
        seen: list[str] = []
        async for event in session.events():
            assert event.when is not None
            assert abs(event.when - time.time()) < 60
            seen.append(event.name)
            if len(seen) == 2:
                break
        return seen

    assert talk_to(paused, watch, Deadlines()) == ["RESUME", "STOP"]


@pytest.mark.parametrize(
    ("words", "state"),
    [(["-preconfig"], "prelaunch"), (["-S"], "prelaunch"), (["-incoming", "defer"], "inmigrate")],
    ids=["preconfig", "prelaunch", "incoming"],
)
def test_a_guest_that_does_not_run_yet(words: Sequence[str], state: str) -> None:
    async def ask(session: Session) -> object:
        return await session.query("query-status")

    with guest(*words) as found:
        answer = talk_to(found, ask, Deadlines())
    assert isinstance(answer, dict)
    assert answer["status"] == state


def test_a_stopped_qemu_is_silent_quickly_left_and_well_again(paused: Guest) -> None:
    async def talk(session: Session) -> None:
        stop(paused.process)
        assert await reason_of(session.query("query-balloon")) == "timeout"
        assert await reason_of(session.query("query-balloon")) == "timeout"
        paused.process.send_signal(signal.SIGCONT)
        assert await session.query("query-balloon") == {"actual": 64 << 20}
        assert session.statistics.late == 2  # the question and the probe
        stop(paused.process)

    async def leave() -> None:
        with ExitStack() as leaving:
            async with connect(paused.socket, guest="g", deadlines=SHORT) as session:
                await talk(session)
                leaving.enter_context(within(0.1))

    with standing():
        asyncio.run(leave())
        assert asyncio.run(reason_of(opened(paused.socket))) == "handshake-timeout"
        paused.process.send_signal(signal.SIGCONT)
        assert asyncio.run(reason_of(opened(paused.socket))) == "ok"


def test_a_stopped_qemu_with_its_buffer_full_is_left_as_quickly(paused: Guest) -> None:
    async def run() -> str:
        with ExitStack() as leaving:
            async with connect(paused.socket, guest="g", deadlines=SHORT) as session:
                stop(paused.process)
                writer = session._client._writer
                assert writer is not None
                while writer.transport.get_write_buffer_size() < 1 << 16:
                    writer.write(b" " * 4096)
                reason = await reason_of(session.query("query-balloon"))
                leaving.enter_context(within(0.1))
        return reason

    with standing():
        assert asyncio.run(run()) == "timeout"


async def opened(path: str) -> None:
    async with connect(path, guest="g", deadlines=SHORT) as session:
        await session.query("query-status")


@contextmanager
def main_loop_blocked(found: Guest) -> Iterator[None]:
    """Block QEMU's main loop: on its other monitor it opens a FIFO for reading, which waits."""
    fifo = Path(found.second).parent / "fifo"
    os.mkfifo(fifo)
    options = (
        f'{{"driver":"blkdebug","config":"{fifo}","image":{{"driver":"null-co"}},"node-name":"n"}}'
    )
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(found.second)
        monitor.sendall(b'{"execute":"qmp_capabilities"}')
        monitor.sendall(f'{{"execute":"blockdev-add","arguments":{options}}}'.encode())
        try:
            yield
        finally:
            # Opening the other end lets go of QEMU, once it waits there.
            until(lambda: opens_for_writing(fifo), what="QEMU waits on the FIFO")


def opens_for_writing(fifo: Path) -> bool:
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # ENXIO: no process reads
        return False
    return True


def test_a_busy_qemu_is_not_taken_for_a_dead_one(paused: Guest) -> None:
    async def talk(session: Session) -> tuple[list[str], object, int]:
        assert await session.query("query-balloon")
        with main_loop_blocked(paused):
            reasons: list[str] = []
            while reasons[-2:] != ["busy", "busy"]:
                reasons.append(await reason_of(session.query("query-balloon")))
        return reasons, await session.query("query-balloon"), session.statistics.late

    value = talk_to(paused, talk)
    assert isinstance(value, tuple)
    reasons, answer, late = value
    assert set(reasons) <= {"ok", "busy"}  # QEMU needs a moment to get to the FIFO
    assert answer == {"actual": 64 << 20}
    assert late == 1


def test_a_busy_qemu_is_not_taken_for_a_dead_one_by_a_new_client(paused: Guest) -> None:
    async def run() -> str:
        with main_loop_blocked(paused):
            reason = "ok"
            while reason == "ok":
                reason = await reason_of(opened(paused.socket))
        return reason

    with standing():
        assert asyncio.run(run()) == "busy"
        until(lambda: asyncio.run(reason_of(opened(paused.socket))) == "ok", what="well again")


def test_a_socket_that_another_client_holds_is_taken(paused: Guest) -> None:
    with socket.socket(socket.AF_UNIX) as holder:
        holder.connect(paused.socket)
        holder.recv(65536)
        for attempt in range(4):  # two wait in the backlog and stay there, the rest get EAGAIN
            with within(1.9), standing(), pytest.raises(GuestUnreachable) as caught:
                asyncio.run(opened(paused.socket))
            assert caught.value.reason == "taken", attempt
            assert f"process {os.getpid()} " in caught.value.message
    until(lambda: asyncio.run(reason_of(opened(paused.socket))) == "ok", what="it is free again")


def test_a_client_that_leaves_soon_is_waited_for(paused: Guest) -> None:
    async def run() -> list[str]:
        return await asyncio.gather(*(reason_of(opened(paused.socket)) for _ in range(2)))

    with standing():
        assert asyncio.run(run()) == ["ok", "ok"]


def test_a_qemu_that_is_killed_closes(paused: Guest) -> None:
    async def talk(session: Session) -> list[str]:
        stop(paused.process)
        asked = asyncio.ensure_future(reason_of(session.query("query-balloon")))
        events = asyncio.ensure_future(reason_of(anext(aiter(session.events()))))
        await asyncio.sleep(0)
        paused.process.kill()
        with within(1.0):
            return [await asked, await events, await reason_of(session.query("query-status"))]

    assert talk_to(paused, talk, Deadlines()) == ["closed"] * 3


def test_a_qemu_that_quits_says_so_first(paused: Guest) -> None:
    async def talk(session: Session) -> list[str]:
        await session.change("quit")
        seen: list[str] = []
        try:
            async for event in session.events():
                seen.append(event.name)  # noqa: PERF401 - what came before the end counts
        except GuestUnreachable as error:
            seen.append(error.reason)
        return seen

    assert talk_to(paused, talk, Deadlines()) == ["SHUTDOWN", "closed"]


def test_another_guests_socket_is_refused(paused: Guest) -> None:
    async def run() -> None:
        async with connect(paused.socket, guest="g", expect_pid=paused.process.pid + 1):
            pass

    with standing():
        assert asyncio.run(reason_of(run())) == "wrong-peer"
        asyncio.run(opened(paused.socket))  # and it was not touched: not even the backlog
