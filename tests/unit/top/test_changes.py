"""Which columns of a line are drawn anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.top.changes import _cells, changed
from qmpmem.top.text import Line, Span

styles = st.sampled_from(["plain", "bold", "chosen"])
texts = st.text(alphabet="ab 0界ü█é\u0301", max_size=12)
lines = st.lists(st.builds(Span, texts, styles), max_size=5).map(tuple)


@given(lines, lines, st.integers(0, 40))
def test_what_is_sent_makes_the_new_line_of_the_old_one(
    before: Line, after: Line, width: int
) -> None:
    old, new = _cells(before, width), _cells(after, width)
    shown, last = list(old), 0
    for begin, end in changed(before, after, width):
        assert last <= begin < end <= width
        assert new[begin][0], "it begins with a whole character"
        assert old[begin][0]
        shown[begin:end], last = new[begin:end], end
    assert shown == new


@given(lines, st.integers(0, 40))
def test_nothing_is_sent_of_a_line_that_is_the_same(line: Line, width: int) -> None:
    assert changed(line, line, width) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("db1   3.2G        52%", [(6, 7)]),
        ("db1   1.2G        53%", [(19, 20)]),
        ("db1   1.2G        52%  more", [(23, 27)]),
        ("db2   1.3G        52%", [(2, 9)]),
        ("dc1   1.2G        53%", [(1, 2), (19, 20)]),
    ],
)
def test_a_figure_that_changed_is_sent_alone(after: str, expected: list[tuple[int, int]]) -> None:
    before = (Span("db1   1.2G        52%"),)
    assert changed(before, (Span(after),), 80) == expected


def test_a_style_is_a_change() -> None:
    assert changed((Span("abc"),), (Span("a"), Span("b", "bold"), Span("c")), 3) == [(1, 2)]
