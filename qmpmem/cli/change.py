"""Commands that change a guest's memory: set, unpin, script."""

import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from qmpmem.cli.app import app, on_terminal, put, put_json, run_async, say, seconds, usage
from qmpmem.cli.look import Name, live_guests, open_guest, way_to_guests
from qmpmem.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from qmpmem.guest import Movable
    from qmpmem.inventory import Found
    from qmpmem.script import Line
    from qmpmem.units import Bytes, Change

DEFAULT_TIMEOUT: Final = 60.0
"""Seconds. An emulated guest moves ~300 MiB/s, so this covers any guest that moves at all."""

SCRIPT_LIMIT: Final = 4 << 20

Force = Annotated[bool, typer.Option("--force", help="Below the floor as well.")]


class Bar(Protocol):
    """Where progress is shown, if anywhere."""

    def __call__(self, actual: "Bytes", /) -> None:
        """Show how far the guest came."""


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
) -> None:
    """Change how much memory a running guest has. While an agent runs, it keeps it there."""
    from qmpmem.units import parse_change

    waits = sys.stdout.isatty() if wait is None else wait
    change = parse_change(size)
    run_async(_set(name, change, timeout if waits else None, force=force, dry_run=dry_run))


@app.command(epilog=usage("qmpmem unpin web1"))
def unpin(name: Name) -> None:
    """Let the agent move again what `set` told it to keep at a size."""
    from qmpmem.cli.agent import let_go

    let_go(name, json=False)


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
        set web* 256M        every guest whose id matches
        wait web* 256M 10s   until they are there, at most so long
        sleep 2s
        get db1              one snapshot
    """  # noqa: D301 - \b is click's mark for "do not rewrap"
    from qmpmem.script import match_guests, parse

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


async def _set(
    name: str, change: "Change", limit: float | None, *, force: bool, dry_run: bool
) -> None:
    from qmpmem.units import format_size

    async with open_guest(name) as guest:
        actual = await guest.actual()
        target = await guest.target_of(change)
        if dry_run:
            await guest.check(target, force=force)
            put(f"{guest.id}: would go from {format_size(actual)} to {format_size(target)}")
            return
        await guest.set(target, force=force)
        if limit is None:
            put(f"{guest.id}: asked to go from {format_size(actual)} to {format_size(target)}")
            return
        reached = await _wait(guest, actual, target, limit)
        put(f"{guest.id}: {format_size(reached)}")


async def _wait(guest: "Movable", start: "Bytes", target: "Bytes", limit: float) -> "Bytes":
    from qmpmem.bounds import is_near

    actual = start
    with _bar(guest.id, start, target) as show:
        async for actual in guest.progress(target, timeout=limit):
            show(actual)
    if not is_near(actual, target):
        raise await guest.not_reached(actual, target, limit)
    return actual


def _bar(name: str, start: "Bytes", target: "Bytes") -> AbstractContextManager[Bar]:
    """Open a progress bar on a terminal, nothing elsewhere."""
    if not on_terminal():
        return nullcontext(lambda actual: None)  # noqa: ARG005
    from qmpmem.view.bar import progress_bar

    return progress_bar(name, start, target)


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
    meant: "dict[str, tuple[Found, ...]]",
    *,
    keep_going: bool,
    force: bool,
) -> int:
    from qmpmem.script import run

    code = 0
    texts = {line.number: line.text for line in lines}
    connect = way_to_guests()
    async for result in run(lines, meant, keep_going=keep_going, force=force, connect=connect):
        put_json(result)
        if not result.ok:
            code = code or result.exit_code
            say(f"script {file}: line {result.line}: {texts[result.line]}: {result.error}")
    return code
