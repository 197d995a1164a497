"""Which figures are shown of a guest, and in which order guests are shown. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qmpmem.records import Record
from qmpmem.top.bar import guest_bar, word_style
from qmpmem.top.figures import Figures
from qmpmem.top.text import Canvas, Line, Span, Style, age, brief, left, percent, right, safe
from qmpmem.units import Bytes
from qmpmem.view.rows import UNKNOWN

Key = tuple[float | str, ...]

NARROWEST: Final = 10
"""Least columns of a bar that still tells something."""
WIDEST: Final = 42
"""Most columns of a bar: more would tell nothing more, so the rest is used for the reason."""
REASON: Final = 16
"""Least columns of a reason that is worth showing."""


class Setting(Record, frozen=True):
    """What a row depends on beside the guest."""

    canvas: Canvas
    whole: Bytes | None = None
    """What all of a bar is: the host's memory; None: each guest's own maximum."""


class Column(Record, frozen=True):
    """One figure of a guest."""

    name: str
    """The name in the settings and in the list of columns."""
    header: str
    width: int
    """Columns of the terminal; 0: as wide as there is room."""
    text: Callable[[Figures, Setting], str]
    order: Callable[[Figures], float | str | None]
    """What guests are sorted by: the greatest first, texts the other way round."""
    meaning: str
    is_left: bool = False
    fades: bool = False
    """Whether it is from the guest's report, which may be old."""


def _told(guest: Figures, _: Setting) -> str:
    target = guest.pin if guest.target is None else guest.target
    if target is None:
        return UNKNOWN
    if guest.actual is None or target == guest.actual:
        return brief(target) + "  "
    return f"{brief(target)} {'↑' if target > guest.actual else '↓'}"


def _press(guest: Figures, setting: Setting) -> str:
    if setting.whole is not None:
        return percent(guest.cost, setting.whole)
    return percent(guest.used, guest.actual)


def _age(guest: Figures, _: Setting) -> str:
    return f"{age(guest.age)}{'!' if guest.is_old else ''}"


def _size(figure: Callable[[Figures], Bytes | None]) -> Callable[[Figures, Setting], str]:
    return lambda guest, _: brief(figure(guest))


def _sized(
    name: str, figure: Callable[[Figures], Bytes | None], meaning: str, *, fades: bool = False
) -> Column:
    return Column(
        name=name,
        header=name.upper(),
        width=max(6, len(name) + 1),
        text=_size(figure),
        order=figure,
        meaning=meaning,
        fades=fades,
    )


COLUMNS: Final[tuple[Column, ...]] = (
    _sized("max", lambda each: each.maximum, "what it would have without a balloon"),
    _sized("actual", lambda each: each.actual, "what it has"),
    _sized("used", lambda each: each.used, "what it cannot give up without swapping", fades=True),
    Column(
        name="press",
        header="PRESS",
        width=6,
        text=_press,
        order=lambda each: each.pressure,
        meaning="used, in percent of what it has; after %, its cost in percent of the host",
        fades=True,
    ),
    Column(
        name="told",
        header="TOLD",
        width=8,
        text=_told,
        order=lambda each: each.target,
        meaning="where it was told to go, and in which direction that is",
    ),
    Column(
        name="age",
        header="AGE",
        width=5,
        text=_age,
        order=lambda each: each.age,
        meaning="how old its report is",
    ),
    _sized("cache", lambda each: each.cache, "its page cache, of what it has", fades=True),
    _sized("free", lambda each: each.free, "what it does not use at all", fades=True),
    _sized("balloon", lambda each: each.balloon, "what its balloon holds"),
    _sized("cost", lambda each: each.cost, "what it costs the host"),
    _sized("swap", lambda each: each.swap, "what of it the host has swapped out"),
    _sized("wants", lambda each: each.wants, "what it should have where there is enough"),
    _sized("entitled", lambda each: each.entitled, "its share where there is not"),
    _sized("minimum", lambda each: each.minimum, "what is never taken from it"),
    Column(
        name="limit",
        header="LIMIT",
        width=12,
        text=lambda guest, _: guest.bound or UNKNOWN,
        order=lambda each: each.bound,
        meaning="which limit decided its target",
        is_left=True,
    ),
    Column(
        name="state",
        header="STATE",
        width=10,
        text=lambda guest, _: safe(guest.state),
        order=lambda each: each.state,
        meaning="its run state, by QEMU",
        is_left=True,
    ),
    Column(
        name="class",
        header="CLASS",
        width=9,
        text=lambda guest, _: guest.kind or UNKNOWN,
        order=lambda each: each.kind,
        meaning="its class in the configuration",
        is_left=True,
    ),
    Column(
        name="name",
        header="NAME",
        width=14,
        text=lambda guest, _: safe(guest.name or guest.id),
        order=lambda each: each.name or each.id,
        meaning="what its owner calls it",
        is_left=True,
    ),
)
BY_NAME: Final[Mapping[str, Column]] = {each.name: each for each in COLUMNS}
USUAL: Final = ("max", "actual", "used", "press", "told", "age")
"""Columns that are shown where none were chosen; where there is no room, the last are left out."""

LEAST: Final = ("age", "max", "press")
"""Columns that are left out first: the bar shows most of them."""

SUFFERING: Final = "suffering"
ID: Final = "id"
ORDERS: Final = (SUFFERING, ID, *BY_NAME)
"""What guests can be sorted by."""


class Layout(Record, frozen=True):
    """The columns of a screen, and how wide they are."""

    id: int
    word: int
    bar: int
    """Columns for the bar; 0: there is no bar."""
    columns: tuple[Column, ...]
    reason: int = 0
    """Columns for the reason; 0: there is none."""


def arranged(chosen: Sequence[str], guests: Sequence[Figures], canvas: Canvas) -> Layout:
    """Find out which columns have room, in the order in which they were chosen.

    Args:
        chosen: names of columns.
        guests: those that are shown.
        canvas: the terminal.
    """
    ids = max((len(each.id) for each in guests), default=0)
    words = max((len(each.word) for each in guests), default=0)
    id_width = max(6, min(ids, max(8, canvas.width // 5)))
    word_width = max(8, min(words, 13 if canvas.width >= 76 else 9))  # noqa: PLR2004 - the longest verdict has 13
    room = canvas.width - id_width - word_width - 5  # a mark, a pin, and blanks
    columns = [BY_NAME[name] for name in chosen if name in BY_NAME]
    while columns and room - sum(each.width for each in columns) < NARROWEST:
        first = next((BY_NAME[each] for each in LEAST if BY_NAME[each] in columns), None)
        columns.remove(first or columns[-1])
    room -= sum(each.width for each in columns)
    bar = min(room, WIDEST) if room >= NARROWEST else 0
    rest = room - bar - 2
    return Layout(
        id=id_width,
        word=word_width,
        bar=bar,
        columns=tuple(columns),
        reason=rest if rest >= REASON else 0,
    )


def header(layout: Layout, sort: str, *, inverted: bool, canvas: Canvas) -> Line:
    """Return the names of the columns; the one by which guests are sorted is marked."""
    sign = ("▲" if inverted else "▼") if canvas.unicode else ("^" if inverted else "v")
    name = f"ID{sign}" if sort == ID else "ID"
    word = f"VERDICT{sign}" if sort == SUFFERING else "VERDICT"
    spans = [
        Span(f"  {left(name, layout.id)} "),
        Span(f"  {left(word, layout.word)}"),
    ]
    if layout.bar:
        spans.append(Span(" " + _scale(layout.bar - 1)))
    for column in layout.columns:
        title = column.header + (sign if column.name == sort else "")
        # The mark takes the place of a blank, so that the numbers stay below their header.
        text = f" {left(title, column.width - 1)}" if column.is_left else right(title, column.width)
        spans.append(Span(text))
    if layout.reason:
        spans.append(Span(f"  {left('REASON', layout.reason)}"))
    return tuple(Span(span.text, "head") for span in spans)


def row(guest: Figures, layout: Layout, setting: Setting, *, chosen: bool) -> Line:
    """Write a guest under `header`."""
    more = setting.canvas.more
    style: Style = "chosen" if chosen else "plain"
    fade: Style = "dim" if guest.is_old else "plain"
    spans = [
        Span(f"{'>' if chosen else ' '} {left(guest.id, layout.id, more)}", style),
        Span(f" {'P' if guest.pin is not None else ' '} ", "mark"),
        Span(left(guest.word, layout.word, more), word_style(guest)),
    ]
    if layout.bar:
        spans += [Span(" "), *guest_bar(guest, layout.bar - 1, setting.whole, setting.canvas)]
    for column in layout.columns:
        text = column.text(guest, setting)
        width = column.width
        shown = f" {left(text, width - 1, more)}" if column.is_left else right(text, width, more)
        spans.append(Span(shown, fade if column.fades else "plain"))
    if layout.reason:
        spans.append(Span(f"  {left(safe(guest.reason), layout.reason, more)}", "dim"))
    return tuple(spans)


def ordered(guests: Sequence[Figures], sort: str, *, inverted: bool) -> list[Figures]:
    """Sort guests; those of which a figure is not known come last in either direction."""
    if sort == SUFFERING:
        found = sorted(guests, key=_suffering)
        return found[::-1] if inverted else found
    if sort == ID:
        return sorted(guests, key=lambda each: each.id, reverse=inverted)
    figure = BY_NAME[sort].order
    known = [(value, each) for each in guests if (value := figure(each)) is not None]
    unknown = [each for each in guests if figure(each) is None]
    is_text = any(isinstance(value, str) for value, _ in known)
    known.sort(key=lambda pair: pair[1].id)
    known.sort(key=lambda pair: pair[0], reverse=is_text == inverted)  # of equals, by the id
    return [each for _, each in known] + unknown


def _suffering(guest: Figures) -> Key:
    return (guest.rank, -(guest.pressure or 0.0), guest.id)


def _scale(width: int) -> str:
    title, end = "MEMORY", "max"
    if width < len(title) + len(end) + 4:
        return left(title, width)
    middle = (width - len(title)) // 2
    return "0" + left(" " * (middle - 1) + title, width - 1 - len(end)) + end
