"""Docstrings begin with what a function does, and name the actor of each sentence."""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
INSTALLED: Final = ("qmpmem", "launchers")
"""Trees whose texts and messages are held to these rules."""

Reader = Callable[[Path], Iterator[tuple[int, str]]]
"""Yields a module's texts of one kind, each with its line."""

BEGINS: Final = r'(?:\A|"""|# )'
"""Where a text begins: alone, and in the source of its module."""
BANNED: Final = re.compile(rf"{BEGINS}(?:Say|Give|Likewise|As above|Who|Whoever|Of the|Of its)\b")
"""A function returns, finds or yields, and says nothing. A text that begins with another sentence's
end, or with a person, cannot be read alone."""
PERSONS: Final = re.compile(r"\b(nobody|somebody|whoever|anybody|everybody)\b", re.IGNORECASE)
"""A sentence names its actor: a guest, a process, the administrator."""
PERSONS_OF_TESTS: Final = re.compile(
    rf"{PERSONS.pattern}|\b(nobodys|somebodys|everyone)\b|(?:{BEGINS}|\btest )whom? ",
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
            yield node.lineno, _words(node.name)


def found(
    trees: Sequence[str], rule: re.Pattern[str], *readers: Reader, quotes: bool = False
) -> list[str]:
    """Return where texts break a rule, as path, line and what is found there.

    Args:
        trees: folders of the checkout.
        rule: what no text has.
        readers: which texts.
        quotes: whether the rule is for what stands in backticks, too.
    """
    return [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for tree in trees
        for path in sorted((ROOT / tree).rglob("*.py"))
        # To parse all modules takes ten times as long as to look whether that is of use.
        if rule.search(_words(path.read_text()))
        for reader in readers
        for line, text in reader(path)
        if (match := rule.search(text if quotes else QUOTED.sub("", text)))
    ]


def _words(name: str) -> str:
    """Return a name, or a whole module, with the words of each name apart."""
    return re.sub(r"_+|(?<=[a-z])(?=[A-Z])", " ", name).strip()


def test_no_text_begins_with_a_banned_word() -> None:
    assert found(INSTALLED, BANNED, texts, comments, quotes=True) == []


def test_no_text_leaves_its_actor_unnamed() -> None:
    assert found(INSTALLED, PERSONS, messages, comments) == []


def test_no_test_leaves_its_actor_unnamed() -> None:
    assert found(("tests",), PERSONS_OF_TESTS, names, texts, comments) == []
