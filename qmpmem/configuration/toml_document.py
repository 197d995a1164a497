"""A file's text as values with lines; what is no TOML is passed over and named. Pure.

Theory of operation:
    tomllib gives up at the first mistake. The statement that holds it is then blanked, and the rest
    read again, so that somebody who made three mistakes hears of three.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Final

from qmpmem.configuration import toml_lines
from qmpmem.configuration.errors import Mistake, Place, shortened
from qmpmem.records import Record

MOST: Final = 20
"""Mistakes of writing that are looked for in one file."""
PATIENCE: Final = 1 << 19
"""Characters read again, at most, in search of them: to read a million takes about a second."""
DEEPEST: Final = 32
"""Brackets in brackets, or keys in a row: tomllib goes down by recursion, and takes time and memory
by the square of a row's length."""

_PLACE: Final = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|(?P<end>end of document))\)$")

_PAIR: Final = re.compile(r"\s*(?:\[|[\w.\"'-]+\s*=)")


class Document(Record, frozen=True):
    """What a file says."""

    file: str
    values: Mapping[str, object] = {}
    lines: Mapping[toml_lines.Address, int] = {}
    mistakes: tuple[Mistake, ...] = ()
    """Where it is not TOML. What stood there is missing from the values."""

    def place(self, *address: str | int) -> Place:
        """Say where a value stands."""
        return Place(file=self.file, line=self.lines.get(address))


class SyntaxFlaw(Record, frozen=True):
    """What stands in the way of reading a text."""

    line: int
    key: str | None
    problem: str
    first: int
    last: int
    """The lines to leave out so that the rest can be read."""


def parse(file: str, text: str) -> Document:
    """Read the text of a file."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    mistakes: list[Mistake] = []
    for _ in range(min(MOST, 1 + PATIENCE // (len(text) + 1))):
        found = _read(text)
        if not isinstance(found, SyntaxFlaw):
            values, lines = found
            return Document(file=file, values=values, lines=lines, mistakes=tuple(mistakes))
        place = Place(file=file, line=found.line)
        mistakes.append(Mistake(place=place, key=found.key, problem=found.problem))
        text = _blank(text, found)
    return Document(file=file, mistakes=tuple(mistakes))


def _read(text: str) -> tuple[dict[str, object], dict[toml_lines.Address, int]] | SyntaxFlaw:
    statements = toml_lines.statements(text)
    first = next((each for each in statements if each.depth > DEEPEST), None)
    if first is not None:
        return SyntaxFlaw(
            line=first.first,
            key=None,
            problem="nested too deep",
            first=first.first,
            last=first.last,
        )
    try:
        return tomllib.loads(text), toml_lines.lines(text)
    except ValueError as error:
        return _flaw(text, statements, error)


def _flaw(text: str, statements: list[toml_lines.Statement], error: ValueError) -> SyntaxFlaw:
    """Say in which statement tomllib failed, and why."""
    where = _PLACE.search(str(error))
    line = int(where["line"]) if where is not None and where["line"] else None
    problem = _worded(str(error), where)
    number = _tried(text, statements, error) if line is None else _index(statements, line)
    if number is None:  # a comment may hold no control characters
        line = line or 1
        return SyntaxFlaw(line=line, key=None, problem=problem, first=line, last=line)
    found = statements[number]
    if found.is_open and line is None:
        problem = "a bracket is not closed"
    before = _first(statements, number)
    if before is not None and problem.startswith("cannot"):
        problem = f"given twice, first on line {before}"
    is_whole = problem.startswith(("cannot", "given", "unclosed", "unterminated"))
    return SyntaxFlaw(
        line=found.first if line is None or is_whole else line,
        key=shortened(".".join(found.keys)) or None,
        problem=problem,
        first=found.first,
        last=_last(text, statements, number, line),
    )


def _worded(message: str, where: re.Match[str] | None) -> str:
    """Say in our words what tomllib says unclearly."""
    if where is None:
        return "a number of too many digits" if "digit" in message else message
    problem = message[: where.start()]
    if problem == "Illegal character '\\n'":
        return "a string is not closed"
    return problem[:1].lower() + problem[1:]


def _tried(text: str, statements: list[toml_lines.Statement], error: ValueError) -> int | None:
    """Say which statement fails by itself, where tomllib names no line; else the last."""
    rows = text.split("\n")
    for number, each in enumerate(statements):
        try:
            tomllib.loads("\n".join(rows[each.first - 1 : each.last]))
        except ValueError as again:
            if str(again) == str(error):
                return number
    return len(statements) - 1 if statements else None


def _index(statements: list[toml_lines.Statement], line: int) -> int | None:
    for number, each in enumerate(statements):
        if each.first <= line <= each.last:
            return number
    return None


def _first(statements: list[toml_lines.Statement], number: int) -> int | None:
    """Say on which line the same was given before."""
    found = statements[number]
    for each in reversed(statements[:number]):
        if each.keys == found.keys and bool(each.header) == bool(found.header):
            return each.first
        if each.header and not found.header:
            return None  # another table's keys
    return None


def _last(text: str, statements: list[toml_lines.Statement], number: int, line: int | None) -> int:
    """Say how far the damage goes: what follows a broken header is nobody's."""
    found = statements[number]
    if found.header:
        following = (each.first - 1 for each in statements[number + 1 :] if each.header)
        return next(following, statements[-1].last)
    if not found.is_open or line is None:
        return found.last
    # An open bracket seems to swallow all that follows. What looks like a statement is one.
    is_another = _PAIR.match(text.split("\n")[line - 1]) is not None
    return max(found.first, line - is_another)


def _blank(text: str, flaw: SyntaxFlaw) -> str:
    rows = text.split("\n")
    rows[flaw.first - 1 : flaw.last] = [""] * (flaw.last - flaw.first + 1)
    return "\n".join(rows)
