"""Damaged QMP by chance to a shared session with a real QEMU: each client is answered, or cut off.

200 other sessions in each run, and 10,000 in `make soak`. Beside them an honest client gets its own
answers, QEMU and the agent live on, and neither the agent nor the proxy grows.
"""

import asyncio
import json
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from qmpmem.model.guest import GuestView
from tests.rig import chance, mutate
from tests.rig.agent import asking, running, said
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory
from tests.rig.talker import listening, talking

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

COUNT: Final = 200
SOAK_COUNT: Final = 1000
SOAK_PARTS: Final = 10
"""10,000 in all."""
AT_ONCE: Final = 16
MORE_MEMORY: Final = 8 << 20
GUEST: Final = "web1"

MESSAGES: Final = (
    b'{"execute": "qmp_capabilities"}\n',
    b'{"execute": "query-status", "id": 1}\n',
    b'{"execute": "query-balloon", "id": "2"}\n',
    b'{"execute": "query-name", "id": {"a": [1, null, true]}}',
    b'{"execute": "qom-list", "arguments": {"path": "/machine"}, "id": "2"}\n',
    b'{"execute": "qom-get", "arguments": {"path": "/machine", "property": "type"}, "id": []}\n',
    b'{"execute": "human-monitor-command", "arguments": {"command-line": "info status"}}\r\n',
    b'{"execute": "query-command-line-options", "arguments": {"option": "m"}, "id": 1.5}\n',
    b'{"execute": "query-qmp-schema", "id": 9007199254740993}\n',
    b'{"execute": "no-such-command", "id": "\\u0000"}\n',
    b'{"exec-oob": "query-status", "id": "1"}\n',
)
HARMFUL: Final = (b"quit", b"powerdown", b"reset", b"stop", b"migrate", b"balloon")


def make(seed: int) -> list[bytes]:
    """Make what a client sends, piece by piece."""
    dice = random.Random(seed)  # noqa: S311 - it shall be the same again
    pieces = [MESSAGES[0], *(dice.choice(MESSAGES) for _ in range(dice.randint(1, 6)))]
    mutate.damage(dice, pieces)
    return pieces


class World(NamedTuple):
    run: Path
    path: Path
    agent: subprocess.Popen[str]
    proxy: subprocess.Popen[str]

    def memory(self) -> list[int]:
        """Return what agent and proxy have in memory; bytes (proc(5): statm)."""
        page = os.sysconf("SC_PAGE_SIZE")
        texts = [Path(f"/proc/{each.pid}/statm").read_text() for each in (self.agent, self.proxy)]
        return [int(text.split()[1]) * page for text in texts]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with (
        short_directory() as directory,
        paused(directory / "run", GUEST),
        running(directory / "run") as agent,
        listening(directory / "run", GUEST) as (path, proxy),
    ):
        world = World(directory / "run", path, agent, proxy)
        asyncio.run(try_all(world.path, range(100)))
        yield world
    assert proxy.stderr is not None
    assert proxy.stderr.closed or "Traceback" not in proxy.stderr.read()


async def session(path: Path, seed: int) -> int:
    """Have one session, and count what was said in it."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=16 << 20)
    count = 0
    try:
        for piece in make(seed):
            writer.write(piece)
        writer.write_eof()  # the session ends when all that makes sense is answered
        # One of 200 commands takes turns with 15 others that have few, and with those after them.
        async with asyncio.timeout(patient(60)):
            while line := await reader.readline():
                answer = json.loads(line)
                assert {"QMP", "return", "error", "event"} & answer.keys(), line
                count += 1
    finally:
        writer.transport.abort()
    assert count, "it was not greeted"
    return count


async def try_all(path: Path, seeds: Sequence[int]) -> int:
    """Have so many sessions, some at a time."""
    left = iter(seeds)
    counts: list[int] = []

    async def work() -> None:
        for number in left:
            try:
                counts.append(await session(path, number))
            except BaseException as error:
                error.add_note(f"the session of seed {number}")
                raise

    async with honest(path), asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    assert len(counts) == len(seeds)
    return sum(counts)


@asynccontextmanager
async def honest(path: Path) -> AsyncIterator[None]:
    """Have a client beside them that is answered what it asked, all the while."""
    over = asyncio.Event()

    async def ask() -> int:
        async with talking(path) as talker:
            number = 0
            while not over.is_set() or not number:
                number += 1
                answer = await talker.run("query-name", number)
                assert answer == {"return": {}, "id": number}
                await asyncio.sleep(0.05)
            return number

    asking_on = asyncio.create_task(ask())
    try:
        yield
    finally:
        over.set()
        assert await asking_on


def parts() -> list[object]:
    marks = [pytest.mark.soak, pytest.mark.timeout(900)]
    soak = [pytest.param(SOAK_COUNT, part, marks=marks) for part in range(1, SOAK_PARTS + 1)]
    return [(COUNT, 0), *soak]


@pytest.mark.parametrize(("count", "part"), parts())
def test_any_session_is_answered_and_disturbs_no_other(world: World, count: int, part: int) -> None:
    before = world.memory()
    seeds = chance.cases(count * (SOAK_PARTS + 1), part, SOAK_PARTS + 1)
    said_back = asyncio.run(try_all(world.path, seeds))
    assert said_back > 2 * len(seeds)
    assert (world.agent.poll(), world.proxy.poll()) == (None, None)
    log = said(world.run)
    assert "Traceback" not in log
    assert "starting over" not in log
    guest = asking(world.run).get(f"guests/{GUEST}", GuestView)
    assert (guest.state, guest.actual) == ("prelaunch", guest.maximum)
    grown = [after - earlier for after, earlier in zip(world.memory(), before, strict=True)]
    assert max(grown) <= MORE_MEMORY, grown


def test_no_message_can_become_one_that_does_harm() -> None:
    """What is damaged is none of the commands that change a guest, and no token makes it one."""
    words = b" ".join([*MESSAGES, *mutate.TOKENS]).lower()
    assert not [each for each in HARMFUL if each in words.replace(b"query-balloon", b"")]
