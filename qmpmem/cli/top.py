"""`qmpmem top`: all guests on one screen; or printed, for programs and for paper."""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qmpmem.cli.app import app, on_terminal, put, put_json, run_async, seconds, usage, warn
from qmpmem.cli.journal import Journal, journal_file
from qmpmem.cli.show_guests import Json, put_lines
from qmpmem.errors import AgentUnreachable, ConfigError

if TYPE_CHECKING:
    from qmpmem.feed import Past, Round
    from qmpmem.top.figures import Classes
    from qmpmem.top.history import History
    from qmpmem.top.session import Sources
    from qmpmem.top.view_state import Settings

WIDTH: Final = 120
"""Columns that are printed where nothing tells how many there are."""
EARLY: Final = 0.1
"""Seconds by which a round may come before its time."""
POOR: Final = frozenset({"linux", "vt100", "vt220", "ansi", "cons25"})
"""Terminals whose fonts lack braille, or block elements."""


class PrintRequest:
    """What a call asks to be printed.

    Args:
        csv: CSV.
        json: JSON.
        count: rounds; None: without end.
        pause: seconds between two of them.
        at: a time of the past; None: now.
    """

    def __init__(
        self, *, csv: bool, json: bool, count: int | None, pause: float, at: float | None
    ) -> None:
        self.csv = csv
        self.json = json
        self.count = count
        self.pause = pause
        self.at = at


@app.command(
    epilog=usage(
        "qmpmem top",
        "qmpmem top --at 14:03",
        "qmpmem top --once --filter 'state:distress >4G'",
        "qmpmem top --csv -n 5 -d 2",
    )
)
def top(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print the screen once, all guests.")
    ] = False,
    count: Annotated[
        int | None, typer.Option("-n", "--number", min=1, help="Print so many rounds.")
    ] = None,
    pause: Annotated[
        float | None,
        typer.Option("-d", "--delay", parser=seconds, metavar="TIME", help="Between two of them."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV; every size in bytes.")] = False,
    json: Json = False,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="As it was then: 14:03, 10m ago, ...")
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="WORDS", help="db, state:distress, class:db, >4G, ..."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="suffering, id, or a column.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAMES", help="As max,actual,used,press,told,age.")
    ] = None,
    ascii_: Annotated[bool, typer.Option("--ascii", help="No block elements, no braille.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="No keys that change.")] = False,
    journal: Journal = None,
) -> None:
    """Show all guests on one screen, live or as they were. `?` shows its keys.

    Printed once or again and again with --once, -n, --csv or --json.
    """
    from qmpmem.top.settings import settings_path

    path = settings_path(os.environ)
    printed = once or csv or json or count is not None
    settings = _chosen(_kept(path, quiet=printed), filter_, sort, columns)
    if not printed:
        _show(settings, path, at=at, ascii_=ascii_, sources=_sources(journal, read_only=read_only))
        return
    if csv and json:
        raise ConfigError("--csv and --json: one of both")
    moment = None if at is None else _moment(at)
    wanted = PrintRequest(
        csv=csv,
        json=json,
        count=1 if count is None and (once or at is not None) else count,
        pause=0.0 if pause is None else pause,
        at=moment,
    )
    run_async(_print(wanted, settings, ascii_=ascii_, journal=journal))


def _kept(path: Path, *, quiet: bool) -> "Settings":
    """Read what the user chose; a file with a mistake in it is said, and counts for nothing."""
    from qmpmem.top.settings import load
    from qmpmem.top.view_state import Settings

    if quiet:  # what is printed for a program does not depend on what a person saw last
        return Settings()
    try:
        return load(path)
    except ConfigError as error:
        warn(f"{error.message}; using the usual settings")
        return Settings()


def _chosen(
    settings: "Settings", filter_: str | None, sort: str | None, columns: str | None
) -> "Settings":
    """Put in what the call says.

    Raises:
        ConfigError: there is no such column, or a filter that means nothing.
    """
    from qmpmem.records import replace
    from qmpmem.top.columns import BY_NAME, ORDERS
    from qmpmem.top.filters import parse

    if filter_ is not None:
        settings = replace(settings, filter=parse(filter_).text)
    if sort is not None:
        if sort not in ORDERS:
            raise ConfigError(f"--sort {sort}: expected one of {', '.join(ORDERS)}")
        settings = replace(settings, sort=sort)
    if columns is not None:
        names = tuple(each.strip() for each in columns.split(",") if each.strip())
        unknown = [each for each in names if each not in BY_NAME]
        if unknown:
            raise ConfigError(f"--columns {unknown[0]}: expected some of {', '.join(BY_NAME)}")
        settings = replace(settings, columns=names)
    return settings


def _sources(journal: Path | None, *, read_only: bool) -> "Sources":
    from qmpmem.top.session import Sources, rounds

    past, why = _past(journal)
    return Sources(feed=rounds(), past=past, no_past=why, classes=_classes(), read_only=read_only)


def _past(journal: Path | None) -> "tuple[Past | None, str]":
    """Find the journal; what is wrong with it is said when it is asked for."""
    from qmpmem.feed import Past

    try:
        return Past(journal_file(journal)), ""
    except ConfigError as error:
        return None, error.message


def _classes() -> "Classes | None":
    """Return each guest's class, by the agent's configuration where this user may read it."""
    from functools import lru_cache

    from qmpmem.cli.config import judged

    try:
        found = judged(None).config
    except ConfigError:
        return None
    if found is None:
        return None

    @lru_cache(maxsize=4096)
    def class_of(guest: str, name: str | None) -> str | None:
        rule = found.rule(guest, name)
        return "default" if rule is None else rule.kind

    return class_of


def _show(
    settings: "Settings", path: Path, *, at: str | None, ascii_: bool, sources: "Sources"
) -> None:
    """Show the screen.

    Raises:
        ConfigError: there is no terminal, or textual is not installed.
    """
    terminal = os.environ.get("TERM", "")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or terminal in ("", "dumb"):
        raise ConfigError(
            "the screen needs a terminal",
            hint="`qmpmem top --once` prints it, --csv and --json are for programs",
        )
    if at is not None:
        _moment(at)
    try:
        from qmpmem.top.app import Options, Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise ConfigError(
            "the screen needs textual, which is not installed",
            hint="`pip install 'qmpmem[top]'` installs it; `qmpmem top --once` needs it not",
        ) from None
    from qmpmem.top.view_state import View

    view: View = View(settings=settings)
    shows_unicode = not ascii_ and has_unicode(os.environ)
    screen = Top(Options(sources, view, path, unicode=shows_unicode, at=at))
    screen.run()
    if screen.failure is not None:
        raise screen.failure


async def _print(
    wanted: PrintRequest, settings: "Settings", *, ascii_: bool, journal: Path | None
) -> None:
    from qmpmem.top.history import History

    history, classes = History(), _classes()
    if wanted.csv:
        from qmpmem.top.export import csv_header

        put(csv_header())
    shown = 0
    async for each in _rounds(wanted, journal):
        history.add(each)
        _put_round(each, history, classes, wanted, settings, ascii_=ascii_, first=not shown)
        shown += 1


def _put_round(
    seen: "Round",
    history: "History",
    classes: "Classes | None",
    wanted: PrintRequest,
    settings: "Settings",
    *,
    ascii_: bool,
    first: bool,
) -> None:
    import socket
    import time

    from qmpmem.records import replace
    from qmpmem.top.export import csv_rows
    from qmpmem.top.figures import shown
    from qmpmem.top.header import Names, Where
    from qmpmem.top.screen import listing
    from qmpmem.top.text import Canvas, encoded
    from qmpmem.top.view_state import Scene, View, listed

    drawn = shown(seen, history, classes)
    if wanted.json:
        put_json(replace(drawn, guests=tuple(listed(drawn, settings))))
        return
    if wanted.csv:
        put_lines(csv_rows(drawn, listed(drawn, settings)))
        return
    width, height = shutil.get_terminal_size((WIDTH, 24))
    unicode = (
        not ascii_ and "utf" in (sys.stdout.encoding or "").lower() and has_unicode(os.environ)
    )
    scene = Scene(
        history=history,
        where=Where(now=time.time(), is_live=seen.source != "journal"),
        names=Names(host=socket.gethostname()),
        seen=seen,
        shown=drawn,
    )
    canvas = Canvas(width=max(40, width), height=height, unicode=unicode)
    if not first:
        put("")
    for line in listing(scene, View(settings=settings), canvas):
        if on_terminal():
            put(encoded(line, colour=True).rstrip())
        else:
            put("".join(span.text for span in line).rstrip())


async def _rounds(wanted: PrintRequest, journal: Path | None) -> "AsyncIterator[Round]":
    """Yield the rounds that are to be printed.

    Raises:
        AgentUnreachable: no agent runs, and the guests cannot be asked.
        ConfigError: there is no journal, or nothing in it.
    """
    from qmpmem.feed import Lost, Past, live

    if wanted.at is not None:
        for each in _recorded(Past(journal_file(journal)), wanted):
            yield each
        return
    left, last = wanted.count, float("-inf")
    async with aclosing(live()) as news:
        async for seen in news:
            if isinstance(seen, Lost):
                if seen.is_blind:
                    raise AgentUnreachable(seen.problem, reason="none")
                continue
            if seen.wall < last + wanted.pause - EARLY:
                continue
            last = seen.wall
            yield seen
            left = None if left is None else left - 1
            if left == 0:
                return


def _recorded(past: "Past", wanted: PrintRequest) -> "list[Round]":
    found = past.at(wanted.at or 0.0)
    if found is None:
        raise ConfigError(f"{past.path}: the journal is empty")
    rounds = [found]
    while len(rounds) < (wanted.count or 1) and rounds[-1].place is not None:
        last = rounds[-1]
        following = past.step(last.place or 0, 1)
        if wanted.pause:
            later = past.at(last.wall + wanted.pause)
            following = later if later is not None and later.wall > last.wall else following
        if following is None:
            break
        rounds.append(following)
    return rounds


def has_unicode(environ: Mapping[str, str]) -> bool:
    """Tell whether a terminal has block elements and braille, by its locale and its name.

    Python makes C.UTF-8 of the locale C (PEP 538), in LC_CTYPE; the terminal knows nothing of that.
    """
    if environ.get("TERM", "") in POOR:
        return False
    chosen = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    if chosen == "C.UTF-8" and not environ.get("LC_ALL"):
        chosen = environ.get("LANG", "") if environ.get("LANG") else chosen
    return "utf" in chosen.lower()


def _moment(text: str) -> float:
    from datetime import datetime

    from qmpmem.journal.times import parse_moment

    return parse_moment(text, datetime.now().astimezone())
