"""What a guest's page cache is worth: measured by what the guest reads again.

Theory of operation:
    QEMU counts what a guest reads from its disks, so no guest can forge it. What is read and does
    not stay in the page cache was read before, and dropped for want of memory, or is read only
    once. A trial tells which: with more memory a guest of the first kind reads less, and a stream
    reads on as before.

    On a disk that is slow to seek a guest waits all the time and reads next to nothing. So the time
    that it waits counts as well (QEMU: `rd_total_time_ns`), as what a slow disk reads meanwhile.
    Where it waits most of the time it reads what the disk delivers, whatever page cache it has, so
    no trial tells anything. Its page cache then counts as worth what it is.

    Before a guest is asked to shrink, its page cache and its reading are noted. Where it then reads
    twice as much, its page cache is worth what it was, and that much is kept for ten minutes.

Sources: the counter-test is that of senpai and TMO (Weiner et al., ASPLOS'22): take a little, see
what that costs, and return what hurts. Refaults are the kernel's own measure (mm/workingset.c).
"""

from typing import Final

from qmpmem.model.observation import GuestReading
from qmpmem.policy import demand
from qmpmem.policy.state import CacheTrend, Counters, GuestTrend, Trial
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes

READING: Final = Bytes(MIB)
"""Bytes a second: a guest that reads less than this again does not suffer for lack of page
cache."""
SLOW: Final = 20 * MIB
"""Bytes a second that a slow disk reads. A guest that waits for its disks a twentieth of the time
suffers like one that reads `READING`."""
SEEKS: Final = 2.0
"""Least times its size that a read counts where a disk seeks: such a disk reads half as fast as a
slow one, or slower."""
WAITS: Final = 0.5
"""Part of the time that a guest waits for such a disk, from which on no trial tells anything."""
TWICE: Final = 2.0
"""Times as much as before that a guest reads after a shrink, from which on it misses what it
gave."""
LESS: Final = 0.9
"""Part of its reading before: a guest that still reads more of it with more memory reads a
stream."""
STARTS: Final = 6.0
"""Seconds for which a guest that starts reads all its files once: no page cache pays yet."""
KEPT: Final = 600.0
"""Seconds for which page cache that paid is kept."""
NOTED: Final = 120.0
"""Seconds after a shrink for which more reading counts as caused by it."""
SMOOTH: Final = 2.0
"""Seconds over which reading is averaged."""
SETTLES: Final = 4.0
"""Seconds after which a trial is judged."""
FAILED: Final = 4
"""Times in a row that more memory had no effect, after which a guest counts as one that reads a
stream."""
STREAM: Final = 600.0
"""Seconds for which a guest counts as one that reads a stream."""


def follow(
    reading: GuestReading, trend: GuestTrend, before: Counters | None, now: float
) -> CacheTrend:
    """Bring what is known of a page cache up to a new report.

    Args:
        reading: the guest, with a new report.
        trend: what is remembered of it, with this report counted.
        before: its counters at the report before.
        now: the time.
    """
    cache, counters = trend.cache, trend.counters
    if before is None or counters is None or counters.reads is None or before.reads is None:
        return cache
    seconds = counters.time - before.time
    read = demand.growth(before.reads, counters.reads)
    stays = max(0, (counters.caches or 0) - (before.caches or 0))
    swapped = demand.growth(before.swap_in, counters.swap_in)
    waited = _waited(before, counters)
    again = max(0, read - stays - swapped) * _weight(read, waited) / seconds
    # What it reads while it boots is no part of what it reads later.
    share = 1.0 if now - trend.born < STARTS else seconds / SMOOTH / (1 + seconds / SMOOTH)
    cache = replace(cache, rate=cache.rate + (again - cache.rate) * share)
    if counters.caches is None:
        return cache
    has_started = now - trend.born >= STARTS
    if has_started and _waits_for_seeks(read, swapped, waited, seconds):
        cache = _judge_smaller(cache, counters.caches, again, seconds, now)
        kept = max(counters.caches, cache.kept if now < cache.until else Bytes(0))
        until = max(cache.until, now + NOTED)
        return replace(cache, larger=None, failed=0, kept=kept, until=until)
    if stays < READING * seconds:  # else it does not use all that it was given yet
        grown = counters.caches if is_full(reading) else None
        cache = _judge_larger(cache, grown, again, now)
    if not has_started:
        return cache
    return _judge_smaller(cache, counters.caches, again, seconds, now)


def _waits_for_seeks(read: int, swapped: int, waited: float, seconds: float) -> bool:
    """Tell whether a guest waits most of the time for a disk that seeks.

    Args:
        read: bytes that it read since the report before.
        swapped: those of them that were of its own swap; it waits for that rather than for files
            where that is most.
        waited: seconds that it waited for its disks.
        seconds: how long ago that report was.
    """
    waits = waited >= WAITS * seconds
    return waits and read >= 2 * swapped and _weight(read, waited) >= SEEKS


def _waited(before: Counters, counters: Counters) -> float:
    """Return for how many seconds a guest waited for its disks."""
    waited = demand.growth(before.reads_waited, counters.reads_waited) / 1e6
    return min(waited, counters.time - before.time)


def _weight(read: int, waited: float) -> float:
    """Return how many times its size a read counts: more than once where the disk is slow."""
    return max(1.0, SLOW * waited / read) if read else 1.0


def is_full(reading: GuestReading) -> bool:
    """Tell whether a guest's page cache cannot grow: next to nothing is free in it."""
    if reading.stats.free is None or reading.actual is None:
        return False
    return reading.stats.free < demand.little(reading.actual) // 2


def reads_again(reading: GuestReading, trend: GuestTrend, now: float) -> bool:
    """Tell whether a guest may do better with more page cache."""
    cache = trend.cache
    waits = cache.larger is not None and not cache.larger.judged
    waits |= now - trend.born < STARTS
    return cache.rate >= READING and is_full(reading) and not waits and now >= cache.stream_until


def note_shrink(trend: GuestTrend, now: float) -> CacheTrend:
    """Note what the page cache is before the guest is asked to shrink."""
    cache, counters = trend.cache, trend.counters
    if counters is None or counters.caches is None:
        return cache
    if cache.smaller is not None and now - cache.smaller.since < NOTED:
        return cache
    return replace(cache, smaller=Trial(size=counters.caches, rate=cache.rate, since=now))


def note_growth(trend: GuestTrend, now: float) -> CacheTrend:
    """Note what the page cache is before the guest is given more because it reads much."""
    cache, counters = trend.cache, trend.counters
    if counters is None or counters.caches is None:
        return cache
    begun = cache.larger or Trial(size=counters.caches, rate=cache.rate, since=now)
    return replace(cache, larger=replace(begun, since=now, judged=False))


def _judge_smaller(
    cache: CacheTrend, size: Bytes, again: float, seconds: float, now: float
) -> CacheTrend:
    trial = cache.smaller
    if trial is None:
        return cache
    if now - trial.since >= NOTED:
        return replace(cache, smaller=None)
    if now < cache.stream_until:
        return cache
    if again < max(READING, TWICE * trial.rate):
        # With this much it does well: what it misses soon is not much more than that.
        share = 1.0 if size > trial.size else seconds / (SETTLES + seconds)
        enough = Bytes(trial.size + int((size - trial.size) * share))
        return replace(cache, smaller=replace(trial, size=enough))
    return replace(cache, smaller=None, kept=Bytes(max(cache.kept, trial.size)), until=now + KEPT)


def _judge_larger(cache: CacheTrend, grown: Bytes | None, again: float, now: float) -> CacheTrend:
    """Judge a trial with more memory; `grown` is the page cache, None while it may still grow."""
    trial = cache.larger
    if trial is None or trial.judged or now - trial.since < SETTLES:
        return cache
    reads = again >= READING
    if now - trial.since >= NOTED or not reads:
        # It read all it wanted once, or has what it reads again: a shrink told which, or would.
        told = grown is not None and now < cache.until
        kept = Bytes(max(cache.kept, grown or 0)) if told else cache.kept
        return replace(cache, larger=None, failed=0, kept=kept)
    if grown is None or grown <= trial.size:
        return cache  # it has not used what it was given yet
    if again <= LESS * trial.rate:
        kept = Bytes(max(cache.kept if now < cache.until else 0, grown))
        return replace(cache, larger=None, failed=0, kept=kept, until=now + KEPT)
    failed = cache.failed + 1
    if failed < FAILED:
        return replace(cache, larger=replace(trial, judged=True), failed=failed)
    return replace(cache, larger=None, failed=0, stream_until=now + STREAM)
