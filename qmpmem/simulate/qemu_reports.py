"""What QEMU and the host tell of a simulated guest."""

from typing import Final

from qmpmem.model import sanitise
from qmpmem.model.guest import GuestStats
from qmpmem.model.observation import GuestReading
from qmpmem.records import Record, replace
from qmpmem.simulate.guest import OVERHEAD, WATERMARK, Guest
from qmpmem.units import PAGE, Bytes

NO_BALLOON: Final = "no balloon device"


class Report(Record, frozen=True):
    """What a guest's driver reported when it was last asked."""

    time: float
    epoch: int
    """The guest's epoch: what was reported before a reset tells nothing after it."""
    actual: Bytes
    """What it had then."""
    stats: GuestStats


def ask(guest: Guest, now: float) -> Report | None:
    """Have a guest's driver report; None: it never does, or cannot now."""
    spec = guest.spec
    silent = spec.driver is None or spec.reports == "none"
    if silent or guest.is_paused(now) or not guest.has_driver(now):
        return None
    actual = guest.maximum - guest.balloon
    free = max(0.0, guest.untouched + guest.dirty)
    available = max(0.0, free + guest.cache - actual / WATERMARK)
    if spec.reports == "high":
        free = available = 0.0
    elif spec.reports == "low":
        free = available = actual
    return Report(
        time=now,
        epoch=guest.epoch,
        actual=Bytes(int(guest.actual)),
        stats=GuestStats(
            available=Bytes(int(available)),
            free=Bytes(int(free)),
            total=Bytes(int(guest.maximum if spec.deflate_on_oom else actual)),
            disk_caches=Bytes(int(guest.cache)),
            swap_in=Bytes(int(guest.reads if spec.reports == "pages" else guest.swap_in)),
            swap_out=Bytes(int(guest.swap_out)),
            major_faults=int(guest.faults),
            oom_kills=guest.killed if spec.modern else None,
            alloc_stalls=guest.stalls if spec.modern else None,
        ),
    )


def reading(guest: Guest, report: Report | None, now: float, merged: float = 0.0) -> GuestReading:
    """Return what the agent sees of a guest.

    Args:
        guest: the guest.
        report: its last report.
        now: seconds since the host started.
        merged: the part of what guests hold that is merged. Only a cgroup does not count that.
    """
    rss = Bytes(int(guest.resident) + OVERHEAD)
    swap = Bytes(int(guest.hosted))
    state = "paused" if guest.is_paused(now) else "running"
    has_balloon = guest.spec.driver is not None
    actual = Bytes(int(guest.actual) // PAGE * PAGE)  # a balloon holds whole pages
    seen = GuestReading(
        id=guest.spec.id,
        state=state,
        epoch=guest.epoch,
        began=guest.began,
        up=max(0.0, now - guest.started),
        maximum=Bytes(int(guest.maximum)),
        actual=actual if has_balloon else None,
        deflates=guest.spec.deflate_on_oom if has_balloon and guest.spec.shows_devices else None,
        rss=rss,
        swap=swap,
        cost=Bytes(int(rss * (1 - merged))) if guest.spec.cgroup else rss,
        reads=Bytes(int(guest.reads)),
        reads_waited=int(guest.reads / guest.spec.reads * 1e6),
        stalled=int(guest.waited * 1e6) if guest.spec.cgroup else None,
        exempt=None if has_balloon else NO_BALLOON,
        habit=guest.spec.habit,
    )
    if report is None or report.epoch != guest.epoch or not has_balloon:
        return seen
    by_now = sanitise.available_by_now(report.stats.available, report.actual, actual)
    return replace(seen, stats=replace(report.stats, available=by_now), age=now - report.time)
