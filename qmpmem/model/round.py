"""What shall be done, why, and what was done: frozen records of plain values."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

from qmpmem.model.observation import Snapshot
from qmpmem.records import Record
from qmpmem.units import Bytes

HostState = Literal["SLACK", "BALANCED", "SOFT", "HARD", "CRITICAL"]
"""How short of memory the host is, the calm one first."""
STATES: Final[tuple[HostState, ...]] = get_args(HostState)

Verdict = Literal[
    "normal",
    "grace",
    "distress",
    "stalled",
    "uncooperative",
    "ineffective",
    "suspect",
    "implausible",
    "stale",
    "exempt",
    "foreign",
    "frozen",
]
"""What the agent takes a guest for; the manual explains all but the first three (policy.md)."""

Bound = Literal[
    "none",
    "minimum",
    "maximum",
    "entitlement",
    "demand",
    "step",
    "actual",
    "spare",
    "dead band",
    "cool-down",
    "grace",
    "hold",
    "pin",
    "hands off",
    "leash",
]
"""The limit that decided a guest's target in the end."""


Kind = Literal[
    "stay",
    "release",
    "pin",
    "cap",
    "rescue",
    "need",
    "minimum",
    "cache",
    "habit",
    "plenty",
    "position",
    "take",
    "revoke",
]
"""Why a guest goes where it goes, for programs: decisions are told apart by this, not by texts."""


class SetBalloon(Record, frozen=True):
    """A command to one guest to go to a size."""

    guest: str
    target: Bytes
    reason: str
    """One line for people."""
    kind: Kind = "stay"


class SetKsm(Record, frozen=True):
    """A change of KSM: the names of its files, and what is written to each."""

    changes: Mapping[str, str]
    reason: str


class Reclaim(Record, frozen=True):
    """A command to the host's kernel to reclaim memory of one guest's own cgroup."""

    guest: str
    size: Bytes
    """The most that is to be reclaimed."""
    reason: str
    """One line for people."""


class Explanation(Record, frozen=True, omit_defaults=True):
    """How a guest's target came about: the terms of the formula."""

    guest: str
    """Its id."""
    name: str | None = None
    """As in `GuestReading`."""
    verdict: Verdict = "normal"
    reason: str = ""
    """One line for people."""
    kind: Kind = "stay"
    bound: Bound = "none"
    actual: Bytes | None = None
    used: Bytes | None = None
    working: Bytes | None = None
    """W: what it works with; it rises quickly and falls slowly."""
    headroom: Bytes | None = None
    """H: what it is given beyond W."""
    cache: Bytes | None = None
    """C: page cache that pays, as far as it is known."""
    demand: Bytes | None = None
    """D: clamp(W + C + H, min, max)."""
    usual: Bytes | None = None
    """What it usually uses at this hour of the day."""
    entitlement: Bytes | None = None
    """E: its share of the budget."""
    minimum: Bytes | None = None
    maximum: Bytes | None = None
    shares: int | None = None
    active: float | None = None
    """f: the part of its memory that it works with."""
    price: float | None = None
    """Shares for each byte at its cost (ESX: the ratio rho); the guest with the lowest gives
    first."""
    reclaimable: Bytes | None = None
    """What the host would really gain if it shrank to its demand."""
    wanted: Bytes | None = None
    """Where it should go, before this is cut down to a step."""
    target: Bytes | None = None
    """Where it is told to go now; None: it is not told anything."""
    reclaim: Bytes | None = None
    """What the host is to reclaim of its cgroup now, at the most; None: nothing."""


class Plan(Record, frozen=True, omit_defaults=True):
    """What one round decided."""

    state: HostState = "SLACK"
    reason: str = ""
    """Why the host is in this state: one line for people."""
    reserve: Bytes = Bytes(0)
    budget: Bytes | None = None
    """B: what there is to share out."""
    spare: Bytes | None = None
    """What is available, less the reserve and what was granted and not yet touched."""
    debt: Bytes = Bytes(0)
    """What would be needed at once if guests wrote to all merged pages."""
    balloons: tuple[SetBalloon, ...] = ()
    """The commands in the order in which they are to be sent: shrinks first."""
    ksm: SetKsm | None = None
    reclaims: tuple[Reclaim, ...] = ()
    guests: tuple[Explanation, ...] = ()
    warnings: tuple[str, ...] = ()
    """What an administrator should know; each warning comes once."""


class Outcome(Record, frozen=True, omit_defaults=True):
    """The result of one command."""

    guest: str | None
    """The guest's id; None: the command was for KSM."""
    done: bool
    error: str | None = None
    seconds: float | None = None
    reclaimed: Bytes | None = None
    """What was reclaimed of the guest's cgroup; None: the command was not one to reclaim."""


class Tick(Record, frozen=True, omit_defaults=True):
    """The record of one round."""

    number: int
    snapshot: Snapshot
    plan: Plan
    outcomes: tuple[Outcome, ...] = ()
    dry_run: bool = False
    seconds: float | None = None
    """Seconds that the round took, from its first reading to its last command."""


def severity(state: HostState) -> int:
    """Return a number by which states of a host are compared: the worse, the larger."""
    return STATES.index(state)
