"""The command that gives any number of clients a QMP session each: `qmpmem qmp`."""

from pathlib import Path
from typing import Annotated

import typer

from qmpmem.cli.app import app, run_async, seconds, usage
from qmpmem.cli.show_guests import Json, Name
from qmpmem.errors import ConfigError


@app.command(
    epilog=usage(
        "qmpmem qmp web1",
        "qmpmem qmp web1 query-status",
        "qmpmem qmp web1 device_add driver=virtio-rng-pci id=rng1",
        "qmpmem qmp web1 --listen /run/user/1000/web1.sock",
    )
)
def qmp(
    name: Name,
    command: Annotated[
        str | None, typer.Argument(metavar="[COMMAND]", help="Run one command, show its answer.")
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Its arguments, as in qmp-shell."),
    ] = None,
    *,
    listen: Annotated[
        Path | None,
        typer.Option(
            "--listen",
            metavar="[PATH]",
            help="Serve any number of clients at a unix socket of mode 0600, until the guest ends "
            "or this is stopped. Without PATH: in a new directory. Prints the path.",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Let only query-* commands through.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", parser=seconds, metavar="TIME", help="How long COMMAND may take."
        ),
    ] = 60.0,
    json: Json = False,
) -> None:
    """Speak QMP with a guest, also where an agent holds it.

    Without COMMAND and --listen: a session on stdin and stdout, a line of JSON each, as
    `socat - UNIX:SOCKET` gives one. Raw QMP may do all that the user of QEMU may, so root's agent
    gives it to root alone, with --read-only also to qmpmem-admin, and logs each use.
    """
    from qmpmem.cli import qmp_sessions

    if command is not None and listen is not None:
        raise ConfigError("--listen takes no COMMAND")
    request = qmp_sessions.SessionRequest(
        name=name,
        command=command,
        arguments=tuple(arguments or ()),
        timeout=timeout,
        is_listening=listen is not None,
        path=listen if listen is not None and listen != Path() else None,
        read_only=read_only,
        json=json,
    )
    run_async(qmp_sessions.share(request))
