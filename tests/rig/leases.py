"""Room that is asked for of an agent whose rounds are made up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from qmpmem.api.permissions import Peer
from qmpmem.api.records import LeaseRequest, LeaseResult
from qmpmem.model.observation import Lease
from qmpmem.units import MIB, Bytes
from tests.rig.agent import Office

ROOM: Final = LeaseRequest(size=Bytes(512 * MIB), timeout=5.0, keep=60.0)


def old_guest() -> Office:
    """Make an agent that has long had one guest."""
    made = Office(Path("/proc/none"))
    made.add("web1", created=time.time() - 1000)
    made.round()
    return made


def kept(office: Office) -> tuple[Lease, ...]:
    """Return the leases that are in force."""
    return office.agent.requests.in_force.leases


async def stays() -> bool:
    """Return that the client is not gone."""
    return False


def asking(
    office: Office,
    peer: Peer,
    room: LeaseRequest = ROOM,
    is_gone: Callable[[], Awaitable[bool]] = stays,
) -> asyncio.Task[LeaseResult]:
    """Ask for room, and go on."""
    return asyncio.create_task(office.handlers.reserve(room, peer, is_gone))


async def settle() -> None:
    """Let every task go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def reserved(office: Office, peer: Peer, room: LeaseRequest = ROOM) -> LeaseResult:
    """Ask for room, and have a round after which it is there."""
    work = asking(office, peer, room)
    await settle()
    office.round(spare=0)
    return await work
