"""A QMP socket that another process holds."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qmpmem.errors import GuestUnreachable
from qmpmem.wire import unix_socket
from qmpmem.wire.qmp import connect
from tests.rig.hostile import standing
from tests.rig.qemu import short_directory


@pytest.fixture
def here() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


HOLD = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    print(client.recv(1), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_client_that_has_sent_its_last_does_not_hold_the_monitor(
    here: Path, waiting: int
) -> None:
    """As what a launcher leaves for its QEMU, which begins to work a while later."""
    path = here / "q"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as left:
        listener.bind(str(path))
        listener.listen(0)
        left.connect(str(path))
        left.shutdown(socket.SHUT_WR)
        with ExitStack() as stack:
            stack.enter_context(listener.accept()[0])
            for _ in range(waiting):
                stack.enter_context(unix_socket.open_socket(str(path), "g"))

            async def run() -> GuestUnreachable:
                with pytest.raises(GuestUnreachable) as caught:
                    async with connect(str(path), guest="g"):
                        pass
                return caught.value

            with standing():
                error = asyncio.run(run())
    assert (error.reason, "QEMU is starting" in error.message) == ("busy", True)


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_socket_in_use_is_said_to_be_in_use_and_its_client_is_named(
    here: Path, waiting: int
) -> None:
    """One client is served. We wait in the backlog in vain, or get EAGAIN where one waits there."""
    path = here / "q"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        child = subprocess.Popen(
            ["python3", "-IS", "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with child, listener.accept()[0] as served:
            served.send(b"x")
            assert child.stdout is not None
            child.stdout.readline()
            others = [unix_socket.open_socket(str(path), "g") for _ in range(waiting)]

            async def run() -> GuestUnreachable:
                with pytest.raises(GuestUnreachable) as caught:
                    async with connect(str(path), guest="g"):
                        pass
                return caught.value

            with standing():
                error = asyncio.run(run())
            for other in others:
                other.close()
            child.communicate()
    assert error.reason == "taken"
    assert f"process {child.pid} (python3 -c, uid {os.getuid()}) holds the monitor" in error.message
    assert error.hint
