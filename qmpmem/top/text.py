"""Lines of styled text, and how sizes fit into few columns. Pure.

Rules of this file:
    Nothing is told by colour alone: each style goes with a word or a sign of its own.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from qmpmem.model.escapes import printable
from qmpmem.records import Record
from qmpmem.units import GIB, KIB, MIB, TIB, Bytes
from qmpmem.view import table
from qmpmem.view.rows import UNKNOWN

Style = Literal[
    "plain",
    "bold",
    "dim",
    "good",
    "warn",
    "bad",
    "cache",
    "free",
    "mark",
    "head",
    "chosen",
    "past",
]


class Span(NamedTuple):
    """Some text in one style."""

    text: str
    style: Style = "plain"


Line = tuple[Span, ...]

cells = lru_cache(maxsize=8192)(table.cells)
"""Counts the columns of a text. Bars and signs are counted again and again, and are not ASCII."""

SGR: Final[dict[Style, str]] = {
    "plain": "",
    "bold": "1",
    "dim": "2",
    "good": "32",
    "warn": "33",
    "bad": "1;31",
    "cache": "34",
    "free": "36",
    "mark": "1;35",
    "head": "1;4",
    "chosen": "7",
    "past": "1;7",
}
"""How a terminal shows each style (ECMA-48, 8.3.117). Of the 16 colours, so that the terminal's own
theme decides what they look like."""

PLAIN: Final = frozenset({"1", "2", "4", "7"})
"""The parts of that which are no colour."""


class Canvas(Record, frozen=True):
    """What a terminal can show."""

    width: int
    height: int
    unicode: bool = True
    """Whether it has block elements and braille."""

    @property
    def more(self) -> str:
        """Return the sign that stands for the rest of a text that is cut."""
        return "…" if self.unicode else "~"


SIGNS: Final = str.maketrans(
    {"→": ">", "↑": "^", "↓": "v", "…": "~", "·": ".", "─": "-", "×": "x", "≤": "<", "←": "<"}  # noqa: RUF001 - what they look like is the point
)
"""Our own signs, where a terminal lacks them."""


def plain(line: Line) -> str:
    """Return a line without its styles, and without the blanks at its end."""
    return "".join(span.text for span in line).rstrip()


def encoded(line: Line, *, colour: bool) -> str:
    """Write a line for a terminal.

    Args:
        line: the line.
        colour: whether colours are wanted; bold, dim and reverse are written in any case.
    """
    return "".join(_encoded(span, colour=colour) for span in line)


def _encoded(span: Span, *, colour: bool) -> str:
    codes = SGR[span.style].split(";") if SGR[span.style] else []
    kept = [code for code in codes if colour or code in PLAIN]
    return f"\x1b[{';'.join(kept)}m{span.text}\x1b[0m" if kept else span.text


def joined(cells: Iterable[Span]) -> list[Span]:
    """Return spans in which neighbours of one style are one."""
    found: list[Span] = []
    for text, style in cells:
        if found and found[-1].style == style:
            found[-1] = Span(found[-1].text + text, style)
        else:
            found.append(Span(text, style))
    return found


def cut(text: str, width: int, more: str = "…") -> str:
    """Cut a text that takes more columns; what is cut ends with `more`."""
    if cells(text) <= width:
        return text
    kept = ""
    for char in text:
        if cells(kept + char) > width - len(more):
            break
        kept += char
    return (kept + more)[: max(0, width)]


def left(text: str, width: int, more: str = "…") -> str:
    """Fill or cut a text to exactly so many columns, at its end."""
    text = cut(text, width, more)
    return text + " " * (width - cells(text))


def right(text: str, width: int, more: str = "…") -> str:
    """Fill a text at its begin, or cut it at its end, to exactly so many columns."""
    text = cut(text, width, more)
    return " " * (width - cells(text)) + text


def fitted(line: Iterable[Span], canvas: Canvas) -> Line:
    """Cut a line to the width of a canvas, and write it in signs that the canvas has."""
    kept: list[Span] = []
    room = canvas.width
    for text, style in line:
        written = text if canvas.unicode else text.translate(SIGNS)
        # What a guest's owner chose was escaped where it came in; this is for the rest.
        if not canvas.unicode and not written.isascii():
            written = written.encode("ascii", "replace").decode()
        if cells(written) > room:
            written = cut(written, room, canvas.more)
        if written:
            kept.append(Span(written, style))
        room -= cells(written)
    return tuple(kept)


def safe(text: str) -> str:
    """Escape what a terminal might obey."""
    return printable(text)


def brief(size: Bytes | None) -> str:
    """Write a size in five columns at most: ``512M``, ``1.4G``, ``12G``; a dash where unknown."""
    if size is None:
        return UNKNOWN
    if size < 0:
        return f"-{brief(Bytes(-size))}"
    for letter, unit in (("T", TIB), ("G", GIB), ("M", MIB), ("K", KIB)):
        if size >= unit:
            value = size / unit
            digits = f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:.0f}"  # noqa: PLR2004 - two digits tell enough
            return f"{digits}{letter}"
    return f"{size}B" if size else "0"


def percent(part: float | None, whole: float | None) -> str:
    """Write a part in percent; a dash where that is not known."""
    return UNKNOWN if part is None or not whole else f"{100 * part / whole:.0f}%"


def age(seconds: float | None) -> str:
    """Write how long ago something was in four columns: ``3s``, ``12m``, ``5h``, ``9d``."""
    if seconds is None:
        return UNKNOWN
    for letter, unit in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * unit:
            return f"{min(seconds / unit, 999):.0f}{letter}"
    return f"{max(0.0, seconds):.0f}s"
