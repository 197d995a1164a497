"""A figure as SVG. Pure.

Rules of this file:
    Shapes have a class, and only `STYLE` has colours, others for a dark background. There is no
    style attribute, so that a strict content security policy does no harm.
    Nothing is told by colour alone: areas have patterns, lines have dashes, decisions have a
    direction, and a worse state has a higher bar.
    All that is written is escaped here, in `_text` and `_tag`: a guest's name is text.

Sources: WAI-ARIA graphics (role img, named by title and desc); CSS Media Queries 5
(prefers-color-scheme). No variables and no nesting in the style sheet: librsvg 2.54 knows neither.
"""

import html
import math
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from typing import Final

from qmpmem.model.escapes import printable
from qmpmem.records import Record
from qmpmem.view import axes
from qmpmem.view.figure import (
    Column,
    Figure,
    Lane,
    Mark,
    Panel,
    clipped,
    finite,
    stacked,
)
from qmpmem.view.table import cells

LEFT: Final = 74.0
"""Pixels beside a panel, for what is written at its ticks."""
RIGHT: Final = 14.0
PAD: Final = 12.0
LINE: Final = 18.0
"""Pixels from one line of text to the next."""
LANE: Final = 16.0
"""Pixels of the host's state, and of decisions, above a panel."""
FOOT: Final = 20.0
"""Pixels below a column, for what is written at the ticks of time."""
SWATCH: Final = 14.0
NARROW: Final = frozenset(" !'()*,-./:;I[]fijlrt|")
WIDE: Final = frozenset("%@MWmw")
LETTERS: Final = (5.0, 7.8, 9.5, 12.0)
"""Pixels that a narrow, usual, capital, and wide letter of 12 pixels takes at most, in the widest
of the usual fonts (DejaVu Sans)."""
FAINT: Final = 1 / 1000
"""Part of the time axis: a gap that is shorter is not drawn."""
WIDER: Final = 1.3
"""Times the width of a text that a title takes, which is a sixth larger, and bold."""
LEAST_WIDTH: Final = 240
CLOSE: Final = 9.0
"""Pixels between two decisions: those that are closer are one mark."""
ABOVE: Final = 9.0
"""Pixels between a panel and what is above it: half of what is written at its highest tick."""


LIGHT: Final = {
    "paper": "fill:#ffffff",
    "text": "fill:#1c2330",
    ".dim": "fill:#5b6577",
    ".grid": "stroke:#e3e6eb",
    ".frame": "stroke:#9aa3b2",
    ".used": "fill:#2f6fdd",
    ".cache": "fill:#9cc2f5",
    ".cache-ink": "stroke:#2f6fdd",
    ".free": "fill:#d9ecd8",
    ".free-ink": "fill:#4d8b4a",
    ".balloon": "fill:#e7e9ee",
    ".balloon-ink": "stroke:#a3abba",
    ".silent": "fill:#f1e3cf",
    ".silent-ink": "stroke:#a8794a",
    ".lacking": "fill:#f0b7a8",
    ".lacking-ink": "stroke:#b4232a",
    ".waiting": "fill:#c98a2b",
    ".gap": "fill:#ffffff",
    ".gap-ink": "fill:#b9c0cc",
    ".actual": "stroke:#1c2330",
    ".target": "stroke:#d6336c",
    ".less": "fill:#a15c00",
    ".more": "fill:#1b7f4b",
    ".SLACK": "fill:#b7c9dd",
    ".BALANCED": "fill:#8fb3d9",
    ".SOFT": "fill:#e0b13c",
    ".HARD": "fill:#d9772b",
    ".CRITICAL": "fill:#b4232a",
    ".distress": "fill:#b4232a",
}
DARK: Final = {
    "paper": "fill:#1a202a",
    "text": "fill:#e7ebf2",
    ".dim": "fill:#a4b0c2",
    ".grid": "stroke:#2b3442",
    ".frame": "stroke:#56637a",
    ".used": "fill:#5b93f0",
    ".cache": "fill:#33507f",
    ".cache-ink": "stroke:#5b93f0",
    ".free": "fill:#234434",
    ".free-ink": "fill:#6fb58a",
    ".balloon": "fill:#2a313d",
    ".balloon-ink": "stroke:#566073",
    ".silent": "fill:#4a3d2a",
    ".silent-ink": "stroke:#c79d63",
    ".lacking": "fill:#6b3530",
    ".lacking-ink": "stroke:#ff7b81",
    ".waiting": "fill:#d9a24a",
    ".gap": "fill:#1a202a",
    ".gap-ink": "fill:#4b586c",
    ".actual": "stroke:#e7ebf2",
    ".target": "stroke:#ff6b9a",
    ".less": "fill:#f0b357",
    ".more": "fill:#5fd08f",
    ".SLACK": "fill:#3d5168",
    ".BALANCED": "fill:#4c74a3",
    ".SOFT": "fill:#c79a2e",
    ".HARD": "fill:#e08a45",
    ".CRITICAL": "fill:#ff7b81",
    ".distress": "fill:#ff7b81",
}
_SHAPES: Final = (
    ".qmpmem-plot text{font:12px sans-serif}",
    ".qmpmem-plot .title{font-size:14px;font-weight:bold}",
    ".qmpmem-plot path{stroke-width:1}",
    ".qmpmem-plot .grid,.qmpmem-plot .frame{fill:none}",
    ".qmpmem-plot .actual,.qmpmem-plot .target{fill:none;stroke-width:1.75}",
    ".qmpmem-plot .target{stroke-dasharray:6 4}",
)
PATTERNS: Final = {
    "cache": '<path class="cache-ink" d="M0,3H6"/>',
    "free": '<circle class="free-ink" cx="3" cy="3" r="0.8"/>',
    "balloon": '<path class="balloon-ink" d="M-1,1L1,-1M0,6L6,0M5,7L7,5"/>',
    "silent": '<path class="silent-ink" d="M-1,5L1,7M0,0L6,6M5,-1L7,1"/>',
    "lacking": '<path class="lacking-ink" d="M3,0V6M0,3H6"/>',
    "gap": '<circle class="gap-ink" cx="1" cy="1" r="0.7"/>',
}
"""What is drawn over the colour of an area, in a square of 6 pixels; others are plain."""


def _sheet(colours: dict[str, str]) -> Iterator[str]:
    for name, rule in colours.items():
        yield f".qmpmem-plot {'.paper' if name == 'paper' else name}{{{rule}}}"


STYLE: Final = "\n".join(
    (
        *_SHAPES,
        *_sheet(LIGHT),
        "@media (prefers-color-scheme:dark){",
        *_sheet(DARK),
        "}",
    )
)
"""The style sheet of every plot."""


class Options(Record, frozen=True):
    """How a figure is drawn."""

    width: int
    """Pixels across; never less than `LEAST_WIDTH`."""
    height: int = 200
    """Pixels of a panel of sizes; one of percents has a third."""
    zone: tzinfo | None = None
    """What the clock of a time axis shows; None: this machine's."""
    name: str = "plot"
    """What ids begin with."""
    styled: bool = True
    """Whether `STYLE` is in it."""


class Box(Record, frozen=True):
    """Where a panel is, and what its edges stand for."""

    x: float
    y: float
    width: float
    height: float
    begin: float
    end: float
    top: float

    def across(self, time: float) -> float:
        """Return the pixel of a time; one outside the axis is at its end."""
        part = (time - self.begin) / (self.end - self.begin)
        return self.x + self.width * min(1.0, max(0.0, part))

    def up(self, value: float) -> float:
        """Return the pixel of a value; one outside the axis is at its end."""
        return self.y + self.height * (1.0 - min(1.0, max(0.0, value / self.top)))


def draw(figure: Figure, options: Options) -> str:
    """Draw a figure; the legend takes as many lines as it needs."""
    width = float(max(options.width, LEAST_WIDTH))
    head, y = _heading(figure, width, options.zone)
    legend = list(_legend(figure, width, y, options.name))
    y += LINE * (1 + max((row for row, _ in legend), default=-1))
    part = (width - PAD) / max(1, len(figure.columns))
    content: list[str] = []
    bottom = y
    for number, column in enumerate(figure.columns):
        lines, end = _column(column, figure, options, (PAD / 2 + number * part, y + 6, part))
        content += lines
        bottom = max(bottom, end)
    height = math.ceil(bottom + PAD / 2)
    name = options.name
    return "\n".join(
        (
            _tag(
                "svg",
                xmlns="http://www.w3.org/2000/svg",
                cls="qmpmem-plot",
                viewBox=f"0 0 {_n(width)} {_n(height)}",
                width=_n(width),
                height=_n(height),
                role="img",
                aria_labelledby=f"{name}-title {name}-desc",
                closed=False,
            ),
            f'<title id="{_text(name)}-title">{_text(figure.title)}</title>',
            f'<desc id="{_text(name)}-desc">{_text(figure.description)}</desc>',
            *([f"<style>\n{STYLE}\n</style>"] if options.styled else []),
            "<defs>",
            *_patterns(figure, name),
            "</defs>",
            _tag("rect", cls="paper", width=_n(width), height=_n(height)),
            *head,
            *(line for _, line in legend),
            *content,
            "</svg>\n",
        )
    )


def breadth(text: str) -> float:
    """Return how many pixels a text of 12 pixels takes at most."""
    return sum(_breadth(char) for char in text)


def _breadth(char: str) -> float:
    narrow, usual, capital, wide = LETTERS
    if char in NARROW:
        return narrow
    if char in WIDE:
        return wide
    return capital if char.isupper() else usual * cells(char)


def shortened(text: str, width: float) -> str:
    """Cut a text to so many pixels, and show that it is cut."""
    if breadth(text) <= width:
        return text
    kept = text
    while kept and breadth(kept + "…") > width:
        kept = kept[: -max(1, len(kept) // 8)] if breadth(kept) > 2 * width else kept[:-1]
    return kept + "…"


def _heading(figure: Figure, width: float, zone: tzinfo | None) -> tuple[list[str], float]:
    """Draw the title, and the days beside or below it; return what is drawn, and its end."""
    days = axes.dates(figure.begin, figure.end, zone) if figure.clock == "wall" else ""
    room, text = width - 2 * PAD, printable(figure.title)
    title = shortened(text, room / WIDER)
    is_beside = breadth(title) * WIDER + PAD + breadth(days) <= room
    found = [_words(PAD, PAD + 10, title, cls="title")]
    if not days:
        return found, PAD + LINE
    if is_beside:
        return [*found, _words(width - PAD, PAD + 10, days, cls="dim", anchor="end")], PAD + LINE
    below = _words(PAD, PAD + LINE + 9, shortened(days, room), cls="dim")
    return [*found, below], PAD + 2 * LINE


def _legend(figure: Figure, width: float, top: float, name: str) -> Iterator[tuple[int, str]]:
    """Yield the row of each piece of the legend, and the piece."""
    x, row = PAD, 0
    for shape, words in _entries(figure, name):
        needs = SWATCH + 5 + breadth(words)
        if x > PAD and x + needs > width - PAD:
            x, row = PAD, row + 1
        y = top + row * LINE
        yield row, f'<g transform="translate({_n(x)},{_n(y)})">{shape}</g>'
        yield row, _words(x + SWATCH + 5, y + 10.5, words)
        x += needs + 14


def _entries(figure: Figure, name: str) -> Iterator[tuple[str, str]]:
    """Yield a shape of 14 by 12 pixels and its meaning, for all that is drawn."""
    panels = [panel for column in figure.columns for panel in column.panels]
    areas = {area.name: area.label for panel in panels for area in panel.areas if area.label}
    for kind, words in areas.items():
        yield _swatch(kind, name), words
    for kind, words in {line.name: line.label for panel in panels for line in panel.lines}.items():
        yield _tag("path", cls=kind, d="M0,6H14"), words
    lanes = [lane for panel in panels for lane in panel.lanes]
    bands = {f"{lane.name} {band.name}": band for lane in lanes for band in lane.bands}
    for words, band in bands.items():
        height = 12 * band.level
        shape = _tag("rect", cls=band.name, y=_n(12 - height), width="14", height=_n(height))
        yield shape, words
    seen = {mark.direction for panel in panels for mark in panel.marks}
    if "less" in seen:
        yield _tag("path", cls="less", d=_arrow(7, 10, "less")), "told to give"
    if "more" in seen:
        yield _tag("path", cls="more", d=_arrow(7, 10, "more")), "told to take"
    if any(_gaps(panel, figure) for panel in panels):
        yield _swatch("gap", name), figure.gap


def _patterns(figure: Figure, name: str) -> Iterator[str]:
    kinds = {
        area.name for column in figure.columns for each in column.panels for area in each.areas
    }
    for kind in sorted({*kinds, "gap"} & PATTERNS.keys()):
        yield (
            f'<pattern id="{_text(name)}-{kind}" width="6" height="6"'
            f' patternUnits="userSpaceOnUse"><rect class="{kind}" width="6" height="6"/>'
            f"{PATTERNS[kind]}</pattern>"
        )


def _class(kind: str) -> str:
    """Return the class of an area; where it has a pattern, that has the colour."""
    return f"{kind}-area" if kind in PATTERNS else kind


def _fill(kind: str, name: str) -> str | None:
    return f"url(#{name}-{kind})" if kind in PATTERNS else None


def _swatch(kind: str, name: str) -> str:
    return _tag("rect", cls=_class(kind), fill=_fill(kind, name), width="14", height="12")


def _column(
    column: Column, figure: Figure, options: Options, place: tuple[float, float, float]
) -> tuple[list[str], float]:
    """Draw panels below each other; return what is drawn, and where it ends."""
    x, y, width = place
    lines: list[str] = []
    if column.title:
        title = shortened(printable(column.title), (width - LEFT - PAD) / WIDER)
        lines.append(_words(x + LEFT, y + 14, title, cls="title"))
        y += LINE + 4
    box = Box(x=x, y=y, width=1, height=1, begin=0, end=1, top=1)
    for panel in column.panels:
        if panel.title:
            title = shortened(printable(panel.title), width - LEFT)
            lines.append(_words(x + LEFT, y + 13, title, cls="dim"))
            y += LINE
        y += LANE * (len(panel.lanes) + bool(panel.marks)) + ABOVE
        box = Box(
            x=x + LEFT,
            y=y,
            width=width - LEFT - RIGHT,
            height=options.height / (3 if panel.unit == "percent" else 1),
            begin=figure.begin,
            end=figure.end,
            top=max(panel.top, 1e-9),
        )
        lines += _panel(panel, figure, box, options)
        y = box.y + box.height + 8
    lines += _time_labels(figure, box, options.zone)
    return lines, box.y + box.height + FOOT


def _panel(panel: Panel, figure: Figure, box: Box, options: Options) -> Iterator[str]:
    for begin, end in _gaps(panel, figure):
        first, last = box.across(begin), box.across(end)
        yield _tag(
            "rect",
            cls=_class("gap"),
            fill=_fill("gap", options.name),
            x=_n(first),
            y=_n(box.y),
            width=_n(last - first),
            height=_n(box.height),
        )
    yield from _areas(panel, box, options.name)
    yield from _grid(panel, figure, box, options.zone)
    for line in panel.lines:
        path = _steps(panel, line.values, box)
        if path:
            yield _tag("path", cls=line.name, d=path)
    lane = box.y - ABOVE
    if panel.marks:
        yield from _marks(panel.marks, box, lane)
        lane -= LANE
    for each in reversed(panel.lanes):
        yield from _bands(each, box, lane)
        lane -= LANE


def _areas(panel: Panel, box: Box, name: str) -> Iterator[str]:
    numbers = clipped(panel.spans, box.begin, box.end)
    stacks = {number: stacked(panel.areas, number) for number in numbers}
    for place, area in enumerate(panel.areas):
        runs = _runs(panel, numbers, [stacks[number][place] for number in numbers])
        path = "".join(_around(run, box) for run in runs)
        if path:
            yield _tag("path", cls=_class(area.name), fill=_fill(area.name, name), d=path)


Piece = tuple[float, float, float, float]
"""Begin and end of a span, and the lower and upper edge in it."""


def _runs(
    panel: Panel, numbers: Sequence[int], edges: Sequence[tuple[float, float] | None]
) -> Iterator[list[Piece]]:
    """Yield pieces without a gap between them; those that are alike are one."""
    run: list[Piece] = []
    for number, edge in zip(numbers, edges, strict=True):
        begin, end = panel.spans[number]
        if run and (edge is None or begin > run[-1][1]):
            yield run
            run = []
        if edge is None:
            continue
        if run and run[-1][2:] == edge:
            begin = run.pop()[0]
        run.append((begin, end, *edge))
    if run:
        yield run


def _around(run: Sequence[Piece], box: Box) -> str:
    """Draw around a run: along its upper edge, and back along its lower one."""
    begin, end, _, upper = run[0]
    path = f"M{_n(box.across(begin))},{_n(box.up(upper))}H{_n(box.across(end))}"
    for _, end, _, upper in run[1:]:
        path += f"V{_n(box.up(upper))}H{_n(box.across(end))}"
    for begin, _, lower, _ in reversed(run):
        path += f"V{_n(box.up(lower))}H{_n(box.across(begin))}"
    return path + "Z"


def _steps(panel: Panel, values: Sequence[float | None], box: Box) -> str:
    """Draw a line that holds each value for as long as its span is."""
    numbers = clipped(panel.spans, box.begin, box.end)
    known = [finite(values[number]) for number in numbers]
    edges = [None if value is None else (value, value) for value in known]
    path = ""
    for run in _runs(panel, numbers, edges):
        begin, end, value, _ = run[0]
        path += f"M{_n(box.across(begin))},{_n(box.up(value))}H{_n(box.across(end))}"
        for _, end, value, _ in run[1:]:
            path += f"V{_n(box.up(value))}H{_n(box.across(end))}"
    return path


def _grid(panel: Panel, figure: Figure, box: Box, zone: tzinfo | None) -> Iterator[str]:
    most = max(1, int(box.height // 28))
    ticks = (axes.sizes if panel.unit == "bytes" else axes.percents)(box.top, most)
    for tick in ticks:
        y = box.up(tick.at)
        yield _tag("path", cls="grid", d=f"M{_n(box.x)},{_n(y)}H{_n(box.x + box.width)}")
        yield _words(box.x - 6, y + 4, tick.label, anchor="end")
    for tick in _time_ticks(figure, box, zone):
        x = box.across(tick.at)
        yield _tag("path", cls="grid", d=f"M{_n(x)},{_n(box.y)}V{_n(box.y + box.height)}")
    bottom = box.y + box.height
    yield _tag(
        "path", cls="frame", d=f"M{_n(box.x)},{_n(box.y)}V{_n(bottom)}H{_n(box.x + box.width)}"
    )


def _time_ticks(figure: Figure, box: Box, zone: tzinfo | None) -> list[axes.Tick]:
    most = max(1, int(box.width // 84))
    if figure.clock == "seconds":
        return axes.seconds(figure.end, most)
    return axes.times(figure.begin, figure.end, most, zone)


def _time_labels(figure: Figure, box: Box, zone: tzinfo | None) -> Iterator[str]:
    for tick in _time_ticks(figure, box, zone):
        half = breadth(tick.label) / 2
        x = min(box.across(tick.at), box.x + box.width + RIGHT - half)
        yield _words(x, box.y + box.height + 15, tick.label, anchor="middle")


def _bands(lane: Lane, box: Box, bottom: float) -> Iterator[str]:
    yield _words(box.x - 6, bottom - 2, lane.name, cls="dim", anchor="end")
    for band in lane.bands:
        first, last = box.across(band.begin), box.across(band.end)
        if last <= first:
            continue
        height = (LANE - 4) * band.level
        yield (
            _tag(
                "rect",
                cls=band.name,
                x=_n(first),
                y=_n(bottom - height),
                width=_n(last - first),
                height=_n(height),
                closed=False,
            )
            + f"<title>{_text(f'{lane.name} {band.name}')}</title></rect>"
        )


def _marks(marks: Sequence[Mark], box: Box, bottom: float) -> Iterator[str]:
    yield _words(box.x - 6, bottom - 1, "told", cls="dim", anchor="end")
    for group in _groups(marks, box):
        last = group[-1]
        x = (box.across(group[0].at) + box.across(last.at)) / 2
        count = sum(mark.count for mark in group)
        often = f" ({count} times)" if count > 1 else ""
        yield (
            _tag("path", cls=last.direction, d=_arrow(x, bottom, last.direction), closed=False)
            + f"<title>{_text(last.text)}{often}</title></path>"
        )


def _groups(marks: Sequence[Mark], box: Box) -> list[list[Mark]]:
    """Put marks of one direction together that are too close to be told apart."""
    groups: list[list[Mark]] = []
    open_: dict[str, list[Mark]] = {}
    for mark in marks:
        if not box.begin <= mark.at <= box.end:
            continue
        group = open_.get(mark.direction)
        if group is None or box.across(mark.at) - box.across(group[0].at) >= CLOSE:
            group = open_[mark.direction] = []
            groups.append(group)
        group.append(mark)
    return groups


def _arrow(x: float, bottom: float, direction: str) -> str:
    """Draw a triangle of 8 pixels that points where a guest goes."""
    base, tip = (bottom, bottom - 8) if direction == "more" else (bottom - 8, bottom)
    return f"M{_n(x - 4)},{_n(base)}L{_n(x + 4)},{_n(base)}L{_n(x)},{_n(tip)}Z"


def _gaps(panel: Panel, figure: Figure) -> list[tuple[float, float]]:
    """Return where nothing at all is known."""
    found: list[tuple[float, float]] = []
    known = figure.begin
    for number in clipped(panel.spans, figure.begin, figure.end):
        if all(finite(area.values[number]) is None for area in panel.areas):
            continue
        begin, end = panel.spans[number]
        found.append((known, begin))
        known = max(known, end)
    least = (figure.end - figure.begin) * FAINT
    return [each for each in (*found, (known, figure.end)) if each[1] - each[0] > least]


def _words(x: float, y: float, text: str, *, cls: str | None = None, anchor: str = "start") -> str:
    place = None if anchor == "start" else anchor
    start = _tag("text", cls=cls, x=_n(x), y=_n(y), text_anchor=place, closed=False)
    return f"{start}{_text(text)}</text>"


def _tag(tag: str, *, closed: bool = True, **attributes: str | None) -> str:
    """Write an element; ``cls`` is its class, and _ in a name is a hyphen."""
    written = "".join(
        f' {"class" if key == "cls" else key.replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}{'/' if closed else ''}>"


def _text(text: str) -> str:
    """Escape a text, and what no XML may have in it (XML 1.0, 2.2)."""
    return html.escape(printable(text))


def _n(number: float) -> str:
    """Write a pixel, to a tenth."""
    return f"{number:.1f}".removesuffix(".0")
