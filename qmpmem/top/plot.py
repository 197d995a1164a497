"""A guest's memory over time: an area, a dotted line for the target, marks for decisions. Pure.

Theory of operation:
    A character of braille is two columns of four dots (Unicode, U+2800 to U+28FF: dot n sets bit
    n - 1). Where a terminal has no braille, a character is one column of two.
"""

from collections.abc import Sequence
from typing import Final

from qmpmem.api.records import Decision
from qmpmem.top.history import Point
from qmpmem.top.text import Canvas, Line, Span, Style, age, brief, joined, right
from qmpmem.units import Bytes

DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bits of a character's dots: its left column, and its right one, each from the top."""
BRAILLE: Final = 0x2800
LABEL: Final = 6
"""Columns for the sizes at the left."""
BLOCKS: Final = " ▁▂▃▄▅▆▇█"
STEPS: Final = " .:-=+*#@"

MORE: Final = "↑"
LESS: Final = "↓"
JUDGED: Final = "!"


def plot(
    points: Sequence[Point],
    decisions: Sequence[Decision],
    span: tuple[float, float],
    top: Bytes,
    canvas: Canvas,
) -> list[Line]:
    """Draw what a guest used and had.

    Args:
        points: the sizes, oldest first.
        decisions: the decisions, oldest first.
        span: from when to when, in seconds since 1970.
        top: the size at the upper edge.
        canvas: how much room there is; the last two lines are marks and times.
    """
    width, height = canvas.width - LABEL, canvas.height - 2
    if width < 4 or height < 1 or top <= 0:  # noqa: PLR2004 - less shows nothing
        return []
    dots = (2, 4) if canvas.unicode else (1, 2)
    used = _sampled(points, span, width * dots[0], "used")
    had = _sampled(points, span, width * dots[0], "actual")
    target = _sampled(points, span, width * dots[0], "target")
    lines: list[Line] = []
    for row in range(height):
        label = brief(top) if row == 0 else "0" if row == height - 1 else ""
        floor = height - 1 - row
        cells = [
            _cell(used, had, target, (column, floor), (dots, height, top))
            for column in range(width)
        ]
        lines.append((Span(right(label, LABEL - 1) + " ", "dim"), *joined(cells)))
    lines.append((Span(" " * LABEL), *_marks(decisions, span, width)))
    lines.append((Span(" " * LABEL), Span(_times(span, width), "dim")))
    return lines


def sparkline(values: Sequence[Bytes | None], width: int, canvas: Canvas) -> str:
    """Draw some values in one line, the last at its end; each is one column."""
    shown = values[-width:]
    known = [each for each in shown if each is not None]
    if not known:
        return ""
    signs = BLOCKS if canvas.unicode else STEPS
    most = max(known) or 1
    steps = len(signs) - 1
    return "".join(
        " " if each is None else signs[max(1, round(each * steps / most))] for each in shown
    )


Grid = tuple[tuple[int, int], int, Bytes]
"""The dots of a character across and down, the characters down, and the size at the upper edge."""


def _cell(
    used: Sequence[float | None],
    had: Sequence[float | None],
    target: Sequence[float | None],
    place: tuple[int, int],
    grid: Grid,
) -> Span:
    (across, down), height, top = grid
    column, floor = place
    bits, on_target, in_use = 0, False, False
    for x in range(across):
        index = column * across + x
        for y in range(down):
            level = floor * down + (down - 1 - y)
            filled = _reaches(used[index], level, height * down, top)
            at_had = _level(had[index], height * down, top) == level
            at_target = index % 2 == 0 and _level(target[index], height * down, top) == level
            if filled or at_had or at_target:
                bits |= DOTS[x][y]
                in_use |= filled
                on_target |= at_target and not filled
    style: Style = "good" if in_use else "mark" if on_target else "cache"
    if down == 4:  # noqa: PLR2004 - braille
        return Span(chr(BRAILLE + bits) if bits else " ", style)
    both = bits & (DOTS[0][0] | DOTS[0][1])
    if in_use:
        return Span("#" if both == 3 else "=", style)  # noqa: PLR2004 - both dots
    return Span(("-" if not on_target else "~") if bits else " ", style)


def _reaches(value: float | None, level: int, levels: int, top: Bytes) -> bool:
    return value is not None and value * levels / top > level


def _level(value: float | None, levels: int, top: Bytes) -> int | None:
    return None if value is None else max(0, min(levels - 1, round(value * levels / top) - 1))


def _sampled(
    points: Sequence[Point], span: tuple[float, float], count: int, field: str
) -> list[float | None]:
    """Take the last value in each of so many parts of a time; a gap of some rounds is bridged."""
    begin, end = span
    step = max(1e-9, (end - begin) / count)
    found: list[float | None] = [None] * count
    for point in points:
        index = int((point.time - begin) / step)
        if 0 <= index <= count:
            found[min(index, count - 1)] = getattr(point, field)
    bridge = max(1, int(BRIDGED / step))
    seen = None
    for index, value in enumerate(found):
        if value is not None:
            seen = index
        elif seen is not None and index - seen <= bridge:
            found[index] = found[seen]
    return found


BRIDGED: Final = 10.0
"""Seconds without a round that are drawn as if nothing changed: a quiet host has slow rounds."""


def _marks(decisions: Sequence[Decision], span: tuple[float, float], width: int) -> list[Span]:
    """Mark when the guest was told something, or judged otherwise."""
    begin, end = span
    cells = [" "] * width
    for each in decisions:
        place = int((each.time - begin) * width / max(1e-9, end - begin))
        if not 0 <= place < width:
            continue
        told = each.explanation
        if told.target is None or told.actual is None:
            sign = JUDGED
        else:
            sign = MORE if told.target > told.actual else LESS
        cells[place] = JUDGED if JUDGED in (sign, cells[place]) else sign
    return [Span("".join(cells), "mark")]


def _times(span: tuple[float, float], width: int) -> str:
    begin, end = span
    first, last = f"{age(end - begin)} before", "then"
    return first + " " * max(1, width - len(first) - len(last)) + last
