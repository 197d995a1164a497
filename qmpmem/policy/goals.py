"""What each guest should have by itself, as if it were alone: the first rule that holds.

Theory of operation:
    A guest that is calm stays as it is: what it does not use is taken when others lack it, and not
    before. There is one exception, which costs the guest nothing. Where guests could touch more
    than the host has, what is free in them goes into their balloons. A burst then takes it back by
    deflate-on-oom, as fast as the guest's kernel is, and the host learns of it page by page.

Sources: Hyper-V's startup and minimum RAM, Xen's populate-on-demand (start with less than the
maximum); ESX: memory that no guest has touched belongs to none.
"""

from collections.abc import Callable, Mapping
from typing import Final

from qmpmem.model.round import Bound, Kind
from qmpmem.policy import cache, demand, progress, reach
from qmpmem.policy.cases import GROWABLE, Case, Round
from qmpmem.policy.state import Releasing
from qmpmem.records import Record
from qmpmem.units import PAGE, format_size

LEAP: Final = 2
"""Times the recent growth of its use that a guest which fills up is given beyond what it wants. So
a guest that takes all it gets has twice as much each time."""
LEAP_PART: Final = 4
"""Divisor of a guest's maximum: no leap is larger, and where there is much to spare none is
smaller."""
LEAP_SPARE: Final = 4
"""Times the largest leap that must be spare to count as much to spare."""
CACHE_PART: Final = 8
"""Divisor of what a guest has: a guest that reads the same files again is given so much more, to
see whether that helps."""
POSITION_PART: Final = 16
"""Divisor of what a guest has: less free memory than this is not worth a command."""
PLENTY_PART: Final = 8
"""Divisor of what there is plenty of: a guest starts with so much, or its minimum. More guests may
be about to start."""
BEGUN: Final = 1
"""Reports after which a guest's use decides its size, and no longer what it starts with."""
STARTS: Final = 5.0
"""Seconds for which a guest counts as new to the agent."""
SILENT: Final = 30.0
"""Seconds after which a guest that does not report what it uses is given all of its memory back."""
STRIDE_PART: Final = 4
"""Divisor of a guest's maximum: at most so much free memory goes into the balloon at once. The
guest runs on meanwhile, and a driver that finds nothing free drops page cache."""
COOL: Final = 30.0
"""Seconds after a shrink for which a guest is given more only if little is available in it."""


GROWTH: Final[Mapping[Kind, tuple[Bound, str]]] = {
    "release": ("maximum", "released: it was reset"),
    "rescue": ("demand", "short of memory"),
    "need": ("demand", "it needs more"),
    "minimum": ("minimum", "below its minimum"),
    "cache": ("demand", "it reads files again and again"),
    "habit": ("demand", "it usually needs more at this hour"),
    "plenty": ("entitlement", "there is plenty"),
}
"""What bounds a growth of each kind, and its reason where no other is given."""


class Goal(Record, frozen=True):
    """Where one guest should go."""

    size: int
    """The size that it should have, in bytes."""
    kind: Kind
    bound: Bound
    reason: str
    due: int = 0
    """Bytes of growth for which others have to give."""


def goal(case: Case, now: Round) -> Goal:
    """Return where a guest should go by itself."""
    if case.verdict not in GROWABLE:
        return _help(case, now) or stay(case, "hands off", case.reason)
    for rule in _RULES:
        found = rule(case, now)
        if found is not None:
            return found
    return stay(case, "none", case.reason or "it has what it needs")


def stay(case: Case, bound: Bound, reason: str) -> Goal:
    """Return the goal of a guest that is to stay as it is."""
    return Goal(size=case.actual, kind="stay", bound=bound, reason=reason)


def _help(case: Case, now: Round) -> Goal | None:
    """Return more for a guest whose balloon another program deflated, where it uses that up.

    The guest may have deflated it itself, between two reports: to wait a minute could starve it.
    """
    if case.verdict != "foreign" or not case.trend.foreign_up or case.pin is not None:
        return None
    return _rescue(case, now) or _need(case, now)


def _release(case: Case, _: Round) -> Goal | None:
    """Return all that a guest may have, after a reset, or where its balloon frees nothing.

    The goal is absolute: a size that the guest shows may be stuck, or a lie.
    """
    if isinstance(case.trend.phase, Releasing):
        # Until its driver is there it seems to have its old size, which may be all of it.
        bound, why = GROWTH["release"]
        # A driver that has nothing to move leaves QEMU the size of before the reset
        # (drivers/virtio/virtio_balloon.c), so it is given a page to move.
        size = max(case.limits.maximum - PAGE, case.actual)
        return Goal(size=size, kind="release", bound=bound, reason=why)
    if case.verdict == "ineffective":
        why = f"released: {case.reason}"
        return _grow(case, case.limits.maximum, "release", reason=why)
    return None


def _silent(case: Case, now: Round) -> Goal | None:
    """Return all that a guest may have where it was started small and does not report.

    It is not known whether so little is enough for it.
    """
    told, up = case.trend.told, now.now - case.trend.born
    if case.demand.known or told is None or up < SILENT:
        return None
    if case.limits.maximum - case.actual < progress.band(case.limits) and up < progress.BOOTS:
        return None  # its driver is not there yet
    if told.target >= case.limits.maximum:
        return None
    why = "it does not report what it uses"
    return _grow(case, case.limits.maximum, "release", reason=why)


def _pin(case: Case, now: Round) -> Goal | None:
    if case.pin is None:
        return None
    pin = min(max(case.pin, case.limits.minimum), case.limits.maximum)
    held = reach.held_back(case, now) if pin < case.actual else None
    if held is not None:
        return stay(case, "hands off", f"pinned by an operator; gives nothing now: {held}")
    due = max(0, pin - case.actual)
    return Goal(size=pin, kind="pin", bound="pin", reason="pinned by an operator", due=due)


def _cap(case: Case, now: Round) -> Goal | None:
    """Return its maximum for a guest that has more: an administrator may allow less than it has.

    A guest on its way to less than that is not told to stop at it.
    """
    most = case.limits.maximum
    if min(case.actual, case.going) <= most or reach.held_back(case, now) is not None:
        return None
    return Goal(size=most, kind="cap", bound="maximum", reason="it has more than it may have")


def _rescue(case: Case, now: Round) -> Goal | None:
    """Return more than a guest seems to want, as long as each report shows that it suffers."""
    if not case.demand.distress:
        return None
    hurt, raised = case.trend.hurt, case.trend.raised
    still = hurt is not None and (raised is None or hurt > raised)
    least = max(case.demand.wanted, case.actual)
    size = least + (_leap(case, now) if still else 0)
    return _grow(case, size, "rescue", max(least, _owed(case, size)))


def _need(case: Case, now: Round) -> Goal | None:
    """Return what a guest wants in which too little is available, and more where it fills up.

    Others give only for what it cannot do without. What it wants beyond that it is given where
    that is spare, whatever state the host is in.
    """
    wants, least = case.demand, case.limits.minimum
    below = least - case.actual >= progress.band(case.limits)
    if not wants.known:
        return _grow(case, least, "minimum") if below else None
    lowered = case.trend.lowered
    cooling = lowered is not None and now.now - lowered < COOL
    missed = case.trend.cache.rate >= cache.READING and wants.cache > 0
    spared = now.spare + (now.margin if missed else 0) > 0 and (missed or not cooling)
    size = wants.wanted if spared else wants.bare if now.sharp else wants.modest
    left = case.actual - (wants.used or 0)
    if spared:
        lacks = left - wants.cache < max(demand.little(case.actual) * 3 // 4, wants.headroom // 2)
    else:
        kept = 0 if now.sharp or cooling else wants.cache
        lacks = left - kept < demand.little(case.actual) * 3 // 4
    if lacks:
        due: int = (
            wants.bare if now.sharp else wants.modest if now.short or now.acute else wants.wanted
        )
        fills = wants.starving or reach.is_growing(case)
        starves = _owed(case, size) > 0
        leap = _leap(case, now) if starves or (fills and not now.harsh) else 0
        due = max(due, _owed(case, size + leap))
        # What a small guest lacks may be less than what is worth a command.
        floor = max(least, case.actual + progress.band(case.limits))
        return _grow(case, max(size + leap, floor), "need", max(due, floor))
    return _grow(case, least, "minimum") if below else None


def _cache(case: Case, now: Round) -> Goal | None:
    """Return a little more for a guest that reads the same files again, to see if that helps."""
    if now.sharp or not cache.reads_again(case.reading, case.trend, now.now):
        return None
    step = case.limits.maximum // LEAP_PART if now.state == "SLACK" else 0
    return _grow(case, case.actual + max(trial(case), step), "cache", case.fair)


def trial(case: Case) -> int:
    """Return how much more shows whether a guest does better with more page cache."""
    return max(demand.little(case.actual), case.actual // CACHE_PART)


def _habit(case: Case, now: Round) -> Goal | None:
    """Return beforehand what a guest usually needs at this hour, where there is plenty.

    Others come first, whatever they want: nothing of it is due.
    """
    known, lowered = demand.habit(case.reading), case.trend.lowered
    if now.state != "SLACK" or now.plenty <= 0 or not case.demand.known:
        return None
    if known is None or known.usual is None:
        return None
    if lowered is not None and now.now - lowered < COOL:
        return None
    if case.demand.habitual - case.actual < progress.band(case.limits):
        return None
    why = f"it usually needs {format_size(known.usual)} at this hour"
    return _grow(case, case.demand.habitual, "habit", case.actual, why)


def _plenty(case: Case, now: Round) -> Goal | None:
    """Return more for a guest that fills what it has, where there is plenty.

    A guest whose reading the host sees is given more only when it reads.
    """
    if now.state != "SLACK" or now.plenty <= 0 or case.reading.reads is not None:
        return None
    if not cache.is_full(case.reading):
        return None
    more = min(case.actual + case.limits.maximum // LEAP_PART, case.limits.maximum)
    return _grow(case, more, "plenty", case.actual)


def _position(case: Case, now: Round) -> Goal | None:
    """Return a size without what is free, where guests could touch more than the host has.

    A guest that has just started keeps what it starts with, whatever the host has.
    """
    if not reach.may_position(case, now):
        return None
    size = _first(case, now)
    if size is None:
        size = _touched(case, now)
        if size is None:
            return None
        size = max(size, case.actual - case.limits.maximum // STRIDE_PART)
    size = max(size, reach.kept(case))
    if case.actual - size < max(progress.band(case.limits), case.actual // POSITION_PART):
        return None
    why = "what is free goes into the balloon"
    return Goal(size=size, kind="position", bound="demand", reason=why)


def _first(case: Case, now: Round) -> int | None:
    """Return what a guest starts with; None: it did not just start.

    What it reads while it boots it seldom reads again, and what it needs it takes. It is told at
    once, before its driver is there.
    """
    reading, trend = case.reading, case.trend
    if not reading.deflates or trend.reports > BEGUN:
        return None
    seen = now.now - trend.born
    is_new = reading.began == "seen" and reading.up is not None and reading.up < reach.NEW
    if case.limits.current is not None:
        is_reset = reading.began == "reset" and seen < STARTS
        return case.limits.current if is_new or is_reset else None
    if not is_new or (reading.up or 0) - seen >= STARTS:
        return None  # it may have booted before it was seen, and nothing is known of it
    known = demand.habit(reading)
    needs = max(known.start or 0, known.usual or 0) if known else 0
    usual = min(demand.roomy(needs, case.limits), now.plenty) if needs else 0
    return max(case.limits.minimum, now.plenty // PLENTY_PART, usual)


def _touched(case: Case, now: Round) -> int | None:
    """Return what a guest has touched, and room; None: it is not known what is free in it.

    The host sees what a guest has never touched. Once the guest reports, what it freed counts as
    well.
    """
    reading, trend = case.reading, case.trend
    if trend.reports >= 2 and case.demand.known:
        if now.exposed <= 0:
            return None
        least = case.demand.eased if now.short else case.demand.foreseen
        return max(least, case.actual - (reading.stats.free or 0) + case.demand.least)
    if reading.cost is None or not reading.deflates or now.now - trend.born > STARTS:
        return None
    # It has also touched what is merged, which costs the host nothing, and what is swapped out.
    touched = max(reading.cost, reading.rss or 0) + (reading.swap or 0)
    return touched + demand.little(case.limits.maximum)


def _stop(case: Case, now: Round) -> Goal | None:
    """Stop a guest on its way down where it has come to need more than it was to keep.

    What it was told rests on a report that is seconds old. Where there is plenty for all guests on
    their way down, it also keeps what it has filled meanwhile.
    """
    told = case.trend.target
    if now.state != "SLACK" or not case.trend.shrinking or told is None or not case.demand.known:
        return None
    least: int = case.demand.wanted
    if now.plenty >= now.filled:
        least = max(least, told + filled(case))
    if told >= least - progress.band(case.limits):
        return None
    why = "it has come to need more than it was to keep"
    # A target of just its size is no command, and would leave it on its way: it gives a page more.
    return Goal(size=min(case.actual - PAGE, least), kind="stay", bound="demand", reason=why)


def filled(case: Case) -> int:
    """Return what a guest on its way down has filled of what it is to give."""
    if not case.trend.shrinking or case.trend.target is None:
        return 0
    return max(0, case.actual - (case.reading.stats.free or 0) - case.trend.target)


_RULES: Final[tuple[Callable[[Case, Round], Goal | None], ...]] = (
    _release,
    _pin,
    _silent,
    _cap,
    _rescue,
    _need,
    _cache,
    _habit,
    _plenty,
    _position,
    _stop,
)
"""The rules, most urgent first: the first that has a goal for a guest decides."""


def _owed(case: Case, size: int) -> int:
    """Return the part of a size for which others have to give to a guest that takes all it gets.

    With a little more each time it would suffer for long.
    """
    starves = case.demand.starving and case.actual < case.fair
    return min(size, case.fair) if starves else 0


def _leap(case: Case, now: Round) -> int:
    most = case.limits.maximum // LEAP_PART
    if now.spare >= LEAP_SPARE * most:
        return most
    used = case.demand.used or 0
    grew = used if _owed(case, most) else LEAP * max(0, used - int(case.trend.fast))
    return int(max(case.demand.headroom, min(most, grew)))


def _grow(
    case: Case, size: int, kind: Kind, due: int | None = None, reason: str | None = None
) -> Goal | None:
    """Return a goal above what the guest has; None: it has as much already."""
    size = min(size, case.limits.maximum)
    if size <= case.actual:
        return None
    bound, words = GROWTH[kind]
    return Goal(
        size=size - size % PAGE,
        kind=kind,
        bound=bound,
        reason=reason or words,
        due=max(0, (size if due is None else min(size, due)) - case.actual),
    )
