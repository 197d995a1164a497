"""The command that shows what QEMU says has happened: `qmpmem events`."""

from typing import Annotated

import typer

from qmpmem.cli.app import app, run_async, usage
from qmpmem.cli.show_guests import Json


@app.command(epilog=usage("qmpmem events", "qmpmem events web1 --json"))
def events(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One guest.")] = None,
    *,
    json: Json = False,
) -> None:
    """Show QEMU's events as they come, until the guests end or Ctrl-C.

    By way of the agent where one runs; else this holds the guests' QMP sockets meanwhile.
    """
    from qmpmem.cli.events_follow import follow

    run_async(follow(name, json=json))
