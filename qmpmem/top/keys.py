"""What a key does: to what is shown, and beyond the screen. Pure.

Theory of operation:
    A key turns one `View` into the next, and may ask for something that takes time: a `Command`.
    Printable keys are themselves, others have the names that textual gives them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.model import bounds
from qmpmem.records import Record, replace
from qmpmem.top.change_dialog import TYPED, Dialog, Kind, Order, order_of
from qmpmem.top.columns import BY_NAME, COLUMNS
from qmpmem.top.figures import Figures
from qmpmem.top.filters import parse
from qmpmem.top.view_state import Pane, Scene, View, chosen, listed
from qmpmem.units import MIB, Bytes, exact_size

LONGEST: Final = 200
"""Most characters that are typed in a dialog."""


class Quit(Record, frozen=True):
    """End the program."""


class Step(Record, frozen=True):
    """Go so many rounds, or so many seconds, back or on."""

    rounds: int = 0
    seconds: float = 0.0


class Jump(Record, frozen=True):
    """Go to a time, as people write it."""

    text: str


class Live(Record, frozen=True):
    """Show what is now."""


class Pause(Record, frozen=True):
    """Stay at the round that is shown, or go on."""


class Check(Record, frozen=True):
    """Ask whether an order would be taken."""

    order: Order


class Do(Record, frozen=True):
    """Make a change."""

    order: Order


class Save(Record, frozen=True):
    """Keep the settings for the next time."""


Command = Quit | Step | Jump | Live | Pause | Check | Do | Save
After = tuple[View, Command | None]

PAST: Final = "this is the past: End goes back to now, where changes can be made"
READ_ONLY: Final = "only root and the group qmpmem-admin may change something"
NO_GUEST: Final = "no guest is chosen"


def press(view: View, key: str, scene: Scene) -> After:
    """Take a key.

    Args:
        view: what is seen.
        key: a printable character, or textual's name of the key.
        scene: what there is to be seen.
    """
    if key == "ctrl+c":
        return view, Quit()
    view = replace(view, message="", is_error=False)
    if view.helps:
        return replace(view, helps=False), Quit() if key == "q" else None
    if view.dialog is not None:
        return _in_dialog(view, view.dialog, key, scene)
    if key in _CHANGES:
        return _begin_change(view, _CHANGES[key], scene)
    if key in _MOVES:
        lines, pages = _MOVES[key]
        return _moved(view, lines + pages * scene.page, scene), None
    turn = _TURNS.get(key)
    return view if turn is None else turn(view), _COMMANDS.get(key)


def clicked(view: View, guest: str) -> View:
    """Choose a guest; a second time, ask why it has what it has."""
    if view.dialog is not None or view.helps:
        return view
    if view.chosen == guest:
        return _with_pane(view, "why")
    return replace(view, chosen=guest)


def _moved(view: View, by: int, scene: Scene) -> View:
    guests = listed(scene.shown, view.settings)
    if not guests:
        return view
    ids = [each.id for each in guests]
    here = ids.index(view.chosen) if view.chosen in ids else 0
    return replace(view, chosen=ids[max(0, min(len(ids) - 1, here + by))])


def _begin_change(view: View, kind: Kind, scene: Scene) -> After:
    if not scene.where.is_live:
        return _said(view, PAST), None
    if not scene.may_write:
        return _said(view, scene.where.lost or READ_ONLY), None
    guest = chosen(view, listed(scene.shown, view.settings))
    if kind in ("hold", "reserve"):
        held = scene.shown is not None and scene.shown.host.hold
        return _opened(view, Dialog(kind="release" if kind == "hold" and held else kind)), None
    if guest is None:
        return _said(view, NO_GUEST), None
    text = ""
    if kind == "pin" and guest.actual is not None and guest.maximum is not None:
        # What it has, where it may be kept at that; in whole MiB, which can be read and mended.
        least = max(guest.actual, bounds.floor(guest.maximum))
        text = exact_size(Bytes(min(guest.maximum, -(-least // MIB) * MIB)))
    if kind == "unpin" and guest.pin is None:
        return _said(view, f"guest {guest.id} is not pinned"), None
    opened = _opened(view, Dialog(kind=kind, guest=guest.id, text=text))
    return opened, _check(opened.dialog, guest)


def _in_dialog(view: View, dialog: Dialog, key: str, scene: Scene) -> After:
    if key == "escape":
        return replace(view, dialog=None), None
    if dialog.kind == "columns":
        return _in_columns(view, dialog, key)
    guest = _guest(dialog, scene)
    if key == "enter":
        return _entered(view, dialog, guest)
    if dialog.kind not in TYPED:
        return view, None
    text = _edited(dialog.text, key)
    if text == dialog.text:
        return view, None
    typed = replace(dialog, text=text, said=None, is_refused=False)
    return replace(view, dialog=typed), _check(typed, guest)


def _entered(view: View, dialog: Dialog, guest: Figures | None) -> After:
    closed = replace(view, dialog=None)
    try:
        match dialog.kind:
            case "filter":
                found = parse(dialog.text)
                settings = replace(view.settings, filter=found.text)
                return replace(closed, settings=settings, chosen=None), None
            case "time":
                return closed, Jump(text=dialog.text) if dialog.text.strip() else Live()
            case _:
                return closed, Do(order=order_of(dialog, guest))
    except ConfigError as error:
        hint = "" if error.hint is None else f"; {error.hint}"
        refused = replace(dialog, said=f"{error.message}{hint}", is_refused=True)
        return replace(view, dialog=refused), None


def _in_columns(view: View, dialog: Dialog, key: str) -> After:
    name = COLUMNS[dialog.place].name
    match key:
        case "up" | "k":
            return _replaced(view, dialog, place=max(0, dialog.place - 1)), None
        case "down" | "j":
            return _replaced(view, dialog, place=min(len(COLUMNS) - 1, dialog.place + 1)), None
        case " " | "space":
            has = name in dialog.chosen
            rest = tuple(each for each in dialog.chosen if each != name)
            return _replaced(view, dialog, chosen=rest if has else (*rest, name)), None
        case "enter":
            settings = replace(view.settings, columns=dialog.chosen)
            return replace(view, dialog=None, settings=settings), Save()
        case _:
            return view, None


def _replaced(
    view: View, dialog: Dialog, *, place: int | None = None, chosen: tuple[str, ...] | None = None
) -> View:
    changed = replace(
        dialog,
        place=dialog.place if place is None else place,
        chosen=dialog.chosen if chosen is None else chosen,
    )
    return replace(view, dialog=changed)


def _check(dialog: Dialog | None, guest: Figures | None) -> Check | None:
    """Ask the agent about a size as soon as it is one."""
    if dialog is None or dialog.kind not in ("set", "pin") or not dialog.text:
        return None
    try:
        return Check(order=order_of(dialog, guest))
    except ConfigError:
        return None


def checked(view: View, order: Order, said: str, *, is_refused: bool) -> View:
    """Note what the agent answers to a change, where that is still the one that is asked about."""
    dialog = view.dialog
    if dialog is None or dialog.kind != order.kind or dialog.guest != order.guest:
        return view
    return replace(view, dialog=replace(dialog, said=said, is_refused=is_refused))


def _guest(dialog: Dialog, scene: Scene) -> Figures | None:
    guests: Sequence[Figures] = () if scene.shown is None else scene.shown.guests
    return next((each for each in guests if each.id == dialog.guest), None)


def _edited(text: str, key: str) -> str:
    if key == "backspace":
        return text[:-1]
    if key == "ctrl+u":
        return ""
    if key == "ctrl+w":
        return text.rstrip().rpartition(" ")[0]
    if key == "space":
        key = " "
    return text + key if len(key) == 1 and key.isprintable() and len(text) < LONGEST else text


def _opened(view: View, dialog: Dialog) -> View:
    return replace(view, dialog=dialog)


def _said(view: View, text: str) -> View:
    return replace(view, message=text, is_error=True)


def _with_pane(view: View, pane: Pane) -> View:
    return replace(view, settings=replace(view.settings, pane=pane))


def _next_pane(view: View) -> View:
    following: dict[Pane, Pane] = {"none": "why", "why": "all", "all": "none", "plot": "why"}
    return _with_pane(view, following[view.settings.pane])


def _plot(view: View) -> View:
    return _with_pane(view, "none" if view.settings.pane == "plot" else "plot")


def _sort(by: int) -> Callable[[View], View]:
    def turned(view: View) -> View:
        names = ("suffering", "id", *(each for each in view.settings.columns if each in BY_NAME))
        now = view.settings.sort if view.settings.sort in names else names[0]
        following = names[(names.index(now) + by) % len(names)]
        return replace(view, settings=replace(view.settings, sort=following))

    return turned


def _ask(kind: Kind) -> Callable[[View], View]:
    def opened(view: View) -> View:
        if kind == "columns":
            return _opened(view, Dialog(kind=kind, chosen=view.settings.columns))
        text = view.settings.filter if kind == "filter" else ""
        return _opened(view, Dialog(kind=kind, text=text))

    return opened


END: Final = 1 << 30
"""A number of guests that is farther than any list."""
_MOVES: Final[Mapping[str, tuple[int, int]]] = {
    "up": (-1, 0),
    "k": (-1, 0),
    "down": (1, 0),
    "j": (1, 0),
    "pageup": (0, -1),
    "pagedown": (0, 1),
    "home": (-END, 0),
    "g": (-END, 0),
    "G": (END, 0),
}
"""How many guests, and pages of guests, each key goes down."""
_COMMANDS: Final[Mapping[str, Command]] = {
    "q": Quit(),
    "left": Step(rounds=-1),
    "right": Step(rounds=1),
    "[": Step(seconds=-60.0),
    "]": Step(seconds=60.0),
    "{": Step(seconds=-3600.0),
    "}": Step(seconds=3600.0),
    "end": Live(),
    "space": Pause(),
    " ": Pause(),
    "W": Save(),
}
_CHANGES: Final[Mapping[str, Kind]] = {
    "s": "set",
    "p": "pin",
    "u": "unpin",
    "H": "hold",
    "r": "reserve",
}
_TURNS: Final[Mapping[str, Callable[[View], View]]] = {
    "enter": _next_pane,
    "escape": lambda view: _with_pane(view, "none"),
    "h": _plot,
    "<": _sort(-1),
    ">": _sort(1),
    "I": lambda view: replace(
        view, settings=replace(view.settings, inverted=not view.settings.inverted)
    ),
    "%": lambda view: replace(
        view, settings=replace(view.settings, percent_of_host=not view.settings.percent_of_host)
    ),
    "!": lambda view: replace(
        view, settings=replace(view.settings, suffering_only=not view.settings.suffering_only)
    ),
    "/": _ask("filter"),
    "t": _ask("time"),
    "c": _ask("columns"),
    "?": lambda view: replace(view, helps=True),
}

HELP: Final = (
    ("Up Down PgUp PgDn", "another guest; g the first, G the last"),
    ("Enter", "why it has what it has: short, in full, not at all"),
    ("h", "its last ten minutes as a plot"),
    ("s  p  u", "set its size, keep it at a size, let it go again"),
    ("H  r", "hold (take nothing), make room for a guest to come"),
    ("Left Right", "a round back and on; [ ] a minute, { } an hour"),
    ("t  End  Space", "show a time, show now, stay here and go on"),
    ("< >  I", "sort by another column, turn the order round"),
    ("/  !", "filter; only guests that suffer or disobey"),
    ("%  c  W", "percent of the host, choose columns, keep the settings"),
    ("q", "quit"),
)
WRITES: Final = frozenset({"s  p  u", "H  r"})
"""Keys of that list that a user who may only read does not see."""
