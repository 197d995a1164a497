"""A short host swaps out what a guest without a balloon does not use: cgroup v1, for real."""

import asyncio
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent.loop import Surroundings
from qmpmem.model.config import Config, Rule
from qmpmem.units import MIB, Bytes
from qmpmem.wire.kernel import host
from tests.bench.limits import GROUPS, swapped, why_not
from tests.rig.guests import ROOT, boot
from tests.rig.invariants import Watched, watched
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

UNIFIED: Final = Path("/sys/fs/cgroup/unified")
LAUNCHER: Final = str(ROOT / "launchers" / "kvm")
PARENT: Final = f"qmpmem-reclaim-{os.getpid()}"
MINIMUM: Final = 64
IDLE: Final = 250

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host("limits"),
    pytest.mark.timeout(180),
    needs_root("may not make cgroups"),
    pytest.mark.skipif(why_not() is not None, reason=f"expected cgroup v1 and swap: {why_not()}"),
    pytest.mark.skipif(
        not (UNIFIED / "memory.pressure").exists(), reason="expected a cgroup v2 with PSI"
    ),
]


def remove(group: Path) -> None:
    until(lambda: not (group / "cgroup.procs").read_text(), what="the group is empty")
    group.rmdir()


@contextmanager
def parents() -> Generator[Path]:
    """Have a group to go below in each hierarchy, and return that of the guest's memory."""
    made = [top / PARENT for top in (GROUPS, UNIFIED)]
    for path in made:
        path.mkdir()
    try:
        yield made[0] / "qmpmem/g"
    finally:
        for path in made:
            for left in sorted(path.rglob("*/"), reverse=True):
                remove(left)
            path.rmdir()


def short() -> Config:
    """Return settings by which this host is short of memory, and stays so."""
    available = host.memory(Path("/")).available or 0
    rules = (Rule(match="*", minimum=Bytes(MINIMUM * MIB)),)
    return Config(reserve=Bytes(available * 9 // 10), grace=0.0, rules=rules, on_stop="keep")


def cost(seen: Watched) -> int:
    """Return what the guest costs the host, in MiB."""
    reading = seen.reading("g")
    return 0 if reading is None or reading.way is None else (reading.cost or 0) // MIB


async def test_a_guest_without_a_balloon_gives_what_it_does_not_use_and_lives() -> None:
    with parents() as group, short_directory() as run, swapped(1024 * MIB, 200 * MIB):
        environ = {
            "QMPMEM_RUN_DIR": str(run),
            "QMPMEM_CGROUP": f"/{PARENT}",
            "QMPMEM_BALLOON": "off",
        }
        words = ["-name", "g"]
        context = boot([LAUNCHER], memory="512M", extra=words, environ=environ)
        guest = await asyncio.to_thread(context.__enter__)
        try:
            await asyncio.to_thread(guest.check, f"eat random {IDLE}")
            limit = (group / "memory.limit_in_bytes").read_text()
            clock = asyncio.get_running_loop().time
            config = short()
            place = Surroundings(run=run, ledger=run / ".ksm", clock=clock)
            async with watched(place, config) as seen:
                await seen.until(lambda: cost(seen) > IDLE, seconds=10)
                before = cost(seen)
                await seen.until(lambda: seen.last.plan.reclaims, seconds=10)
                await seen.until(lambda: cost(seen) < before - 40, seconds=15)
                await seen.until(lambda: any(each.outcomes for each in seen.ticks), seconds=10)
                ticks = list(seen.ticks)
            told = [said for tick in ticks for said in tick.plan.guests if said.reclaim]
            assert "reclaims" in told[0].reason
            assert told[0].verdict == "exempt"
            assert cost(seen) >= MINIMUM + 60
            done = [each for tick in ticks for each in tick.outcomes if each.reclaimed]
            assert done
            assert all(each.done for each in done)
            assert (group / "memory.limit_in_bytes").read_text() == limit, "no limit is set"
            status = await asyncio.to_thread(guest.check, "eat status")
            assert status.split()[-2:] == [str(IDLE), "held"]
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)
