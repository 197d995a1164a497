"""Commands that only read: list, info, stats."""

import os
import shutil
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from qmpmem.cli.app import (
    app,
    on_terminal,
    put,
    put_json,
    put_plain,
    run_async,
    say,
    seconds,
    usage,
    warn,
)
from qmpmem.errors import (
    AgentUnreachable,
    ConfigError,
    GuestUnreachable,
    KernelError,
    QmpmemError,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from qmpmem.api.client import Client
    from qmpmem.guests.guest import ResizableGuest
    from qmpmem.guests.inventory import LiveGuest
    from qmpmem.model.guest import GuestView

T = TypeVar("T")


def complete_guest(incomplete: str) -> list[str]:
    """Return the ids and names that begin so, for the shell; none where guests cannot be seen.

    bash inserts them as they are, so what it would obey in a name is escaped for it.
    """
    import re

    words = dict.fromkeys(word for each in _names() for word in each)
    begun = [word for word in words if word.startswith(incomplete) and word.isprintable()]
    if os.environ.get("_QMPMEM_COMPLETE") != "complete_bash":
        return begun
    return [re.sub(r"([^\w@%+=:,./-])", r"\\\1", word) for word in begun]


def _names() -> list[tuple[str, str]]:
    """List the ids and names of guests; none where they cannot be seen, which is said elsewhere."""
    from qmpmem.guests import access, inventory
    from qmpmem.model.guest import GuestView

    try:
        guests = inventory.take(access.directory(os.environ, os.getuid())).guests
        return [(each.record.id, each.record.name) for each in guests]
    except ConfigError:
        return []
    except KernelError:  # root's guests: its agent tells
        pass
    try:
        client = _client()
        seen = [] if client is None else client.get("guests", list[GuestView])
    except QmpmemError:
        return []
    return [(each.id, each.name or each.id) for each in seen]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The guest's id, or its unique name.",
        autocompletion=complete_guest,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON; every size in bytes.")]


Watch = Annotated[
    float | None,
    typer.Option(
        "--watch",
        parser=seconds,
        metavar="[TIME]",
        help="Again and again, until Ctrl-C: each second, or as often as said.",
    ),
]


@app.command("list", epilog=usage("qmpmem list", "qmpmem list --watch", "qmpmem list --json"))
def list_(*, json: Json = False, watch: Watch = None) -> None:
    """Show every guest: state, maximum, actual size, balloon, rss."""
    if watch is not None:
        from qmpmem.cli.refresh import repeat

        repeat(lambda: _show_list(json=json), watch, json=json)
        return
    guests = _show_list(json=json)
    unseen = _unseen()
    if unseen is not None:
        say(unseen)
    elif not json and sys.stderr.isatty():  # a person wonders; a script knows
        _say_whose(guests)


def _show_list(*, json: bool) -> "Sequence[GuestView]":
    from qmpmem.view import rows

    guests = _listed(machine=json)
    if json:
        put_json(guests)
    else:
        table = [rows.list_row(guest) for guest in guests]
        names = [(guest.id, guest.name) for guest in guests]
        show_table(*rows.named(rows.LIST_HEADERS, table, names))
    return guests


def _unseen() -> str | None:
    """Return why root's guests are not in a list, where this user might see them."""
    from qmpmem.guests import access, rundir

    named = rundir.chosen_directory(os.environ) is not None
    return None if named else access.unseen_roots(os.getuid())


def _say_whose(guests: "Sequence[GuestView]") -> None:
    """Tell the user where guests were looked for, where the table alone leaves that open."""
    from qmpmem.guests import access

    whose = access.view(os.environ, os.getuid())
    if not guests:
        say(f"no guests in {whose.run} (QMPMEM_RUN_DIR)")
    elif whose.roots is not None:
        say(f"these are your own guests; root's: QMPMEM_RUN_DIR={whose.roots} qmpmem list")


@app.command(epilog=usage("qmpmem info web1"))
def info(name: Name, *, json: Json = False) -> None:
    """Show one guest in full, as `virsh dominfo` did, and more."""
    from qmpmem.view import rows

    guest = _observe(name)
    if json:
        put_json(guest)
    else:
        show_pairs(list(rows.info_rows(guest)))
    _expect_session(guest)


@app.command(epilog=usage("qmpmem stats web1", "qmpmem stats web1 --watch 5s"))
def stats(
    name: Name,
    *,
    json: Json = False,
    watch: Watch = None,
) -> None:
    """Show all that a guest reports about its memory. As `virsh dommemstat`."""
    from qmpmem.view import rows

    if watch is not None:
        run_async(_watch(name, watch, json=json))
        return
    guest = _observe(name)
    if json:
        put_json(guest)
    else:
        show_pairs(list(rows.stats_rows(guest)))
    _expect_session(guest)


def live_guests() -> "Sequence[LiveGuest]":
    """Take the inventory, tidy up what is provably stale, and say what could not be read."""
    from qmpmem.guests import access, inventory

    run = access.directory(os.environ, os.getuid())
    found = inventory.take(run)
    inventory.sweep(run, found.stale)
    for entry in found.unreadable:
        if not entry.missing:  # most likely a guest that is starting right now
            warn(f"{entry.path}: {entry.problem}")
    return found.guests


def ask_agent(question: "Callable[[Client], T]") -> T | None:
    """Ask the agent something; None where there is none for us, or it does not answer."""
    client = _client()
    try:
        return None if client is None else question(client)
    except AgentUnreachable as error:
        if error.reason != "none":
            warn(f"{error.message}; asking QEMU itself")
    except KernelError as error:  # we may not ask it
        warn(f"agent: {error.message}; asking QEMU itself")
    return None


def _client() -> "Client | None":
    from qmpmem.api import addresses
    from qmpmem.guests import access

    path = addresses.existing_socket(os.environ, access.directory(os.environ, os.getuid()))
    if path is None:
        return None
    from qmpmem.api.client import Client

    return Client(path)


@asynccontextmanager
async def open_guest(name: str) -> "AsyncGenerator[ResizableGuest]":
    """Get at a guest, by way of the agent where one holds it."""
    async with AsyncExitStack() as stack:
        guest = await _open_directly(name, stack)
        if guest is None:
            from qmpmem.library import Guest

            known = Guest(name, warn=lambda text: warn(f"{text}; asking QEMU itself"))
            guest = await stack.enter_async_context(known)
        yield guest


async def _open_directly(name: str, stack: "AsyncExitStack") -> "ResizableGuest | None":
    """Get at a guest of a host without an agent, which most are: that need not load what asks one.

    Returns:
        None where there is an agent, or one may have begun just now.
    """
    from qmpmem.guests.guest import DirectGuest

    if _client() is not None:
        return None
    try:
        return await stack.enter_async_context(DirectGuest(name))
    except GuestUnreachable as error:
        if error.reason != "taken":
            raise
        return None


def way_to_guests() -> "Callable[[LiveGuest], AbstractAsyncContextManager[ResizableGuest]]":
    """Return how to open guests that were found already, by one question to the agent for all."""
    from qmpmem.guests.guest import DirectGuest
    from qmpmem.model.guest import GuestView

    def list_them(client: "Client") -> "tuple[Client, dict[str, GuestView]]":
        return client, {each.id: each for each in client.get("guests", list[GuestView])}

    answer = ask_agent(list_them)
    if answer is None:
        return DirectGuest
    from qmpmem.api.agent_guest import AgentGuest

    client, held = answer

    def connect(found: "LiveGuest") -> "AbstractAsyncContextManager[ResizableGuest]":
        seen = held.get(found.record.id)
        if seen is None or found.record.human:  # a human monitor is left alone by the agent
            return DirectGuest(found)
        return AgentGuest(client, seen)

    return connect


def _listed(*, machine: bool) -> "list[GuestView]":
    """List all guests: as the agent sees them, and those that it has not found yet."""
    from qmpmem.guests.overview import overview
    from qmpmem.model.guest import GuestView

    seen = ask_agent(lambda client: client.get("guests", list[GuestView]))
    if seen is None:
        return overview(live_guests(), machine=machine)
    try:
        found = live_guests()
    except (ConfigError, KernelError):  # we may ask the agent, but not look for ourselves
        return [_briefly(guest) for guest in seen]
    known = {(guest.id, guest.pid): _briefly(guest) for guest in seen}
    new = [each for each in found if (each.record.id, each.pid) not in known]
    fresh = {guest.id: guest for guest in overview(new, machine=machine)}
    return [known.get((each.record.id, each.pid)) or fresh[each.record.id] for each in found]


def _briefly(guest: "GuestView") -> "GuestView":
    """Leave out what a list does not have when no agent runs."""
    from qmpmem.records import replace

    return replace(guest, stats=None, used=None, balloon=None, accelerator=None)


def show_table(headers: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    """Draw a table that fits the terminal, aligned plain text elsewhere."""
    from qmpmem.view import table as layout

    width = screen_width()
    if width is None:
        put_lines(layout.columns(headers, table))
        return
    first, *lines = layout.fitted(headers, table, width)
    put(f"\x1b[1m{first}\x1b[0m" if on_terminal() else first)
    put_lines(lines)


def show_pairs(pairs: "Sequence[tuple[str, str]]") -> None:
    """Write labels and values, a long value below itself on a terminal."""
    from qmpmem.view import rows

    put_lines(rows.pairs(pairs, screen_width()))


def show_prose(lines: Iterable[str]) -> None:
    """Write sentences, wrapped between words on a terminal."""
    from qmpmem.view import rows

    for line in lines:
        put_lines(rows.prose(line, screen_width()))


def screen_width() -> int | None:
    """Count the columns of the terminal; None where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def put_lines(lines: Iterable[str]) -> None:
    """Write lines of data; what a terminal might obey is escaped."""
    for line in lines:
        put_plain(line)


def _observe(name: str) -> "GuestView":
    def find_it(client: "Client") -> "GuestView | None":
        from qmpmem.api.agent_guest import find

        return find(client, name)

    seen = ask_agent(find_it)
    if seen is not None:
        return seen
    from qmpmem.guests import read_guest
    from qmpmem.guests.guest import find

    return run_async(read_guest.observe(find(name), detail=True))


def _expect_session(guest: "GuestView") -> None:
    """Exit as unreachable where there was no session to read from, after showing what is known."""
    from qmpmem.wire.errors import WITHOUT_SESSION

    if guest.state in WITHOUT_SESSION:
        raise GuestUnreachable(guest.problem or f"guest {guest.id}: {guest.state}", reason="state")


async def _watch(name: str, pause: float, *, json: bool) -> None:
    import asyncio

    from qmpmem.view import rows

    said: str | None = None
    async with open_guest(name) as guest:
        header = not json
        while True:
            seen = await guest.snapshot()
            if json:
                put_json(seen)
            else:
                put_lines(rows.watch_lines(seen, header=header, width=screen_width()))
                header, silent = False, rows.silence(seen)
                if silent is not None and silent != said:
                    say(f"guest {seen.id} reports {silent}")
                said = silent
            await asyncio.sleep(pause)
