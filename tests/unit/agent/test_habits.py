"""What the agent knows of guests from other days: read beside its rounds, and switched off."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.journal import hourly_use
from qmpmem.journal.store import Store
from qmpmem.model.config import JournalConfig
from qmpmem.model.observation import Habit
from qmpmem.policy.habits import HOUR, HOURS, Use
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from tests.rig.agent_scenarios import TIGHT, is_seen, play
from tests.rig.fakeguest import FakeHost
from tests.rig.invariants import Watched
from tests.rig.memory import memory_directory

MAXIMUM: Final = Bytes(512 * MIB)
USUAL: Final = Bytes(300 * MIB)


@contextmanager
def journal() -> Iterator[Path]:
    """Make a journal in which guest `a` used 300 MiB in each hour of the last two days."""
    today = int(hourly_use.local(time.time()) // (HOURS * HOUR))
    found = [
        Use(
            guest="a",
            day=today - ago,
            hour=hour,
            usual=USUAL,
            peak=USUAL,
            start=None,
            maximum=MAXIMUM,
            minutes=60,
        )
        for ago in (1, 2)
        for hour in range(HOURS)
    ]
    with memory_directory() as directory:
        path = directory / "journal.db"
        with closing(Store(path, Bytes(4 * MIB))) as opened:
            opened.learn(found)
        yield path


@pytest.mark.parametrize("learns", [True, False])
def test_a_guest_that_is_new_is_known_some_rounds_later(*, learns: bool) -> None:
    async def scene(_: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a", "b"))
        await asyncio.to_thread(lambda: None)
        await seen.rounds(30)
        known, other = seen.reading("a"), seen.reading("b")
        assert known is not None
        assert other is not None
        assert other.habit is None
        days = 2
        expected = Habit(usual=USUAL, peak=USUAL, maximum=MAXIMUM, days=days)
        assert known.habit == (expected if learns else None)
        said = {each.guest: each.usual for each in seen.last.plan.guests}
        assert said == {"a": USUAL if learns else None, "b": None}

    config = replace(TIGHT, journal=JournalConfig(learn=learns))
    with journal() as path:
        play(scene, "a", "b", config=config, journal=path)


@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 999])
def test_a_journal_that_cannot_be_read_holds_nothing_up(content: bytes | None) -> None:
    async def scene(_: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.rounds(30)
        reading = seen.reading("a")
        assert reading is not None
        assert reading.habit is None
        assert seen.agent.degraded_at is None

    with journal() as path:
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        play(scene, "a", journal=path)
