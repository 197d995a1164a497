"""Rounds to be looked at: as they come, of the past, of guests without an agent."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from qmpmem.errors import AgentUnreachable, ConfigError, KernelError
from qmpmem.feed import Lost, Past, Round, live, round_of
from qmpmem.feed.guests import guest_reading, host_reading
from qmpmem.feed.live import ENDED, NONE, RESTART, Look
from qmpmem.journal.store import GROUP, Store
from qmpmem.model.config import Config
from qmpmem.model.guest import GuestStats, GuestView
from qmpmem.model.host import HostMemory, Pressure, PressureLine, VmCounters
from qmpmem.units import MIB, Bytes
from tests.rig.rounds import tick

RUN = Path("/run/of/a/test")


class Script:
    """Agents that come and go: each list is the rounds of one, None is no agent."""

    def __init__(self, *agents: list[int] | None) -> None:
        self._agents = list(agents)

    async def follow(self, _run: Path) -> AsyncGenerator[Round]:
        numbers = self._agents.pop(0) if self._agents else None
        if numbers is None:
            raise AgentUnreachable(NONE, reason="none")
        for number in numbers:
            yield round_of(tick(number), "agent", 0.0)


async def look(_run: Path) -> Round:
    seen = tick(0).snapshot
    return Round(source="guests", wall=5.0, snapshot=seen)


async def forbidden(_run: Path) -> Round:
    raise KernelError("only root may look")


async def heard(script: Script, count: int, look: Look | None) -> list[Round | Lost]:
    found: list[Round | Lost] = []
    async with aclosing(live(RUN, follow=script.follow, look=look)) as rounds:
        async for each in rounds:
            found.append(each)
            if len(found) == count:
                return found
    raise AssertionError("it has ended")


def words(found: list[Round | Lost]) -> list[str]:
    return [
        f"lost: {each.problem}" if isinstance(each, Lost) else f"{each.source} {each.number}"
        for each in found
    ]


@pytest.mark.parametrize(
    ("agents", "asks", "expected"),
    [
        (([1, 2],), None, ["agent 1", "agent 2", f"lost: {ENDED}"]),
        (([1], None, None, [7]), None, ["agent 1", f"lost: {ENDED}", "agent 7"]),
        ((), look, [f"lost: {NONE}", "guests None", "guests None"]),
        ((None, None, [3]), look, [f"lost: {NONE}", "guests None", "guests None", "agent 3"]),
        (([1], None, [2]), look, ["agent 1", f"lost: {ENDED}", "agent 2"]),
        ((None, [2]), forbidden, [f"lost: {NONE}; the guests: only root may look", "agent 2"]),
        (([1], [2], [3]), None, ["agent 1", f"lost: {ENDED}", "agent 2", f"lost: {ENDED}"]),
    ],
)
async def test_live_goes_on(
    agents: tuple[list[int] | None, ...], asks: Look | None, expected: list[str]
) -> None:
    assert words(await heard(Script(*agents), len(expected), asks)) == expected


async def test_an_agent_that_restarts_has_the_sockets_for_itself() -> None:
    clock = asyncio.get_running_loop().time
    asked: list[float] = []

    async def noting(run: Path) -> Round:
        asked.append(clock())
        return await look(run)

    found = await heard(Script([1]), 3, noting)
    assert asked[0] >= RESTART
    assert isinstance(found[-1], Round)
    assert found[-1].problem == ENDED


async def test_the_guests_are_asked_less_often_the_longer_that_takes() -> None:
    clock = asyncio.get_running_loop().time
    asked: list[float] = []

    async def slow(run: Path) -> Round:
        asked.append(clock())
        await asyncio.sleep(3.0)
        return await look(run)

    await heard(Script(), 3, slow)
    assert asked[1] - asked[0] >= 30.0


@pytest.fixture
def past(tmp_path: Path) -> Past:
    path = tmp_path / "j"
    with closing(Store(path, Bytes(8 * MIB))) as opened:
        for number in range(2 * GROUP + 5):
            opened.add(tick(number, guests=2), Config())
    return Past(path)


@pytest.mark.parametrize(
    ("moment", "number"), [(0.0, 0), (1000.0, 0), (1003.7, 3), (1000.0 + GROUP, GROUP), (9e9, 124)]
)
def test_a_time_is_found(past: Past, moment: float, number: int) -> None:
    found = past.at(moment)
    assert found is not None
    assert (found.number, found.wall, found.source) == (number, 1000.0 + number, "journal")


@pytest.mark.parametrize(
    ("steps", "number"), [(1, 61), (-1, 59), (0, 60), (60, 120), (-60, 0), (-61, None), (99, None)]
)
def test_rounds_are_stepped_through(past: Past, steps: int, number: int | None) -> None:
    begin = past.at(1060.0)
    assert begin is not None
    assert begin.place is not None
    found = past.step(begin.place, steps)
    assert (None if found is None else found.number) == number


def test_a_clock_that_was_set_back_does_not_stop_the_steps(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "j", Bytes(8 * MIB))) as opened:
        for number, wall in enumerate((5.0, 6.0, 2.0, 3.0)):
            opened.add(tick(number, wall=wall), Config())
    past = Past(tmp_path / "j")
    place, seen = past.at(0.0), list[int | None]()
    first = past.step(1, 0)
    assert place is not None
    while first is not None and first.place is not None:
        seen.append(first.number)
        first = past.step(first.place, 1)
    assert seen == [0, 1, 2, 3]


def test_a_stretch_is_read(past: Past) -> None:
    assert [each.number for each in past.between(1058.0, 1061.0)] == [58, 59, 60, 61]
    assert past.span() == (1000.0, 1124.0)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no journal"):
        Past(tmp_path / "none").at(0.0)
    with closing(Store(tmp_path / "j", Bytes(8 * MIB))):
        pass
    past = Past(tmp_path / "j")
    assert (past.at(5.0), past.step(3, 1), past.step(3, 0), past.span()) == (None,) * 4


def test_what_a_guest_says_without_an_agent_is_kept() -> None:
    seen = GuestView(
        id="g",
        name="the guest",
        pid=7,
        state="running",
        maximum=Bytes(100),
        actual=Bytes(80),
        rss=Bytes(60),
        stats=GuestStats(available=Bytes(30), free=Bytes(20), disk_caches=Bytes(10), age=0.5),
        socket="/s",
        machine=None,
        managed=True,
    )
    reading = guest_reading(seen)
    found = (reading.name, reading.maximum, reading.actual, reading.rss)
    assert found == ("the guest", 100, 80, 60)
    told = reading.stats
    assert (told.available, told.free, told.disk_caches, told.age) == (30, 20, 10, None)
    assert reading.age == 0.5
    silent = GuestView(
        id="h", name="h", pid=None, state="busy", maximum=None, actual=None, rss=None, stats=None,
        socket="/s", machine=None, managed=True,
    )  # fmt: skip
    assert guest_reading(silent).stats.available is None
    assert guest_reading(silent).age is None


def test_what_the_kernel_lacks_is_not_known() -> None:
    known = host_reading(
        HostMemory(total=Bytes(9), available=Bytes(4)),
        VmCounters(swap_in=Bytes(1)),
        Pressure(some=PressureLine(avg10=1.5, avg60=0, avg300=0, total=7)),
    )
    assert (known.total, known.available, known.some, known.full) == (9, 4, 1.5, None)
    assert host_reading(HostMemory(), VmCounters(), None).some is None
