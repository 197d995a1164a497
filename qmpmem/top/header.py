"""The lines about the host: its state, what is available, pressure, merging, what was asked for.

Pure.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Final

from qmpmem.records import Record
from qmpmem.top.bar import host_bar, state_style
from qmpmem.top.figures import HostFigures, Shown
from qmpmem.top.plot import sparkline
from qmpmem.top.text import Canvas, Line, Span, Style, age, brief, cells, safe
from qmpmem.units import Bytes
from qmpmem.view.rows import UNKNOWN

LATE: Final = 5.0
"""Seconds without a round after which a live screen shows that: the agent's rounds come each second
where its configuration sets no other period."""
MISSED: Final = 3
"""Rounds that did not come after which a live screen shows that."""
GAP: Final = "   "
SPARK: Final = 24


class Where(Record, frozen=True):
    """Which time a screen shows."""

    now: float
    """Seconds since 1970."""
    is_live: bool = True
    lost: str | None = None
    """Why there are no rounds now; None: there are."""
    every: float = 0.0
    """Seconds from the round before to the last one."""


class Names(Record, frozen=True):
    """What the host and its agent are called."""

    host: str = ""
    agent: str | None = None
    """The agent's version; None: not known."""


def clock(wall: float) -> str:
    """Write a time of day."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(wall))
    except (OverflowError, OSError, ValueError):  # of a year that has no calendar
        return UNKNOWN


def title(shown: Shown, where: Where, names: Names, canvas: Canvas) -> Line:
    """Return the title: what is shown, of which host, and when that was."""
    host = shown.host
    left: list[Span] = [Span(" qmpmem top", "bold"), Span(f"  {safe(names.host)}")]
    if host.state is None:
        left.append(Span(f"{GAP}no agent decides", "warn"))
    else:
        left.append(Span(f"{GAP}{host.state}", _strong(host.state)))
        ratio = UNKNOWN if host.reserves is None else f"{host.reserves:.2f}"
        left.append(Span(f"{GAP}{ratio} x reserve"))
        if shown.dry_run:
            left.append(Span(f"{GAP}changes nothing", "warn"))
    count = len(shown.guests)
    left.append(Span(f"{GAP}{count} guest{'' if count == 1 else 's'}"))
    if names.agent and where.is_live:
        left.append(Span(f"{GAP}agent {safe(names.agent)}", "dim"))
    right = _when(shown, where)
    # The host comes before everything else: on a narrow screen the middle is left out.
    while len(left) > 3 and _width(left) + _width(right) + 1 > canvas.width:  # noqa: PLR2004 - program, host, state
        left.pop()
    blank = " " * max(1, canvas.width - _width(left) - _width(right))
    return (*left, Span(blank), *right)


def host_lines(
    shown: Shown, where: Where, available: Sequence[Bytes | None], canvas: Canvas
) -> list[Line]:
    """Show the host: memory; pressure, swap and merging; what operators asked for."""
    host = shown.host
    reserve = f" reserve {brief(host.reserve)}" if host.state is not None else ""
    words = f" avail {brief(host.available)}{reserve} of {brief(host.total)}"
    width = max(12, min(66, canvas.width - len(" host  ") - len(words) - 1))
    memory: Line = (Span(" host  ", "bold"), *host_bar(host, width, canvas), Span(words))
    return [
        memory,
        _flow(_figures(host), canvas),
        _with_spark(_flow(_requests(shown, where), canvas), available, canvas),
    ]


def _figures(host: HostFigures) -> Iterator[Span]:
    some, full = (UNKNOWN if each is None else f"{each:.1f}" for each in (host.some, host.full))
    style: Style = "plain" if not host.full else "warn"
    yield Span(f"psi some {some} full {full}", style)
    swap = "none" if host.swap_total == 0 else f"{brief(host.swap_used)}/{brief(host.swap_total)}"
    yield Span(f"swap {swap}")
    if host.ksm_run is None:
        yield Span(f"ksm {UNKNOWN}")
    elif host.ksm_run == 1 or host.ksm_saved:
        yield Span(f"ksm saved {brief(host.ksm_saved)}")
    else:
        yield Span("ksm off")
    if host.debt:
        yield Span(f"debt {brief(host.debt)}")
    if host.ksm_profit is not None and host.ksm_saved:
        yield Span(f"profit {brief(host.ksm_profit)}")


def _requests(shown: Shown, where: Where) -> Iterator[Span]:
    host = shown.host
    if where.lost is not None and where.is_live:
        yield Span(f"{safe(where.lost)}; trying again", "warn")
    if host.state is None:
        yield Span(safe(shown.problem or ""), "warn")
        return
    held: Style = "warn" if host.hold else "plain"
    yield Span("held: yes, nothing is taken" if host.hold else "held: no", held)
    leases = [
        f"{safe(each.meant or each.owner)} {brief(each.size)}, {age(each.until - host.clock)}"
        for each in host.leases
    ]
    yield Span(f"leases: {len(leases)}" + (f" ({'; '.join(leases)})" if leases else ""))
    pins = [each.id for each in shown.guests if each.pin is not None]
    yield Span(f"pins: {', '.join(pins) if pins else 'none'}")
    yield Span(f"spare {brief(host.spare)}")


def _flow(parts: Iterator[Span], canvas: Canvas) -> Line:
    """Put parts side by side; those that have no room are left out, from the end."""
    line: list[Span] = []
    room = canvas.width
    for part in parts:
        text = (" " if not line else GAP) + part.text
        if cells(text) > room and line:
            break
        line.append(Span(text, part.style))
        room -= cells(text)
    return tuple(line)


def _with_spark(line: Line, available: Sequence[Bytes | None], canvas: Canvas) -> Line:
    room = canvas.width - _width(line) - len(GAP) - 1
    drawn = sparkline(available, min(SPARK, room), canvas) if room >= 8 else ""  # noqa: PLR2004 - less shows no course
    if not drawn:
        return line
    return (*line, Span(" " * (room + len(GAP) - cells(drawn))), Span(drawn, "free"))


def _when(shown: Shown, where: Where) -> list[Span]:
    ago = where.now - shown.time
    if not where.is_live:
        return [Span(f" {clock(shown.time)} ({age(ago)} ago) ", "past"), Span(" ")]
    if shown.source == "guests" and ago > LATE:  # many guests take a while to be asked
        return [Span(f"{clock(shown.time)} ({age(ago)} ago) ", "dim")]
    if where.lost is not None or ago > max(LATE, MISSED * where.every):
        return [Span(f" no round for {age(ago)} ", "past"), Span(" ")]
    return [Span(f"{clock(shown.time)} ")]


def _strong(state: str) -> Style:
    style = state_style(state)
    return "bold" if style == "plain" else style


def _width(line: Sequence[Span]) -> int:
    return sum(cells(span.text) for span in line)
