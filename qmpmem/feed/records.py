"""One round, whatever it comes from. Pure."""

from collections.abc import Mapping
from typing import Literal

from qmpmem.model.observation import Snapshot
from qmpmem.model.round import Outcome, Plan, Tick
from qmpmem.records import Record

Source = Literal["agent", "journal", "guests"]
"""Where a round is from: the agent that runs, what an agent wrote down, or the guests themselves.
"""


class Round(Record, frozen=True):
    """What was seen in one round, and what was decided, as far as a decision was made."""

    source: Source
    wall: float
    """When the round was; seconds since 1970."""
    snapshot: Snapshot
    plan: Plan | None = None
    """What the agent decided. None: no agent decided, so there is neither a state of the host nor a
    target."""
    outcomes: tuple[Outcome, ...] = ()
    number: int | None = None
    """The round's number as the agent counts, which begins anew with each agent. None: no agent
    counts."""
    dry_run: bool = False
    seconds: float | None = None
    """How long the round took; in seconds."""
    place: int | None = None
    """Where the round is in the journal; None: it was not read from there."""
    notes: Mapping[str, str] = {}
    """Why something of a guest is missing, by its id; told where no agent runs."""
    problem: str | None = None
    """Why the round is not from the agent, in one line. None: it is from the agent, or of the past.
    """


class Lost(Record, frozen=True):
    """From now on there are no rounds for a while."""

    wall: float
    """Since when; seconds since 1970."""
    problem: str
    """Why; one line."""
    is_blind: bool = False
    """The guests themselves cannot be asked either: there are none until an agent runs."""


def round_of(tick: Tick, source: Source, wall: float, place: int | None = None) -> Round:
    """Make a round of what an agent sent or wrote down.

    Args:
        tick: the agent's record.
        source: where it is from.
        wall: when it was, if the record does not say; seconds since 1970.
        place: where it is in the journal.
    """
    return Round(
        source=source,
        wall=wall if tick.snapshot.wall is None else tick.snapshot.wall,
        snapshot=tick.snapshot,
        plan=tick.plan,
        outcomes=tick.outcomes,
        number=tick.number,
        dry_run=tick.dry_run,
        seconds=tick.seconds,
        place=place,
    )
