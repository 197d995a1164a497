"""Scenes: an agent and guests that are not there, on a clock that jumps."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmpmem.agent.loop import Surroundings
from qmpmem.model.config import Config
from qmpmem.units import MIB, Bytes
from tests.rig import chance
from tests.rig.clock import VirtualLoop
from tests.rig.fakeguest import FakeHost, herd
from tests.rig.invariants import Watched, watched
from tests.rig.memory import memory_directory

TIGHT: Final = Config(on_stop="keep", reserve=Bytes(128 * MIB), grace=5.0)
"""With two guests of 512 MiB, a host of 1100 MiB is in HARD and one of 4 GiB in SLACK."""

Scene = Callable[[FakeHost, Watched], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a scene plays on."""

    total: int = 65536
    config: Config = TIGHT
    may_degrade: bool = False
    dry_run: bool = False
    most: int | None = None
    journal: Path | None = None


def play(scene: Scene, *ids: str, **fields: object) -> None:
    """Play a scene with an agent and guests, on a clock that jumps; its pauses are by `chance`."""
    random.seed(chance.draw())
    stage = Stage(**fields)  # type: ignore[arg-type]

    async def go(directory: Path) -> None:
        async with herd(directory, *ids, total=stage.total) as host:
            guests = host.guests.values()
            async with watched(
                Surroundings(
                    run=host.run,
                    root=host.root,
                    ledger=host.root / "ksm",
                    most=stage.most,
                    journal=stage.journal,
                    clock=asyncio.get_running_loop().time,
                ),
                stage.config,
                guests=guests,
                may_degrade=stage.may_degrade,
                dry_run=stage.dry_run,
            ) as seen:
                await scene(host, seen)

    with memory_directory() as directory, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(go(directory))


def is_seen(seen: Watched, *guests: str) -> bool:
    return all(
        reading is not None and reading.state == "running" for reading in map(seen.reading, guests)
    )
