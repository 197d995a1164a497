"""The terminal of `qmpmem top`, driven by textual's own Pilot, with rounds that are made up."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from qmpmem.feed import Lost, Round
from qmpmem.top.app import Options, Top
from qmpmem.top.screen import Frame
from qmpmem.top.session import Sources
from qmpmem.top.text import plain
from qmpmem.top.view_state import Settings, View
from tests.rig.screens import round_at
from tests.rig.waiting import until

pytestmark = pytest.mark.timeout(60)


class Feed:
    """Rounds that a test sends."""

    def __init__(self) -> None:
        self._news: asyncio.Queue[Round | Lost | Exception] = asyncio.Queue()

    def send(self, *news: Round | Lost | Exception) -> None:
        for each in news:
            self._news.put_nowait(each)

    async def rounds(self) -> AsyncGenerator[Round | Lost]:
        while True:
            each = await self._news.get()
            if isinstance(each, Exception):
                raise each
            yield each


@asynccontextmanager
async def opened(
    tmp_path: Path, *, size: tuple[int, int] = (80, 24), view: View | None = None
) -> AsyncIterator[tuple[Top, Pilot[None], Feed]]:
    feed = Feed()
    feed.send(round_at(1))
    options = Options(
        Sources(feed=feed.rounds), view or View(), tmp_path / "top.toml", unicode=True
    )
    top = Top(options)
    async with top.run_test(size=size) as pilot:
        await until(lambda: top.session.scene.seen is not None, seconds=10)
        await pilot.pause()
        yield top, pilot, feed


def lines(top: Top) -> list[str]:
    return [plain(line) for line in top._lines.lines]


def on_screen(top: Top, y: int) -> str:
    return "".join(segment.text for segment in top._lines.render_line(y)).rstrip()


async def test_the_lines_are_those_of_the_frame(tmp_path: Path) -> None:
    async with opened(tmp_path) as (top, _, _feed):
        assert len(lines(top)) == 24
        assert [on_screen(top, y) for y in range(24)] == lines(top)
        assert "web1" in lines(top)[5]


@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        (["down", "enter"], "── ci-2 ─"),
        (["h"], "── web1: used"),
        (["question_mark"], "qmpmem top: keys"),
        (["slash", *"db", "enter"], "[filter db]"),
        (["exclamation_mark"], "[suffering only]"),
        (["percent_sign"], "[% of host]"),
        (["greater_than_sign"], "ID▼"),
        (["t"], "show the time"),
        (["c"], "columns, in the order"),
        (["space"], "ago)"),
        (["left"], "there is no journal"),
        (["s"], "may change something"),
    ],
)
async def test_a_key_shows(tmp_path: Path, keys: list[str], seen: str) -> None:
    async with opened(tmp_path) as (top, pilot, _feed):
        await pilot.press(*keys)
        await until(lambda: seen in "\n".join(lines(top)), seconds=10)


async def test_the_mouse_chooses_and_asks_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as (top, pilot, _feed):
        await pilot.click(offset=(10, 7))
        assert top.view.chosen == "stuck"
        await pilot.click(offset=(10, 7))
        await until(lambda: "── stuck ─" in "\n".join(lines(top)), seconds=10)


async def test_only_lines_that_differ_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as (top, pilot, _feed):
        drawn: list[int] = []
        render = top._lines.render_line

        def noting(y: int) -> object:
            drawn.append(y)
            return render(y)

        monkeypatch.setattr(top._lines, "render_line", noting)
        await pilot.press("down")
        await pilot.pause()
        assert set(drawn) == {5, 6}


async def test_another_size_is_drawn(tmp_path: Path) -> None:
    async with opened(tmp_path) as (top, pilot, _feed):
        for size, first in (((60, 20), "qmpmem top"), ((30, 8), "qmpmem top"), ((200, 60), "vm")):
            await pilot.resize_terminal(*size)
            await until(lambda size=size: len(lines(top)) == size[1], seconds=10)  # type: ignore[misc]
            assert first in lines(top)[0] or size[0] == 200


async def test_an_agent_that_goes_and_comes_is_said(tmp_path: Path) -> None:
    async with opened(tmp_path) as (top, _pilot, feed):
        feed.send(Lost(wall=0.0, problem="the agent has ended"))
        await until(lambda: "no round for" in lines(top)[0], seconds=10)
        feed.send(round_at(9, count=3))
        await until(lambda: "3 guests" in lines(top)[0], seconds=10)


async def test_settings_are_kept_and_a_failure_to_keep_them_is_said(tmp_path: Path) -> None:
    view = View(settings=Settings(sort="used"))
    async with opened(tmp_path, view=view) as (top, pilot, _feed):
        await pilot.press("W")
        await until(lambda: "kept in" in lines(top)[-1], seconds=10)
        kept = await asyncio.to_thread((tmp_path / "top.toml").read_text)
        assert 'sort = "used"' in kept
    path = tmp_path / "file"
    await asyncio.to_thread(path.write_text, "")
    async with opened(path / "x") as (top, pilot, _feed):
        await pilot.press("W")
        await until(lambda: "directory" in top.view.message, seconds=10)


async def test_q_ends_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as (top, pilot, _feed):
        await pilot.press("q")
        await until(lambda: not top.is_running, seconds=10)
        assert top.failure is None


async def test_a_failure_ends_it_and_is_handed_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as (top, _pilot, feed):
        feed.send(ValueError("a mistake of ours"))
        await until(lambda: top.failure is not None, seconds=10)
        assert str(top.failure) == "a mistake of ours"


async def test_a_mistake_in_drawing_ends_it_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> Frame:
        raise ValueError("a mistake of ours")

    async with opened(tmp_path) as (top, pilot, _feed):
        monkeypatch.setattr("qmpmem.top.app.frame", broken)
        await pilot.press("down")
        await until(lambda: top.failure is not None, seconds=10)
    assert "locals" not in "".join(capfd.readouterr())
