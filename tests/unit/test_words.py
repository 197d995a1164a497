"""Docstrings begin with what a function does, in folders where all of them do."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CLEAN: Final = (
    "launchers",
    "qmpmem/policy",
    "qmpmem/wire",
    "qmpmem/guests",
    "qmpmem/journal",
    "qmpmem/ksm",
    "qmpmem/model",
    "qmpmem/errors.py",
    "qmpmem/records.py",
    "qmpmem/units.py",
    "qmpmem/broker",
    "qmpmem/api",
    "qmpmem/files/directories.py",
    "qmpmem/doctor",
    "qmpmem/proxy",
    "qmpmem/files/state_files.py",
    "qmpmem/files/sockets.py",
)
"""Folders and modules without such openings. This list only grows."""
BANNED: Final = (
    "Say ",
    "Give ",
    "Likewise",
    "As above",
    "Who ",
    "Whoever",
    "Of the ",
    "Of its",
)
"""A function returns, finds or yields, and says nothing. A text that begins with another sentence's
end, or with a person, cannot be read alone."""
PERSONS: Final = re.compile(r"\b(nobody|somebody|whoever)\b", re.IGNORECASE)
"""A sentence names its actor: a guest, a process, the administrator."""
QUOTED: Final = re.compile(r"`+[^`]*`+")
"""Values and names of code, which are no words of a sentence."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each text that stands alone: docstrings, and what is written below a constant."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment, without its hash."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#! ")


def files(clean: str) -> list[Path]:
    """Return the modules of an entry of CLEAN, of which there is at least one."""
    found = [ROOT / clean] if clean.endswith(".py") else sorted((ROOT / clean).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("clean", CLEAN)
def test_no_text_begins_with_a_banned_word(clean: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in files(clean)
        for line, text in (*texts(path), *comments(path))
        if text.startswith(BANNED)
    ]
    assert found == []


@pytest.mark.parametrize("clean", CLEAN)
def test_no_text_leaves_its_actor_unnamed(clean: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for path in files(clean)
        for line, text in (*texts(path), *comments(path))
        if (match := PERSONS.search(QUOTED.sub("", text)))
    ]
    assert found == []
