"""What the user chose to see, and what can be seen. Pure."""

from collections.abc import Sequence
from typing import Literal

from qmpmem.errors import ConfigError
from qmpmem.feed.records import Round
from qmpmem.records import Record
from qmpmem.top.change_dialog import Dialog
from qmpmem.top.columns import SUFFERING, USUAL, ordered
from qmpmem.top.figures import Figures, Shown
from qmpmem.top.filters import Filter, parse
from qmpmem.top.header import Names, Where
from qmpmem.top.history import History

Pane = Literal["none", "why", "all", "plot"]


class Settings(Record, frozen=True, omit_defaults=True):
    """What is kept for the next time; the keys of ``top.toml``."""

    sort: str = SUFFERING
    inverted: bool = False
    filter: str = ""
    suffering_only: bool = False
    percent_of_host: bool = False
    columns: tuple[str, ...] = USUAL
    pane: Pane = "none"


class View(Record, frozen=True):
    """What the user chose to see."""

    settings: Settings = Settings()
    chosen: str | None = None
    """The id of the guest to which keys apply."""
    first: int = 0
    """The first guest that has room on the screen."""
    dialog: Dialog | None = None
    helps: bool = False
    message: str = ""
    """A message that is shown until the next key."""
    is_error: bool = False


class Scene(Record, frozen=True):
    """What can be seen."""

    history: History
    where: Where
    names: Names = Names()
    seen: Round | None = None
    """The round; None: none has come yet."""
    shown: Shown | None = None
    may_write: bool = False
    """Whether this user may change something."""
    page: int = 10
    """Number of guests for which there is room."""


def listed(shown: Shown | None, settings: Settings) -> list[Figures]:
    """Return the guests that are shown, in their order."""
    if shown is None:
        return []
    found = accepted(settings.filter)
    guests: Sequence[Figures] = [
        each
        for each in shown.guests
        if found.takes(each) and (each.suffers or not settings.suffering_only)
    ]
    return ordered(guests, settings.sort, inverted=settings.inverted)


def accepted(text: str) -> Filter:
    """Read a filter; one with a mistake in it takes all guests."""
    try:
        return parse(text)
    except ConfigError:
        return Filter()


def chosen(view: View, guests: Sequence[Figures]) -> Figures | None:
    """Return the guest to which keys apply: the chosen one, else the first."""
    found = next((each for each in guests if each.id == view.chosen), None)
    return found or (guests[0] if guests and view.chosen is None else None)
