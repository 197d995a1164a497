"""Guests that do not do as they are told: their verdicts, and what is remembered of them.

Theory of operation:
    A guest is judged by what its balloon and its cost do, which the host sees. What the guest says
    counts only where a lie harms the guest alone. Progress is a rate: "any movement at all" would
    let a guest that gives a page every five seconds pass for willing (XAPI squeezed's known hole).
    The Linux driver retries a failed inflation five times a second for ever, so a guest that does
    not move is told to stay about where it is.
"""

from typing import Final

from qmpmem.model.config import Limits
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import Verdict
from qmpmem.policy import cache, demand, progress
from qmpmem.policy.state import GuestTrend, Releasing
from qmpmem.records import Record, replace
from qmpmem.units import Bytes

STALLS: Final = 3
"""Stalls within 10 minutes after which a guest is uncooperative: the policy does not count on
it."""
SUSPECT_AFTER: Final = 30.0
"""Seconds for which a guest must cost more than it has before it is suspect."""

SETTLED: Final = 5.0
"""Seconds and two reports after which a short host takes from a new guest as from any other. After
a reset a guest boots at its full size, and its driver is up before its programs are: the seconds
count from its first report then."""
RELEASED: Final = 60.0
"""Seconds for which a guest that was reset is given all it may have, unless it reports and has it
before."""

LEAST_REPORTS: Final = 2
"""Reports by which a guest is known: what it uses, and how that changes."""
STALE_POLLS: Final = 3
"""Reports that may be missing before a guest counts as silent."""
SLOWEST_POLL: Final = 10.0
"""Most seconds between two reports, where it is not known how often a guest is asked."""
LEAST_PATIENCE: Final = 15.0
"""Seconds for which a report counts, however often a guest is asked. The guest may have been asked
seldom until just now, and a host that swaps delays reports."""
FOREIGN_REST: Final = 60.0
"""Seconds for which a balloon is left alone after another program moved it."""


class Judgement(Record, frozen=True):
    """What a guest is to us now."""

    verdict: Verdict
    reason: str


def begin(reading: GuestReading, now: float, released: Bytes | None = None) -> GuestTrend:
    """Return the trend of a guest of which nothing is known yet.

    Args:
        reading: what is seen of it.
        now: when.
        released: what it is given at once. After a reset QEMU still has the old target, and would
            squeeze the next boot down to that (CloudStack #7430).
    """
    return GuestTrend(
        epoch=reading.epoch,
        born=now,
        maximum=reading.maximum,
        actual=reading.actual,
        phase=None if released is None else Releasing(size=released),
    )


def follow(
    reading: GuestReading, trend: GuestTrend | None, limits: Limits, now: float
) -> GuestTrend:
    """Bring a guest's trend up to this round."""
    if trend is None:
        return _report(reading, begin(reading, now), now)
    if trend.epoch != reading.epoch:
        whole = (
            None if reading.maximum is None or _starts_small(reading, limits) else limits.maximum
        )
        return _report(reading, begin(reading, now, whole), now)
    trend = progress.follow(reading, trend, limits, now)
    trend = demand.follow_stalls(reading, trend, now)
    trend = _report(reading, trend, now)
    if isinstance(trend.phase, Releasing):
        # A first report may come before the driver has deflated anything.
        is_whole = (reading.actual or 0) >= trend.phase.size - progress.band(limits)
        if (trend.reports and is_whole) or now - trend.born >= RELEASED:
            trend = replace(trend, phase=None)
    if trend.maximum == reading.maximum and trend.actual == reading.actual:
        return trend
    return replace(trend, maximum=reading.maximum, actual=reading.actual)


def _starts_small(reading: GuestReading, limits: Limits) -> bool:
    """Tell whether a guest is to start with less than all, and can take the rest by itself."""
    return limits.current is not None and bool(reading.deflates)


def _report(reading: GuestReading, trend: GuestTrend, now: float) -> GuestTrend:
    """Count a new report; one that contradicts itself is not counted."""
    if reading.implausible or is_stale(reading):
        return trend
    before = trend.counters
    trend = demand.follow(reading, trend, now)
    if trend.counters is before:
        return trend
    return replace(trend, cache=cache.follow(reading, trend, before, now))


def judge(
    reading: GuestReading, trend: GuestTrend, limits: Limits, grace: float, now: float
) -> Judgement:
    """Return what a guest is to us: the first line of the table that holds."""
    silent, seen = is_stale(reading), now - trend.born
    begins = trend.reports < LEAST_REPORTS and not (silent and seen >= progress.BOOTS)
    table: tuple[tuple[Verdict, bool, str], ...] = (
        ("exempt", not limits.managed, "not managed, by configuration"),
        ("exempt", reading.exempt is not None, reading.exempt or ""),
        ("exempt", reading.state != "running", f"it is {reading.state}"),
        (
            "implausible",
            reading.implausible or reading.actual is None,
            "its numbers cannot be true",
        ),
        ("ineffective", trend.ineffective, "what its balloon takes is not freed"),
        (
            "foreign",
            _since(trend.foreign_at, now) < FOREIGN_REST,
            "another program moves its balloon",
        ),
        ("distress", demand.in_distress(trend, now), "it is short of memory"),
        ("stale", trend.reports > 0 and silent, "it no longer reports what it uses"),
        ("uncooperative", len(trend.stalls) >= STALLS, "it does not give what it is asked for"),
        ("stalled", now < trend.rest_until, "it did not move when it was asked to"),
        ("suspect", _is_suspect(trend, now), "it costs more than it has"),
        ("grace", seen < grace or begins, "it was seen first not long ago"),
        ("stale", silent, "it does not report what it uses"),
    )
    for verdict, holds, reason in table:
        if holds:
            return Judgement(verdict=verdict, reason=reason)
    return Judgement(verdict="normal", reason="")


def is_settled(reading: GuestReading, trend: GuestTrend, now: float) -> bool:
    """Tell whether a guest's balloon driver and its programs are up, though it started of late."""
    since = trend.reported if reading.began == "reset" else trend.born
    return trend.reports >= LEAST_REPORTS and since is not None and now - since >= SETTLED


def plays_along(trend: GuestTrend, now: float) -> bool:
    """Tell whether a guest gives what it is asked for and keeps to that, whatever its verdict."""
    return len(trend.stalls) < STALLS and not _is_suspect(trend, now)


def _since(moment: float | None, now: float) -> float:
    return float("inf") if moment is None else now - moment


def _is_suspect(trend: GuestTrend, now: float) -> bool:
    return trend.suspect_since is not None and now - trend.suspect_since >= SUSPECT_AFTER


def is_stale(reading: GuestReading) -> bool:
    """Tell whether a guest's report is too old to rest on, or there is none."""
    if reading.age is None:
        return True
    every = SLOWEST_POLL if reading.every is None else reading.every
    return reading.age > max(LEAST_PATIENCE, STALE_POLLS * every)
