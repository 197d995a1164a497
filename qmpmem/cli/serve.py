"""Commands of the page: `qmpmem serve` serves it, `qmpmem serve service` has systemd do that."""

import os
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from qmpmem.cli.agent import SLASH, Root
from qmpmem.cli.app import app, say, usage
from qmpmem.cli.show_guests import Json
from qmpmem.errors import ConfigError
from qmpmem.guests import access

LISTEN = "127.0.0.1:9178"

serve = typer.Typer(
    help="Serve a web page about guests, and metrics.",
    rich_markup_mode=None,
    epilog=usage(
        "qmpmem serve", "qmpmem serve --token-file page.token", "qmpmem serve --unix page.sock"
    ),
)
app.add_typer(serve, name="serve")
service = typer.Typer(
    help="The systemd unit that serves the page.",
    rich_markup_mode=None,
    epilog=usage("qmpmem serve service install", "qmpmem serve service status"),
)
serve.add_typer(service, name="service")


@serve.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    *,
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS:PORT", help=f"Of the loopback interface. [{LISTEN}]"),
    ] = None,
    unix: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A unix socket; then TCP only with --listen."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Mode 0600: with what is in it, visitors may change."),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The agent's journal, where that is in another place."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name of this server, as behind a proxy."),
    ] = None,
) -> None:
    """Without a command: serve the page and /metrics, until Ctrl-C or SIGTERM.

    Without --token-file the page is for looking.
    """
    if context.invoked_subcommand is not None:
        return
    from qmpmem.api.client import client
    from qmpmem.cli.agent_log import AgentLog
    from qmpmem.guests import access
    from qmpmem.journal.paths import readable_journal
    from qmpmem.serve import server, tokens

    if listen is None and unix is None:
        listen = LISTEN
    names = frozenset(each.lower() for each in host or ())
    if any(not name or not name.isascii() or set(name) & set("/: ") for name in names):
        raise ConfigError("--host: expected a name without a port, as in web.example.org")
    options = server.Options(
        listen=None if listen is None else server.address(listen),
        unix=None if unix is None else unix.absolute(),
        token=None if token_file is None else tokens.read_token(token_file, os.environ),
        hosts=names,
        host=os.uname().nodename,
        run=access.directory(os.environ, os.getuid()),
        journal=readable_journal(
            None if journal is None else str(journal), os.environ, os.getuid()
        ),
    )
    with closing(AgentLog()) as agent_log:
        server.serve(options, client(os.environ), agent_log.log)


@service.command(epilog=usage("qmpmem serve service install"))
def install(*, root: Root = SLASH, json: Json = False) -> None:
    """Have systemd serve the page. Can be repeated."""
    from qmpmem.cli.systemd_units import expect_runnable, install_unit
    from qmpmem.serve.systemd_unit import UNIT, USER

    expect_runnable(USER, root)
    install_unit(UNIT, root, json=json)
    if root == SLASH and access.group_id(access.READERS) is None:
        say(f"next, before it can start: `groupadd --system {access.READERS}`")


@service.command(epilog=usage("qmpmem serve service uninstall"))
def uninstall(*, root: Root = SLASH, json: Json = False) -> None:
    """Take that back. A page that is served goes on until it is stopped."""
    from qmpmem.cli.systemd_units import uninstall_unit
    from qmpmem.serve.systemd_unit import UNIT

    uninstall_unit(UNIT, root, json=json)


@service.command(epilog=usage("qmpmem serve service status"))
def status(*, root: Root = SLASH, json: Json = False) -> None:
    """Show whether the unit is there, and whether it runs."""
    from qmpmem.cli.systemd_units import show_unit
    from qmpmem.serve.systemd_unit import UNIT

    show_unit(UNIT, root, json=json)
