"""The end of a session at every byte of it (row F18): one clean error, and a clean new start."""

import asyncio
import os

from qmpmem.errors import GuestUnreachable
from qmpmem.wire.qmp import connect
from tests.rig.clock import VirtualLoop
from tests.rig.fakeqmp import (
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


def length_of_the_whole() -> int:
    async def run() -> int:
        async with FakeQmp(directory / "q", WHOLE) as fake:
            assert (await everything(str(fake.path)))[1] == "GuestRefused"
            return fake.conversations[0].sent

    with memory_directory() as directory, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def test_the_end_may_come_at_any_byte() -> None:
    length = length_of_the_whole()
    assert length > 550

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
        for offset in range(length + 1):
            end, again = runner.run(run(offset))
            assert end == ("closed" if offset < length else "GuestRefused"), offset
            assert again == {"status": "running", "running": True, "singlestep": False}, offset
