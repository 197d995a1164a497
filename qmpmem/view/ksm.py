"""KSM as rows of text. Pure."""

from collections.abc import Iterator
from typing import Final

from qmpmem.ksm.status_records import GuestMerging, Report
from qmpmem.ksm.verdict import ratio
from qmpmem.model.escapes import printable
from qmpmem.model.ksm import KsmState
from qmpmem.units import Bytes, format_size
from qmpmem.view.rows import UNKNOWN, number, size

GUEST_HEADERS: Final = ("ID", "DOMAIN", "MERGEABLE", "MERGED", "PROFIT", "RSS", "OWN PART")
WATCH_HEADERS: Final = ("SAVED", "PROFIT", "SCANNED/s", "SCANS", "KSMD", "VERDICT")
_WATCH_WIDTH: Final = 12
_LONGEST_VERDICT: Final = len("  nothing to merge")

_RUN: Final = {0: "off", 1: "running", 2: "off, unmerged"}


def status_rows(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what KSM does on the host: pairs of label and value."""
    state = report.state
    if state is None:
        yield "state", "this kernel cannot merge pages (no CONFIG_KSM)"
        return
    yield "state", f"{_RUN[state.run]}, set up by {report.owner}"
    yield "speed", _speed(state)
    if report.rates is not None:
        yield "scanned", f"{size(report.rates.scanned)}/s, {number(state.full_scans)} full scans"
        yield "ksmd", f"{percent(report.rates.cpu)} of a core"
    yield "pages", _pages(state)
    yield "saved", size(report.saved)
    yield "profit", f"{size(report.profit)}: saved, less what the kernel needs to keep account"
    yield (
        "sharing : shared",
        (
            f"{decimal(ratio(state.pages_sharing, state.pages_shared))}, the kernel's measure: "
            "how many more users each shared page has; high is good"
        ),
    )
    yield (
        "shared ÷ sharing",
        (
            f"{decimal(ratio(state.pages_shared, state.pages_sharing))}, the same upside down, "
            "as older guides have it; low is good"
        ),
    )
    if report.verdict is not None:
        yield "verdict", f"{report.verdict.word}: {report.verdict.why}"


def warnings(report: Report) -> Iterator[str]:
    """Yield what a reader of these numbers should know."""
    for name, value in report.foreign.items():
        yield f"{name} is {value}: another program changed it after qmpmem did"
    if report.problem:
        yield f"who set KSM up is not known: {report.problem}"
    if report.rival:
        yield f"{printable(report.rival)} steers KSM as well"
    if report.strangers and report.state is not None and report.state.run == 1:
        groups = " | ".join(" ".join(group) for group in report.strangers)
        yield f"guests of different domains may merge with each other: {groups}"


def guest_row(guest: GuestMerging) -> tuple[str, ...]:
    """Return one guest as a row under `GUEST_HEADERS`."""
    return (
        guest.id,
        printable(guest.domain or UNKNOWN),
        _mergeable(guest),
        size(guest.merged),
        size(guest.profit),
        size(guest.rss),
        size(guest.proportional),
    )


def watch_line(report: Report, width: int | None = None) -> str:
    """Return one sample as a line of fixed columns; on a terminal, as many of them as fit."""
    rates, state = report.rates, report.state
    cells = (
        size(report.saved),
        size(report.profit),
        size(rates.scanned if rates else None),
        number(state.full_scans if state else None),
        percent(rates.cpu if rates else None),
        report.verdict.word if report.verdict else UNKNOWN,
    )
    return _line(cells, width)


def watch_header(width: int | None = None) -> str:
    """Return the names of the columns of `watch_line`."""
    return _line(WATCH_HEADERS, width)


def percent(value: float | None) -> str:
    """Write a share, or a dash where there is none."""
    return UNKNOWN if value is None else f"{value:.1f} %"


def decimal(value: float | None) -> str:
    """Write a ratio, or a dash where there is none."""
    return UNKNOWN if value is None else f"{value:.3g}"


def _line(cells: tuple[str, ...], width: int | None) -> str:
    *numbers, last = cells
    if width is not None:
        numbers = numbers[: max(1, (width - _LONGEST_VERDICT) // _WATCH_WIDTH)]
    return "".join(cell.rjust(_WATCH_WIDTH) for cell in numbers) + f"  {last}"


def _speed(state: KsmState) -> str:
    if state.advisor_mode not in (None, "none"):
        return (
            f"the kernel's advisor ({state.advisor_mode}): a scan in "
            f"{number(state.advisor_target_scan_time)} s, "
            f"at most {number(state.advisor_max_cpu)} % of a core"
        )
    if not state.pages_to_scan or state.sleep_millisecs is None:
        return UNKNOWN
    batch = format_size(Bytes(state.pages_to_scan * state.page_size))
    has = "none" if state.advisor_mode is None else "off"
    return f"{state.pages_to_scan} pages ({batch}) each {state.sleep_millisecs} ms; advisor: {has}"


def _pages(state: KsmState) -> str:
    return (
        f"{number(state.pages_shared)} shared, {number(state.pages_sharing)} sharing, "
        f"{number(state.pages_unshared)} unshared, {number(state.pages_volatile)} volatile"
    )


def _mergeable(guest: GuestMerging) -> str:
    if guest.mergeable is None:
        return printable(guest.reason or UNKNOWN)
    return "yes" if guest.mergeable else f"no: {printable(guest.reason or UNKNOWN)}"
