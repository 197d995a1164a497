"""An agent that is killed with SIGKILL, anywhere: the next one goes on as if nothing had been.

Row F51 of the faults, and F71. A run tries a third of the points, others each time; `make soak`
tries each twenty times. The agents are real processes, forked by `tests.rig.agent_server`; guests
and host are `tests.rig.fakeguest`'s, KSM's files those of `tests.rig.ksmmodel`.
"""

import asyncio
import math
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest

from qmpmem.api.records import PinRequest, PinResult, Status
from qmpmem.errors import AgentUnreachable, QmpmemError
from qmpmem.units import Bytes
from tests.rig import chance
from tests.rig.agent import ask, asking
from tests.rig.agent_server import AgentServer, agent_server
from tests.rig.crashpoints import POINTS
from tests.rig.fakeguest import FakeGuest, FakeHost, herd
from tests.rig.ksmmodel import OLD, Kernel
from tests.rig.qemu import short_directory
from tests.rig.waiting import until

pytestmark = pytest.mark.timeout(60)

GROUPS: Final = list(dict.fromkeys(name.split(",")[0] for name in POINTS))
HASTY: Final = """
period = "100ms"
grace = "0s"
reserve = "256M"
on_stop = "release"
[ksm]
managed = true
"""
CAREFUL: Final = HASTY.replace('grace = "0s"', "")
"""As an administrator would have it: nothing is taken for a minute."""
OTHERS: Final = {"sleep_millisecs": "77"}
"""What another program had set before any agent came."""
SEEN_SECONDS: Final = 5.0
WATCHED_SECONDS: Final = 4.0
"""Two reports and more: a guest that is not in its grace could be asked to give."""


class World:
    """A host that is short, with guests that can give and one that needs; and its agents."""

    def __init__(self, host: FakeHost, nurse: AgentServer) -> None:
        self.host = host
        self.kernel = Kernel(host.root, OTHERS, OLD)
        self.run = host.run
        self._nurse = nurse
        self._client = asking(host.run)
        self._config = host.root / "qmpmem.toml"

    def knobs(self) -> dict[str, str]:
        """What KSM's files say now."""
        directory = self.host.root / "sys/kernel/mm/ksm"
        return {name: (directory / name).read_text().strip() for name in self.kernel.knobs()}

    def start(self, config: str, point: str | None = None) -> int:
        """Start an agent."""
        self._config.write_text(config)
        environ = {
            "QMPMEM_CONFIG": str(self._config),
            "QMPMEM_KSM_DIR": str(self.host.root / "ksm"),
            "STATE_DIRECTORY": str(self.host.root),
            "NOTIFY_SOCKET": str(self.host.root / "nobody"),
        }
        return self._nurse.start(self.run, self.host.root, environ, point)

    def ended(self, pid: int) -> int | None:
        return self._nurse.ended(pid)

    async def status(self) -> Status | None:
        """Ask the agent how it is; None: there is none that answers."""
        try:
            return await ask(lambda: self._client.get("status", Status))
        except (AgentUnreachable, QmpmemError):
            return None

    def merges(self) -> bool:
        """Whether KSM is at work; once all are seen, by the hand of the agent that lives.

        What a killed one left on, its successor puts back before its first round.
        """
        return self.knobs()["run"] == "1"

    async def sees_all(self) -> bool:
        status = await self.status()
        if status is None:
            return False
        seen = {each.guest for each in status.guests if each.actual is not None}
        return seen == set(self.host.guests) and all(
            each.verdict not in ("exempt", "implausible") for each in status.guests
        )

    async def pin(self) -> None:
        """Pin a guest where it is; the agent may die of it."""
        guest = self.host.guests["a"]
        with suppress(QmpmemError):
            request = PinRequest(size=Bytes(guest.actual))
            await ask(lambda: self._client.ask("PUT", "guests/a/pin", PinResult, request))

    def said(self) -> str:
        words = self.run / ".err"
        return words.read_text() if words.exists() else ""

    def lowest(self) -> dict[str, int]:
        """The least that each guest was told so far."""
        return {
            name: min(each.balloons) for name, each in self.host.guests.items() if each.balloons
        }


@asynccontextmanager
async def world(nurse: AgentServer, *more: str) -> AsyncIterator[World]:
    total = 1324 + 150 + 512 * len(more)
    with short_directory() as directory:
        async with herd(directory, "a", "b", *more, total=total) as host:
            (host.root / "proc/sys/kernel/random").mkdir(parents=True)
            (host.root / "proc/sys/kernel/random/boot_id").write_text("one\n")
            needy = FakeGuest("c", used=280)
            needy.have(300)
            await host.start(needy)
            yield World(host, nurse)


@pytest.fixture(scope="module")
def nurse() -> Iterator[AgentServer]:
    with agent_server() as found:
        yield found


async def die_at(here: World, point: str) -> None:
    """Have an agent get to a point, and die there."""
    agent = here.start(HASTY, point)
    cause = POINTS[point].cause
    if cause != "start":
        await until(here.sees_all, what="it sees all", said=here.said)
        await until(here.merges, what="it merges", said=here.said)
    match cause:
        case "pin":
            await here.pin()
        case "reload":
            os.kill(agent, signal.SIGHUP)
        case "stop":
            os.kill(agent, signal.SIGTERM)
        case "start":
            pass
    await until(lambda: here.ended(agent) is not None, seconds=15, what="it died", said=here.said)
    assert here.ended(agent) == -signal.SIGKILL, here.said()


async def expect_that_another_goes_on(here: World) -> None:
    """Start an agent, watch it for some seconds, and stop it."""
    lines = [each.lines for each in here.host.guests.values()]
    await until(lambda: not any(lines), what="what the dead one sent has come")
    for guest in here.host.guests.values():
        guest.balloons.clear()
    sizes = {name: guest.actual for name, guest in here.host.guests.items()}
    polling = {name: guest.polling for name, guest in here.host.guests.items()}
    agent = here.start(CAREFUL)
    try:
        clock = asyncio.get_running_loop().time
        began = clock()
        await until(here.sees_all, seconds=SEEN_SECONDS, what="it sees all", said=here.said)
        await until(here.merges, what="it merges", said=here.said)
        await asyncio.sleep(max(0.0, began + WATCHED_SECONDS - clock()))
        lowered = {name: least for name, least in here.lowest().items() if least < sizes[name]}
        assert not lowered, f"taken in grace: {lowered}, of {sizes}"
        status = await here.status()
        assert status is not None
        # A busy disk may cost rounds of the journal, which is no fault of the start.
        others = [
            each for each in status.warnings if not re.search("guest|keep up|not in it", each)
        ]
        assert not others, status.warnings
        assert here.ended(agent) is None
    finally:
        with suppress(ProcessLookupError):
            os.kill(agent, signal.SIGTERM)
    await until(lambda: here.ended(agent) is not None, seconds=15, what="it ends", said=here.said)
    assert here.ended(agent) == 0, here.said()
    await until(lambda: not any(lines), what="what this one sent has come, too")
    assert here.knobs() == here.kernel.knobs(), "all is as it was before the first"
    assert {name: guest.polling for name, guest in here.host.guests.items()} == polling
    assert not (here.run / ".agent/agent.sock").exists()
    for guest in here.host.guests.values():
        assert not guest.mistakes


async def survive(nurse: AgentServer, point: str, *more: str) -> None:
    try:
        async with world(nurse, *more) as here:
            await die_at(here, point)
            await expect_that_another_goes_on(here)
    except Exception as error:
        error.add_note(f"killed at: {point}")
        raise


async def survive_all(nurse: AgentServer, points: Sequence[str]) -> None:
    """Have an agent for each point, on a host for each, all at once."""
    done = await asyncio.gather(
        *(survive(nurse, point) for point in points), return_exceptions=True
    )
    failed = [error for error in done if isinstance(error, Exception)]
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(points)}", failed)


@pytest.mark.parametrize("group", GROUPS)
async def test_f51_f71_killed_anywhere_the_next_agent_goes_on(
    nurse: AgentServer, group: str
) -> None:
    """Rows F51 and F71."""
    points = [name for name in POINTS if name.startswith(f"{group},")]
    await survive_all(nurse, chance.drawn(math.ceil(len(points) / 3), points, group))


@pytest.mark.soak
@pytest.mark.timeout(200)
@pytest.mark.parametrize("point", POINTS)
async def test_f51_f71_killed_twenty_times(nurse: AgentServer, point: str) -> None:
    """Rows F51 and F71: the same, each point twenty times."""
    await survive_all(nurse, [point] * 10)
    await survive_all(nurse, [point] * 10)


async def test_f51_a_hundred_guests_are_seen_again_within_five_seconds(nurse: AgentServer) -> None:
    """Row F51, with many guests."""
    more = [f"g{number}" for number in range(97)]
    await survive(nurse, "shrink, the second of them told", *more)


async def test_f51_what_was_answered_outlives_a_kill(nurse: AgentServer) -> None:
    """Row F51: a pin that an operator was told of holds, and no other program's KSM is touched."""
    async with world(nurse) as here:
        agent = here.start(HASTY)
        await until(here.sees_all, what="it sees all", said=here.said)
        await until(here.merges, what="it merges", said=here.said)
        await here.pin()
        os.kill(agent, signal.SIGKILL)
        await until(lambda: here.ended(agent) is not None, what="it died")
        theirs = {"sleep_millisecs": "33"}
        (here.host.root / "sys/kernel/mm/ksm/sleep_millisecs").write_text("33\n")
        agent = here.start(CAREFUL)
        await until(here.sees_all, what="it sees all", said=here.said)
        status = await here.status()
        assert status is not None
        assert set(status.pins) == {"a"}
        os.kill(agent, signal.SIGTERM)
        await until(lambda: here.ended(agent) is not None, seconds=15, what="it ends")
        assert here.knobs() == here.kernel.knobs() | theirs


def test_f51_there_are_points_enough() -> None:
    """Row F51: at least 25."""
    assert len(POINTS) >= 25
