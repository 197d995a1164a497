"""Lines of values: whatever tomllib takes, the scanner says where each value stands."""

import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.configuration import Source, judge, toml_document, toml_lines
from tests.rig import chance

KEYS = st.sampled_from(
    ["a", "b-c", "D_1", "1", '"x.y"', "'q = #'", '"\\u0041"', '"[z]"', "true", '""', "'\"'", "1e5"]
)
BLANKS = st.sampled_from(["", "", " ", "\t", "\n", "\n\n", "# [not] = {a header\n", '  # """ \'\n'])
SPACES = st.sampled_from(["", " ", "  ", "\t"])


class Text:
    """A text as it is written, which knows on what line it is."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.text = ""
        self.draw = draw

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def space(self) -> None:
        self.text += self.draw(SPACES)

    def blank(self) -> None:
        self.text += self.draw(BLANKS)

    def scalar(self) -> None:
        """Every scalar holds the number of the line that it starts on."""
        line = self.line
        self.text += self.draw(
            st.sampled_from(
                [
                    f"{line}",
                    f"+{line}",
                    f"{line}.0",
                    f"'{line}'",
                    f'"{line}"',
                    f'"{line} \\" ] # \\\\"',
                    f"'{line} \" }} \\'",
                    f'"""{line}\n[x]\ny = 1\n"""',
                    f'"""{line} \\\n   ""x"" \\""""',
                    f'"""{line} """""',
                    f"'''{line}\n[[y]]\n'''",
                    f"'''{line} '''''",
                ]
            )
        )

    def keys(self, key: str) -> None:
        """A key, sometimes with a dotted tail."""
        self.text += key
        for _ in range(self.draw(st.integers(0, 2))):
            self.space()
            self.text += "."
            self.space()
            self.text += self.draw(KEYS)
        self.space()

    def value(self, depth: int, *, inline: bool = False) -> None:
        kind = self.draw(st.sampled_from(["scalar", "scalar", "array", "table"])) if depth else ""
        if kind == "array":
            self.array(depth, inline=inline)
        elif kind == "table":
            self.inline(depth)
        else:
            self.scalar()

    def array(self, depth: int, *, inline: bool) -> None:
        blank = self.space if inline else self.blank
        self.text += "["
        for _ in range(self.draw(st.integers(0, 3))):
            blank()
            self.value(depth - 1, inline=inline)
            blank()
            self.text += ","
        blank()
        self.text += "]"

    def inline(self, depth: int) -> None:
        self.text += "{"
        keys = self.draw(st.lists(KEYS, unique_by=scan_key, max_size=3))
        for number, key in enumerate(keys):
            self.text += "," if number else ""
            self.space()
            self.keys(key)
            self.text += "="
            self.space()
            self.value(depth - 1, inline=True)
        self.text += "}"

    def pairs(self) -> None:
        for key in self.draw(st.lists(KEYS, unique_by=scan_key, max_size=3)):
            self.blank()
            self.space()
            self.keys(key)
            self.text += "="
            self.space()
            self.value(2)
            self.space()
            self.text += "# done = [\n" if self.draw(st.booleans()) else "\n"


def scan_key(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 1")))


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Texts that are mostly valid; tables may meet."""
    made = Text(draw)
    made.pairs()
    for number in range(draw(st.integers(0, 4))):
        made.blank()
        is_array = draw(st.booleans())
        made.text += "[[" if is_array else "["
        made.space()
        made.keys(draw(st.sampled_from(["t", "u", f"v{number}"])))
        made.text += "]]\n" if is_array else "]\n"
        made.pairs()
    return made.text


def leaves(
    value: object, address: toml_lines.Address = ()
) -> Iterator[tuple[toml_lines.Address, object]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*address, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from leaves(each, (*address, index))
    else:
        yield address, value


def addresses(value: object, address: toml_lines.Address = ()) -> Iterator[toml_lines.Address]:
    if address:
        yield address
    if isinstance(value, dict):
        for key, each in value.items():
            yield from addresses(each, (*address, key))
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from addresses(each, (*address, index))


@given(texts())
def test_each_value_is_where_it_says(text: str) -> None:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # two tables met
    lines = toml_lines.lines(text)
    assert set(lines) == set(addresses(values))
    for address, value in leaves(values):
        assert lines[address] == int(float(str(value).split()[0])), (address, text)


@given(texts())
def test_statements_follow_each_other(text: str) -> None:
    line = 0
    for statement in toml_lines.statements(text):
        assert line < statement.first <= statement.last
        line = statement.last


@given(st.text(st.sampled_from("ab=.[]{}\"'\\\n# ,1\r\t\0é"), max_size=60))
def test_whatever_is_written_is_read_or_refused_with_a_line(text: str) -> None:
    found = toml_document.parse("f", text)
    try:
        values = tomllib.loads(text)
    except ValueError:
        assert found.mistakes
    else:
        assert not found.mistakes
        assert found.values == values
    for mistake in found.mistakes:
        assert mistake.place.line is not None
        assert 1 <= mistake.place.line <= text.count("\n") + 1
        assert str(mistake).isprintable()


@given(st.text(max_size=80))
def test_no_text_gets_further_than_a_mistake(text: str) -> None:
    judgement = judge([Source(file="f", text=text)])
    assert (judgement.config is None) == bool(judgement.mistakes)


@given(texts(), st.data())
def test_one_damaged_statement_costs_no_other(text: str, data: st.DataObject) -> None:
    """What stands in whole statements elsewhere is still read, on its own line."""
    try:
        whole = dict(leaves(tomllib.loads("zero = 1\n" + text)))
    except tomllib.TOMLDecodeError:
        return
    bad = data.draw(st.sampled_from(["x y = 1", "broken =", "z = [1,,2]", "q = 'a", "w = 1 2"]))
    found = toml_document.parse("f", f"{bad}\n" + text)
    assert [mistake.place.line for mistake in found.mistakes] == [1]
    assert dict(leaves(found.values)).items() <= whole.items()
    assert len(dict(leaves(found.values))) == len(whole) - 1


LARGEST: Final = 1_000_000
SMALL: Final = 8_000
TIMES: Final = 8
TEXTS: Final[Mapping[str, Callable[[int], str]]] = {
    "one key": lambda size: "a = 1\n" * (size // 6),
    "tables": lambda size: "[[guest]]\nmatch = 'a'\n" * (size // 22),
    "dots": lambda size: "a." * (size // 2) + "b = 1",
    "values": lambda size: "x = [" + "1," * (size // 2) + "]",
    "quotes": lambda size: '"' * size,
    "apostrophes": lambda size: "'" * size,
    "open text": lambda size: '"""' + '\\"' * (size // 2),
    "open texts": lambda size: '"""\n' + '\\"""\n' * (size // 5),
    "escapes": lambda size: '"\\' * (size // 2),
    "brackets": lambda size: "[" * size,
    "braces": lambda size: "a = " + "{a=" * (size // 3),
    "returns": lambda size: "\r" * size,
    "no values": lambda size: "\n".join(f"k{number} =" for number in range(size // 11)),
    "blanks": lambda size: " " * size,
    "blank lines": lambda size: " \n" * (size // 2),
    "hashes": lambda size: "# " * (size // 2),
    "comments": lambda size: "#\n" * (size // 2),
}


def seconds(text: str, attempts: int) -> float:
    """Measure the least processor time that it takes to read a text."""

    def measured() -> float:
        began = time.thread_time()
        toml_document._read(text)  # once; small texts are read again after each mistake
        return time.thread_time() - began

    return min(measured() for _ in range(attempts))


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_takes_squared_time(name: str) -> None:
    """Much of the work is done by regular expressions, of which only the time can be counted.

    In a text of eight times the size, what is squared takes 64 times the time.
    """
    small = max(seconds(TEXTS[name](SMALL), 3), 1e-4)
    attempts = (seconds(TEXTS[name](SMALL * TIMES), 1) for _ in range(5))
    assert any(each < small * TIMES * 3 for each in attempts)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", chance.some(list(TEXTS)))
def test_no_text_of_the_largest_size_takes_squared_time(name: str) -> None:
    assert toml_document.parse("f", TEXTS[name](LARGEST)).file == "f"
