"""What guests in cgroups of their own cost where KSM merges them: each page once."""

import asyncio
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent.loop import Surroundings
from qmpmem.model.config import Config, KsmConfig
from qmpmem.units import MIB
from tests.bench.limits import GROUPS
from tests.rig import ksm
from tests.rig.guests import ROOT, RunningGuest, boot
from tests.rig.invariants import watched
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

LAUNCHER: Final = str(ROOT / "launchers" / "kvm")
UNIFIED: Final = Path("/sys/fs/cgroup/unified")
EQUAL: Final = 96
"""MiB of the same in each guest."""
FAST: Final = {"pages_to_scan": 20000, "sleep_millisecs": 10, "run": 1}

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host,
    pytest.mark.timeout(1200),  # of which nearly all is waiting for others to let KSM go
    needs_root("may not change KSM"),
    pytest.mark.skipif(
        not (GROUPS / "cgroup.procs").exists(), reason="no memory controller of cgroup v1 here"
    ),
]


@contextmanager
def pair(run: Path, parent: str) -> Generator[list[RunningGuest]]:
    """Boot two guests with the same in them, each in a group of its own."""
    settings = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_CGROUP": parent, "QMPMEM_KSM": "on"}
    with ExitStack() as stack:
        guests = [
            stack.enter_context(boot([LAUNCHER], extra=["-name", name], environ=settings))
            for name in ("a", "b")
        ]
        for guest in guests:
            guest.check(f"eat same {EQUAL}")
        yield guests


def clear(parent: str) -> None:
    for top in (GROUPS, UNIFIED):
        for left in sorted((top / parent[1:]).rglob("*/"), reverse=True):
            left.rmdir()
        if (top / parent[1:]).is_dir():
            (top / parent[1:]).rmdir()


async def test_a_merged_page_costs_one_guest_only() -> None:
    parent = f"/qmpmem-ksm-{os.getpid()}"
    with ExitStack() as stack:
        machine = await asyncio.to_thread(stack.enter_context, ksm.held())
        machine.reset()
        stack.callback(clear, parent)
        run = stack.enter_context(short_directory())
        await asyncio.to_thread(stack.enter_context, pair(run, parent))
        machine.write(FAST)
        wanted = EQUAL * MIB // 4096
        await asyncio.to_thread(
            until, lambda: machine.number("pages_sharing") > wanted, seconds=120, what="it merges"
        )
        clock = asyncio.get_running_loop().time
        config = Config(on_stop="keep", ksm=KsmConfig(managed=False))
        async with watched(Surroundings(run=run, ledger=run / ".ksm", clock=clock), config) as seen:
            await seen.until(
                lambda: all(
                    (reading := seen.reading(name)) is not None
                    and reading.swap is not None
                    and reading.cost is not None
                    and reading.cost != reading.rss
                    for name in ("a", "b")
                )
            )
            await seen.rounds(12)
            readings = [seen.reading(name) for name in ("a", "b")]
        costs = [reading.cost or 0 for reading in readings if reading is not None]
        rss = [reading.rss or 0 for reading in readings if reading is not None]
        assert sum(costs) < sum(rss) - EQUAL * MIB
