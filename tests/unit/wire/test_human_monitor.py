"""What is made of a human monitor's text, right and wrong, by a scripted server."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.model.sizes import Sizes
from qmpmem.units import MIB, Bytes
from qmpmem.wire import commands, human_monitor
from qmpmem.wire.channel import Channel
from qmpmem.wire.limits import Deadlines
from qmpmem.wire.unix_socket import Peer

GREETING = b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) "
QUICK = Deadlines(handshake=0.5, query=0.3, change=0.3)
Talk = Callable[[Channel], Awaitable[object]]


async def meet(answer: str | None, talk: Talk, greeting: bytes = GREETING) -> object:
    """Talk to a monitor that greets and gives one answer, echo before it; None: it hangs."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - the socket module's own
    reader, writer = await asyncio.open_connection(sock=theirs)

    async def serve() -> None:
        writer.write(greeting)
        line = await reader.readline()
        if answer is not None:
            echo = line.strip().replace(b"i", b"i\x1b[K\x1b[D")
            writer.write(echo + b"\r\n" + answer.replace("\n", "\r\n").encode() + b"(qemu) ")

    serving = asyncio.create_task(serve())
    try:
        async with human_monitor.session_over(
            ours, "/m", Peer(pid=1, uid=0, gid=0), "g", QUICK
        ) as session:
            return await talk(session)
    finally:
        serving.cancel()
        writer.transport.abort()
        ours.close()


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("VM status: running\n", "running"),
        ("VM status: paused\n", "paused"),
        ("VM status: paused (prelaunch)\n", "prelaunch"),
        ("VM status: running (single step mode)\n", "running"),
    ],
)
async def test_run_states(answer: str, state: str) -> None:
    assert await meet(answer, commands.run_state) == state


async def test_sizes() -> None:
    assert await meet("balloon: actual=512\n", commands.balloon_actual) == 512 * MIB
    memory = "base memory: 536870912\nplugged memory: 0\n"
    for said in (memory, "base memory: 536870912\n"):
        assert await meet(said, commands.sizes) == Sizes(boot=Bytes(512 * MIB))


async def test_no_balloon_is_none() -> None:
    said = "Error: No balloon device has been activated\n"
    assert await meet(said, commands.balloon_actual) is None


@pytest.mark.parametrize(
    "answer",
    [
        *("", "balloon: actual=-5\n", "balloon: actual=1e3\n", "balloon: actual=12\nmore\n"),
        *("unknown command: 'info balloon'\n", "balloon: actual=99999999999999999999\n"),
        *("\x1b[2Jballoon: actual=12\n", "balloon: actual=٣\n"),
    ],
)
async def test_what_is_no_size_is_none(answer: str) -> None:
    with pytest.raises(GuestRefused):
        await meet(answer, commands.balloon_actual)


async def test_setting_says_what_qemu_says() -> None:
    def to_half(session: Channel) -> Awaitable[object]:
        return commands.set_balloon(session, Bytes(256 * MIB))

    assert await meet("", to_half) is None
    with pytest.raises(GuestRefused) as caught:
        await meet("Error: No balloon device has been activated\n", to_half)
    assert caught.value.error_class == "DeviceNotActive"


async def test_statistics_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(GuestRefused, match="no statistics"):
        await meet(None, lambda session: session.query("query-memdev"))


@pytest.mark.parametrize("path", ["/x\ninfo status", "/x y", "", "x", "/" + "x" * 300])
async def test_no_line_of_ours_holds_anothers(path: str) -> None:
    with pytest.raises(GuestRefused):
        await meet("7.2\n", lambda session: session.query("qom-list", {"path": path}))


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [
        (b"", "handshake-timeout"),
        (b"QEMU 7.2 monitor\r\n", "handshake-timeout"),
        (b"login: (qemu) ", "protocol"),
        (b"x" * 100_000, "protocol"),
    ],
)
async def test_what_is_no_monitor(greeting: bytes, reason: str) -> None:
    with pytest.raises(GuestUnreachable) as caught:
        await meet("", commands.run_state, greeting)
    assert caught.value.reason == reason


async def test_no_answer_ends_the_session() -> None:
    async def twice(session: Channel) -> object:
        with pytest.raises(GuestUnreachable) as caught:
            await commands.run_state(session)
        assert caught.value.reason == "timeout"
        return await commands.run_state(session)

    with pytest.raises(GuestUnreachable) as caught:
        await meet(None, twice)
    assert caught.value.reason == "closed"
