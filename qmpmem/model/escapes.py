"""Text of any origin, made fit to be shown: names, paths, what a guest or a file says.

Rules of this file:
    Pure. All that this package shows to people is escaped by `printable`. JSON has escapes of its
    own (`qmpmem.cli.output`).
"""

from typing import Final

LONGEST: Final = 40
"""Characters of a file's text that a message repeats."""


def printable(text: str) -> str:
    """Escape what a terminal might obey or a reader could not see."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return the first characters of a text, escaped, and ``…`` where there are more."""
    return printable(text[:longest]) + ("…" if len(text) > longest else "")
