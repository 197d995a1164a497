"""Steps of reclaim are carried out one after the other, and what was cut off is undone."""

import asyncio
import os
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from qmpmem.agent.cgroups import OwnCgroups
from qmpmem.agent.reclaimer import Reclaimer
from qmpmem.errors import KernelError
from qmpmem.model.observation import Way
from qmpmem.model.round import Reclaim
from qmpmem.units import MIB, Bytes
from qmpmem.wire.kernel import reclaim
from tests.rig.patience import patient
from tests.rig.waiting import until

A = OwnCgroups(memory=Path("/cg/qmpmem/a"), version=2, made=True, way="reclaim")
B = OwnCgroups(memory=Path("/cg/qmpmem/b"), version=2, made=True, way="high")


class Kernel:
    """Takes steps, each for as long as it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, Way, int]] = []
        self.goes_on = threading.Event()
        self.error: Exception | None = None
        patch.setattr(reclaim, "step", self.step)

    def step(self, group: Path, by: Way, size: Bytes) -> Bytes:
        self.steps.append((group.name, by, size // MIB))
        self.goes_on.wait(patient(10))
        if self.error is not None:
            raise self.error
        return size


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Generator[Kernel]:
    made = Kernel(monkeypatch)
    yield made
    made.goes_on.set()


def step(guest: str, size: int) -> Reclaim:
    return Reclaim(guest=guest, size=Bytes(size * MIB), reason="")


async def ended(reclaimer: Reclaimer) -> None:
    await until(lambda: not reclaimer.under_way)


def ignore(_: str) -> None:
    """Take a warning."""


async def test_a_guest_has_one_step_at_a_time_and_so_has_the_host(kernel: Kernel) -> None:
    reclaimer = Reclaimer(ignore)
    own = {"a": A, "b": B}
    reclaimer.order((step("a", 1), step("b", 2)), own)
    reclaimer.order((step("a", 3), step("c", 4)), own)
    assert reclaimer.under_way == {"a", "b"}
    assert reclaimer.outcomes() == []
    kernel.goes_on.set()
    await ended(reclaimer)
    assert kernel.steps == [("a", "reclaim", 1), ("b", "high", 2)]
    found = [(each.guest, each.done, each.reclaimed) for each in reclaimer.outcomes()]
    assert found == [("a", True, MIB), ("b", True, 2 * MIB)]
    await reclaimer.stop()


@pytest.mark.parametrize("error", [KernelError("/cg/x: Permission denied"), ValueError("odd")])
async def test_what_goes_wrong_is_one_line(kernel: Kernel, error: Exception) -> None:
    reclaimer = Reclaimer(ignore)
    kernel.error = error
    kernel.goes_on.set()
    reclaimer.order((step("a", 1),), {"a": A})
    await ended(reclaimer)
    (outcome,) = reclaimer.outcomes()
    assert not outcome.done
    assert outcome.error is not None
    assert outcome.error.startswith("nothing is reclaimed of its cgroup: ")
    assert "\n" not in outcome.error
    await reclaimer.stop()


async def test_after_the_stop_no_further_step_begins(kernel: Kernel) -> None:
    reclaimer = Reclaimer(ignore)
    reclaimer.order((step("a", 1), step("b", 2)), {"a": A, "b": B})
    await until(lambda: kernel.steps)
    stopping = asyncio.create_task(reclaimer.stop())
    await asyncio.sleep(0)
    kernel.goes_on.set()
    await stopping
    await ended(reclaimer)
    assert kernel.steps == [("a", "reclaim", 1)]


async def test_what_a_killed_agent_left_is_put_back_once_and_only_in_made_groups(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    reclaimer = Reclaimer(said.append)
    own: dict[int, OwnCgroups] = {}
    for pid, made in ((1, True), (2, False)):
        group = tmp_path / str(pid)
        group.mkdir()
        (group / "memory.high").write_text("8192")
        try:
            os.setxattr(group, reclaim.NOTE, b"8192")
        except OSError:
            pytest.skip("expected extended attributes on the file system of the tests")
        own[pid] = OwnCgroups(memory=group, version=2, made=made, way="high")
    for _ in range(3):
        await reclaimer.restore(own)
    assert (tmp_path / "1/memory.high").read_text().startswith("max")
    assert (tmp_path / "2/memory.high").read_text() == "8192"
    assert len(said) == 1
