"""Snapshots as rows of text. Pure: a record goes in, words come out.

Rules of this file:
    What is not known is a dash, never a 0. Text that a guest's owner chose is escaped: a name may
    hold anything, also what a terminal would obey.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qmpmem.model import names
from qmpmem.model.escapes import printable
from qmpmem.model.guest import GuestStats, GuestView
from qmpmem.units import Bytes, format_size
from qmpmem.view import table as layout

UNKNOWN: Final = "-"
LONGEST_NAME: Final = 40
"""Most columns of a terminal that a name takes in a table."""

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
_HOLDS: Final = (
    r"(?:process (?P<pid>\d+) \((?P<comm>.*), uid \d+\)|another process) holds the monitor"
)
"""The words of `qmpmem.wire.sock_diag.taken`."""


def size(value: Bytes | None) -> str:
    """Write a size, or a dash where there is none."""
    return UNKNOWN if value is None else format_size(value)


def number(value: int | None) -> str:
    """Write a count, or a dash where there is none."""
    return UNKNOWN if value is None else str(value)


def switch(value: bool | None) -> str:  # noqa: FBT001 - the value is the subject
    """Write on or off, or a dash where that is not known."""
    return UNKNOWN if value is None else "on" if value else "off"


def label(guest: str, name: str | None) -> str:
    """Return what to call a guest in a sentence, as `qmpmem.model.names.label`; escaped."""
    return printable(names.label(guest, name))


def named(
    headers: Sequence[str], table: Sequence[Sequence[str]], guests: Iterable[tuple[str, str | None]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Add a column with names to a table, where any guest has another name than its id.

    It stands before a last column of sentences, so that scripts find the others where they were.

    Args:
        headers: of the table.
        table: a row for each guest.
        guests: id and name of each, in the same order.
    """
    shown = [short("" if name in (None, guest) else name or "") for guest, name in guests]
    if not any(shown):
        return headers, table
    place = len(headers) - (headers[-1] in layout.TEXTS)
    rows = [(*row[:place], name, *row[place:]) for row, name in zip(table, shown, strict=True)]
    return (*headers[:place], "NAME", *headers[place:]), rows


def short(name: str) -> str:
    """Escape a name, and cut one that would fill a screen; what can be typed is the id."""
    text = printable(name)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def balloon(guest: GuestView) -> Bytes | None:
    """Return how much the balloon holds: the maximum less what the guest has."""
    if guest.maximum is None or guest.actual is None:
        return None
    return Bytes(guest.maximum - guest.actual)


def moment(seconds: int | None) -> str:
    """Return a time, given in seconds since 1970, as a clock shows it; a dash where unknown."""
    if seconds is None:
        return UNKNOWN
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):  # a guest wrote it: it may be any number
        return str(seconds)


def list_row(guest: GuestView) -> tuple[str, ...]:
    """Return one guest as a row under `LIST_HEADERS`."""
    return (
        guest.id,
        printable(guest.state),
        size(guest.maximum),
        size(guest.actual),
        size(balloon(guest)),
        size(guest.rss),
        note(guest),
    )


def note(guest: GuestView) -> str:
    """Return why something of a guest is missing, without what its row shows already."""
    words = guest.problem or ""
    for known in (f"guest {guest.id}: ", f"{guest.socket}: "):
        words = words.removeprefix(known)
    return printable(re.sub(_HOLDS, _held_by, words) if words else words)


def _held_by(match: re.Match[str]) -> str:
    pid, comm = match["pid"], match["comm"]
    return f"held by process {pid} ({comm})" if pid else "held by another process"


def silence(guest: GuestView) -> str | None:
    """Return why a guest reports nothing about its memory; None: it does."""
    if guest.stats is not None:
        if guest.stats.consistent:
            return None
        return "numbers that contradict each other; not shown"
    return f"nothing: {_why_silent(guest)}"


def _why_silent(guest: GuestView) -> str:
    if guest.problem:
        return note(guest)
    if guest.mode != "balloon":
        return f"it was started in mode {printable(guest.mode)}, without a balloon"
    if guest.state != "running":
        return f"it is {printable(guest.state)}, not running"
    if guest.balloon is None:
        return "it has no balloon device"
    return "its virtio_balloon driver is not loaded, or has not answered yet"


def info_rows(guest: GuestView) -> Iterator[tuple[str, str]]:
    """Yield one guest in full: pairs of label and value."""
    yield "id", guest.id
    yield "name", printable(guest.name)
    yield "state", printable(guest.state)
    yield "pid", number(guest.pid)
    yield "maximum allocation", size(guest.maximum)
    yield "current allocation", _current(guest)
    yield "balloon", size(balloon(guest))
    if guest.plugged:
        yield "plugged memory", _plugged(guest)
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


def _current(guest: GuestView) -> str:
    """Return what a guest has now, and what it started with, where that was less than all."""
    if guest.current is None or guest.current == guest.maximum:
        return size(guest.actual)
    return f"{size(guest.actual)} (started with {size(guest.current)})"


def stats_rows(guest: GuestView) -> Iterator[tuple[str, str]]:
    """Yield every statistic, with the name that virsh dommemstat has for it."""
    silent = silence(guest)
    stats = guest.stats
    yield "actual", size(guest.actual)
    if silent is not None or stats is None:
        yield "guest reports", silent or UNKNOWN
        yield "rss", size(guest.rss)
        return
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
    if guest.problem:
        yield "note", printable(guest.problem)


def watch_row(guest: GuestView) -> tuple[str, ...]:
    """Return one sample as a row under `WATCH_HEADERS`."""
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


def watch_lines(guest: GuestView, *, header: bool, width: int | None = None) -> Iterator[str]:
    """Yield one sample as a line of fixed columns, so that lines printed apart stay aligned.

    Args:
        guest: the sample.
        header: whether the columns' names come first.
        width: the terminal's width, for which the last columns may be too many; None: no terminal.
    """
    count = None if width is None else max(1, width // _WATCH_WIDTH)
    if header:
        yield "".join(name.rjust(_WATCH_WIDTH) for name in WATCH_HEADERS[:count])
    yield "".join(cell.rjust(_WATCH_WIDTH) for cell in watch_row(guest)[:count])


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align rows under their headers, as text that awk can read."""
    return layout.columns(headers, rows)


def pairs(rows: Sequence[tuple[str, str]], width: int | None = None) -> Iterator[str]:
    """Align labels and values.

    Args:
        rows: the labels and values.
        width: the terminal's width; None: there is no terminal.
    """
    labels = max(len(label) for label, _ in rows) + 1
    for label, value in rows:
        yield from prose(f"{label + ':':<{labels}}  {value}", width, after=" " * (labels + 2))


def prose(line: str, width: int | None, *, after: str = layout.INDENT) -> Iterable[str]:
    """Wrap a line for a terminal, unless it has what a user may copy: a path, a command."""
    if width is None or layout.cells(line) <= width or "/" in line or "`" in line:
        return (line,)
    after = after if len(after) <= width // 2 else 2 * layout.INDENT
    return layout.wrap(line, width, after=after)


def _plugged(guest: GuestView) -> str:
    words = size(guest.plugged)
    if guest.offline:
        words += f", {size(guest.offline)} of it not used by the guest (not online)"
    if guest.beyond:
        words += f"; {size(guest.beyond)} no balloon takes"
    return words


def _report_rows(guest: GuestView) -> Iterator[tuple[str, str]]:
    stats = guest.stats
    silent = silence(guest)
    if stats is None or silent is not None:
        yield "guest reports", silent or UNKNOWN
        return
    yield "guest used", size(guest.used)
    yield "guest available", size(stats.available)
    yield "guest cache", size(stats.disk_caches)
    yield "guest swap in/out", f"{size(stats.swap_in)} / {size(stats.swap_out)}"
    yield "guest faults", f"{number(stats.major_faults)} major, {number(stats.minor_faults)} minor"
    yield "report age", UNKNOWN if stats.age is None else f"{stats.age:.0f} s"


def _device(guest: GuestView) -> str:
    device = guest.balloon
    if device is None:
        return UNKNOWN if guest.machine is None else "none"  # without a machine, it was not asked
    return (
        f"{printable(device.driver)}, deflate-on-oom {switch(device.deflate_on_oom)}, "
        f"free-page-reporting {switch(device.free_page_reporting)}"
    )
