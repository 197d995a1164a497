"""Room that is kept for a guest, while the process that asked for it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qmpmem.agent import leases
from qmpmem.api.permissions import Peer
from qmpmem.records import replace
from tests.rig.agent import Office
from tests.rig.leases import ROOM, kept, old_guest, reserved


@asynccontextmanager
async def lessee(office: Office) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that asked for room for the guest that it becomes, and got it."""
    child = await asyncio.create_subprocess_exec("sleep", "60")
    peer = Peer(pid=child.pid, uid=0, groups=frozenset())
    await reserved(office, peer, replace(ROOM, mine=True))
    yield child
    child.kill()
    await child.wait()


async def test_it_ends_when_the_process_ends_without_a_guest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = old_guest()
    async with lessee(office):
        monkeypatch.setattr(leases, "REGISTERING", 0.0)
        office.round()
        assert len(kept(office)) == 1
    office.round()
    assert kept(office) == ()


async def test_a_daemon_has_time_to_be_found() -> None:
    """With -daemonize the process that asked ends, and the guest is its child."""
    office = old_guest()
    async with lessee(office) as child:
        pass
    office.round()
    office.add("new", pid=child.pid)
    office.round()
    assert kept(office)[0].guest == "new"
