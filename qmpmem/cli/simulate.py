"""The command that tries out a policy before it meets a real host: `qmpmem simulate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qmpmem.cli.app import app, put_json, usage
from qmpmem.cli.show_guests import Json, show_table

if TYPE_CHECKING:
    from qmpmem.model.config import Config
    from qmpmem.simulate.policy_table import PolicyRow
    from qmpmem.simulate.results import Results
    from qmpmem.simulate.spec import World
    from qmpmem.simulate.trace import Trace

Policy = Literal["ours", "static", "at-minimum", "proxmox", "mom", "ksmtuned-only", "all"]


@app.command(
    epilog=usage(
        "qmpmem simulate host.toml", "qmpmem simulate host.toml --policy all --plot out.svg"
    )
)
def simulate(
    scenario: Annotated[
        Path, typer.Argument(metavar="SCENARIO", help="A host and its guests, as a TOML file.")
    ],
    *,
    policy: Annotated[Policy, typer.Option(help="Whose way to do it.")] = "ours",
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The agent's configuration; default: none at all."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw what happened: x.svg or x.png.")
    ] = None,
    json: Json = False,
) -> None:
    """Try out a policy on a simulated host.

    Says what guests would lack, and at what price.

    Nothing real is looked at or touched. The same scenario always gives the same numbers. Such as:

    \b
        seconds = 180
        [host]
        memory = "6G"
        swap = "2G"
        [[guest]]
        name = "bursts"
        memory = "2G"
        demand = [[0, "200M"], [90, "1400M"]]   # from second 90 on
        [[guest]]
        name = "cached"
        count = 3
        memory = "2G"
        low = "300M"                            # what it needs
        files = "1500M"                         # what it has read
    """  # noqa: D301 - \b is click's mark for "do not rewrap"
    from qmpmem.configuration.files import read_file
    from qmpmem.simulate import policy_table
    from qmpmem.simulate.scenario import read

    if plot is not None:
        from qmpmem.cli.plot import expect_picture

        expect_picture(plot)
    world = read(read_file(scenario), _config(config))
    rows = policy_table.rows(None if policy == "all" else policy)
    runs = [_run(world, rival, plotted=plot is not None) for rival in rows]
    if plot is not None:
        from qmpmem.cli.plot import save
        from qmpmem.view import simulation_plot as view

        save(plot, view.plot([trace for _, trace in runs]))
    reports = [report for report, _ in runs]
    if json:
        put_json(reports)
        return
    from qmpmem.view import simulation

    show_table(simulation.HEADERS, [simulation.row(report) for report in reports])


def _config(path: Path | None) -> "Config":
    from qmpmem.configuration import judge, settled
    from qmpmem.configuration.files import read_file
    from qmpmem.model.config import Config

    return Config() if path is None else settled(judge((read_file(path),)))


def _run(world: "World", rival: "PolicyRow", *, plotted: bool) -> "tuple[Results, Trace]":
    from qmpmem.simulate.results import ResultsCounter
    from qmpmem.simulate.trace import Recorder

    counter = ResultsCounter(world, rival)
    recorder = Recorder(rival.title, counter.run.host, world.seconds)
    for tick in counter.ticks():
        if plotted:
            recorder.note(tick.snapshot.time)
    return counter.report(), recorder.trace
