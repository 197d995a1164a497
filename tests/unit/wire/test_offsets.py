"""The end of a session at every byte of it (row F18): one clean error, and a clean new start."""

import asyncio
import os
from collections.abc import Iterable
from functools import cache
from typing import Final

import pytest

from qmpmem.errors import GuestUnreachable
from qmpmem.wire.qmp import connect
from tests.rig import chance
from tests.rig.clock import VirtualLoop
from tests.rig.fakeqmp import (
    Conversation,
    FakeQmp,
    Step,
    answer,
    break_off,
    event,
    expect,
    greet,
    negotiate,
    refuse,
    serve,
    together,
)
from tests.rig.hostile import standing, status
from tests.rig.memory import memory_directory

WHOLE: list[Step] = [
    greet(),
    negotiate(),
    event("BALLOON_CHANGE", '{"actual": 268435456}'),
    together(expect("query-status"), answer()),
    event("STOP"),
    together(expect("query-balloon"), answer()),
    together(expect("balloon"), refuse("DeviceNotActive", "No balloon device has been activated")),
]
HEALTHY: list[Step] = [greet(), negotiate(), serve()]


async def everything(path: str) -> tuple[list[object], str]:
    """Have the whole conversation.

    Returns:
        What was answered, and how it ended.
    """
    answers: list[object] = []
    try:
        async with connect(path, guest="g", expect_pid=os.getpid()) as session:
            answers.append(await session.query("query-status"))
            answers.append(await session.query("query-balloon"))
            answers.append(await session.change("balloon", {"value": 1}))
    except GuestUnreachable as error:
        return answers, error.reason
    except Exception as error:  # noqa: BLE001 - that none comes is what is tested
        return answers, type(error).__name__
    return answers, "ok"


@cache
def ends() -> list[int]:
    """Find where each line of the whole conversation ends, in bytes."""

    async def run() -> list[int]:
        found: list[int] = []

        async def note(conversation: Conversation) -> None:
            found.append(conversation.sent)

        noted = [step for each in WHOLE for step in (each, note)]
        async with FakeQmp(directory / "q", noted) as fake:
            assert (await everything(str(fake.path)))[1] == "GuestRefused"
        return found

    with memory_directory() as directory, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


PARTS: Final = 8


def hold(offsets: Iterable[int]) -> None:
    """End a session at each of these bytes, and begin another."""

    async def run(offset: int) -> tuple[str, object]:
        path = directory / "q"
        async with FakeQmp(path, [break_off(offset), *WHOLE], HEALTHY) as fake:
            _, end = await everything(str(path))
            async with connect(str(path), guest="g") as session:
                again = await status(session)
            assert asyncio.all_tasks() <= {asyncio.current_task(), *fake.serving}
            return end, again

    with (
        standing(),
        memory_directory() as directory,
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        for offset in offsets:
            end, again = runner.run(run(offset))
            assert end == ("closed" if offset < ends()[-1] else "GuestRefused"), offset
            assert again == {"status": "running", "running": True, "singlestep": False}, offset


def test_the_end_may_come_around_the_end_of_a_line() -> None:
    assert ends()[-1] > 550
    assert len(set(ends())) == len(WHOLE)
    around = {end + step for end in (0, *ends()) for step in range(-3, 3)}
    hold(sorted(offset for offset in around if 0 <= offset <= ends()[-1]))


@pytest.mark.parametrize("part", chance.some(range(PARTS)))
def test_the_end_may_come_at_any_byte(part: int) -> None:
    hold(range(part, ends()[-1] + 1, PARTS))
