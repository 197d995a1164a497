"""A TOML file as values, with the line on which each stands. Pure.

Theory of operation:
    Python's tomllib gives values without lines, and so does tomlkit. So the text is read twice:
    tomllib says what it means, or what is wrong with it, and a scanner says where each value is.
    The scanner reads only what tomllib took, so it knows no more than where strings, brackets and
    keys begin and end.

Rules of this file:
    A text that is not TOML gives one mistake and no values.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Final, TypeGuard

from qmpmem.configuration.errors import Mistake, Place
from qmpmem.model.escapes import shortened
from qmpmem.records import Record

Address = tuple[str | int, ...]
"""The way to a value: keys, and indices into arrays."""

DEEPEST: Final = 3
"""Parts of an address that has a line: ``guest``, its number, and a key. No file that we read has
a key further down."""

_LONGEST: Final = 200
"""Characters of what tomllib says: it repeats keys, whatever their length."""

_TOKEN: Final = re.compile(
    r'''
      \#[^\n]*
    | \n
    | """(?:\\.|[^\\])*?"{3,5}  # up to two of the quotes at its end are text (TOML 1.0, String)
    | \'\'\'.*?'{3,5}
    | "(?:\\.|[^"\\])*"
    | '[^']*'
    | [\[\]{},=.]
    | [^\s\#"'\[\]{},=.]+
    ''',
    re.VERBOSE | re.DOTALL,
)
_CLOSING: Final = {"[": "]", "{": "}"}
_ENDS: Final = ("\n", ",", "]", "}", "")
"""What follows a value; the last one: the end of the text."""


class Document(Record, frozen=True):
    """What a file says."""

    file: str
    values: Mapping[str, object] = {}
    lines: Mapping[Address, int] = {}
    mistake: Mistake | None = None
    """Why it is not TOML; then there are no values."""

    def place(self, *address: str | int) -> Place:
        """Return where a value stands."""
        return Place(file=self.file, line=self.lines.get(address))


def parse(file: str, text: str) -> Document:
    """Read the text of a file."""
    text = text.removeprefix("\ufeff")
    try:
        return Document(file=file, values=tomllib.loads(text), lines=find_lines(text))
    except (ValueError, RecursionError) as error:
        is_deep = isinstance(error, RecursionError)
        said = "nested too deep" if is_deep else shortened(str(error), _LONGEST)
        place = Place(file=file, line=_failed_line(text, error))
        return Document(
            file=file,
            mistake=Mistake(place=place, key=None, problem=f"not TOML, none of it is used: {said}"),
        )


def is_table(value: object) -> TypeGuard[dict[str, object]]:
    """Whether a value is a table."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Whether a value is a list, of anything."""
    return isinstance(value, list)


def find_lines(text: str) -> dict[Address, int]:
    """Find the line on which each value of a valid text starts, and each table.

    A table that is spread over several places starts at the first.
    """
    return _Scanner(text).scan()


def _failed_line(text: str, error: Exception) -> int | None:
    """Find the line on which tomllib gave up; None: a number or a nesting, of which it says none.

    Python before 3.14 says it in the message alone.
    """
    if not isinstance(error, tomllib.TOMLDecodeError):
        return None
    found = re.search(r"\(at line (\d+), column \d+\)$", str(error))
    return int(found[1]) if found else text.rstrip().count("\n") + 1  # at the end of the text


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yield the pieces of a text, each with its line; at the end, an empty one."""
    line = 1
    for match in _TOKEN.finditer(text):
        token = match[0]
        if not token.startswith("#"):
            yield token, line
            line += token.count("\n")
    yield "", line


def _key(token: str) -> str:
    """Return the key that a token stands for: a quoted one may hold escapes."""
    return next(iter(tomllib.loads(f"{token} = 0"))) if token[0] in "\"'" else token


class _Scanner:
    """A valid text, and how far it was read."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._lines: dict[Address, int] = {}
        self._last: dict[Address, int] = {}
        """The last index of each array of tables."""
        self._next()

    def scan(self) -> dict[Address, int]:
        table: Address = ()
        while self._piece:
            if self._piece == "\n":
                self._next()
            elif self._piece == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _next(self) -> None:
        self._piece, self._line = next(self._tokens)

    def _note(self, address: Address, line: int) -> Address:
        """Keep the line of an address; return the address, or as much of it as has a line."""
        if len(address) <= DEEPEST:
            self._lines.setdefault(address, line)
        return address[:DEEPEST]

    def _header(self) -> Address:
        line = self._line
        self._next()
        is_array = self._piece == "["
        *above, last = self._keys("]")
        if is_array:
            self._next()
        path: Address = ()
        for key in above:
            path = self._inside(self._note((*path, key), line), line)
        path = self._note((*path, last), line)
        if is_array:
            self._last[path] = self._last.get(path, -1) + 1
        return self._inside(path, line)

    def _inside(self, path: Address, line: int) -> Address:
        """Of an array of tables, go into its last table."""
        return self._note((*path, self._last[path]), line) if path in self._last else path

    def _keys(self, end: str) -> list[str]:
        keys: list[str] = []
        while self._piece != end:
            if self._piece not in (".", "["):
                keys.append(_key(self._piece))
            self._next()
        self._next()
        return keys

    def _pair(self, table: Address) -> None:
        line = self._line
        path = table
        for key in self._keys("="):
            path = self._note((*path, key), line)
        self._value(path)

    def _value(self, path: Address) -> None:
        closing = _CLOSING.get(self._piece)
        if closing is None or len(path) == DEEPEST:
            self._skip()
            return
        self._next()
        index = 0
        while self._piece != closing:
            if self._piece in _ENDS:
                self._next()
            elif closing == "}":
                self._pair(path)
            else:
                self._value(self._note((*path, index), self._line))
                index += 1
        self._next()

    def _skip(self) -> None:
        depth = 0
        while depth or self._piece not in _ENDS:
            depth += (self._piece in _CLOSING) - (self._piece in _CLOSING.values())
            self._next()
