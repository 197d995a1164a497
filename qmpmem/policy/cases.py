"""One guest and the host in one round, as far as they are worked out."""

from collections.abc import Mapping
from typing import Final, Literal

from qmpmem.model.config import Limits
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import HostState, Verdict, severity
from qmpmem.policy import demand
from qmpmem.policy.demand import Demand
from qmpmem.policy.state import GuestTrend
from qmpmem.records import Record
from qmpmem.units import Bytes

Depth = Literal["idle", "modest", "bare", "minimum"]
"""What is taken of a guest, from the first to the last: what it does not use; what it used minutes
ago, and room; page cache that pays; what it uses."""

GROWABLE: Final[frozenset[Verdict]] = frozenset(
    {"normal", "grace", "distress", "stalled", "uncooperative", "ineffective", "suspect", "stale"}
)
"""Verdicts of guests that may be given more: that costs nothing but the host's memory, which is
measured."""


class Case(Record, frozen=True):
    """One guest, with all that was worked out about it."""

    reading: GuestReading
    trend: GuestTrend
    limits: Limits
    verdict: Verdict
    reason: str
    demand: Demand
    active: float
    """The part of its memory that it works with, 0 to 1."""
    entitlement: Bytes = Bytes(0)
    pin: Bytes | None = None

    @property
    def id(self) -> str:
        """Return the guest's id."""
        return self.reading.id

    @property
    def actual(self) -> Bytes:
        """Return what it has; where that is not known, its maximum."""
        return self.limits.maximum if self.reading.actual is None else self.reading.actual

    @property
    def going(self) -> int:
        """Return the size that it is on its way down to; where it is on none, what it has."""
        told = self.trend.target
        return self.actual if told is None or not self.trend.shrinking else told

    @property
    def held(self) -> int:
        """Return how much of a guest's memory the host really holds, in memory or in its swap."""
        cost = self.reading.cost
        return self.actual if cost is None else min(self.actual, cost + (self.reading.swap or 0))

    @property
    def suffers(self) -> bool:
        """Tell whether its programs lack memory now."""
        return self.demand.distress or self.demand.starving

    @property
    def waits(self) -> bool:
        """Tell whether it waits for memory of the host."""
        return demand.waits(self.trend)

    @property
    def fair(self) -> int:
        """Return what it may have before others get more than theirs."""
        return max(self.entitlement, self.limits.minimum)


class Round(Record, frozen=True):
    """What holds for all guests in this round. Sizes are bytes."""

    now: float
    state: HostState
    spare: int
    """What may be given: available, less the reserve and what was granted and not yet touched."""
    margin: int
    """What is kept against bursts."""
    base: int
    """The reserve without what is kept against bursts."""
    swap: int
    """What the host can still swap out."""
    swap_total: int
    cheap: int
    """The part of `swap` that costs next to nothing: half, where it is compressed memory."""
    lacks: Mapping[Depth, int]
    """What the host lacks, by the depth to which guests are shrunk for it."""
    last: int
    """What the host lacks to leave CRITICAL."""
    easy: int
    """What may be given without making the host short."""
    plenty: int
    """What may be given to guests that do not need it while there is still plenty."""
    filled: int
    """What guests on their way down have filled of what they are to give."""
    exposed: int
    """What guests may still touch unasked, beyond what the host has for them. Negative: all
    fits."""
    hold: bool
    tax: float
    grace: float = 0.0
    """Seconds for which a guest counts as one that has just started."""
    thrashes: bool = False
    """Whether the host waits for its own swap."""
    acute: bool = False
    """Whether some guest suffers and can be helped."""

    @property
    def short(self) -> bool:
        """Tell whether the host wants memory back."""
        return severity(self.state) >= severity("SOFT")

    @property
    def sharp(self) -> bool:
        """Tell whether the host is in need."""
        return self.state in ("HARD", "CRITICAL")

    @property
    def harsh(self) -> bool:
        """Tell whether the host or a guest is in such need that the others have to be modest."""
        return self.acute or self.sharp
