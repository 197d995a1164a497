"""Room that is kept for a guest, while the process that asked for it ends."""

import asyncio
import time
from pathlib import Path

import pytest

from qmpmem.control import leases
from qmpmem.control.records import Room
from qmpmem.control.rights import Peer
from qmpmem.records import replace
from qmpmem.sight import Lease
from qmpmem.units import MIB, Bytes
from tests.rig.agent import Office

ROOM = Room(size=Bytes(512 * MIB), timeout=5.0, keep=60.0)


@pytest.fixture
def office() -> Office:
    made = Office(Path("/proc/none"))
    made.add("web1", created=time.time() - 1000)
    made.round()
    return made


def kept(office: Office) -> tuple[Lease, ...]:
    return office.agent.orders.wishes.leases


async def nobody_left() -> bool:
    return False


async def settle() -> None:
    """Let every task go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_it_ends_when_the_process_ends_without_a_guest(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await asyncio.create_subprocess_exec("sleep", "60")
    peer = Peer(pid=child.pid, uid=0, groups=frozenset())
    work = asyncio.create_task(office.desk.reserve(replace(ROOM, mine=True), peer, nobody_left))
    await settle()
    office.round()
    await work
    monkeypatch.setattr(leases, "REGISTERING", 0.0)
    office.round()
    assert len(kept(office)) == 1
    child.kill()
    await child.wait()
    office.round()
    assert kept(office) == ()


async def test_a_daemon_has_time_to_be_found(office: Office) -> None:
    """With -daemonize the process that asked ends, and the guest is its child."""
    child = await asyncio.create_subprocess_exec("sleep", "60")
    peer = Peer(pid=child.pid, uid=0, groups=frozenset())
    work = asyncio.create_task(office.desk.reserve(replace(ROOM, mine=True), peer, nobody_left))
    await settle()
    office.round()
    await work
    child.kill()
    await child.wait()
    office.round()
    office.add("new", pid=peer.pid)
    office.round()
    assert kept(office)[0].guest == "new"
