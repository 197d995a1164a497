"""Guests in cgroups of their own, for real: what they cost, and how long they wait for memory."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent.loop import Surroundings
from qmpmem.model.observation import GuestReading
from qmpmem.units import MIB
from tests.bench.limits import GROUPS
from tests.rig.guests import ROOT, boot
from tests.rig.invariants import Watched, watched
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

UNIFIED: Final = Path("/sys/fs/cgroup/unified")
LAUNCHER: Final = str(ROOT / "launchers" / "kvm")

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host("limits"),
    pytest.mark.timeout(120),
    needs_root("may not make cgroups"),
    pytest.mark.skipif(
        not (GROUPS / "memory.limit_in_bytes").exists()
        or not (UNIFIED / "memory.pressure").exists(),
        reason="expected the memory controller of cgroup v1 beside a cgroup v2 with PSI",
    ),
]


@contextmanager
def groups(name: str) -> Iterator[tuple[Path, Path]]:
    """Make a group of each version; both go when they are empty."""
    made = GROUPS / name, UNIFIED / name
    with ExitStack() as stack:
        for path in made:
            path.mkdir()
            stack.callback(remove, path)
        yield made


def remove(path: Path) -> None:
    until(lambda: not (path / "cgroup.procs").read_text(), what="the group is empty")
    path.rmdir()


def inside(*made: Path) -> tuple[str, ...]:
    """A program that runs another one in groups."""
    enter = "".join(f"echo $$ >{path}/cgroup.procs; " for path in made)
    return ("sh", "-c", f'{enter}exec "$@"', "sh")


@asynccontextmanager
async def booted(run: Path, *before: str) -> AsyncIterator[None]:
    words = ["-name", "g"]
    context = boot([*before, LAUNCHER], extra=words, environ={"QMPMEM_RUN_DIR": str(run)})
    await asyncio.to_thread(context.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def fill_cache(file: Path, *made: Path) -> None:
    """Have a program in groups read a file that is larger than their limit.

    It has waited for memory as well where the kernel ended it for finding none in time.
    """
    words = [*inside(*made), "dd", f"if={file}", "of=/dev/null", "bs=1M"]
    ended = subprocess.run(words, stderr=subprocess.DEVNULL, check=False, timeout=patient(60))
    assert ended.returncode in (0, -signal.SIGKILL)


def held(memory: Path) -> int:
    """Read what a group of version 1 holds, less file cache, in another way than the agent."""
    lines = (line.split() for line in (memory / "memory.stat").read_text().splitlines())
    known = {name: int(value) for name, value in lines}
    return known["total_rss"] + known["total_shmem"]


def reading(seen: Watched) -> GuestReading:
    found = seen.reading("g")
    return GuestReading(id="g", state="gone") if found is None else found


async def test_a_guest_costs_what_its_group_holds_and_waits_are_the_group_s() -> None:
    with groups(f"qmpmem-own-{os.getpid()}") as (memory, waits), short_directory() as run:
        file = run / "large"
        with file.open("wb") as new:
            new.truncate(512 * MIB)
        async with booted(run, *inside(memory, waits)):
            clock = asyncio.get_running_loop().time
            async with watched(Surroundings(run=run, ledger=run / ".ksm", clock=clock)) as seen:
                await seen.until(lambda: reading(seen).stalled is not None)
                found = reading(seen)
                assert found.rss is not None
                assert found.cost is not None
                assert found.swap is not None
                assert abs(found.cost - held(memory)) < 16 * MIB
                assert found.cost < found.rss, "programs and libraries are in every cache anyway"
                assert found.cost > 32 * MIB

                size = int((memory / "memory.usage_in_bytes").read_text())
                (memory / "memory.limit_in_bytes").write_text(str(size + 8 * MIB))
                await asyncio.to_thread(fill_cache, file, memory, waits)
                assert found.stalled is not None
                before = found.stalled
                await seen.until(lambda: (reading(seen).stalled or 0) > before)
                await seen.rounds(2)
                usage = int((memory / "memory.usage_in_bytes").read_text())
                assert usage - held(memory) > 4 * MIB, "file cache"
                assert abs((reading(seen).cost or 0) - held(memory)) < 16 * MIB


async def test_a_guest_that_is_in_the_agent_s_group_costs_what_its_process_does() -> None:
    with short_directory() as run:
        async with booted(run):
            clock = asyncio.get_running_loop().time
            async with watched(Surroundings(run=run, ledger=run / ".ksm", clock=clock)) as seen:
                await seen.until(lambda: reading(seen).cost is not None)
                await seen.rounds(2)
                found = reading(seen)
                assert (found.cost, found.stalled) == (found.rss, None)
