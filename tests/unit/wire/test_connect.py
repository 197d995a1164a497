"""Which socket is connected to, and which process is found to hold it (rows F27, F28, F47)."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from qmpmem.errors import GuestUnreachable
from qmpmem.wire import sock_diag, unix_socket
from qmpmem.wire.channel import connect_human
from qmpmem.wire.limits import Deadlines
from qmpmem.wire.qmp import connect
from tests.rig.clock import VirtualLoop
from tests.rig.fakeqmp import Conversation, FakeQmp, Step, follow, greet, hang, negotiate, serve
from tests.rig.hostile import standing, status
from tests.rig.memory import memory_directory

HEALTHY: list[Step] = [greet(), negotiate(), serve()]


@pytest.fixture
def here() -> Iterator[Path]:
    with memory_directory() as directory:
        yield directory


def reason_of(path: str, *, expect_pid: int | None = None, script: list[Step] | None = None) -> str:
    """Connect, with a server at HERE/q where there is a script, and say what came of it."""

    async def attempt() -> str:
        try:
            async with connect(path, guest="g", expect_pid=expect_pid) as session:
                await status(session)
        except GuestUnreachable as error:
            return error.reason
        return "ok"

    async def run() -> str:
        if script is None:
            return await attempt()
        async with FakeQmp(Path(path).parent / "q", script):
            return await attempt()

    with standing():
        return asyncio.run(run())


def regular_file(path: Path) -> None:
    path.write_text("{}")


def leftover(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def link_to_a_socket(path: Path) -> None:
    leftover(path.parent / "real")
    path.symlink_to(path.parent / "real")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, "gone"),
    "leftover": (leftover, "gone"),
    "file": (regular_file, "not-a-socket"),
    "directory": (Path.mkdir, "not-a-socket"),
    "fifo": (os.mkfifo, "not-a-socket"),
    "link-to-a-socket": (link_to_a_socket, "not-a-socket"),
    "link-to-itself": (link_to_itself, "not-a-socket"),
    "link-to-nothing": (link_to_nothing, "not-a-socket"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_guests_socket_is_refused(
    here: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(here / "s")
    assert reason_of(str(here / "s")) == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [("file/s", "gone"), ("a\0b", "gone"), ("", "gone"), ("x" * 300, "gone")],
    ids=["below-a-file", "nul", "empty", "too-long"],
)
def test_a_path_that_cannot_be_is_gone(here: Path, name: str, reason: str) -> None:
    (here / "file").touch()
    assert reason_of(f"{here}/{name}" if name else "") == reason


def test_a_socket_of_another_kind_is_refused(here: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mailbox:
        mailbox.bind(str(here / "s"))
        assert reason_of(str(here / "s")) == "not-a-socket"


def test_a_link_to_a_living_guests_socket_is_refused(here: Path) -> None:
    (here / "s").symlink_to(here / "q")
    assert reason_of(str(here / "s"), script=HEALTHY) == "not-a-socket"


def test_the_process_we_expect_is_connected_to(here: Path) -> None:
    assert reason_of(str(here / "q"), expect_pid=os.getpid(), script=HEALTHY) == "ok"


def test_another_process_is_refused(here: Path) -> None:
    assert reason_of(str(here / "q"), expect_pid=1, script=HEALTHY) == "wrong-peer"


def test_a_longer_path_than_a_socket_address_holds_is_fine(here: Path) -> None:
    deep = here / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "s"))
        (here / "s").rename(deep / "s")
        listener.listen()
        with unix_socket.open_socket(str(deep / "s"), "g") as connection:
            assert unix_socket.peer_of(connection).pid == os.getpid()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_a_socket_of_others_is_not_permitted(here: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "s"))
        listener.listen()
        here.chmod(0o755)
        (here / "s").chmod(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(GuestUnreachable) as caught:
                unix_socket.open_socket(str(here / "s"), "g")
        finally:
            os.seteuid(0)
    assert caught.value.reason == "permission"
    assert caught.value.hint


def test_the_holder_of_a_socket_is_found(here: Path) -> None:
    path = here / "s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(path))
        listener.listen()
        assert sock_diag.holder(str(path)) is None
        client.connect(str(path))
        assert sock_diag.holder(str(path)) is None  # in the backlog, not served
        served, _ = listener.accept()
        with served:
            found = sock_diag.holder(str(path))
            assert found is not None
            assert (found.pid, found.uid) == (os.getpid(), os.getuid())
            assert sock_diag.holder(str(path), besides=os.fstat(client.fileno()).st_ino) is None
            client.close()
            assert sock_diag.holder(str(path)) is None  # gone, though not yet noticed


def test_the_holder_of_a_socket_of_the_same_name_elsewhere_does_not_matter(here: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(here / "s"))
        listener.listen()
        client.connect(str(here / "s"))
        with listener.accept()[0], socket.socket(socket.AF_UNIX) as newer:
            (here / "s").unlink()
            newer.bind(str(here / "s"))
            assert sock_diag.holder(str(here / "s")) is None


def attempt_at_held(
    here: Path,
    kind: Callable[..., AbstractAsyncContextManager[object]],
    *,
    served: float,
    work: float,
) -> tuple[str, float]:
    """Connect to a monitor whose server takes its other client up so much later.

    Args:
        here: where its socket is to be.
        kind: `connect` or `connect_human`.
        served: seconds after which the other client is served.
        work: seconds that a thread of ours takes.

    Returns:
        The reason of the error, and the seconds until it came.
    """
    path = str(here / "q")

    async def run(listener: socket.socket) -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        others: list[socket.socket] = []
        loop.call_later(served, lambda: others.append(listener.accept()[0]))
        deadlines = Deadlines(handshake=2.0)
        try:
            with pytest.raises(GuestUnreachable) as caught:
                async with kind(path, guest="g", deadlines=deadlines):
                    pass
        finally:
            for other in others:
                other.close()
        return caught.value.reason, loop.time()

    with (
        standing(),
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
        asyncio.Runner(loop_factory=partial(VirtualLoop, work)) as runner,
    ):
        listener.bind(path)
        listener.listen()
        client.connect(path)
        return runner.run(run(listener))


@pytest.mark.parametrize(
    ("kind", "served", "work", "reason", "seconds"),
    [
        (connect, 0.0, 0.0, "taken", 0.5),
        (connect, 0.0, 3.0, "taken", 3.5),
        (connect, 1.0, 0.0, "taken", 2.0),
        (connect, 1.0, 1.0, "taken", 4.0),
        (connect, 0.0, 9.0, "handshake-timeout", 12.0),
        (connect, 9.0, 0.0, "handshake-timeout", 2.0),
        (connect_human, 0.0, 0.0, "taken", 2.0),
        (connect_human, 1.0, 3.0, "taken", 5.0),
        (connect_human, 9.0, 0.0, "handshake-timeout", 2.0),
    ],
)
def test_a_holder_is_named_however_long_it_takes_to_find(  # noqa: PLR0913, PLR0917 - a table
    here: Path,
    kind: Callable[..., AbstractAsyncContextManager[object]],
    served: float,
    work: float,
    reason: str,
    seconds: float,
) -> None:
    """What the search takes is no time of QEMU's, and QEMU may serve the other client late."""
    found, took = attempt_at_held(here, kind, served=served, work=work)
    assert (found, took) == (reason, seconds)


def test_no_socket_no_holder(here: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sock_diag.holder(str(here / "s"))


def test_a_kernel_without_sock_diag_is_an_error_and_not_an_absent_holder() -> None:
    refusal = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -2)
    with pytest.raises(OSError, match="sock_diag"):
        list(sock_diag.parse_dump(refusal))


def test_a_full_backlog_with_no_client_served_is_a_hung_server(here: Path) -> None:
    path = str(here / "q")

    async def run() -> tuple[str, str]:
        async with FakeQmp(here / "q", backlog=0):
            with unix_socket.open_socket(path, "g"), pytest.raises(GuestUnreachable) as caught:
                async with connect(path, guest="g"):
                    pass
        return caught.value.reason, caught.value.message

    with standing():
        reason, message = asyncio.run(run())
    assert reason == "handshake-timeout"
    assert message.endswith("clients wait, and none is served: stopped or hung")


@pytest.mark.parametrize(
    ("serves_many", "room", "end", "seconds"),
    [
        (True, 1.0, "ok", 1.0),
        (True, 4.9, "ok", 4.9),
        (True, 3600.0, "clients wait, and none is served: stopped or hung", 5.0),
        (False, 1.0, "clients wait, and none is served: stopped or hung", 0.0),
    ],
)
def test_where_many_are_served_room_in_a_full_backlog_is_waited_for(
    here: Path, *, serves_many: bool, room: float, end: str, seconds: float
) -> None:
    """Row F99: at a broker another user's connections come and go, and keep it full."""

    async def serve(listener: socket.socket) -> None:
        await asyncio.sleep(room)
        listener.accept()[0].close()
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        await follow(Conversation(connection), HEALTHY)

    async def attempt() -> str:
        try:
            async with connect(path, guest="g", serves_many=serves_many) as session:
                await status(session)
        except GuestUnreachable as error:
            return error.message
        return "ok"

    async def run() -> tuple[str, float]:
        serving = asyncio.create_task(serve(listener))
        try:
            return await attempt(), asyncio.get_running_loop().time() - began
        finally:
            serving.cancel()
            await asyncio.wait((serving,))

    path = str(here / "q")
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    with (
        standing(),
        socket.socket(socket.AF_UNIX, kind) as listener,
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        listener.bind(path)
        listener.listen(0)
        began = runner.get_loop().time()
        with unix_socket.open_socket(path, "g"):
            found, took = runner.run(run())
    assert found.endswith(end)
    assert seconds <= took < seconds + 0.1


def test_those_that_hang_do_not_hold_up_the_others(here: Path) -> None:
    async def one(path: Path) -> tuple[str, float]:
        try:
            async with connect(str(path), guest="g") as session:
                await status(session)
        except GuestUnreachable as error:
            return error.reason, clock()
        return "ok", clock()

    async def run() -> list[tuple[str, float]]:
        async with AsyncExitStack() as stack:
            for number in range(40):
                script = [hang()] if number % 4 == 0 else HEALTHY
                await stack.enter_async_context(FakeQmp(here / f"{number}", script))
            return await asyncio.gather(*(one(here / f"{number}") for number in range(40)))

    with standing(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        clock = runner.get_loop().time
        ends = runner.run(run())
    assert {end for end, _ in ends[::4]} == {"handshake-timeout"}
    healthy = [end for number, end in enumerate(ends) if number % 4]
    assert all(reason == "ok" and seconds < 0.1 for reason, seconds in healthy)
