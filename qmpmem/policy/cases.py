"""One guest and the host in one round, as far as they are worked out."""

from collections.abc import Mapping
from typing import Final, Literal

from qmpmem.model.config import Limits
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import HostState, Verdict
from qmpmem.policy import demand
from qmpmem.policy.demand import Demand
from qmpmem.policy.host import STATES
from qmpmem.policy.state import GuestTrend
from qmpmem.records import Record
from qmpmem.units import Bytes

Depth = Literal["idle", "modest", "bare", "minimum"]
"""How deep a guest is taken: what it does not use; what it used minutes ago, and room; page cache
that pays; what it uses."""

GROWABLE: Final[frozenset[Verdict]] = frozenset(
    {"normal", "grace", "distress", "stalled", "uncooperative", "ineffective", "suspect", "stale"}
)
"""Which guests may be given more: that harms nothing but the host, which is measured."""


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
        """The guest's id."""
        return self.reading.id

    @property
    def actual(self) -> Bytes:
        """What it has; its maximum where that is not known."""
        return self.limits.maximum if self.reading.actual is None else self.reading.actual

    @property
    def held(self) -> int:
        """What of a guest's memory the host really holds, in memory or in its swap."""
        cost = self.reading.cost
        return self.actual if cost is None else min(self.actual, cost + (self.reading.swap or 0))

    @property
    def suffers(self) -> bool:
        """Whether its programs lack memory now."""
        return self.demand.distress or self.demand.starving

    @property
    def waits(self) -> bool:
        """Whether it waits for memory of the host."""
        return demand.waits(self.trend)

    @property
    def fair(self) -> int:
        """What it may have before others have theirs."""
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
    """What of that costs next to nothing: half of the swap where that is compressed memory."""
    lacks: Mapping[Depth, int]
    """What the host lacks, by how deep guests are to be taken for it."""
    last: int
    """What the host lacks to be out of the last need."""
    easy: int
    """What may be given, and the host is not short of it."""
    plenty: int
    """What may be given to guests that do not need it, and there is still plenty."""
    filled: int
    """What guests on their way down have filled of what they are to give."""
    exposed: int
    """What guests may still touch unasked, beyond what there is for them. Negative: all fits."""
    hold: bool
    tax: float
    grace: float = 0.0
    """Seconds for which a guest has just started."""
    thrashes: bool = False
    """The host waits for its own swap."""
    acute: bool = False
    """Some guest suffers, and can be helped."""

    @property
    def short(self) -> bool:
        """Whether the host wants memory back."""
        return STATES.index(self.state) >= STATES.index("SOFT")

    @property
    def sharp(self) -> bool:
        """Whether the host is in need."""
        return self.state in ("HARD", "CRITICAL")

    @property
    def harsh(self) -> bool:
        """Whether the host or a guest is in such need that the others have to be modest."""
        return self.acute or self.sharp
