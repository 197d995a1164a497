"""A change before it is made: what was typed, and its consequences. Pure."""

from collections.abc import Iterator
from typing import Final, Literal

from qmpmem.errors import ConfigError
from qmpmem.model import bounds
from qmpmem.records import Record
from qmpmem.top.figures import Figures, HostFigures, called
from qmpmem.top.text import Line, Span, brief, safe
from qmpmem.units import Bytes, parse_change, parse_size, resolve

Kind = Literal["set", "pin", "unpin", "hold", "release", "reserve", "filter", "time", "columns"]

CHANGES: Final = frozenset({"set", "pin", "unpin", "hold", "release", "reserve"})
"""Kinds of dialogs that change something; the others are about the screen."""
TYPED: Final = frozenset({"set", "pin", "reserve", "filter", "time"})
"""Kinds of dialogs in which something is typed."""

QUESTIONS: Final[dict[Kind, str]] = {
    "set": "size of {guest} (512M, 1.5G, 50%, +128M):",
    "pin": "keep {guest} at (512M, 1.5G, 50%, +128M):",
    "unpin": "let the agent move {guest} again",
    "hold": "take nothing from any guest from now on",
    "release": "end the hold",
    "reserve": "make room for a guest that is about to start (2G):",
    "filter": "show (db, state:distress, class:db, >4G, used<512M, press>90):",
    "time": "show the time (14:03, 10m, 2026-01-31T14:03):",
    "columns": "columns, in the order in which they are chosen",
}
KEPT: Final = 60.0
"""Seconds that room is kept after it is there; as `qmpmem agent reserve`."""


class Dialog(Record, frozen=True):
    """What is being asked."""

    kind: Kind
    guest: str | None = None
    """The id of the guest that it is about."""
    text: str = ""
    place: int = 0
    """The entry of a list."""
    chosen: tuple[str, ...] = ()
    """The columns that are chosen in the list of columns, in their order."""
    said: str | None = None
    """What the agent answers to it, asked before (dry run)."""
    is_refused: bool = False
    """Whether the agent, or the input itself, forbids it."""


class Order(Record, frozen=True):
    """A change that was asked for."""

    kind: Kind
    guest: str | None = None
    size: Bytes | None = None


def order_of(dialog: Dialog, guest: Figures | None) -> Order:
    """Return the change that a dialog asks for.

    Raises:
        ConfigError: there is none: its size is not a size, or the guest cannot have it.
    """
    match dialog.kind:
        case "set" | "pin":
            return Order(kind=dialog.kind, guest=dialog.guest, size=_target(dialog, guest))
        case "reserve":
            return Order(kind="reserve", size=parse_size(dialog.text))
        case _:
            return Order(kind=dialog.kind, guest=dialog.guest)


def consequences(dialog: Dialog, guest: Figures | None, host: HostFigures) -> list[Line]:
    """Return the consequences of a change, in one line each."""
    try:
        order = order_of(dialog, guest)
    except ConfigError as error:
        mistake: list[Line] = [(Span(f" {safe(error.message)}", "warn"),)]
        return [*_begin(dialog, guest), *(mistake if dialog.text else ())]
    lines = _begin(dialog, guest)
    match order.kind:
        case "set" | "pin":
            lines += _moves(order, guest, host)
        case "unpin":
            lines.append(_line("the agent moves it again, as its policy decides"))
        case "hold":
            lines.append(_line(f"the host is {host.state or 'not judged'}; guests may still take"))
        case "release":
            lines.append(_line("guests give again what the host needs"))
        case "reserve":
            lines += _room(order, host)
        case _:
            pass
    if dialog.said is not None:
        lines.append((Span(f" {safe(dialog.said)}", "bad" if dialog.is_refused else "good"),))
    return lines


def _target(dialog: Dialog, guest: Figures | None) -> Bytes:
    if guest is None or guest.maximum is None or guest.actual is None:
        raise ConfigError(f"guest {dialog.guest}: its size is not known")
    change = parse_change(dialog.text)
    target = resolve(change, actual=guest.actual, maximum=guest.maximum)
    bounds.check_target(target, guest=guest.id, maximum=guest.maximum)
    return target


def _begin(dialog: Dialog, guest: Figures | None) -> list[Line]:
    if guest is None or dialog.kind not in ("set", "pin", "unpin"):
        return []
    floor = None if guest.maximum is None else bounds.floor(guest.maximum)
    least = max((each for each in (floor, guest.minimum) if each is not None), default=None)
    pinned = "" if guest.pin is None else f", pinned to {brief(guest.pin)}"
    return [
        _line(
            f"{called(guest)} has {brief(guest.actual)} of {brief(guest.maximum)}, "
            f"uses {brief(guest.used)}, floor {brief(least)}{pinned}"
        )
    ]


def _moves(order: Order, guest: Figures | None, host: HostFigures) -> Iterator[Line]:
    if guest is None or order.size is None or guest.actual is None:
        return
    gain = guest.actual - order.size
    after = None if host.available is None else Bytes(max(0, host.available + gain))
    ratio = "" if after is None or not host.reserve else f", {after / host.reserve:.2f} x reserve"
    then = "" if after is None else f"; it would have {brief(after)} available{ratio}"
    if gain > 0:
        yield _line(f"the host gains {brief(Bytes(gain))} at most{then}")
    elif gain < 0:
        yield _line(f"the host gives {brief(Bytes(-gain))}{then}")
    else:
        yield _line("it has that already")
    if guest.used is None:
        yield (Span(" what it uses is not known", "warn"),)
    elif order.size < guest.used:
        short = brief(Bytes(guest.used - order.size))
        yield (Span(f" it uses {short} more than that: it would have to swap", "bad"),)
    if guest.minimum is not None and order.size < guest.minimum:
        yield (Span(f" its rule leaves it {brief(guest.minimum)} at least", "bad"),)


def _room(order: Order, host: HostFigures) -> Iterator[Line]:
    size = order.size or Bytes(0)
    yield _line(f"{brief(size)} is kept for {KEPT:.0f} s, or until a guest takes it")
    if host.spare is not None:
        missing = size - max(0, host.spare)
        words = f"guests have to give {brief(Bytes(missing))}" if missing > 0 else "it is there now"
        yield _line(f"spare is {brief(host.spare)}: {words}")


def _line(text: str) -> Line:
    return (Span(f" {safe(text)}"),)
