"""Requests by chance to a real agent, with a real QEMU behind: no 500, and nothing is worn out.

Some 100 other ones of each kind in each run, and 10,000 in `make soak`. What was refused changed
nothing; the agent says nothing of a mistake of its own; its rounds come in time; and it grows by
nothing. `QMPMEM_TEST_SEED` brings the same requests back.
"""

import asyncio
import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from qmpmem.api import addresses
from qmpmem.api.client import Client
from qmpmem.model.guest import GuestView
from tests.rig import chance, wild
from tests.rig.agent import asking, running, said
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory, until
from tests.rig.wild import GUEST, Wild

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

COUNT: Final = 60
DAMAGED: Final = 300
SOAK_COUNT: Final = 500
SOAK_DAMAGED: Final = 500
SOAK_PARTS: Final = 20
"""10,000 of each kind in all."""
MORE_MEMORY: Final = 8 << 20
"""Bytes that the agent may have more after hundreds of requests: what it keeps is bounded, and
twice of that malloc has free in between."""
GAP: Final = 1.5
"""Seconds between two rounds: one, and what a question may take."""


class World(NamedTuple):
    run: Path
    agent: subprocess.Popen[str]
    client: Client

    def memory(self) -> int:
        """Return what the agent has in memory; bytes (proc(5): statm)."""
        pages = int(Path(f"/proc/{self.agent.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.agent.pid}/fd"))  # noqa: PTH208 - their number

    def rounds(self) -> list[float]:
        """Return the times of the rounds so far, by the agent's own clock."""
        # Not splitlines: an owner's name may have what Unicode takes for a line's end.
        lines = (self.run / ".out").read_bytes().split(b"\n")
        return [json.loads(line)["snapshot"]["time"] for line in lines[:-1]]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with (
        short_directory() as directory,
        paused(directory / "run", GUEST),
        running(directory / "run", "--json") as agent,
    ):
        run = directory / "run"
        world = World(run, agent, asking(run))
        warm_up(world)
        yield world
        expect_sound(world)


def warm_up(world: World) -> None:
    """Have the agent load what it loads for questions, and take what it keeps."""
    Wild(world.client).try_requests(50, 0)


def expect_sound(world: World) -> None:
    log = said(world.run)
    assert world.agent.poll() is None
    for words in ("Traceback", "internal error", "starting over", "was left out"):
        assert words not in log, log[-3000:]
    assert world.client.get(f"guests/{GUEST}", GuestView).state == "prelaunch"


@pytest.fixture
def worn(world: World) -> Iterator[World]:
    """Have what the agent has, and does, be the same after as before."""
    memory, files, rounds = world.memory(), world.files(), len(world.rounds())
    yield world
    expect_sound(world)
    until(lambda: world.files() <= files + 1, what="what was open is closed")
    assert world.memory() - memory <= MORE_MEMORY
    until(lambda: len(world.rounds()) >= rounds + 4, what="four rounds")
    gaps = [after - before for before, after in pairwise(world.rounds()[rounds:])]
    most = patient(GAP)  # of half of them: what holds up a busy machine is some of the rounds
    assert statistics.median(gaps) < most, gaps


def some(count: int, soak_count: int) -> list[object]:
    """Give the number of cases, and the number of the part: one here, more in soak."""
    mark = pytest.mark.soak
    parts = [
        pytest.param(soak_count, part, marks=[mark, pytest.mark.timeout(900)])
        for part in range(1, SOAK_PARTS + 1)
    ]
    return [(count, 0), *parts]


@pytest.mark.parametrize(("count", "part"), some(COUNT, SOAK_COUNT))
def test_any_request_is_answered_and_one_that_is_refused_changes_nothing(
    worn: World, count: int, part: int
) -> None:
    asked = Wild(worn.client)
    asked.try_requests(count, chance.draw() + part)
    assert 500 not in asked.codes
    assert {200, 400, 403} <= asked.codes.keys(), asked.codes


@pytest.mark.parametrize(("count", "part"), some(DAMAGED, SOAK_DAMAGED))
def test_any_bytes_are_answered_or_refused(worn: World, count: int, part: int) -> None:
    asked = Wild(worn.client)
    pool = (worn.client.path, addresses.admin_path(worn.client.path))
    for number, path in enumerate(pool):
        seeds = chance.cases(count * (SOAK_PARTS + 1), part, SOAK_PARTS + 1)
        codes = asyncio.run(wild.try_damaged(path, seeds[number :: len(pool)]))
        assert {200, 400} <= codes.keys(), codes
    asked.expect_kept(b"", 200)
