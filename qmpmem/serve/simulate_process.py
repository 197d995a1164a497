"""A program of its own that plays a scenario under all policies: text on stdin, JSON on stdout.

What a visitor sends may take any time and memory to play. So it is played in a process with limits,
which `qmpmem.serve.simulate_page` starts, and which is no part of the server.
"""

import os
import resource
import sys
from contextlib import suppress
from typing import Final

import msgspec

from qmpmem.configuration.merge import Source
from qmpmem.errors import QmpmemError
from qmpmem.model.config import Config
from qmpmem.records import Record
from qmpmem.simulate import policy_table
from qmpmem.simulate.results import ResultsCounter
from qmpmem.simulate.scenario import read
from qmpmem.simulate.spec import World
from qmpmem.simulate.trace import Recorder, Trace
from qmpmem.view import simulation, simulation_plot, svg

SECONDS: Final = 60
"""Seconds of a processor that a simulation may take; what takes longer is for the command line."""
MEMORY: Final = 512 << 20
"""Bytes of address space that a simulation's process may have."""
NICE: Final = 19
FILE: Final = "host.toml"
"""The name by which messages about mistakes call the scenario."""


class PlayedScenario(Record, frozen=True):
    """What came of it."""

    problem: str | None = None
    """Why there are no rows and no plots; None: there are."""
    rows: tuple[tuple[str, ...], ...] = ()
    """The rows of a table under `qmpmem.view.simulation.HEADERS`."""
    plots: tuple[str, ...] = ()
    """An SVG without a style sheet for each row."""


def play(text: str) -> PlayedScenario:
    """Play a scenario under all policies."""
    try:
        world = read(Source(file=FILE, text=text), Config())
    except QmpmemError as error:
        return PlayedScenario(problem=error.message)
    tallies, recorders = _run(world)
    return PlayedScenario(
        rows=tuple(simulation.row(counter.report()) for counter in tallies),
        plots=tuple(_draw(recorder.trace, f"run{n}") for n, recorder in enumerate(recorders)),
    )


def _draw(trace: Trace, name: str) -> str:
    options = svg.Options(
        width=simulation_plot.WIDTH, height=simulation_plot.HEIGHT, name=name, styled=False
    )
    return svg.draw(simulation_plot.figure([trace]), options)


def _run(world: World) -> tuple[list[ResultsCounter], list[Recorder]]:
    tallies, recorders = list[ResultsCounter](), list[Recorder]()
    for rival in policy_table.rows():
        counter = ResultsCounter(world, rival)
        recorder = Recorder(rival.title, counter.run.host, world.seconds)
        for tick in counter.ticks():
            recorder.note(tick.snapshot.time)
        tallies.append(counter)
        recorders.append(recorder)
    return tallies, recorders


def bind() -> None:
    """Limit what this process may use, before it reads what a visitor sent."""
    with suppress(PermissionError):  # a unit's filter; it may have a niceness of its own
        os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    bind()
    sys.stdout.buffer.write(msgspec.json.encode(play(sys.stdin.buffer.read().decode())))
