"""What the screen shows: live rounds, a stop, the past, now again; agents that come and go."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qmpmem.feed import Lost, Past, Round
from qmpmem.journal.store import Store
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from qmpmem.records import replace
from qmpmem.top.change_dialog import Order
from qmpmem.top.keys import Jump, Live, Pause, Step
from qmpmem.top.session import NO_AGENT, Session, Sources
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.screens import round_at

NUMBERS = range(100, 400)
"""Rounds that are in the journal; the last of them is also the one that is live."""


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have no agent and no guests of this machine."""
    monkeypatch.setenv("QMPMEM_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("QMPMEM_AGENT_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def tick_of(seen: Round) -> Tick:
    assert seen.plan is not None
    return Tick(number=seen.number or 0, snapshot=seen.snapshot, plan=seen.plan)


@pytest.fixture
def past(tmp_path: Path) -> Past:
    path = tmp_path / "j"
    with closing(Store(path, Bytes(32 * MIB))) as opened:
        for number in NUMBERS:
            opened.add(tick_of(round_at(number)), Config())
    return Past(path)


def feed_of(*news: Round | Lost) -> Callable[[], AsyncGenerator[Round | Lost]]:
    async def feed() -> AsyncGenerator[Round | Lost]:
        for each in news:
            yield each

    return feed


async def live(past: Past | None, *news: Round | Lost) -> Session:
    session = Session(Sources(feed=feed_of(*(news or (round_at(399),))), past=past))
    await session.run()
    return session


def number(session: Session) -> int | None:
    return None if session.scene.seen is None else session.scene.seen.number


async def test_live_rounds_are_shown(past: Past) -> None:
    session = await live(past, round_at(1), round_at(2))
    assert number(session) == 2
    assert session.scene.where.is_live
    assert session.scene.shown is not None


@pytest.mark.parametrize(
    ("travels", "expected"),
    [
        ([Step(rounds=-1)], 398),
        ([Step(rounds=-1), Step(rounds=-1)], 397),
        ([Step(rounds=-10), Step(rounds=1)], 390),
        ([Step(seconds=-60.0)], 339),
        ([Step(seconds=-60.0), Step(seconds=-60.0)], 279),
        ([Step(seconds=-60.0), Step(seconds=60.0)], 399),
        ([Step(seconds=-3600.0)], 100),
        ([Jump(text="14:06:00")], 158),
        ([Jump(text="2026-09-27T14:07")], 218),
        ([Pause()], 399),
    ],
)
async def test_the_past_is_gone_to(
    past: Past,
    travels: list[Step | Jump | Live | Pause],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qmpmem.top.session.datetime", _Then)
    session = await live(past)
    for each in travels:
        assert await session.travel(each) == ""
    assert number(session) == expected
    assert not session.scene.where.is_live


class _Then:
    """A clock that stands at the last round."""

    @staticmethod
    def now() -> object:
        return datetime.fromtimestamp(round_at(399).wall, tz=UTC)


@pytest.mark.parametrize(
    "travels",
    [
        [Pause(), Pause()],
        [Step(rounds=-3), Live()],
        [Step(rounds=-1), Step(rounds=1), Step(rounds=1)],
        [Step(seconds=-60.0), Step(seconds=60.0), Step(seconds=60.0)],
    ],
)
async def test_after_the_last_round_it_is_live_again(
    past: Past, travels: list[Step | Jump | Live | Pause]
) -> None:
    session = await live(past)
    for each in travels:
        await session.travel(each)
    assert session.scene.where.is_live
    assert number(session) == 399


async def test_the_journal_ends_somewhere(past: Past) -> None:
    session = await live(past)
    await session.travel(Step(seconds=-3600.0))
    assert await session.travel(Step(rounds=-1)) == "the journal has no round there"
    assert number(session) == 100
    assert "expected 14:03" in await session.travel(Jump(text="soon"))
    assert "nothing was written down at" in await session.travel(Jump(text="2026-09-27T20:00"))


async def test_a_past_round_has_what_was_before_it(past: Past) -> None:
    session = await live(past)
    await session.travel(Step(seconds=-60.0))
    seen, history = session.scene.seen, session.scene.history
    assert seen is not None
    points = history.points("db1", 0.0, seen.wall)
    assert len(points) == 339 - 100 + 1
    assert history.decisions("db1", seen.wall)[-1].time == round_at(330).wall
    assert history.target("db1", seen.wall) == 6 * GIB


async def test_live_rounds_wait_while_the_past_is_shown(past: Past) -> None:
    gate = asyncio.Event()

    async def feed() -> AsyncGenerator[Round | Lost]:
        yield round_at(399)
        await gate.wait()
        yield round_at(400)

    session = Session(Sources(feed=feed, past=past))
    async with asyncio.TaskGroup() as group:
        group.create_task(session.run())
        await asyncio.sleep(1)
        await session.travel(Step(rounds=-1))
        gate.set()
        await asyncio.sleep(1)
        assert number(session) == 398
        await session.travel(Live())
        assert number(session) == 400


async def test_plots_begin_before_the_screen_does(past: Past) -> None:
    session = await live(past)
    assert len(session.scene.history.points("db1", 0.0, 9e9)) == 1
    await session.read_history()
    assert len(session.scene.history.points("db1", 0.0, 9e9)) == len(NUMBERS)


@pytest.mark.parametrize("there", [True, False])
async def test_without_a_journal_that_is_said(tmp_path: Path, there: bool) -> None:  # noqa: FBT001 - a row of the table
    session = await live(Past(tmp_path / "none") if there else None)
    await session.read_history()
    said = await session.travel(Step(rounds=-1))
    assert "journal" in said
    assert session.scene.where.is_live
    assert await session.travel(Pause()) == ""


async def test_an_agent_that_ends_is_said_and_comes_back() -> None:
    session = await live(None, round_at(1), Lost(wall=5.0, problem="the agent has ended"))
    assert session.scene.where.lost == "the agent has ended"
    assert not session.scene.may_write
    assert number(session) == 1
    session = await live(None, Lost(wall=5.0, problem="no agent runs"), round_at(2))
    assert session.scene.where.lost is None


async def test_a_user_that_may_not_write_may_not(tmp_path: Path) -> None:
    assert not (await live(None)).scene.may_write
    for name in ("none.sock", "none-admin.sock"):
        (tmp_path / name).touch()
    assert (await live(None)).scene.may_write
    reading = Session(Sources(feed=feed_of(round_at(1)), read_only=True))
    await reading.run()
    assert not reading.scene.may_write


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Order(kind="hold"), NO_AGENT),
        (Order(kind="pin", guest="g", size=Bytes(GIB)), NO_AGENT),
        (Order(kind="set", guest="g", size=Bytes(GIB)), "no such guest"),
    ],
)
async def test_without_an_agent_only_a_size_is_set(order: Order, said: str) -> None:
    alone = replace(round_at(1), plan=None, source="guests", number=None)
    session = await live(None, alone)
    assert session.scene.may_write
    words, is_error = await session.do(order)
    assert said in words
    assert is_error


async def test_an_agent_that_is_gone_refuses_in_one_line() -> None:
    session = await live(None)
    for kind in ("hold", "release", "unpin", "reserve", "set"):
        order = Order(kind=kind, guest="g", size=Bytes(GIB))
        words, is_error = await session.do(order)
        assert "no agent runs" in words
        assert is_error
    words, is_error = await session.check(Order(kind="pin", guest="g", size=Bytes(GIB)))
    assert "no agent runs" in words
    assert is_error
