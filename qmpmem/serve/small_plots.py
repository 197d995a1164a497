"""Bars and small curves as SVG, which the policy of the page lets stand in it. Pure."""

from collections.abc import Sequence
from typing import Final

from qmpmem.serve.host_page import Bar
from qmpmem.serve.html import Markup, tag
from qmpmem.serve.recent_past import POINTS
from qmpmem.units import Bytes, format_size

WIDE: Final = 1000
"""Units across a bar."""
PARTS: Final = (
    ("used", "used by the guest"),
    ("cache", "cache"),
    ("free", "free"),
    ("balloon", "balloon"),
)
"""What a bar is made of, from the left: the class of each part, and what it is called."""

ROW: Final = 15
"""Pixels from one line of text to the next."""
MIDDLE: Final = 0.5


def bar(parts: Bar) -> Markup:
    """Draw what a guest's maximum is made of."""
    sizes = (parts.used, parts.cache, parts.free, parts.balloon)
    shapes: list[Markup] = []
    start = 0
    for (name, _), part in zip(PARTS, sizes, strict=True):
        left, right = _across(start, parts.maximum), _across(start + part, parts.maximum)
        start += part
        if right > left:
            shapes.append(tag("rect", class_=name, x=left, y=0, width=right - left, height=16))
    if parts.target is not None:
        shapes.append(
            tag(
                "rect",
                class_="tick",
                x=_across(parts.target, parts.maximum) - 2,
                y=0,
                width=4,
                height=16,
            )
        )
    said = ", ".join(
        f"{format_size(part)} {words}" for (_, words), part in zip(PARTS, sizes, strict=True)
    )
    told = "" if parts.target is None else f"; told to go to {format_size(parts.target)}"
    return tag(
        "svg",
        *shapes,
        class_="bar",
        viewBox=f"0 0 {WIDE} 16",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{said}, of {format_size(parts.maximum)}{told}",
    )


def _across(value: int, maximum: Bytes) -> int:
    return min(WIDE, round(WIDE * value / maximum))


def scale(marks: Sequence[tuple[str, Bytes]], maximum: Bytes | None) -> Markup:
    """Draw where sizes are below a slider from 0 to a maximum; each has a line of text of its own.

    Args:
        marks: what is written at a size.
        maximum: where the slider ends.
    """
    lines, texts = list[Markup](), list[Markup]()
    for row, (words, size) in enumerate(marks):
        part = min(1.0, size / maximum) if maximum else 0.0
        at, foot = f"{100 * part:.1f}%", ROW * (row + 1)
        is_right = part > MIDDLE
        lines.append(tag("line", x1=at, x2=at, y1=0, y2=foot))
        texts.append(
            tag(
                "text",
                words,
                x=at,
                y=foot,
                dx=-4 if is_right else 4,
                text_anchor="end" if is_right else "start",
            )
        )
    height = ROW * len(marks) + 3
    return tag("svg", *lines, *texts, class_="scale", height=height, aria_hidden="true")


def spark(points: Sequence[float | None]) -> Markup:
    """Draw which part of its maximum a guest used in the last minutes."""
    lines: list[Markup] = []
    run: list[str] = []
    first = POINTS - len(points)
    for place, value in enumerate((*points, None), first):
        if value is not None:
            run.append(f"{place * 2},{20 - 18 * min(1.0, max(0.0, value)):.0f}")
            continue
        if run:
            lines.append(tag("polyline", points=" ".join(run if len(run) > 1 else run * 2)))
        run = []
    return tag("svg", *lines, viewBox="0 0 80 22", class_="spark", aria_hidden="true")
