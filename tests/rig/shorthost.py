"""A short host whose guest has no balloon: the agent's own parts against a real kernel.

Run `main` inside a guest (`pocket.py`), as root of a machine of its own; sizes are MiB. A process
stands for a guest's QEMU; it is in the group qmpmem/g, as the launcher would have it.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qmpmem.agent.cgroup_usage import CgroupUsage
from qmpmem.agent.cgroups import CgroupFinder, OwnCgroups
from qmpmem.agent.host_reader import HostReader
from qmpmem.agent.reclaimer import Reclaimer
from qmpmem.model import obstacles
from qmpmem.model.config import Config, Rule
from qmpmem.model.observation import GuestReading, Snapshot
from qmpmem.policy import History, decide
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.wire.kernel import reclaim

ROUNDS: Final = 15
MOST_ROUNDS: Final = 120
"""Where less was reclaimed by then than should be: on a slow machine a step takes long."""


async def play(
    pid: int, minimum: int, reserve: int, enough: int = sys.maxsize
) -> dict[str, object]:
    """Play rounds of a second each, and return what was seen and done in them.

    Args:
        pid: of the process that stands for QEMU.
        minimum: MiB, as all sizes here.
        reserve: of the host.
        enough: the group is to come down to this, which may take more rounds.
    """
    rule = Rule(match="*", minimum=Bytes(minimum * MIB))
    config = Config(reserve=Bytes(reserve * MIB), grace=0.0, rules=(rule,))
    problems: list[str] = []
    surveyor, usage, reclaimer = HostReader(), CgroupUsage(), Reclaimer(problems.append)
    history, held, asked = History(), list[int](), list[int]()
    states: list[str] = []
    done: list[int] = []
    clock = asyncio.get_running_loop().time
    while len(held) < ROUNDS or (len(held) < MOST_ROUNDS and held[-1] > enough):
        survey = surveyor.read(Bytes(0), (pid,))
        own = survey.own[pid]
        await reclaimer.restore(survey.own)
        use = (await usage.read(survey.own, 1.0, 100))[pid]
        reading = GuestReading(
            id="g",
            state="running",
            maximum=Bytes(GIB // 2),
            exempt=obstacles.NO_DEVICE,
            bare=True,
            way=own.way,
            made=own.made,
            reclaiming="g" in reclaimer.under_way,
            cost=use.held,
            swap=use.swap,
            stalled=use.stalled,
            refaults=use.refaults,
        )
        seen = Snapshot(time=clock(), host=survey.host, guests=(reading,))
        plan, history = decide(seen, history, config)
        reclaimer.order(plan.reclaims, {"g": own})
        held.append((use.held or 0) // MIB)
        asked.append(sum(each.size for each in plan.reclaims) // MIB)
        states.append(plan.state)
        await asyncio.sleep(1.0)
        for outcome in reclaimer.outcomes():
            done.append((outcome.reclaimed or 0) // MIB)
            problems.extend(filter(None, [outcome.error]))
    await reclaimer.stop()
    trend = history.guests["g"].reclaim
    return {
        "way": own.way,
        "made": own.made,
        "states": states,
        "held": held,
        "asked": asked,
        "done": done,
        "rests": trend.rests,
        "why": trend.why,
        "problems": problems,
    }


def own_of(pid: int) -> OwnCgroups:
    """Return the groups of a process."""
    groups = CgroupFinder(Path("/"))
    groups.ceilings((pid,), groups.ours())
    return groups.own[pid]


def lower_for_a_moment(pid: int) -> dict[str, object]:
    """Reclaim 20 MiB by memory.high, as before Linux 5.19."""
    group = own_of(pid).memory
    assert group is not None
    size = reclaim.step(group, "high", Bytes(20 * MIB))
    return {"reclaimed": size // MIB, "high": _high(group), "noted": _noted(group)}


def be_killed_within(pid: int) -> dict[str, object]:
    """Be killed while memory.high is low; then have the next agent see the group."""
    own = own_of(pid)
    assert own.memory is not None
    child = os.fork()
    if child == 0:
        real = reclaim._write

        def write(path: Path, words: str) -> None:
            real(path, words)
            os.kill(os.getpid(), signal.SIGKILL)

        reclaim._write = write
        reclaim.step(own.memory, "high", Bytes(20 * MIB))
        os._exit(1)
    os.waitpid(child, 0)
    left, noted = _high(own.memory), _noted(own.memory)
    said: list[str] = []
    asyncio.run(Reclaimer(said.append).restore({pid: own_of(pid)}))
    return {"left": left, "noted": noted, "then": _high(own.memory), "said": said}


def _high(group: Path) -> str:
    return (group / "memory.high").read_text().strip()


def _noted(group: Path) -> bool:
    return reclaim.NOTE in os.listxattr(group)


def main(pid: int, minimum: int, reserve: int, *, enough: int, is_hot: bool) -> None:
    """Write what came of it, as one line of JSON for each part; of a hot guest, only the first."""
    for found in _parts(pid, minimum, reserve, enough):
        sys.stdout.write(json.dumps(found) + "\n")
        if is_hot:
            break


def _parts(pid: int, minimum: int, reserve: int, enough: int) -> Iterator[dict[str, object]]:
    yield asyncio.run(play(pid, minimum, reserve, enough))
    yield lower_for_a_moment(pid)
    yield be_killed_within(pid)
    os.system("swapoff /dev/zram0")  # noqa: S605 - busybox's, in a guest
    yield asyncio.run(play(pid, minimum, reserve))
