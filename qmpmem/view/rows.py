"""Snapshots as rows of text. Pure: a record goes in, words come out.

Rules of this file:
    What is not known is a dash, never a 0. Text that a guest's owner chose is escaped: a name
    may hold anything, also what a terminal would obey.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Final

from qmpmem.snapshot import GuestSnapshot, GuestStats
from qmpmem.units import Bytes, format_size

UNKNOWN: Final = "-"

LIST_HEADERS: Final = ("ID", "STATE", "MAXIMUM", "ACTUAL", "BALLOON", "RSS", "NOTE")
WATCH_HEADERS: Final = (
    "ACTUAL",
    "USED",
    "AVAILABLE",
    "CACHE",
    "SWAP-IN",
    "SWAP-OUT",
    "MAJFLT",
    "RSS",
)
_WATCH_WIDTH: Final = 12


def size(value: Bytes | None) -> str:
    """Write a size, or a dash where there is none."""
    return UNKNOWN if value is None else format_size(value)


def number(value: int | None) -> str:
    """Write a count, or a dash where there is none."""
    return UNKNOWN if value is None else str(value)


def switch(value: bool | None) -> str:  # noqa: FBT001 - the value is the subject
    """Write on or off, or a dash where that is not known."""
    return UNKNOWN if value is None else "on" if value else "off"


def printable(text: str) -> str:
    """Escape what a terminal might obey or a reader could not see."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def balloon(guest: GuestSnapshot) -> Bytes | None:
    """Say how much the balloon holds: the maximum less what the guest has."""
    if guest.maximum is None or guest.actual is None:
        return None
    return Bytes(guest.maximum - guest.actual)


def moment(seconds: int | None) -> str:
    """A time, in seconds since 1970, as a clock on the wall shows it; a dash where unknown."""
    if seconds is None:
        return UNKNOWN
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):  # a guest's word: it may be any number
        return str(seconds)


def list_row(guest: GuestSnapshot) -> tuple[str, ...]:
    """One guest as a row under `LIST_HEADERS`."""
    return (
        guest.id,
        printable(guest.state),
        size(guest.maximum),
        size(guest.actual),
        size(balloon(guest)),
        size(guest.rss),
        printable(guest.problem or ""),
    )


def info_rows(guest: GuestSnapshot) -> Iterator[tuple[str, str]]:
    """One guest in full: pairs of label and value."""
    yield "id", guest.id
    yield "name", printable(guest.name)
    yield "state", printable(guest.state)
    yield "pid", number(guest.pid)
    yield "maximum allocation", size(guest.maximum)
    yield "current allocation", size(guest.actual)
    yield "balloon", size(balloon(guest))
    yield from _report_rows(guest)
    yield "host rss", size(guest.rss)
    yield "machine", printable(guest.machine or UNKNOWN)
    yield "accelerator", guest.accelerator or UNKNOWN
    yield "balloon device", _device(guest)
    yield "mode", guest.mode
    yield "managed", "yes" if guest.managed else "no"
    yield "socket", printable(guest.socket)
    if guest.problem:
        yield "note", printable(guest.problem)


def stats_rows(guest: GuestSnapshot) -> Iterator[tuple[str, str]]:
    """Every statistic there is; beside each, the name that virsh dommemstat gives it."""
    stats = guest.stats or GuestStats()
    yield "actual", size(guest.actual)
    yield "swap_in", size(stats.swap_in)
    yield "swap_out", size(stats.swap_out)
    yield "major_faults", number(stats.major_faults)
    yield "minor_faults", number(stats.minor_faults)
    yield "free", size(stats.free)
    yield "total", size(stats.total)
    yield "available", size(stats.available)
    yield "used", size(guest.used)
    yield "disk_caches", size(stats.disk_caches)
    yield "hugetlb_allocations", number(stats.hugetlb_allocations)
    yield "hugetlb_failures", number(stats.hugetlb_failures)
    yield "oom_kills", number(stats.oom_kills)
    yield "alloc_stalls", number(stats.alloc_stalls)
    yield "last_update", moment(stats.last_update)
    yield "rss", size(guest.rss)


def watch_row(guest: GuestSnapshot) -> tuple[str, ...]:
    """One sample as a row under `WATCH_HEADERS`."""
    stats = guest.stats or GuestStats()
    return (
        size(guest.actual),
        size(guest.used),
        size(stats.available),
        size(stats.disk_caches),
        size(stats.swap_in),
        size(stats.swap_out),
        number(stats.major_faults),
        size(guest.rss),
    )


def watch_lines(guest: GuestSnapshot, *, header: bool) -> Iterator[str]:
    """One sample as a line of fixed columns, so that lines printed apart stay aligned."""
    if header:
        yield "".join(name.rjust(_WATCH_WIDTH) for name in WATCH_HEADERS)
    yield "".join(cell.rjust(_WATCH_WIDTH) for cell in watch_row(guest))


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align rows under their headers, as text that awk can read."""
    table = [headers, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def pairs(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Align labels and values."""
    width = max(len(label) for label, _ in rows) + 1
    for label, value in rows:
        yield f"{label + ':':<{width}}  {value}"


def _report_rows(guest: GuestSnapshot) -> Iterator[tuple[str, str]]:
    stats = guest.stats
    if stats is None:
        yield "guest reports", "nothing (no driver, not running, or no answer)"
        return
    if not stats.consistent:
        yield "guest reports", "numbers that contradict each other; not shown"
        return
    yield "guest used", size(guest.used)
    yield "guest available", size(stats.available)
    yield "guest cache", size(stats.disk_caches)
    yield "guest swap in/out", f"{size(stats.swap_in)} / {size(stats.swap_out)}"
    yield "guest faults", f"{number(stats.major_faults)} major, {number(stats.minor_faults)} minor"
    yield "report age", UNKNOWN if stats.age is None else f"{stats.age:.0f} s"


def _device(guest: GuestSnapshot) -> str:
    device = guest.balloon
    if device is None:
        return UNKNOWN if guest.machine is None else "none"  # else nobody asked it
    return (
        f"{printable(device.driver)}, deflate-on-oom {switch(device.deflate_on_oom)}, "
        f"free-page-reporting {switch(device.free_page_reporting)}"
    )
