"""Tables on terminals of any width: nothing that is typed is cut, numbers keep their units."""

from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.view import rows, table

HEADERS: Final = ("ID", "STATE", "MAXIMUM", "ACTUAL", "BALLOON", "RSS", "NOTE")
PLAIN: Final = [
    ("web1", "running", "512 MiB", "256 MiB", "256 MiB", "488.6 MiB", ""),
    ("g-8247fa5984c4", "prelaunch", "512 MiB", "512 MiB", "0 B", "88.6 MiB", ""),
]
NOTED: Final = [
    PLAIN[0],
    ("db1", "in-use", "-", "-", "-", "88.6 MiB", "held by process 4110 (qmpmem)"),
]
FOUND: Final = [
    ("4711", "build host 7", "adoptable", "qmpmem adopt build-host-7 /var/run/build/host7.qmp"),
]

GOLDEN: Final = Path(__file__).with_name("golden") / "tables.txt"


def shown(width: int) -> str:
    """All tables of this file at a width, one below the other."""
    found = ("PID", "NAME", "CLASS", "WHAT TO DO")
    parts = [
        table.fitted(headers, lines, width)
        for headers, lines in ((HEADERS, PLAIN), (HEADERS, NOTED), (found, FOUND), (HEADERS, []))
    ]
    return "\n\n".join("\n".join(part) for part in parts)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_table_looks_like_this(width: int) -> None:
    """To write the file again: print what `shown` gives for each width."""
    parts = GOLDEN.read_text().split("=" * 10 + " ")
    [expected] = [part for part in parts if part.startswith(f"{width}\n")]
    assert shown(width) == expected.removeprefix(f"{width}\n").strip("\n")


WORD: Final = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FA1D), min_size=1, max_size=20
)
SIZE: Final = st.sampled_from(["512 MiB", "1.5 GiB", "0 B", "-", "999.9 KiB"])
NOTE: Final = st.lists(st.sampled_from(["held", "by", "process", "300 MiB", "5 %", "90 s"]))


@given(st.lists(st.tuples(WORD, SIZE, NOTE.map(" ".join), SIZE)), st.integers(20, 200))
def test_nothing_is_lost_or_cut_at_any_width(
    lines: list[tuple[str, str, str, str]], width: int
) -> None:
    text = "\n".join(table.fitted(("ID", "ACTUAL", "NOTE", "RSS"), lines, width))
    for name, actual, note, rss in lines:
        assert name in text
        assert all(size in text for size in (actual, rss) if size != "-")
        assert all(word in text for word in note.split())
    for number in ("300", "512", "1.5", "999.9", "0"):
        assert f" {number}\n" not in text


@given(st.lists(st.tuples(st.just("web1"), SIZE, SIZE), min_size=1), st.integers(40, 120))
def test_no_line_is_longer_than_the_terminal(lines: list[tuple[str, str, str]], width: int) -> None:
    drawn = table.fitted(("ID", "ACTUAL", "RSS"), lines, width)
    assert all(table.cells(line) <= width for line in drawn)


def test_wide_characters_line_up() -> None:
    header, *lines = table.columns(("ID", "NAME", "RSS"), [("a", "東京", "1 B"), ("b", "é", "2 B")])
    assert header == "ID  NAME  RSS"
    assert [table.cells(line.rpartition("  ")[0]) for line in lines] == [8, 8]


def test_an_empty_column_goes_only_where_a_terminal_shows_it() -> None:
    assert "NOTE" not in table.fitted(HEADERS, PLAIN, 120)[0]
    assert next(table.columns(HEADERS, PLAIN)).endswith("NOTE")


@pytest.mark.parametrize(
    ("line", "width", "expected"),
    [
        ("entitled:  300 MiB of 512 MiB", 40, ["entitled:  300 MiB of 512 MiB"]),
        ("entitled:  300 MiB of 512 MiB", 20, ["entitled:  300 MiB", "  of 512 MiB"]),
        ("to do:  `qmpmem launcher install`", 20, ["to do:  `qmpmem launcher install`"]),
        ("socket:  /run/a b/qmp.sock", 12, ["socket:  /run/a b/qmp.sock"]),
    ],
)
def test_what_is_copied_is_left_to_the_terminal(line: str, width: int, expected: list[str]) -> None:
    assert list(rows.prose(line, width)) == expected
