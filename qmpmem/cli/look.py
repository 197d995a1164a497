"""Commands that only read: list, info, stats, events."""

import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from qmpmem.cli.app import EXIT_CODES, app, on_terminal, put, put_json, run_async, say, seconds
from qmpmem.errors import ConfigError, GuestUnreachable

if TYPE_CHECKING:
    from qmpmem.guest import Guest
    from qmpmem.inventory import Found
    from qmpmem.snapshot import GuestSnapshot


def complete_guest(incomplete: str) -> list[str]:
    """Give the shell the ids that begin so; none where guests cannot be seen."""
    from qmpmem import inventory, rundir

    try:
        guests = inventory.take(rundir.run_directory(os.environ, os.getuid())).guests
    except ConfigError:
        return []
    return [found.record.id for found in guests if found.record.id.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The guest's id, or its unique name.",
        autocompletion=complete_guest,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON; every size in bytes.")]


@app.command("list", epilog=EXIT_CODES)
def list_(*, json: Json = False) -> None:
    """Show every guest: state, maximum, actual size, balloon, and what it costs the host."""
    from qmpmem.overview import overview
    from qmpmem.view import rows

    guests = overview(live_guests(), machine=json)
    if json:
        put_json(guests)
    else:
        show_table(rows.LIST_HEADERS, [rows.list_row(guest) for guest in guests])


@app.command(epilog=EXIT_CODES)
def info(name: Name, *, json: Json = False) -> None:
    """Show one guest in full, as `virsh dominfo` did, and more."""
    from qmpmem.view import rows

    guest = _observe(name)
    if json:
        put_json(guest)
    else:
        put_lines(rows.pairs(list(rows.info_rows(guest))))
    _expect_session(guest)


@app.command(epilog=EXIT_CODES)
def stats(
    name: Name,
    *,
    json: Json = False,
    watch: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="SECONDS", help="Again every so many seconds."),
    ] = None,
) -> None:
    """Show what the guest reports about its memory: every field of `virsh dommemstat`."""
    from qmpmem.view import rows

    if watch is not None:
        run_async(_watch(name, watch, json=json))
        return
    guest = _observe(name)
    if json:
        put_json(guest)
    else:
        put_lines(rows.pairs(list(rows.stats_rows(guest))))
    _expect_session(guest)


@app.command(epilog=EXIT_CODES)
def events(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One guest.")] = None,
    *,
    json: Json = False,
) -> None:
    """Show QEMU's events as they come, until the guests end or Ctrl-C. Holds their sockets."""
    from qmpmem.guest import find

    run_async(_follow([find(name)] if name else live_guests(), json=json))


def live_guests() -> "Sequence[Found]":
    """Take the inventory, tidy up what is provably stale, and say what could not be read."""
    from qmpmem import inventory, rundir

    run = rundir.run_directory(os.environ, os.getuid())
    found = inventory.take(run)
    inventory.sweep(run, found.stale)
    for entry in found.unreadable:
        if not entry.missing:  # most likely a guest that is starting right now
            say(f"warning: {entry.path}: {entry.problem}")
    return found.guests


def show_table(headers: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    """Draw a table on a terminal, aligned plain text elsewhere."""
    from qmpmem.view import rows

    if not on_terminal():
        put_lines(rows.columns(headers, table))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*headers, box=None, header_style="bold", pad_edge=False)
    for row in table:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def put_lines(lines: Iterable[str]) -> None:
    """Write lines of data."""
    for line in lines:
        put(line)


def _observe(name: str) -> "GuestSnapshot":
    from qmpmem import sources
    from qmpmem.guest import find

    return run_async(sources.observe(find(name), detail=True))


def _expect_session(guest: "GuestSnapshot") -> None:
    """Exit as unreachable where there was no session to read from, after showing what is known."""
    from qmpmem.wire.reasons import WITHOUT_SESSION

    if guest.state in WITHOUT_SESSION:
        raise GuestUnreachable(guest.problem or f"guest {guest.id}: {guest.state}", reason="state")


async def _watch(name: str, pause: float, *, json: bool) -> None:
    import asyncio

    from qmpmem.guest import Guest
    from qmpmem.view import rows

    async with Guest(name) as guest:
        header = not json
        while True:
            seen = await guest.snapshot()
            if json:
                put_json(seen)
            else:
                put_lines(rows.watch_lines(seen, header=header))
                header = False
            await asyncio.sleep(pause)


async def _follow(guests: "Sequence[Found]", *, json: bool) -> None:
    import asyncio

    from qmpmem.guest import Guest

    async def one(found: "Found") -> None:
        try:
            async with Guest(found) as guest:
                await _print_events(guest, json=json)
        except GuestUnreachable as error:
            say(error.message)

    await asyncio.gather(*(one(found) for found in guests))


async def _print_events(guest: "Guest", *, json: bool) -> None:
    from qmpmem.view import rows

    async for event in guest.events():
        if json:
            put_json({"id": guest.id, "event": event.name, "data": event.data, "time": time.time()})
        else:
            words = " ".join(f"{key}={value}" for key, value in event.data.items())
            line = f"{time.strftime('%H:%M:%S')} {guest.id} {event.name} {words}".rstrip()
            put(rows.printable(line))
