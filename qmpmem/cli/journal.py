"""Commands about what was: `qmpmem history`, `qmpmem why --at`, `qmpmem replay`.

None of them needs an agent, and none disturbs one.
"""

import os
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qmpmem.cli.app import app, put, put_json, say, usage
from qmpmem.cli.show_guests import Json, Name, put_lines, show_prose, show_table
from qmpmem.errors import ConfigError, KernelError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from qmpmem.api.records import Why
    from qmpmem.journal.episodes import Episode
    from qmpmem.journal.reader import Reader
    from qmpmem.model.config import Config
    from qmpmem.model.observation import Snapshot
    from qmpmem.model.round import Tick

NEAR: Final = 60.0
"""Seconds between a round and the time that was asked for: a round further away tells nothing of
that time."""
BEFORE: Final = 900.0
"""Seconds before a time in which the last decisions are looked for."""
TIMES: Final = ("begin", "end", "told_at")
"""Fields of an `Episode` that are seconds since 1970."""
NAMED: Final = 1000
"""Guests of which some are named where one is not found."""
LARGEST: Final = 32 << 20
"""Most bytes of what `history` shows, with `BESIDE` for each line."""
BESIDE: Final = 500
"""Bytes of an episode without its words."""
OFTEN: Final = 5000
"""Rounds after which a replay shows how far it is."""

Journal = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The journal; else as the agent's configuration says."),
]
Since = Annotated[
    str, typer.Option(metavar="TIME", help="1h, 90m, 2d ago; or 14:03, 2026-01-31T14:03.")
]


@app.command(
    epilog=usage("qmpmem history web1 --since 2d", "qmpmem history web1 --since 14:03 --csv")
)
def history(
    name: Name,
    *,
    since: Since = "1h",
    journal: Journal = None,
    json: Json = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Comma-separated, with the fields of --json.")
    ] = False,
) -> None:
    """Show what happened to a guest's memory, and why.

    Quiet rounds are folded together.
    """
    if json and csv:
        raise ConfigError("--json and --csv: expected one of them")
    from qmpmem.journal.episodes import Episode as Record
    from qmpmem.journal.episodes import episodes
    from qmpmem.view import journal as view
    from qmpmem.view import rows

    begin = when(since)
    with reading(journal) as reader:
        seen: dict[str, str | None] = {}
        ticks = (each.tick for each in reader.entries(begin))
        found = list(_bounded(episodes(_noting(ticks, seen), name)))
        if not found:
            raise ConfigError(
                f"guest {name}: nothing of it in the journal since {view.moment(begin)}",
                hint=_known(seen, reader.span()),
            )
    if json:
        for episode in found:
            put_json(episode)
        return
    if csv:
        from qmpmem.view import comma_separated

        put_lines(comma_separated.lines(Record, found, TIMES))
        return
    last = found[-1]
    if last.name not in (None, last.guest):
        put(f"guest {rows.label(last.guest, last.name)}")
    show_table(view.HISTORY_HEADERS, [view.history_row(each) for each in found])


@app.command(epilog=usage("qmpmem why web1", "qmpmem why web1 --at 10m"))
def why(
    name: Name,
    *,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="As it was then: 14:03, 10m ago, ...")
    ] = None,
    journal: Journal = None,
    json: Json = False,
) -> None:
    """Show how a guest's size came about.

    Now, by the agent's word, or at a time of the past.
    """
    from qmpmem.cli import agent
    from qmpmem.view import journal as view

    if at is None:
        agent.why(name, json=json)
        return
    moment = when(at)
    with reading(journal) as reader:
        found = _why(reader, name, moment)
    if json:
        put_json(found)
        return
    put(f"at {view.moment(found.time)}")
    agent.show_why(found)


@app.command(epilog=usage("qmpmem replay --config new.toml --since 1h30m"))
def replay(
    *,
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="The settings to decide with.")
    ],
    since: Since = "1h",
    journal: Journal = None,
    json: Json = False,
) -> None:
    """Decide the recorded past again with other settings.

    Shows what would differ. What was seen stays what was seen then: this says where the settings
    matter, not what would have become of it (`qmpmem simulate` does).
    """
    from qmpmem.cli.config import accepted, judged
    from qmpmem.journal import replay as again
    from qmpmem.view import journal as view
    from qmpmem.view import rows

    other = accepted(judged(config))
    begin = when(since)
    with reading(journal) as reader:
        found = again.replay(_rounds(reader, begin), other, told=_tell)
        if not found.rounds:
            raise ConfigError(
                f"the journal has no round since {view.moment(begin)}",
                hint=_known({}, reader.span()),
            )
    if json:
        put_json(found)
        return
    show_prose(view.replay_lines(found))
    if found.guests:
        put("")
        table = [view.replay_row(each) for each in found.guests]
        names = [(each.guest, each.name) for each in found.guests]
        show_table(*rows.named(view.REPLAY_HEADERS, table, names))
    if found.examples:
        put("")
        show_prose(view.example_lines(found))


@contextmanager
def reading(given: Path | None) -> "Generator[Reader]":
    """Open a journal: the one that is given, else the agent's."""
    from qmpmem.journal.reader import Reader

    with closing(Reader(journal_file(given))) as reader:
        yield reader


def journal_file(given: Path | None) -> Path:
    """Find the journal: the one that is named, else the one that this user reads."""
    from qmpmem.journal.paths import readable_journal

    return given or readable_journal(_configured(), os.environ, os.getuid())


def _configured() -> str | None:
    """Return which file the agent's configuration names; with mistakes in it, it names none."""
    from qmpmem.cli.config import judged

    found = judged(None).config
    return None if found is None else found.journal.path


def when(text: str) -> float:
    """Read a moment, in seconds since 1970, by this machine's clock."""
    from qmpmem.journal.times import parse_moment

    return parse_moment(text, datetime.now().astimezone())


def _noting(ticks: "Iterator[Tick]", seen: "dict[str, str | None]") -> "Iterator[Tick]":
    for tick in ticks:
        if len(seen) < NAMED:
            seen.update((each.guest, each.name) for each in tick.plan.guests)
        yield tick


def _bounded(found: "Iterator[Episode]") -> "Iterator[Episode]":
    """Yield episodes.

    Raises:
        KernelError: they are more than a journal of an agent has.
    """
    size = 0
    for episode in found:
        size += BESIDE + len(episode.reason) + len(episode.name or "")
        if size > LARGEST:
            raise KernelError(
                f"more than {LARGEST >> 20} MiB of lines", hint="show less by a later --since"
            )
        yield episode


def _known(guests: "Mapping[str, str | None]", span: tuple[float, float] | None) -> str:
    from qmpmem.view.journal import moment
    from qmpmem.view.rows import label

    if guests:
        named = [label(guest, name) for guest, name in sorted(guests.items())[:20]]
        return f"guests in it: {', '.join(named)}"
    return (
        "it is empty" if span is None else f"it reaches from {moment(span[0])} to {moment(span[1])}"
    )


def _rounds(reader: "Reader", begin: float) -> "Iterator[tuple[Snapshot, Config]]":
    settings: dict[int, Config] = {}
    for entry in reader.entries(begin):
        if entry.config not in settings:  # they change seldom, and only the last ones are kept
            settings = {entry.config: reader.config(entry.config)}
        yield entry.tick.snapshot, settings[entry.config]


def _tell(rounds: int) -> None:
    if rounds % OFTEN == 0:
        say(f"{rounds} rounds are decided again")


def _why(reader: "Reader", name: str, moment: float) -> "Why":
    """Find the round nearest to a time in which a guest is, and what was decided before.

    Raises:
        ConfigError: there is none near it.
    """
    from qmpmem.api.recent_rounds import RecentRounds
    from qmpmem.api.records import Why
    from qmpmem.journal.episodes import find
    from qmpmem.view.journal import moment as written

    rounds, best = RecentRounds(), None
    for entry in reader.entries(moment - BEFORE, moment + NEAR):
        there = find(entry.tick.plan.guests, name) is not None
        away = abs((entry.tick.snapshot.wall or 0.0) - moment)
        if best is not None and away > best[0]:
            break
        if there and away <= NEAR:
            best = (away, entry)
        rounds.publish(entry.tick)
    if best is None:
        raise ConfigError(
            f"guest {name}: no round within {NEAR:.0f} s of {written(moment)}",
            hint=_known({}, reader.span()),
        )
    _, entry = best
    tick = entry.tick
    explanation = find(tick.plan.guests, name)
    reading = next(
        (each for each in tick.snapshot.guests if explanation and each.id == explanation.guest),
        None,
    )
    if explanation is None or reading is None:  # decided about without having been seen: damaged
        raise ConfigError(f"guest {name}: what was seen of it then is not in the journal")
    config = reader.config(entry.config)
    return Why(
        guest=reading.id,
        time=tick.snapshot.wall or 0.0,
        state=tick.plan.state,
        reason=tick.plan.reason,
        reading=reading,
        explanation=explanation,
        limits=None
        if reading.maximum is None
        else config.limits(reading.id, reading.maximum, reading.name, reading.current),
        pin=tick.snapshot.requests.pins.get(reading.id),
        decisions=rounds.decisions(reading.id),
    )
