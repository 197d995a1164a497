"""A file's values and their lines: whatever tomllib takes, the scanner says where each stands."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.configuration import Source, judge
from qmpmem.configuration.toml_document import DEEPEST, Address, find_lines, parse

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


def leaves(value: object, address: Address = ()) -> Iterator[tuple[Address, object]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*address, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from leaves(each, (*address, index))
    else:
        yield address, value


def addresses(value: object, address: Address = ()) -> Iterator[Address]:
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
    lines = find_lines(text)
    assert set(lines) == {each for each in addresses(values) if len(each) <= DEEPEST}
    for address, value in leaves(values):
        if address in lines:
            assert lines[address] == int(float(str(value).split()[0])), (address, text)


@given(st.text(st.sampled_from("ab=.[]{}\"'\\\n# ,1\r\t\0é"), max_size=60))
def test_whatever_is_written_is_read_or_refused_with_a_line(text: str) -> None:
    found = parse("f", text)
    try:
        values = tomllib.loads(text)
    except ValueError:
        assert found.mistake is not None
        assert not found.values
        assert found.mistake.place.line is not None
        assert 1 <= found.mistake.place.line <= text.count("\n") + 1
        assert str(found.mistake).isprintable()
    else:
        assert found.mistake is None
        assert found.values == values


@given(st.text(max_size=80))
def test_no_text_gets_further_than_a_mistake(text: str) -> None:
    judgement = judge([Source(file="f", text=text)])
    assert (judgement.config is None) == bool(judgement.mistakes)


@given(texts(), st.sampled_from(["x y = 1", "broken =", "z = [1,,2]", 'q = "a', "w = 1 2"]))
def test_what_is_broken_is_named_on_its_line(text: str, bad: str) -> None:
    found = parse("f", f"{bad}\n{text}")
    assert found.mistake is not None
    assert found.mistake.place.line == 1


LARGEST: Final = 1_000_000
TEXTS: Final[Mapping[str, Callable[[int], str]]] = {
    "keys": lambda size: "\n".join(f"k{number} = 1" for number in range(size // 11)),
    "tables": lambda size: "[[guest]]\nmatch = 'a'\n" * (size // 22),
    "values": lambda size: "x = [" + "1," * (size // 2) + "]",
    "inline tables": lambda size: "guest = [" + "{match = 'a'}," * (size // 14) + "]",
    "long text": lambda size: 'x = """' + '\\"""\n' * (size // 5) + '"""',
    "comments": lambda size: "# x\n" * (size // 4),
    "blanks": lambda size: " " * size,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", TEXTS)
def test_the_largest_file_is_read_in_a_moment(name: str) -> None:
    """The agent reads it between two rounds: a scanner of squared time would take hours."""
    found = parse("f", TEXTS[name](LARGEST))
    assert found.mistake is None
    assert len(found.lines) > 0 or not found.values
