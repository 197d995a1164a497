"""What happened to one guest: rounds that tell the same are one line. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from qmpmem.model.names import pick
from qmpmem.model.round import Explanation, HostState, Tick, Verdict
from qmpmem.records import Record, replace
from qmpmem.units import MIB, Bytes

Way = Literal["less", "more", "as it is"]
"""Where a guest is told to go."""

GAP: Final = 30.0
"""Seconds without a round after which another episode begins: no agent ran meanwhile."""
STEP: Final = 3.0
"""Most seconds between two commands that belong to one episode."""
MOVED: Final = Bytes(16 * MIB)
"""Least change of a size, without a command, that begins another episode."""


class Episode(Record, frozen=True):
    """Some rounds in a row in which the same happened to a guest."""

    guest: str
    """Its id."""
    begin: float
    """Seconds since 1970."""
    end: float
    rounds: int
    state: HostState
    """The state of the host."""
    verdict: Verdict
    way: Way
    told: int
    """How often it was told something."""
    first: Bytes | None
    """What it had when the episode began."""
    actual: Bytes | None
    """What it had in the end."""
    target: Bytes | None
    """What it was last told; None: it was told nothing."""
    told_at: float | None
    """When that was."""
    dry_run: bool
    """Whether it was not really told, in a dry run."""
    working: Bytes | None
    """What it worked with in the end."""
    name: str | None
    """What its owner called it; None: that was not written down."""
    reason: str
    """The reason of the last round in which it was told something, else of the last round."""


def find(guests: Sequence[Explanation], word: str) -> Explanation | None:
    """Find what was decided about a guest, by its id or its name; None: it was not there.

    Raises:
        ConfigError: the word is no id, and the name of several guests.
    """
    guest = pick(word, {each.guest: each.name for each in guests})
    return next((each for each in guests if each.guest == guest), None)


def episodes(ticks: Iterable[Tick], guest: str) -> Iterator[Episode]:
    """Yield what happened to a guest in some rounds, oldest first; rounds without it are left out.

    Args:
        ticks: the rounds.
        guest: its id or its name.

    Raises:
        ConfigError: as `find`.
    """
    running: Episode | None = None
    for tick in ticks:
        said = find(tick.plan.guests, guest)
        if said is None:
            continue
        now = _begin(tick, said)
        if running is not None and _goes_on(running, now):
            running = _join(running, now)
            continue
        if running is not None:
            yield running
        running = now
    if running is not None:
        yield running


def _begin(tick: Tick, said: Explanation) -> Episode:
    wall = tick.snapshot.wall or 0.0
    target = next((each.target for each in tick.plan.balloons if each.guest == said.guest), None)
    return Episode(
        guest=said.guest,
        name=said.name,
        begin=wall,
        end=wall,
        rounds=1,
        state=tick.plan.state,
        verdict=said.verdict,
        way=_way(target, said.actual),
        told=0 if target is None else 1,
        first=said.actual,
        actual=said.actual,
        target=target,
        told_at=None if target is None else wall,
        dry_run=tick.dry_run,
        working=said.working,
        reason=said.reason,
    )


def _way(target: Bytes | None, actual: Bytes | None) -> Way:
    if target is None or actual is None or target == actual:
        return "as it is"
    return "less" if target < actual else "more"


def _goes_on(before: Episode, now: Episode) -> bool:
    if now.begin - before.end > GAP or now.begin < before.end or before.guest != now.guest:
        return False
    if (before.state, before.verdict, before.dry_run) != (now.state, now.verdict, now.dry_run):
        return False
    if before.way == now.way:
        return before.told > 0 or not _moved(before, now)
    # Between two steps of the same way are rounds that only wait for it.
    return now.told == 0 and before.told_at is not None and now.begin - before.told_at <= STEP


def _moved(before: Episode, now: Episode) -> bool:
    if before.first is None or now.actual is None:
        return before.first is not now.actual
    return abs(now.actual - before.first) >= MOVED


def _join(before: Episode, now: Episode) -> Episode:
    return replace(
        before,
        end=now.end,
        rounds=before.rounds + 1,
        told=before.told + now.told,
        actual=now.actual,
        target=before.target if now.target is None else now.target,
        told_at=before.told_at if now.told_at is None else now.told_at,
        working=now.working,
        reason=now.reason if now.told or not before.told else before.reason,
    )
