"""Tables that fit a terminal of any width. Pure: rows go in, lines come out.

Theory of operation:
    Where a table is too wide, empty columns are left out first. Then the longest text is wrapped
    between words, beside the other columns or below its row. Where that is not enough, each row
    becomes a paragraph: its first cell, and below that every other cell with its header. What may
    have to be typed (ids, names, commands) is never cut and never wrapped; a number stays with its
    unit.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

GAP: Final = "  "
INDENT: Final = "  "
NARROWEST: Final = 20
"""Least columns of a wrapped text that is still easy to read."""

TEXTS: Final = frozenset({"NOTE", "REASON", "MEANING", "MERGEABLE", "PROBLEM", "SAID"})
"""Headers of columns that hold sentences, which may be wrapped."""
COMMANDS: Final = frozenset({"WHAT TO DO", "COMMAND"})
"""Headers of columns that hold what a user copies, which may not be wrapped."""

_KEPT: Final = r"(?<=\d) (?=(?:[KMGT]iB|B|m?s|min|h|d|%)\b|%)"
_SPACE: Final = "\x00"
"""The character that stands for a space at which no line ends."""


def cells(text: str) -> int:
    """Count the columns that a text takes on a terminal (Unicode TR 11)."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - few names need it

    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align rows under their headers, as text that awk can read."""
    table = [headers, *rows]
    widths = _widths(table)
    for row in table:
        yield _line(row, widths)


def fitted(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Align rows under their headers within so many columns of a terminal.

    The first line holds the headers, except where each row is a paragraph.
    """
    shown = _with_content(headers, rows, {"", "-"} if _needs(headers, rows) > width else {""})
    headers = [headers[index] for index in shown]
    rows = _pick(rows, shown)
    while not rows and len(headers) > 1 and _needs(headers, rows) > width:
        headers = headers[:-1]
    left = width - _needs(headers, rows)
    if left >= 0 or not rows:
        return list(columns(headers, rows))
    text = _longest_text(headers, rows)
    if text is not None:
        room = _widths([headers, *rows])[text] + left
        if room >= max(NARROWEST, cells(headers[text])):
            return list(_wrapped(headers, rows, text, room))
        others = [index for index in range(len(headers)) if index != text]
        if _needs([headers[index] for index in others], _pick(rows, others)) <= width:
            return list(_below(headers, rows, text, width))
    return list(_paragraphs(headers, rows, width))


def wrap(text: str, width: int, *, after: str = "") -> list[str]:
    """Break a text between words. A number stays with its unit, and no word is cut.

    Args:
        text: one line.
        width: columns of a line.
        after: what all lines but the first begin with.
    """
    import textwrap  # noqa: PLC0415 - takes as long to load as a short list to show

    kept = re.sub(_KEPT, _SPACE, text)
    lines = textwrap.wrap(
        kept,
        max(1, width),
        subsequent_indent=after,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_SPACE, " ") for line in lines] or [""]


def _needs(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    widths = _widths([headers, *rows])
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(cells(cell) for cell in column) for column in zip(*table, strict=True)]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True))
    return GAP.join(padded).rstrip()


def _with_content(
    headers: Sequence[str], rows: Sequence[Sequence[str]], nothing: set[str]
) -> list[int]:
    """Return the columns that have content in some row, and the first one."""
    return [
        index
        for index in range(len(headers))
        if index == 0 or any(row[index] not in nothing for row in rows) or not rows
    ]


def _longest_text(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
    widths = _widths([headers, *rows])
    texts = [index for index, header in enumerate(headers) if header in TEXTS]
    return max(texts, key=lambda index: widths[index], default=None)


def _wrapped(
    headers: Sequence[str], rows: Sequence[Sequence[str]], text: int, room: int
) -> Iterator[str]:
    """Wrap one column; the cells beside its further lines are empty."""
    lines: list[Sequence[str]] = [headers]
    for row in rows:
        for number, part in enumerate(wrap(row[text], room)):
            others = row if number == 0 else [""] * len(row)
            lines.append([*others[:text], part, *others[text + 1 :]])
    return columns(lines[0], lines[1:])


def _below(
    headers: Sequence[str], rows: Sequence[Sequence[str]], text: int, width: int
) -> Iterator[str]:
    """Put one column's cells below their rows."""
    others = [index for index in range(len(headers)) if index != text]
    first, *lines = columns([headers[index] for index in others], _pick(rows, others))
    yield first
    for line, row in zip(lines, rows, strict=True):
        yield line
        if row[text]:
            item = f"{INDENT}{headers[text]} {row[text]}"
            yield from wrap(item, width, after=2 * INDENT)


def _pick(rows: Sequence[Sequence[str]], indexes: Sequence[int]) -> list[list[str]]:
    return [[row[index] for index in indexes] for row in rows]


def _paragraphs(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    for row in rows:
        yield row[0]
        line = ""
        for header, cell in list(zip(headers, row, strict=True))[1:]:
            item = f"{header} {cell}"
            if not cell:
                continue
            if header in TEXTS or header in COMMANDS:
                yield from [INDENT + line] if line else []
                line = ""
                text = INDENT + item
                after = 2 * INDENT
                yield from [text] if header in COMMANDS else wrap(text, width, after=after)
            elif line and cells(INDENT + line + GAP + item) > width:
                yield INDENT + line
                line = item
            else:
                line = f"{line}{GAP}{item}" if line else item
        if line:
            yield INDENT + line
