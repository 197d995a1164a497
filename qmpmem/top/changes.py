"""Which columns of a line have to be drawn anew. Pure.

Theory of operation:
    Of a line that changed mostly a figure or two did. What is the same is not sent: over ssh that
    is most of a screen of guests whose sizes move. Two changes with few columns between them are
    sent as one, since the terminal has to be told where the second one is.
"""

from typing import Final

from qmpmem.top.text import Line, Style, cells

GAP: Final = 10
"""Columns that are the same, and are sent all the same: moving the cursor takes as many bytes."""

Cell = tuple[str, Style]
"""What one column shows. The second column of a wide character shows nothing of its own."""


def changed(before: Line, after: Line, width: int) -> list[tuple[int, int]]:
    """Return the columns that differ: for each stretch the first one, and the one after the last.

    Args:
        before: the line as the terminal shows it.
        after: the line as it is to be.
        width: columns of the terminal; what is beyond is not drawn.
    """
    old, new = _cells(before, width), _cells(after, width)
    found: list[tuple[int, int]] = []
    for at in (at for at in range(width) if old[at] != new[at]):
        begin, end = at, at + 1
        while begin and not (old[begin][0] and new[begin][0]):
            begin -= 1  # half of a wide character cannot be drawn
        while end < width and not (old[end][0] and new[end][0]):
            end += 1
        if found and begin - found[-1][1] <= GAP:
            begin = found.pop()[0]
        found.append((begin, end))
    return found


def _cells(line: Line, width: int) -> list[Cell]:
    """Return what each column of a terminal shows of a line."""
    found: list[Cell] = []
    for text, style in line:
        if text.isascii():
            found.extend((char, style) for char in text)
            continue
        for char in text:
            columns = cells(char)
            if columns:
                found.append((char, style))
                found.extend(("", style) for _ in range(columns - 1))
            elif found:  # it goes with the character before it
                found[-1] = (found[-1][0] + char, found[-1][1])
    found.extend((" ", "plain") for _ in range(width - len(found)))
    return found[:width]
