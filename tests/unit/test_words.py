"""Docstrings begin with what a function does, in folders where all of them do."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CLEAN: Final = (
    "launchers",
    "qmpmem/guests/access.py",
    "qmpmem/broker",
    "qmpmem/api",
    "qmpmem/files/directories.py",
    "qmpmem/doctor",
    "qmpmem/proxy",
    "qmpmem/guests/rundir.py",
    "qmpmem/files/state_files.py",
    "qmpmem/files/sockets.py",
)
"""Folders and modules without such openings. This list only grows."""
BANNED: Final = ("Say ", "Likewise", "Who ", "Whoever", "Of the ")
"""A function returns, finds or yields, and says nothing. A text that begins with another sentence's
end, or with a person, cannot be read alone."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each text that stands alone: docstrings, and what is written below a constant."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


@pytest.mark.parametrize("clean", CLEAN)
def test_no_text_begins_with_a_banned_word(clean: str) -> None:
    files = [ROOT / clean] if clean.endswith(".py") else sorted((ROOT / clean).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in files
        for line, text in texts(path)
        if text.startswith(BANNED)
    ]
    assert found == []
