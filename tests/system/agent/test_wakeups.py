"""What ends an agent's rest early: real directories, real descriptors, a real event loop."""

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from qmpmem.agent.wakeups import alarms, urgent
from tests.rig.patience import patient

SOON = 5.0


class Bell:
    """Counts, and can be waited for."""

    def __init__(self) -> None:
        self.rung = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self.rung += 1
        self._rung.set()

    async def heard(self) -> None:
        async with asyncio.timeout(SOON):
            await self._rung.wait()
        self._rung.clear()


def is_watched(directory: Path) -> bool:
    """Whether this process watches a directory, as the kernel says (proc(5), fdinfo)."""
    inode = f"ino:{directory.stat().st_ino:x} "
    files = Path("/proc/self/fdinfo").iterdir()
    return any(inode in path.read_text() for path in files if path.exists())


def wait_until_watched(directory: Path) -> None:
    end = time.monotonic() + patient(SOON)
    while not is_watched(directory):
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_a_guest_that_comes_or_goes_is_a_reason_to_look(tmp_path: Path) -> None:
    bell = Bell()
    async with alarms(tmp_path, bell.ring, tmp_path / "no-proc"):
        await asyncio.to_thread(wait_until_watched, tmp_path)
        await asyncio.to_thread((tmp_path / "guest").mkdir)
        await bell.heard()
        await asyncio.to_thread((tmp_path / "guest").rmdir)
        await bell.heard()
    assert bell.rung == 2


async def test_where_nothing_can_be_watched_the_agent_is_not_called(tmp_path: Path) -> None:
    bell = Bell()
    async with alarms(tmp_path / "none", bell.ring, tmp_path):
        await asyncio.sleep(0)
    assert bell.rung == 0


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    async with alarms(tmp_path, lambda: None):
        await asyncio.to_thread(wait_until_watched, tmp_path)
    assert not await asyncio.to_thread(is_watched, tmp_path)


async def test_what_is_urgent_is_heard_and_what_can_be_read_is_not() -> None:
    bell = Bell()
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far, urgent(near.fileno(), bell.ring):
        far.send(b"plain")
        assert await asyncio.to_thread(near.recv, 9) == b"plain"
        assert bell.rung == 0
        far.send(b"!", socket.MSG_OOB)
        await bell.heard()


async def test_a_descriptor_that_is_gone_is_heard_of_once() -> None:
    bell = Bell()
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with urgent(writer, bell.ring):
            await bell.heard()
            for _ in range(100):
                await asyncio.sleep(0)
        assert bell.rung == 1
    finally:
        os.close(writer)


async def test_no_trigger_no_alarm() -> None:
    with urgent(None, lambda: pytest.fail("rang")):
        await asyncio.sleep(0)
