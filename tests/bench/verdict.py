"""Whether our policy wins over a set of scenarios: one rule, and what breaks it. Pure.

Rules of this file:
    Where rows are compared by what guests lacked, a row that killed more than the row with the
    fewest kills is left out: memory that programs were killed for is no merit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

OURS: Final = "ours"
SIMPLEST: Final = "at-minimum"
"""The policy that ours must never be worse than: it needs no agent."""

WITHIN: Final = 1.05
"""Times the best."""
LITTLE: Final = 60.0
"""MiB·s: a difference that is less is none."""
SAME: Final = 1.005
"""Times the best: rows that are so near to each other are equally good."""
WINS: Final = 2 / 3
"""Of the scenarios, in which ours is to be the best or as good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one policy did in one scenario: on average over its runs, kills and commands in sum."""

    policy: str
    devices: str
    unmet: float
    """MiB·s."""
    guest_kills: int
    host_kills: int
    turns: int
    reversals: int
    causes: dict[str, int]
    commands: int
    late: int
    """Commands in the second halves of the runs."""
    swap_in: float
    """MiB that the host swapped in."""

    @property
    def kills(self) -> int:
        """By guests and by the host."""
        return self.guest_kills + self.host_kills


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One scenario under all policies."""

    name: str
    is_constant: bool
    """No guest's demand changes."""
    rows: tuple[Row, ...]

    @property
    def ours(self) -> Row:
        """Our row; there is one."""
        return next(row for row in self.rows if row.policy == OURS)

    @property
    def best(self) -> float:
        """What guests lacked under the best policy, MiB·s."""
        return min(row.unmet for row in self.fair())

    def fair(self) -> Sequence[Row]:
        """The rows with the fewest kills."""
        fewest = min(row.kills for row in self.rows)
        return [row for row in self.rows if row.kills == fewest]

    def is_won(self) -> bool:
        """Whether no policy is better than ours."""
        return self.ours in self.fair() and self.ours.unmet <= max(self.best * SAME, self.best + 1)


def lost(outcome: Outcome) -> Iterator[str]:
    """Say what is wrong with ours in one scenario."""
    ours = outcome.ours
    if not _is_near(ours.unmet, outcome.best):
        row = min(outcome.fair(), key=lambda row: row.unmet)
        yield (
            f"{ours.unmet:.0f} MiB·s unmet, {row.policy} with {row.devices} devices "
            f"{row.unmet:.0f} ({_times(ours.unmet, row.unmet)})"
        )
    for row in outcome.rows:
        if (
            row.policy == SIMPLEST
            and row.kills <= ours.kills
            and not _is_near(ours.unmet, row.unmet)
        ):
            yield f"{row.policy} with {row.devices} devices is better: {row.unmet:.0f} MiB·s"
    if ours.kills and any(not row.kills for row in outcome.rows):
        yield f"{ours.kills} kills, which are none with another policy"
    if ours.reversals:
        causes = "; ".join(f"{number} x {cause}" for cause, number in ours.causes.items())
        yield f"memory came back within 30 s {ours.reversals} times: {causes}"
    if outcome.is_constant and ours.late:
        yield f"{ours.late} commands while no demand changed"


def wins(outcomes: Sequence[Outcome]) -> int:
    """In how many scenarios no policy is better than ours."""
    return sum(outcome.is_won() for outcome in outcomes)


def holds(outcomes: Sequence[Outcome]) -> bool:
    """Whether the whole rule holds."""
    enough = wins(outcomes) >= WINS * len(outcomes)
    return enough and not any(True for outcome in outcomes for _ in lost(outcome))


def _is_near(unmet: float, best: float) -> bool:
    return unmet <= max(best * WITHIN, best + LITTLE)


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f} x" if other > 0 else "none"
