"""A program of its own that plays a scenario under all policies: text on stdin, JSON on stdout.

What a visitor sends may take any time and memory to play. So it is played in a process with limits,
which `qmpmem.serve.trying` starts, and which is no part of the server.
"""

import os
import resource
import sys
from typing import Final

import msgspec

from qmpmem.config import Config
from qmpmem.configuration.judge import Source
from qmpmem.errors import QmpmemError
from qmpmem.records import Record
from qmpmem.simulate import rivals
from qmpmem.simulate.scenario import read
from qmpmem.simulate.spec import World
from qmpmem.simulate.tally import Tally
from qmpmem.simulate.trace import Recorder, Trace
from qmpmem.view import runs, simulation, svg

SECONDS: Final = 60
"""Of a processor; what takes longer is for the command line."""
MEMORY: Final = 512 << 20
"""Bytes of address space."""
NICE: Final = 19
FILE: Final = "host.toml"
"""What the scenario is called in mistakes."""


class Played(Record, frozen=True):
    """What came of it."""

    problem: str | None = None
    """Why there is nothing else."""
    rows: tuple[tuple[str, ...], ...] = ()
    """Under `qmpmem.view.simulation.HEADERS`."""
    plots: tuple[str, ...] = ()
    """SVG without a style sheet, one for each row."""


def play(text: str) -> Played:
    """Play a scenario under all policies."""
    try:
        world = read(Source(file=FILE, text=text), Config())
    except QmpmemError as error:
        return Played(problem=error.message)
    tallies, recorders = _run(world)
    return Played(
        rows=tuple(simulation.row(tally.report()) for tally in tallies),
        plots=tuple(_draw(recorder.trace, f"run{n}") for n, recorder in enumerate(recorders)),
    )


def _draw(trace: Trace, name: str) -> str:
    options = svg.Options(width=runs.WIDTH, height=runs.HEIGHT, name=name, styled=False)
    return svg.draw(runs.figure([trace]), options)


def _run(world: World) -> tuple[list[Tally], list[Recorder]]:
    tallies, recorders = list[Tally](), list[Recorder]()
    for rival in rivals.rows():
        tally = Tally(world, rival)
        recorder = Recorder(rival.title, tally.run.host, world.seconds)
        for tick in tally.ticks():
            recorder.note(tick.snapshot.time)
        tallies.append(tally)
        recorders.append(recorder)
    return tallies, recorders


def bind() -> None:
    """Bind this process, before it reads what a visitor sent."""
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    bind()
    sys.stdout.buffer.write(msgspec.json.encode(play(sys.stdin.buffer.read().decode())))
