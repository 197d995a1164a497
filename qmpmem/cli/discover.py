"""Commands about other QEMUs and this host: adopt, forget, discover, doctor."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qmpmem.cli.app import app, put, put_json, run_async, say, usage
from qmpmem.cli.show_guests import Json, Name, put_lines, show_table
from qmpmem.model.escapes import printable

if TYPE_CHECKING:
    from qmpmem.guests.access import View
    from qmpmem.guests.discover import Discovered


@app.command(epilog=usage("qmpmem adopt web1 /run/web1.qmp"))
def adopt(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it here.")],
    socket: Annotated[
        str,
        typer.Argument(
            metavar="SOCKET",
            help="A monitor of it: a unix socket's PATH, @NAME of an abstract one, or "
            "tcp:127.0.0.1:PORT. QMP, or the human monitor, which tells sizes and no statistics.",
        ),
    ],
    *,
    add_balloon: Annotated[
        bool, typer.Option("--add-balloon", help="Plug in a balloon if it has none.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also a guest that another program manages.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a guest of a QEMU that was started without the launcher.

    While an agent runs, it holds the socket, which takes one client at a time: another program
    that needs it waits, or needs one more -qmp. Of a guest that has no balloon, is not managed, or
    has a human monitor only, the agent holds nothing. `forget` lets go.
    """
    from qmpmem.guests.adopt import adopt as take_in
    from qmpmem.view import rows

    work = take_in(_run_directory(), name, socket, add_balloon=add_balloon, force=force)
    done = run_async(work)
    if json:
        put_json(done.guest)
        return
    called = rows.label(done.guest.id, done.guest.name)
    if done.known and done.guest.maximum is None:
        put(f"{called}: a guest already, and held by the agent")
        return
    size = f"{rows.size(done.guest.actual)} of {rows.size(done.guest.maximum)}"
    what = "a guest already" if done.known else "adopted"
    put(f"{called}: {what}, {printable(done.guest.state)}, {size}")
    if done.note:
        say(done.note)


@app.command(epilog=usage("qmpmem forget web1"))
def forget(name: Name, *, json: Json = False) -> None:
    """Let go of an adopted guest. The QEMU itself is not touched."""
    from qmpmem.guests.adopt import forget as let_go

    gone = let_go(_run_directory(), name)
    if json:
        put_json(gone)
        return
    put(f"{gone.id}: forgotten" + (", goes on running" if gone.alive else ""))


@app.command(epilog=usage("qmpmem discover", "qmpmem discover --json"))
def discover(*, json: Json = False) -> None:
    """Show QEMUs that are no guests of ours. And what to do with each."""
    from qmpmem.guests.discover import discover as look_around

    seen = run_async(look_around(_view().run))
    if json:
        put_json(seen.found)
    else:
        show_table(("PID", "NAME", "CLASS", "WHAT TO DO"), [_row(each) for each in seen.found])
    if seen.hidden:
        say(f"{seen.hidden} processes may be QEMUs and are not ours to look at; run as root")


@app.command(epilog=usage("qmpmem doctor", "qmpmem doctor --json"))
def doctor(
    *,
    json: Json = False,
    root: Annotated[Path, typer.Option(metavar="DIR", help="Another file system root.")] = Path(
        "/"
    ),
) -> None:
    """Check this host, and say what to do. Launcher, KVM, KSM, permissions, leftovers.

    Exits 1 where a line says failed.
    """
    from qmpmem.doctor import examine

    view = _view()
    checks = examine(view.run, roots=view.roots, root=root.absolute(), environ=os.environ)
    lines = run_async(checks)
    if json:
        put_json(lines)
    else:
        put_lines(
            f"{line.status:<8} {line.what}: {line.said}" + (f"; {line.todo}" if line.todo else "")
            for line in lines
        )
    if any(line.status == "failed" for line in lines):
        raise typer.Exit(1)


def _row(each: "Discovered") -> tuple[str, ...]:
    from qmpmem.view import rows

    return (
        str(each.pid),
        printable(each.name or rows.UNKNOWN),
        each.category,
        printable("   # ".join(filter(None, (each.command, each.note)))),
    )


def _view() -> "View":
    from qmpmem.guests import access

    return access.view(os.environ, os.getuid())


def _run_directory() -> Path:
    from qmpmem.guests import rundir

    return rundir.run_directory(os.environ, os.getuid())
