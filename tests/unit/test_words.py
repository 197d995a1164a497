"""Docstrings begin with what a function does, and name the actor of each sentence."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CLEAN: Final = tuple(
    str(path.relative_to(ROOT))
    for tree in ("qmpmem", "launchers")
    for path in sorted((ROOT / tree).rglob("*.py"))
)
"""Modules without such openings: all that are installed."""
TESTS: Final = tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("*.py")))
"""Modules whose names, docstrings and comments name their actors. Other strings are data."""
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
PERSONS: Final = re.compile(r"\b(nobody|somebody|whoever|anybody|everybody)\b", re.IGNORECASE)
"""A sentence names its actor: a guest, a process, the administrator."""
PERSONS_OF_TESTS: Final = re.compile(
    rf"{PERSONS.pattern}|\b(nobodys|somebodys|everyone)\b|^(test )?whom? ",
    re.IGNORECASE,
)
"""Names of tests are sentences as well: `test_who_asks` and `somebodys` name no actor."""
QUOTED: Final = re.compile(r"`+[^`]*`+")
"""Values and names of code, which are no words of a sentence."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each text that stands alone: docstrings, and what is written below a constant."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield all other text, which a user may read; the name of a user is none."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Constant(value=str(text)) if text != "nobody":
                yield node.lineno, text


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment, without its hash."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#! ")


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the name of each function and class, as words."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, re.sub(r"_+|(?<=[a-z])(?=[A-Z])", " ", node.name).strip()


@pytest.mark.parametrize("clean", CLEAN)
def test_no_text_begins_with_a_banned_word(clean: str) -> None:
    found = [
        f"{clean}:{line}: {text.splitlines()[0]}"
        for line, text in (*texts(ROOT / clean), *comments(ROOT / clean))
        if text.startswith(BANNED)
    ]
    assert found == []


@pytest.mark.parametrize("clean", CLEAN)
def test_no_text_leaves_its_actor_unnamed(clean: str) -> None:
    found = [
        f"{clean}:{line}: {match[0]}"
        for line, text in (*messages(ROOT / clean), *comments(ROOT / clean))
        if (match := PERSONS.search(QUOTED.sub("", text)))
    ]
    assert found == []


@pytest.mark.parametrize("path", TESTS)
def test_no_test_leaves_its_actor_unnamed(path: str) -> None:
    found = [
        f"{path}:{line}: {match[0]}"
        for line, text in (
            *names(ROOT / path),
            *texts(ROOT / path),
            *comments(ROOT / path),
        )
        if (match := PERSONS_OF_TESTS.search(QUOTED.sub("", text)))
    ]
    assert found == []
