"""A guest's memory in one line: used, cache, free, and the balloon up to the maximum. Pure.

Theory of operation:
    The parts are in this order, each with a sign of its own, so that the bar is read without
    colour. Boundaries are rounded, not parts, so that the parts always fill the bar. The target is
    a mark at the size to which the guest was told to go.
"""

from typing import Final

from qmpmem.policy.host import CRITICAL_BEGINS, HARD_BEGINS, SOFT_BEGINS
from qmpmem.records import Record
from qmpmem.top.figures import Figures, HostFigures
from qmpmem.top.text import Canvas, Line, Span, Style, joined
from qmpmem.units import Bytes

WAITING: Final = "waiting"


class Signs(Record, frozen=True):
    """What a bar is drawn with."""

    used: str = "█"
    cache: str = "▓"
    free: str = "░"
    balloon: str = "·"
    target: str = "┃"
    unknown: str = "?"


THRESHOLDS: Final = (("R", 1.0), ("S", SOFT_BEGINS), ("H", HARD_BEGINS), ("C", CRITICAL_BEGINS))
"""Marks on the host's bar, and how many reserves are available there: the reserve itself, and where
the states SOFT, HARD and CRITICAL begin; where there is no room for all, the first ones."""
BLOCKS: Final = Signs()
ASCII: Final = Signs(used="#", cache="=", free="-", balloon=".", target="|")


def signs(canvas: Canvas) -> Signs:
    """Return what bars are drawn with on a canvas."""
    return BLOCKS if canvas.unicode else ASCII


def guest_bar(guest: Figures, width: int, whole: Bytes | None, canvas: Canvas) -> Line:
    """Draw a guest's memory.

    Args:
        guest: the guest.
        width: columns, the brackets among them.
        whole: what all of the bar is; None: the guest's own maximum.
        canvas: what the terminal can show.
    """
    room, sign = width - 2, signs(canvas)
    scale = guest.maximum if whole is None else whole
    if not scale or guest.actual is None or room < 1:
        return (Span(f"[{' ' * max(0, room)}]", "dim"),)
    style = _style(guest)
    if guest.used is None:
        parts: list[tuple[Bytes | None, str, Style]] = [(guest.actual, sign.unknown, "dim")]
    elif guest.free is None:
        rest = Bytes(guest.actual - guest.used)
        parts = [(guest.used, sign.used, style), (rest, sign.free, "free")]
    else:
        parts = [
            (guest.used, sign.used, style),
            (guest.cache, sign.cache, "cache"),
            (guest.free, sign.free, "free"),
        ]
    parts.append((guest.balloon, sign.balloon, "dim"))
    cells = _cells(parts, room, scale)
    if guest.is_waiting:
        cells = [Span(char, "dim") for char in WAITING[:room]] + cells[len(WAITING[:room]) :]
    if guest.target is not None:
        cells[_place(guest.target, scale, room)] = Span(sign.target, "mark")
    return (Span("["), *joined(cells), Span("]"))


def host_bar(host: HostFigures, width: int, canvas: Canvas) -> Line:
    """Draw the host's memory: what is taken, what is available, and where the reserve begins."""
    room, sign = width - 2, signs(canvas)
    if not host.total or host.available is None or room < 1:
        return (Span(f"[{' ' * max(0, room)}]", "dim"),)
    taken = Bytes(max(0, host.total - host.available))
    parts: list[tuple[Bytes | None, str, Style]] = [
        (taken, sign.used, state_style(host.state)),
        (host.available, sign.balloon, "dim"),
    ]
    cells = _cells(parts, room, host.total)
    marked = set[int]()
    for letter, times in THRESHOLDS if host.reserve is not None else ():
        size = Bytes(max(0, host.total - round(times * (host.reserve or 0))))
        place = _place(size, host.total, room)
        if place not in marked:
            cells[place] = Span(letter, "mark")
            marked.add(place)
    return (Span("["), *joined(cells), Span("]"))


def state_style(state: str | None) -> Style:
    """Return how a state of the host is shown."""
    if state in ("HARD", "CRITICAL"):
        return "bad"
    return "warn" if state == "SOFT" else "plain" if state is None else "good"


def word_style(guest: Figures) -> Style:
    """Return how a verdict is shown."""
    if guest.rank <= 1:
        return "bad"
    return "warn" if guest.suffers else "plain" if guest.rank == 6 else "dim"  # noqa: PLR2004 - a rank, as of figures.RANK


def _style(guest: Figures) -> Style:
    style = word_style(guest)
    return style if style in ("bad", "warn") else "good"


def _cells(parts: list[tuple[Bytes | None, str, Style]], room: int, scale: Bytes) -> list[Span]:
    """Fill a bar with its parts; what is beyond its end is cut, what is left stays blank."""
    cells: list[Span] = []
    total = 0
    for size, char, style in parts:
        total += size or 0
        end = min(room, round(total * room / scale))
        cells += [Span(char, style)] * (end - len(cells))
    return cells + [Span(" ")] * (room - len(cells))


def _place(size: Bytes, scale: Bytes, room: int) -> int:
    return max(0, min(room - 1, round(size * room / scale) - 1))
