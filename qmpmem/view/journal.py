"""What the journal tells, as rows of text. Pure."""

import time
from collections.abc import Iterator
from typing import Final

from qmpmem.journal.episodes import Episode
from qmpmem.journal.replay import Guest, Replay, Side
from qmpmem.model.escapes import printable
from qmpmem.units import Bytes
from qmpmem.view.rows import UNKNOWN, label, size

HISTORY_HEADERS: Final = (
    "FROM",
    "TO",
    "ROUNDS",
    "HOST",
    "VERDICT",
    "ACTUAL",
    "WORKS-WITH",
    "TOLD",
    "REASON",
)
REPLAY_HEADERS: Final = (
    "ID",
    "OTHERWISE",
    "SHRINKS",
    "GROWS",
    "LOWEST",
    "ASKED",
)


def history_row(episode: Episode) -> tuple[str, ...]:
    """Return some rounds of a guest as a row under `HISTORY_HEADERS`."""
    actual = size(episode.actual)
    if episode.first != episode.actual:
        actual = f"{size(episode.first)} → {actual}"
    return (
        moment(episode.begin),
        clock(episode.end),
        str(episode.rounds),
        episode.state,
        episode.verdict,
        actual,
        size(episode.working),
        _told(episode),
        printable(episode.reason),
    )


def replay_lines(found: Replay) -> Iterator[str]:
    """Yield what other settings would have decided about the host."""
    begin = UNKNOWN if found.begin is None else moment(found.begin)
    end = UNKNOWN if found.end is None else moment(found.end)
    yield f"{found.rounds} rounds, {begin} to {end}; {found.differs} would differ"
    for side in ("then", "now"):
        states = found.states.get(side, {})
        words = ", ".join(f"{state} {count}" for state, count in sorted(states.items()))
        yield f"host {side}: {words or UNKNOWN}"


def replay_row(guest: Guest) -> tuple[str, ...]:
    """Return one guest as a row under `REPLAY_HEADERS`: then → now."""
    then, now = guest.then, guest.now
    return (
        guest.guest,
        str(guest.rounds),
        _both(str(then.shrinks), str(now.shrinks)),
        _both(str(then.grows), str(now.grows)),
        _both(size(then.lowest), size(now.lowest)),
        _both(size(_asked(then)), size(_asked(now))),
    )


def example_lines(found: Replay) -> Iterator[str]:
    """Yield the first differences, one by one."""
    for each in found.examples:
        then = "nothing" if each.then is None else size(each.then)
        now = "nothing" if each.now is None else size(each.now)
        words = f" ({printable(each.reason)})" if each.reason else ""
        yield f"{moment(each.time)} {label(each.guest, each.name)}: {then} → {now}{words}"


def moment(seconds: float) -> str:
    """Return a time of day, with its day."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def clock(seconds: float) -> str:
    """Return a time of day."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _told(episode: Episode) -> str:
    if episode.target is None:
        return UNKNOWN
    times = "once" if episode.told == 1 else f"{episode.told} times"
    return f"{'would be ' if episode.dry_run else ''}{size(episode.target)} ({times})"


def _asked(side: Side) -> Bytes | None:
    return side.asked if side.shrinks else None


def _both(then: str, now: str) -> str:
    return then if then == now else f"{then} → {now}"
