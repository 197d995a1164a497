"""Commands of the agent: `qmpmem agent` runs it."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from qmpmem.cli.app import EXIT_CODES, app, put, put_json, run_async, say
from qmpmem.cli.look import Json

if TYPE_CHECKING:
    from qmpmem.actions import Tick
    from qmpmem.agent.loop import Agent

agent = typer.Typer(
    help="Move memory to where it is needed, by itself; ask why, plan, hold, pin.",
    rich_markup_mode=None,
    epilog=EXIT_CODES,
)
app.add_typer(agent, name="agent")


@agent.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide all, change nothing.")] = False,
    json: Json = False,
) -> None:
    """Without a command: watch this host and its guests, until Ctrl-C or SIGTERM."""
    if context.invoked_subcommand is not None:
        return
    run_async(_run(dry_run=dry_run, json=json))


async def _run(*, dry_run: bool, json: bool) -> None:
    import asyncio
    import signal

    from qmpmem.agent.notify import Notifier

    watching = _agent(json=json, dry_run=dry_run, notifier=Notifier(os.environ))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, watching.stop)
    await watching.run()


def _agent(*, json: bool, dry_run: bool, notifier: "object") -> "Agent":
    from qmpmem import rundir
    from qmpmem.agent.loop import Agent, Place
    from qmpmem.config import Config
    from qmpmem.ksm import ledger

    place = Place(
        run=rundir.run_directory(os.environ, os.getuid()), ledger=ledger.directory(os.environ)
    )
    return Agent(place, Config(), [put_json if json else show], notifier, dry_run=dry_run)  # type: ignore[arg-type]


def show(tick: "Tick") -> None:
    """Say in lines what a round did; nothing where it did nothing."""
    from qmpmem.units import format_size

    for warning in tick.plan.warnings:
        say(f"warning: {warning}")
    for change in tick.plan.balloons:
        put(f"{tick.plan.state} {change.guest} → {format_size(change.target)}: {change.reason}")
    if tick.plan.ksm is not None:
        put(f"{tick.plan.state} KSM {dict(tick.plan.ksm.changes)}: {tick.plan.ksm.reason}")
    for outcome in tick.outcomes:
        if outcome.error:
            say(f"{outcome.guest or 'KSM'}: {outcome.error}")
