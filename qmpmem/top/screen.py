"""The lines of one screen. Pure: what is to be seen, what was chosen, and the room go in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from qmpmem.records import Record, replace
from qmpmem.top import why_pane as panes
from qmpmem.top.bar import signs
from qmpmem.top.change_dialog import CHANGES, QUESTIONS, TYPED, Dialog, consequences
from qmpmem.top.columns import COLUMNS, Setting, arranged, header, row
from qmpmem.top.figures import Figures, HostFigures, called
from qmpmem.top.header import host_lines, title
from qmpmem.top.keys import HELP, WRITES
from qmpmem.top.text import Canvas, Line, Span, cells, fitted, left, safe
from qmpmem.top.view_state import Scene, View, chosen, listed
from qmpmem.units import Bytes

LEAST: Final = (40, 10)
"""Least columns and lines of a screen."""
ROOMY: Final = 15
"""Lines of a screen from which on all lines of the host are shown."""
ABOVE: Final = 9
"""Lines that are left above the full view of a guest, for the host and three guests."""
FULL: Final = 26
"""Lines that all terms and some decisions take on a terminal of 80 columns."""
SPARK: Final = 60
"""Rounds that the host's plot shows."""


class Frame(Record, frozen=True):
    """What a terminal shows."""

    lines: tuple[Line, ...]
    """Exactly as many lines as the terminal has."""
    first: int = 0
    """The first guest that is shown."""
    page: int = 1
    """Number of guests for which there is room."""
    guests: Mapping[int, str] = {}
    """The guest of each line."""


def frame(scene: Scene, view: View, canvas: Canvas) -> Frame:
    """Draw a screen."""
    if canvas.width < LEAST[0] or canvas.height < LEAST[1]:
        return _too_small(canvas)
    if view.helps:
        return _filled(_help(scene, canvas), canvas)
    shown = scene.shown
    if shown is None or scene.seen is None:
        return _filled(_nothing(scene, canvas), canvas)
    available = scene.history.available(shown.time, SPARK)
    head = [
        title(shown, scene.where, scene.names, canvas),
        *host_lines(shown, scene.where, available, canvas),
    ]
    if canvas.height < ROOMY:
        head = head[:2]
    guests = listed(shown, view.settings)
    guest = chosen(view, guests)
    below = _below(scene, view, guest, canvas)
    page = max(1, canvas.height - len(head) - len(below) - 2)
    first = _first(view, guests, page)
    visible = guests[first : first + page]
    layout = arranged(view.settings.columns, guests, canvas)
    setting = Setting(canvas=canvas, whole=_whole(shown.host, view))
    settings = view.settings
    rows = [row(each, layout, setting, chosen=each == guest) for each in visible]
    if not guests:
        rows = [(Span(f"  {_none(scene, view)}", "dim"),)]
    body = [
        *head,
        header(layout, settings.sort, inverted=settings.inverted, canvas=canvas),
        *rows,
        *[()] * (page - len(rows)),
        *below,
        _foot(scene, view, (first, len(visible), len(guests)), canvas),
    ]
    begin = len(head) + 1
    return Frame(
        lines=tuple(fitted(each, canvas) for each in body[: canvas.height]),
        first=first,
        page=page,
        guests={begin + index: each.id for index, each in enumerate(visible)},
    )


def listing(scene: Scene, view: View, canvas: Canvas) -> list[Line]:
    """Draw all guests and the host once, however many lines that takes; no keys."""
    shown = scene.shown
    if shown is None or scene.seen is None:
        return [fitted(each, canvas) for each in _nothing(scene, canvas)[:1]]
    guests = listed(shown, view.settings)
    layout = arranged(view.settings.columns, guests, canvas)
    setting = Setting(canvas=canvas, whole=_whole(shown.host, view))
    lines: Iterable[Line] = [
        title(shown, scene.where, scene.names, canvas),
        *host_lines(shown, scene.where, scene.history.available(shown.time, SPARK), canvas),
        header(layout, view.settings.sort, inverted=view.settings.inverted, canvas=canvas),
        *(row(each, layout, setting, chosen=False) for each in guests),
    ]
    return [fitted(each, canvas) for each in lines]


def _whole(host: HostFigures, view: View) -> Bytes | None:
    return host.total if view.settings.percent_of_host else None


def _first(view: View, guests: Sequence[Figures], page: int) -> int:
    """Return which guest is shown first, so that the chosen one is among those shown."""
    ids = [each.id for each in guests]
    place = ids.index(view.chosen) if view.chosen in ids else 0
    first = max(0, min(view.first, len(ids) - page))
    if place < first:
        return place
    return place - page + 1 if place >= first + page else first


def _below(scene: Scene, view: View, guest: Figures | None, canvas: Canvas) -> list[Line]:
    """Draw what is below the guests: a dialog, or why the chosen guest has what it has."""
    host = HostFigures() if scene.shown is None else scene.shown.host
    if view.dialog is not None:
        return _dialog(view.dialog, scene, host, canvas)
    pane = view.settings.pane
    if pane == "none" or scene.seen is None:
        return []
    share = {"why": 3, "all": 1, "plot": 2}[pane]
    most = {"why": 9, "all": min(canvas.height - ABOVE, max(canvas.height // 2, FULL)), "plot": 16}[
        pane
    ]
    inner = replace(canvas, height=max(3, min(most, (canvas.height - 2) // share)))
    if guest is None:
        gone = "no guest is chosen" if view.chosen is None else f"{view.chosen} is not here"
        return [panes.rule(gone, canvas)]
    drawn = {"why": panes.pane, "all": panes.full, "plot": panes.plotted}[pane]
    return drawn(guest, scene.seen, scene.history, inner)


def _dialog(dialog: Dialog, scene: Scene, host: HostFigures, canvas: Canvas) -> list[Line]:
    guests = () if scene.shown is None else scene.shown.guests
    guest = next((each for each in guests if each.id == dialog.guest), None)
    if dialog.guest is not None and guest is None:
        return [panes.rule(f"guest {dialog.guest} is gone", canvas), _line("Esc leaves this")]
    name = "" if guest is None else called(guest)
    lines = [panes.rule(QUESTIONS[dialog.kind].format(guest=name), canvas)]
    if dialog.kind == "columns":
        return [*lines, *_choices(dialog, canvas)]
    if dialog.kind in TYPED:
        cursor = "█" if canvas.unicode else "_"
        lines.append((Span(" > ", "mark"), Span(dialog.text, "bold"), Span(cursor, "dim")))
    if dialog.kind in CHANGES:
        lines += consequences(dialog, guest, host)
    elif dialog.said is not None:
        lines.append((Span(f" {safe(dialog.said)}", "bad"),))
    hint = "Enter does it   Esc leaves it" if dialog.kind in CHANGES else "Enter   Esc leaves it"
    return [*lines, (Span(f" {hint}", "dim"),)]


def _choices(dialog: Dialog, canvas: Canvas) -> list[Line]:
    room = max(3, canvas.height // 2)
    first = max(0, min(dialog.place - room // 2, len(COLUMNS) - room))
    lines: list[Line] = []
    for index, column in enumerate(COLUMNS[first : first + room], first):
        has = column.name in dialog.chosen
        place = f"{dialog.chosen.index(column.name) + 1:>2}" if has else "  "
        sign = ">" if index == dialog.place else " "
        text = f" {sign} [{'x' if has else ' '}] {place} {left(column.name, 9)} {column.meaning}"
        lines.append((Span(text, "chosen" if index == dialog.place else "plain"),))
    return [*lines, (Span(" Space chooses   Enter keeps them   Esc leaves it", "dim"),)]


def _foot(scene: Scene, view: View, place: tuple[int, int, int], canvas: Canvas) -> Line:
    first, count, of = place
    if view.message:
        return (Span(f" {safe(view.message)}", "bad" if view.is_error else "good"),)
    where = f"{first + 1}-{first + count}/{of} " if count < of else ""
    settings = view.settings
    states = [
        f"filter {settings.filter}" if settings.filter else "",
        "suffering only" if settings.suffering_only else "",
        "% of host" if settings.percent_of_host else "",
    ]
    chosen_words = "".join(f"[{safe(each)}] " for each in states if each)
    right = chosen_words + where
    keys = [each if canvas.unicode else each.replace("←→", "Left/Right") for each in _hints(scene)]
    room = canvas.width - cells(right) - 2
    text = ""
    for hint in keys:
        if cells(text) + len(hint) + 2 > room:
            break
        text += f"{'  ' if text else ''}{hint}"
    return (Span(f" {left(text, room)} ", "dim"), Span(right, "mark"))


def _hints(scene: Scene) -> tuple[str, ...]:
    if not scene.where.is_live:
        return ("←→ round", "[ ] minute", "t time", "End now", "Enter why", "h plot", "? help", "q")
    decides = scene.seen is not None and scene.seen.plan is not None
    all_writes = ("s set", "p pin", "H hold") if decides else ("s set",)
    writes = all_writes if scene.may_write else ()
    rest = ("/ filter", "←→ time", "<> sort", "c columns")
    return ("? help", "q", "Enter why", "h plot", *writes, *rest)


def _none(scene: Scene, view: View) -> str:
    if scene.shown is not None and scene.shown.guests:
        what = view.settings.filter or "suffering only"
        return f"none of {len(scene.shown.guests)} guests is as chosen: {safe(what)}"
    return "there are no guests"


def _nothing(scene: Scene, canvas: Canvas) -> list[Line]:
    why = scene.where.lost or "waiting for the first round"
    return [
        (Span(" qmpmem top", "bold"), Span(f"  {safe(scene.names.host)}   {safe(why)}")),
        *[()] * (canvas.height - 2),
        (Span(" q quits   t a time of the past   ? help", "dim"),),
    ]


def _help(scene: Scene, canvas: Canvas) -> list[Line]:
    lines: list[Line] = [(Span(" qmpmem top: keys", "bold"),), ()]
    for keys, meaning in HELP:
        if keys in WRITES and not scene.may_write:
            continue
        lines.append((Span(f"  {left(keys, 18)} ", "bold"), Span(meaning)))
    sign = signs(canvas)
    parts = ((sign.used, "used"), (sign.cache, "cache"), (sign.free, "free"))
    ends = ((sign.balloon, "balloon"), (sign.target, "told"))
    words = "  ".join(f"{char} {meaning}" for char, meaning in (*parts, *ends))
    lines += [(), _line(f"A bar is the guest's maximum: {words}"), _line("any key goes back")]
    return lines


def _too_small(canvas: Canvas) -> Frame:
    words = f"needs {LEAST[0]}x{LEAST[1]}, has {canvas.width}x{canvas.height}"
    return _filled([(Span("qmpmem top"),), (Span(words),)], canvas)


def _filled(lines: Sequence[Line], canvas: Canvas) -> Frame:
    shown = [fitted(each, canvas) for each in lines[: canvas.height]]
    return Frame(lines=(*shown, *[()] * (canvas.height - len(shown))))


def _line(text: str) -> Line:
    return (Span(f" {text}"),)
