"""Commands that change a guest's memory: set, unpin, script."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qmpmem.cli.app import INTERRUPTED, app, put_json, run_async, say, seconds, usage
from qmpmem.cli.show_guests import Json, Name, live_guests, open_guest, way_to_guests
from qmpmem.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from qmpmem.cli.set_progress import SetRequest
    from qmpmem.guests.inventory import LiveGuest
    from qmpmem.guests.script import Line
    from qmpmem.units import Change

DEFAULT_TIMEOUT: Final = 60.0
"""Seconds that a guest has to reach a size. An emulated guest moves ~300 MiB/s, so this covers any
guest that moves at all."""

SCRIPT_LIMIT: Final = 4 << 20

Force = Annotated[bool, typer.Option("--force", help="Below the floor as well.")]


@app.command(
    "set",
    epilog=usage(
        "qmpmem set web1 256M",
        "qmpmem set web1 50% --wait --timeout 30s",
        "qmpmem set web1 -128M --no-wait",
    ),
    context_settings={"ignore_unknown_options": True},
)
def set_(
    name: Name,
    size: Annotated[
        str, typer.Argument(metavar="SIZE", help="512M, 1.5GiB, 50% of the maximum, +128M, -128M.")
    ],
    *,
    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="Until it is there (default: on a terminal)."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(parser=seconds, metavar="TIME", help="How long to wait.")
    ] = DEFAULT_TIMEOUT,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and say, change nothing.")] = (
        False
    ),
    json: Json = False,
) -> None:
    """Change how much memory a running guest has. While an agent runs, it keeps it there.

    Until `qmpmem unpin`, or the end of the guest.
    """
    from qmpmem.cli.set_progress import SetRequest

    order = SetRequest(
        change=change_of(name, size),
        waits=wait,
        timeout=timeout,
        force=force,
        dry_run=dry_run,
        json=json,
    )
    run_async(_set(name, order))


def change_of(name: str, size: str) -> "Change":
    """Read the size of a call with a guest's name and a size.

    Raises:
        ConfigError: it is none; says so where the two were swapped.
    """
    from qmpmem.units import parse_change

    try:
        return parse_change(size)
    except ConfigError as error:
        try:
            parse_change(name)
        except ConfigError:
            raise error from None
        raise ConfigError(
            f"{size!r} is no size, and {name!r} is one",
            hint=f"the guest comes first: `qmpmem set {size} {name}`",
        ) from error


@app.command(epilog=usage("qmpmem unpin web1"))
def unpin(name: Name, *, json: Json = False) -> None:
    """Let the agent move again what `set` told it to keep at a size."""
    from qmpmem.cli.agent import let_go

    let_go(name, json=json)


@app.command(epilog=usage("qmpmem script changes.qm", "echo 'set web* 256M' | qmpmem script -"))
def script(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The script, or - for stdin.")],
    *,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on after a line that failed.")
    ] = False,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only, change nothing.")] = False,
) -> None:
    """Do many changes in one go: lines of set, wait, sleep and get. Results are JSON lines.

    \b
        set web* 256M        every guest whose name or id matches
        wait web* 256M 10s   until they are there, at most so long
        sleep 2s
        get db1              one snapshot
    """  # noqa: D301 - \b is click's mark for "do not rewrap"
    from qmpmem.guests.script import match_guests, parse

    content = _read_script(file)
    with _mistakes_in(file):
        lines = parse(content)
    guests = live_guests()
    with _mistakes_in(file):
        meant = match_guests(lines, guests)
    if dry_run:
        put_json({"lines": len(lines), "ok": True})
        return
    code = run_async(_run_script(file, lines, meant, keep_going=keep_going, force=force))
    raise typer.Exit(code)


async def _set(name: str, order: "SetRequest") -> None:
    from qmpmem.cli.set_progress import move

    with _no_pattern(name):
        async with open_guest(name) as guest:
            await move(guest, order, terminal=sys.stdout.isatty())


@contextmanager
def _no_pattern(name: str) -> "Generator[None]":
    """Name the command that takes patterns, where the name of a missing guest looks like one."""
    try:
        yield
    except ConfigError as error:
        if not set(name) & set("*?[") or "no such guest" not in error.message:
            raise
        raise ConfigError(
            error.message,
            hint=f"`set` takes one guest; scripts take patterns, as in "
            f"`echo 'set {name} 50%' | qmpmem script -`",
        ) from error


def _read_script(file: str) -> str:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(SCRIPT_LIMIT + 1)
        else:
            with Path(file).open("rb") as source:
                content = source.read(SCRIPT_LIMIT + 1)
        if len(content) > SCRIPT_LIMIT:
            raise ConfigError(f"script {file}: larger than {SCRIPT_LIMIT} bytes")
        return content.decode()
    except OSError as error:
        raise ConfigError(f"script {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"script {file}: not UTF-8 text") from error


@contextmanager
def _mistakes_in(file: str) -> "Generator[None]":
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"script {file}: {error.message}", hint=error.hint) from error


async def _run_script(
    file: str,
    lines: "Sequence[Line]",
    meant: "dict[str, tuple[LiveGuest, ...]]",
    *,
    keep_going: bool,
    force: bool,
) -> int:
    from qmpmem.cli.set_progress import interruptible, say_left
    from qmpmem.guests.script import Interrupted, run

    code = 0
    texts = {line.number: line.text for line in lines}
    connect = way_to_guests()
    try:
        with interruptible() as signals:
            signals.cancel_task()
            async for result in run(
                lines, meant, keep_going=keep_going, force=force, connect=connect
            ):
                put_json(result)
                if not result.ok:
                    code = code or result.exit_code
                    say(f"script {file}: line {result.line}: {texts[result.line]}: {result.error}")
    except Interrupted as interrupted:
        for left in interrupted.left:
            say_left(left)
        return INTERRUPTED
    return code
