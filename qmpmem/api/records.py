"""What passes between the agent and its clients. Frozen records; sizes are bytes.

Rules of this file:
    New fields may be added, with defaults; none is renamed or removed within `/v1`.
"""

from collections.abc import Mapping
from typing import Final, Literal

from qmpmem.model.config import Limits
from qmpmem.model.halts import RUNNING
from qmpmem.model.observation import GuestReading, Lease
from qmpmem.model.round import Explanation, HostState
from qmpmem.records import Record
from qmpmem.units import Bytes

VERSION: Final = "v1"

DECISIONS: Final = 20
"""How many of the last decisions about a guest are kept."""

Access = Literal["none", "read", "write"]


class Status(Record, frozen=True):
    """How the agent and its host are."""

    pid: int
    version: str
    since: float
    """When the agent began; seconds since 1970."""
    number: int
    """The number of the last round; 0: there was none yet."""
    age: float | None
    """Seconds since the last round."""
    took: float | None
    """Seconds that the last round took."""
    took_most: float | None
    """Seconds within which 99 of 100 of the last rounds were done."""
    dry_run: bool
    run: str
    """The run directory."""
    state: HostState | None = None
    reason: str = ""
    total: Bytes | None = None
    available: Bytes | None = None
    limit: Bytes | None = None
    """The budget's limit, where it is narrower than the host."""
    limited_by: str | None = None
    """The cgroup whose limit that is."""
    headroom: Bytes | None = None
    reserve: Bytes | None = None
    spare: Bytes | None = None
    budget: Bytes | None = None
    debt: Bytes | None = None
    hold: bool = False
    pins: Mapping[str, Bytes] = {}
    leases: tuple[Lease, ...] = ()
    clock: float | None = None
    """Now, by the clock of `Lease.until`; seconds."""
    guests: tuple[Explanation, ...] = ()
    warnings: tuple[str, ...] = ()
    """The last ones, oldest first."""


class Decision(Record, frozen=True):
    """What was decided about a guest in one round."""

    time: float
    """Seconds since 1970."""
    number: int
    """The number of the round."""
    state: HostState
    """The host's."""
    explanation: Explanation


class Why(Record, frozen=True):
    """Why a guest has the memory that it has."""

    guest: str
    """Its id; its name is in `reading`."""
    time: float
    """When the last round was, in seconds since 1970."""
    state: HostState
    reason: str
    """Why the host is in this state."""
    reading: GuestReading
    """What went in."""
    explanation: Explanation
    """What came out, term by term."""
    limits: Limits | None = None
    pin: Bytes | None = None
    decisions: tuple[Decision, ...] = ()
    """The last ones that differed from the one before, oldest first."""


class PinRequest(Record, frozen=True):
    """A size for a guest, by an operator's word."""

    size: Bytes | str
    """Bytes, or text as `qmpmem set` takes it (``"512M"``, ``"50%"``, ``"+128M"``, ``"max"``),
    which the agent works out from what the guest has when it is asked."""
    force: bool = False
    """Also below the floor; never below the minimum of the agent's own configuration."""


class PinResult(Record, frozen=True):
    """What became of a request for a size."""

    guest: str
    """Its id."""
    size: Bytes | None
    """None: not pinned any more."""
    actual: Bytes | None
    """What it had when this was asked."""
    changed: bool = True
    exempt: str | None = None
    """Why the agent leaves the guest alone all the same; None: it does not."""
    name: str | None = None
    state: str = RUNNING
    """QEMU's run state, as in `GuestView.state`."""


class HoldResult(Record, frozen=True):
    """Whether the agent only releases."""

    hold: bool
    changed: bool


class LeaseRequest(Record, frozen=True):
    """Room that is asked for, for a guest that is about to start."""

    size: Bytes
    timeout: float = 30.0
    """Seconds in which the room must be there."""
    keep: float = 60.0
    """Seconds that it is kept after that, touched or not."""
    owner: str | None = None
    """What wants it; a word for people."""
    guest: str | None = None
    """The id or the name of the guest it is for."""
    mine: bool = False
    """It is for the guest that the asking process itself becomes."""


class Contribution(Record, frozen=True):
    """A guest, when room was asked for: what it could give, and gave."""

    guest: str
    """Its id."""
    gave: Bytes
    """What it has less than when that began."""
    could: Bytes
    """What it had then beyond its minimum."""
    reason: str
    """Why not more."""
    name: str | None = None


class LeaseResult(Record, frozen=True):
    """Room that is there."""

    lease: str
    size: Bytes
    seconds: float
    """How long it took to make."""
    keep: float
    gave: tuple[Contribution, ...] = ()


class LeaseEnded(Record, frozen=True):
    """A lease that was given back."""

    lease: str
    changed: bool


class Constant(Record, frozen=True):
    """A number that the policy rests on."""

    name: str
    """As in ``allocation.REVOKED_PERCENT``."""
    value: str
    meaning: str | None
    """What it is and where it is from; None: as its name says."""


class Problem(Record, frozen=True):
    """Why there is no answer."""

    kind: str
    """The class of the error, as in `qmpmem.errors`."""
    message: str
    hint: str | None = None
    reason: str | None = None
    """A stable word: of `GuestUnreachable.reason`, or `GuestRefused.error_class`."""


class Failure(Record, frozen=True):
    """Body of every error response."""

    error: Problem
