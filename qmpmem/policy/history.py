"""What a round leaves for the next. Frozen records of plain values: a journal keeps them."""

from collections.abc import Mapping

from qmpmem.actions import HostState
from qmpmem.records import Record
from qmpmem.units import Bytes


class Counters(Record, frozen=True, omit_defaults=True):
    """The guest's counters at its last report."""

    time: float
    """When that report came."""
    swap_in: Bytes | None = None
    major_faults: int | None = None
    oom_kills: int | None = None
    alloc_stalls: int | None = None
    cost: Bytes | None = None
    """What it cost the host then."""


class GuestTrend(Record, frozen=True, omit_defaults=True):
    """What is remembered of one guest. Times are those of `Snapshot.time`."""

    epoch: int
    born: float
    """When this epoch was first seen."""
    time: float
    """The round before."""
    reports: int = 0
    """Fresh and valid reports since `born`."""
    counters: Counters | None = None
    used: float | None = None
    fast: float = 0.0
    """Average of `used` over some 10 s, in bytes."""
    slow: float = 0.0
    """Likewise over some 120 s."""
    swapping: int = 0
    """Reports in a row with much swapping in."""
    hurt: float | None = None
    """When it last was in distress."""
    maximum: Bytes | None = None
    """In the round before."""
    actual: Bytes | None = None
    """In the round before."""
    cost: Bytes | None = None
    """In the round before."""
    target: Bytes | None = None
    """What it was last told."""
    sent: float | None = None
    """When."""
    before: Bytes | None = None
    """What it was told before that: it may still have been on its way there."""
    shrunk: float | None = None
    """When its target was last lowered."""
    grown: float | None = None
    """When its target was last raised."""
    granted: Bytes = Bytes(0)
    """Growth of late that it may not have touched yet."""
    granted_cost: Bytes = Bytes(0)
    """Its cost when that began."""
    asked_from: Bytes | None = None
    """Its size when it was asked to shrink; None: it is not being asked."""
    asked_at: float = 0.0
    asked_cost: Bytes | None = None
    stalls: tuple[float, ...] = ()
    """When it did not move, in the last 10 minutes."""
    backoff: int = 0
    """Stalls since it last did as it was told."""
    rest_until: float = 0.0
    """No shrinking before."""
    speed: float | None = None
    """Bytes a second that it gives."""
    idle_yield: int = 0
    """Shrinks in a row that freed nothing."""
    ineffective: bool = False
    suspect_since: float | None = None
    foreign: int = 0
    """How often somebody else moved its balloon."""
    foreign_at: float | None = None
    foreign_up: bool = False
    """Whether that gave it memory: it may have been the guest itself, in need (deflate-on-oom)."""
    released: Bytes | None = None
    """An emergency release that is not confirmed yet: absolute, and sent until it is."""
    probed: float | None = None
    """When it was last asked for a little, with nothing short."""


class HostTrend(Record, frozen=True, omit_defaults=True):
    """What is remembered of the host."""

    state: HostState = "SLACK"
    since: float = 0.0
    calm_since: float | None = None
    """Since when it could go one state up."""
    time: float | None = None
    swap_in: Bytes | None = None
    stalled: int | None = None
    costs: tuple[tuple[float, int], ...] = ()
    """Cost of all settled guests in the last 10 s: (time, bytes)."""
    settled: frozenset[str] = frozenset()
    """The guests whose cost that is."""
    burst: float = 0.0
    """The largest growth within 10 s of late, in bytes."""
    burst_at: float = 0.0


class KsmTrend(Record, frozen=True, omit_defaults=True):
    """What is remembered of merging."""

    started: float | None = None
    """When the campaign began; None: resting, or not ours."""
    scans: int = 0
    """full_scans then."""
    profit: int = 0
    """Then, in bytes."""
    rest_until: float = 0.0
    rests: int = 0
    """Campaigns in a row that gained little."""
    guests: frozenset[str] = frozenset()
    cost: int = 0
    """Cost of all guests when it went to rest."""
    wrote: Mapping[str, str] = {}
    contended: int = 0
    """How often another program changed what we wrote, or the kernel refused it."""
    cow: int | None = None
    cow_time: float | None = None
    slowed: int = 0
    """How often the speed was halved because merged pages are written to."""
    cpu: float | None = None
    """Seconds that ksmd had run since boot, when its share of a core was last looked at."""
    cpu_time: float | None = None
    pace: float = 1.0
    """Part of a preset's speed with which ksmd keeps to its share of a core here."""


class History(Record, frozen=True, omit_defaults=True):
    """Everything that one round leaves for the next."""

    host: HostTrend = HostTrend()
    guests: Mapping[str, GuestTrend] = {}
    ksm: KsmTrend = KsmTrend()
    warned: frozenset[str] = frozenset()
    """What an administrator was told already."""
