"""What a round leaves for the next: frozen records of plain values, which a journal keeps."""

from collections.abc import Mapping

from qmpmem.model.round import HostState
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
    reads: Bytes | None = None
    """Bytes that it had read from its disks then."""
    reads_waited: int | None = None
    """Microseconds that it had waited for them."""
    caches: Bytes | None = None
    """Its page cache then."""
    cost: Bytes | None = None
    """What it cost the host then."""


class Stalls(Record, frozen=True, omit_defaults=True):
    """How long tasks of a guest's own cgroup waited for memory."""

    time: float
    """When that was read."""
    total: int
    """`GuestReading.stalled` then, in microseconds."""
    percent: float = 0.0
    """Percent of the time of late."""


class Trial(Record, frozen=True, omit_defaults=True):
    """A size that is tried out, and how much the guest read from its disks before."""

    size: Bytes
    """Its page cache when the trial began."""
    rate: float
    """Bytes a second that it read then."""
    since: float
    judged: bool = False
    """Whether its result so far is known."""


class CacheTrend(Record, frozen=True, omit_defaults=True):
    """What is remembered of a guest's page cache."""

    rate: float = 0.0
    """Bytes a second that it reads from its disks and that do not add to its page cache, or that a
    slow disk reads in the time that it waits for those."""
    kept: Bytes = Bytes(0)
    """Page cache that pays: with less, it read the same files again."""
    until: float = 0.0
    """When `kept` is forgotten."""
    smaller: Trial | None = None
    """The trial that began when it was asked to shrink."""
    larger: Trial | None = None
    """The trial that began when it was given more, because it reads much."""
    failed: int = 0
    """How often it was given more in this trial, and did not read less."""
    stream_until: float = 0.0
    """Time until which it counts as a guest that reads its files once."""


class ReclaimTrend(Record, frozen=True, omit_defaults=True):
    """What is remembered of reclaiming memory of a guest's own cgroup."""

    asked: Bytes = Bytes(0)
    """What was to be reclaimed last."""
    at: float | None = None
    """When that was; None: never, or its result is known."""
    cost: Bytes | None = None
    """What the guest cost the host then."""
    stalled: int | None = None
    """`GuestReading.stalled` then."""
    refaults: Bytes | None = None
    """`GuestReading.refaults` then."""
    rest_until: float = 0.0
    """Time before which nothing is reclaimed."""
    rests: int = 0
    """Rests in a row."""
    why: str = ""
    """Why it rests: one phrase for people."""


class Shrinking(Record, frozen=True, tag=True):
    """The phase of a guest on its way down."""

    start: Bytes
    """Its size when its progress was last looked at."""
    since: float
    """When that was."""
    cost: Bytes | None
    """What it cost the host then."""


class Growing(Record, frozen=True, tag=True):
    """The phase of a guest that was given memory which it may not have touched yet."""

    granted: Bytes
    cost: Bytes
    """The most that it has cost the host since."""
    first: Bytes
    """What it cost the host when the phase began."""


class Releasing(Record, frozen=True, tag=True):
    """The phase of a guest that is given all that it may have, and told so until it has it."""

    size: Bytes


Phase = Shrinking | Growing | Releasing


class Told(Record, frozen=True, omit_defaults=True):
    """The last command to a guest."""

    target: Bytes
    at: float
    before: Bytes | None = None
    """The target before: it may still be on its way there."""


class GuestTrend(Record, frozen=True, omit_defaults=True):
    """What is remembered of one guest. Times are those of `Snapshot.time`."""

    epoch: int
    born: float
    """When this epoch was first seen."""
    reports: int = 0
    """Fresh and valid reports since `born`."""
    reported: float | None = None
    """When the first of them came."""
    counters: Counters | None = None
    used: float | None = None
    """What it used at the last report, in bytes."""
    fast: float = 0.0
    """Average of `used` over some 10 s, in bytes."""
    slow: float = 0.0
    """Average of `used` over some 120 s, in bytes."""
    burst: float = 0.0
    """The largest growth of `used` of late, in bytes."""
    burst_at: float = 0.0
    """When that was."""
    swapping: int = 0
    """Reports in a row with much swapping in."""
    hurt: float | None = None
    """When it last was in distress."""
    waiting: Stalls | None = None
    """How long it waits for the host; None: it is in no cgroup of its own."""
    cache: CacheTrend = CacheTrend()
    reclaim: ReclaimTrend = ReclaimTrend()
    maximum: Bytes | None = None
    """Its maximum in the round before."""
    actual: Bytes | None = None
    """Its size in the round before."""
    told: Told | None = None
    phase: Phase | None = None
    """None: it has done all that it was told."""
    lowered: float | None = None
    """When its target was last lowered."""
    raised: float | None = None
    """When its target was last raised, or it took memory back by itself."""
    tried: float | None = None
    """When memory was last revoked from it for the host alone, to see whether it needs that."""
    revoked: float | None = None
    """When memory was last revoked from it."""
    stalls: tuple[float, ...] = ()
    """The times of its stalls in the last 10 minutes."""
    backoff: int = 0
    """Stalls since it last did as it was told."""
    rest_until: float = 0.0
    """Time before which it is not asked for memory, after a stall."""
    speed: float | None = None
    """Bytes a second that it gives."""
    fruitless: int = 0
    """Shrinks in a row that freed nothing."""
    ineffective: bool = False
    suspect_since: float | None = None
    foreign: int = 0
    """How often another program moved its balloon."""
    foreign_at: float | None = None
    foreign_up: bool = False
    """Whether that gave it memory: it may have been the guest itself, in need."""

    @property
    def target(self) -> Bytes | None:
        """Return what it was last told."""
        return None if self.told is None else self.told.target

    @property
    def granted(self) -> int:
        """Return the bytes that it was given of late and has not touched yet."""
        match self.phase:
            case Growing(granted=granted, cost=cost, first=first):
                return max(0, granted - (cost - first))
            case _:
                return 0

    @property
    def shrinking(self) -> bool:
        """Tell whether it is on its way down."""
        return isinstance(self.phase, Shrinking)


class HostTrend(Record, frozen=True, omit_defaults=True):
    """What is remembered of the host."""

    state: HostState = "SLACK"
    since: float = 0.0
    calm_since: float | None = None
    """Since when all was well enough for the next better state."""
    time: float | None = None
    swap_in: Bytes | None = None
    stalled: int | None = None
    thrashes: bool = False
    """Its swap was too slow for what was asked of it."""
    uses: tuple[tuple[float, int], ...] = ()
    """What all settled guests used in the last 10 s: (time, bytes)."""
    settled: frozenset[str] = frozenset()
    """The guests that used it."""
    burst: float = 0.0
    """The largest growth within 10 s of late, in bytes."""
    burst_at: float = 0.0


class KsmTrend(Record, frozen=True, omit_defaults=True):
    """What is remembered of merging."""

    started: float | None = None
    """When the campaign began; None: ksmd rests, or KSM is not ours."""
    scans: int = 0
    """The kernel's `full_scans` then."""
    profit: int = 0
    """The kernel's profit figure then, in bytes."""
    rest_until: float = 0.0
    rests: int = 0
    """Campaigns in a row that gained little."""
    guests: frozenset[str] = frozenset()
    cost: int = 0
    """Cost of all guests, in bytes, when the campaign began or ended."""
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
    kept: object = None
    """Judgements that later rounds may take over (`policy.judgement_cache`): these change how long
    a round takes, and no decision."""
