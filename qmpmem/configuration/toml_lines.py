"""Which line of a TOML text says what. Pure.

Theory of operation:
    Python's tomllib gives values without lines, and so does tomlkit. So the text is read twice:
    tomllib says what it means, and this scanner, which knows only where strings, brackets and keys
    begin and end, says where. `lines` takes what tomllib took; `statements` takes any text.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Final

from qmpmem.records import Record

Address = tuple[str | int, ...]
"""The way to a value: keys, and indices into arrays."""

_TOKEN: Final = re.compile(
    r'''
    [ \t]*+(?:\#[^\n]*+)?+
    (?:
      (?P<newline>\n)
    | (?P<text>"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)|\'\'\'.*?(?:\'{3,5}|\Z)
              |"(?:\\[^\n]|[^"\\\n])*"?|'[^'\n]*'?)
    | (?P<bare>[^ \t\n\#"'\[\]{},=.]+)
    | (?P<mark>.)
    | (?P<nothing>\Z)
    )
    ''',
    re.VERBOSE | re.DOTALL,
)
"""A closing ``\"\"\"`` may have two more quotes before it, which are text (TOML 1.0, String). One
that is not closed reaches to the end of what may hold it, so that no text takes squared time."""


_TURNS: Final = {"[": 1, "{": 1, "]": -1, "}": -1}
"""How many more brackets are open after a mark."""


class Token(Record, frozen=True):
    """A piece of the text, without the blanks and the comment before it."""

    kind: str
    text: str
    line: int


class Statement(Record, frozen=True):
    """A header, or a key with its value."""

    first: int
    """Its first line, counted from 1."""
    last: int
    keys: tuple[str, ...]
    """Its keys, as written between the dots; of a broken one, as far as they go."""
    header: str = ""
    """``[`` or ``[[`` of a header."""
    is_open: bool = False
    """A bracket was never closed, so that it seems to reach to the end of the text."""
    depth: int = 0
    """How many brackets stand in each other, or dots in a row between keys."""


def lines(text: str) -> dict[Address, int]:
    """Say on which line each value of a valid text starts, and each table.

    A table that is spread over several places starts at the first.
    """
    return _Scanner(text).scan()


def statements(text: str) -> list[Statement]:
    """Take any text, valid or not, apart into statements."""
    found: list[Statement] = []
    tokens: list[Token] = []
    depth = 0
    for token in _tokens(text):
        if token.kind == "newline":
            if depth <= 0 or _is_header(tokens):
                found += _statement(tokens)
                tokens, depth = [], 0
            continue
        tokens.append(token)
        if token.kind == "mark":
            depth += _TURNS.get(token.text, 0)
    return found + _statement(tokens)


def _depth(marks: list[str]) -> int:
    """Return how many brackets are open at once, or how many dots join keys in a row."""
    deepest = depth = dots = 0
    for mark in marks:
        depth += _TURNS.get(mark, 0)
        dots = dots + 1 if mark == "." else 0
        deepest = max(deepest, depth, dots)
    return deepest


def _tokens(text: str) -> Iterator[Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "nothing"
        if kind == "nothing":  # at the end of the text
            return
        said = match[kind]
        yield Token(kind=kind, text=said, line=line)
        if kind in ("newline", "text"):
            line += said.count("\n")


def _is_header(tokens: list[Token]) -> bool:
    return bool(tokens) and tokens[0].text == "["


def _statement(tokens: list[Token]) -> list[Statement]:
    if not tokens:
        return []
    header = ""
    if _is_header(tokens):
        header = "[[" if [token.text for token in tokens[:2]] == ["[", "["] else "["
    marks = [token.text for token in tokens if token.kind == "mark"]
    return [
        Statement(
            first=tokens[0].line,
            last=tokens[-1].line + tokens[-1].text.count("\n"),
            keys=tuple(_dotted(tokens[len(header) :])),
            header=header,
            is_open=sum(_TURNS.get(mark, 0) for mark in marks) > 0,
            depth=_depth(marks),
        )
    ]


def _dotted(tokens: list[Token]) -> Iterator[str]:
    """Give the keys at the start of a statement: names with dots between them."""
    is_name = True
    for token in tokens:
        if (token.kind == "mark") == is_name or (not is_name and token.text != "."):
            return
        if is_name:
            yield _key(token)
        is_name = not is_name


def _key(token: Token) -> str:
    """Say which key a token is: a quoted one may hold escapes."""
    if token.kind != "text":
        return token.text
    try:
        return str(tomllib.loads(f"key = {token.text}")["key"])
    except ValueError:
        return token.text


class _Scanner:
    """A valid text, and how far it was read."""

    def __init__(self, text: str) -> None:
        self._tokens = [*_tokens(text), Token(kind="end", text="", line=0)]
        self._at = 0
        self._lines: dict[Address, int] = {}
        self._last: dict[Address, int] = {}
        """The last index of each array of tables."""

    def scan(self) -> dict[Address, int]:
        table: Address = ()
        while self._next.kind != "end":
            if self._next.kind == "newline":
                self._at += 1
            elif self._next.text == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _header(self) -> Address:
        line = self._take().line
        is_array = self._next.text == "["
        if is_array:
            self._take()
        keys = self._keys("]")
        if is_array:
            self._take()
        path: Address = ()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            self._lines.setdefault(path, line)
            if is_array and number == len(keys):
                self._last[path] = self._last.get(path, -1) + 1
            if path in self._last:
                path = (*path, self._last[path])
                self._lines.setdefault(path, line)
        return path

    def _keys(self, end: str) -> list[str]:
        keys: list[str] = []
        while (token := self._take()).text != end or token.kind != "mark":
            if token.kind != "mark":
                keys.append(_key(token))
        return keys

    def _pair(self, table: Address) -> None:
        line = self._next.line
        path = table
        for key in self._keys("="):
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._value(path)

    def _value(self, path: Address) -> None:
        if self._next.text == "[":
            self._array(path)
        elif self._next.text == "{":
            self._inline(path)
        else:
            while self._next.kind not in ("newline", "end") and self._next.text not in ",]}":
                self._at += 1

    def _array(self, path: Address) -> None:
        self._take()
        index = 0
        while (token := self._next).text != "]":
            if token.text in ("\n", ","):
                self._at += 1
                continue
            self._lines[*path, index] = token.line
            self._value((*path, index))
            index += 1
        self._take()

    def _inline(self, path: Address) -> None:
        self._take()
        while (token := self._next).text != "}":
            if token.text in ("\n", ","):
                self._at += 1
            else:
                self._pair(path)
        self._take()
