"""The parts of `qmpmem top`: bars, figures, filters, columns, plots, what programs get."""

import csv
import io
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import ConfigError
from qmpmem.model.ksm import KsmState
from qmpmem.records import replace
from qmpmem.top import export
from qmpmem.top.bar import guest_bar, host_bar
from qmpmem.top.columns import COLUMNS, ORDERS, USUAL, arranged, ordered
from qmpmem.top.figures import Figures, HostFigures, parts, shown
from qmpmem.top.filters import parse
from qmpmem.top.history import LENGTH, History
from qmpmem.top.plot import plot, sparkline
from qmpmem.top.text import SGR, Canvas, Span, age, brief, cut, encoded, fitted, left, plain, right
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.view.table import cells
from tests.rig.readings import changed
from tests.rig.screens import WALL, guest, round_at, scene

WIDE: Final = Canvas(width=80, height=24)
POOR: Final = Canvas(width=80, height=24, unicode=False)
HALF: Final = HostFigures(total=Bytes(16 * GIB), available=Bytes(8 * GIB))
OPTIONAL: Final = st.one_of(st.none(), st.integers(0, 1 << 40).map(Bytes))


def figures(**more: object) -> Figures:
    fields: dict[str, object] = {
        "id": "g",
        "name": None,
        "state": "running",
        "verdict": "normal",
        "reason": "",
        "maximum": Bytes(8 * GIB),
        "actual": Bytes(4 * GIB),
        "used": Bytes(2 * GIB),
        "cache": Bytes(GIB),
        "free": Bytes(GIB),
        "balloon": Bytes(4 * GIB),
    }
    return Figures(**(fields | more))  # type: ignore[arg-type]


def bar(width: int = 18, whole: Bytes | None = None, canvas: Canvas = POOR, **more: object) -> str:
    return plain(guest_bar(figures(**more), width, whole, canvas))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "[####==--........]"),
        ({"target": Bytes(6 * GIB)}, "[####==--...|....]"),
        ({"target": Bytes(0)}, "[|###==--........]"),
        ({"target": Bytes(9 * GIB)}, "[####==--.......|]"),
        ({"used": None, "cache": None, "free": None}, "[????????........]"),
        ({"cache": None, "free": None}, "[####----........]"),
        ({"actual": None}, "[                ]"),
        ({"maximum": None}, "[                ]"),
        (
            {"used": None, "cache": None, "free": None, "is_waiting": True},
            "[waiting?........]",
        ),
        (
            {"balloon": Bytes(0), "actual": Bytes(8 * GIB), "free": Bytes(5 * GIB)},
            "[####==----------]",
        ),
    ],
)
def test_a_bar_has_four_meanings(changes: dict[str, object], expected: str) -> None:
    assert bar(**changes) == expected  # type: ignore[arg-type]


def test_a_bar_of_the_host_is_blank_beyond_the_guest() -> None:
    assert bar(whole=Bytes(16 * GIB)) == "[##=-....        ]"


def test_a_bar_in_blocks() -> None:
    assert bar(canvas=WIDE, target=Bytes(6 * GIB)) == "[████▓▓░░···┃····]"


@given(OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, st.integers(0, 60))
def test_every_bar_has_its_width(
    maximum: Bytes | None,
    actual: Bytes | None,
    used: Bytes | None,
    whole: Bytes | None,
    width: int,
) -> None:
    seen = figures(maximum=maximum, actual=actual, used=used, target=maximum)
    drawn = guest_bar(seen, width, whole, WIDE)
    assert sum(cells(span.text) for span in drawn) == max(2, width)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (HALF, "[########........]"),
        (replace(HALF, reserve=Bytes(2 * GIB)), "[########.....RC.]"),
        (replace(HALF, reserve=Bytes(4 * GIB)), "[########..SRHC..]"),
        (replace(HALF, available=None), "[                ]"),
    ],
)
def test_the_host_has_a_bar(host: HostFigures, expected: str) -> None:
    assert plain(host_bar(host, 18, POOR)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (2, 4, 2)),
        ({"available": None}, (None, None, None)),
        ({"actual": None}, (None, None, None)),
        ({"free": None}, (2, None, None)),
        ({"available": Bytes(9)}, (None, None, None)),
        ({"free": Bytes(7)}, (2, 0, 6)),
        ({"implausible": True}, (None, None, None)),
    ],
)
def test_what_a_guest_has_is_divided(
    fields: dict[str, object], expected: tuple[int | None, ...]
) -> None:
    reading = changed(
        guest("g", 1, 1, 0),
        **({"actual": Bytes(8), "available": Bytes(6), "free": Bytes(2)} | fields),
    )
    assert parts(reading) == expected


def test_a_figure_that_is_not_known_is_none_at_all() -> None:
    drawn = scene([round_at(1)]).shown
    assert drawn is not None
    known = {each.id: each for each in drawn.guests}
    assert known["win10"].is_old
    assert known["win10"].used is None
    assert known["new1"].is_waiting
    assert not known["gpu0"].is_waiting
    assert known["db1"].target is None  # it was told before top looked
    assert known["db2"].pin == 5 * GIB


def test_without_an_agent_nothing_is_judged() -> None:
    drawn = shown(replace(round_at(1), plan=None, source="guests"), History())
    assert (drawn.host.state, drawn.host.reserve, drawn.host.hold) == (None, None, None)
    assert {each.verdict for each in drawn.guests} == {None}
    assert {each.word for each in drawn.guests} == {"running"}


def test_merging_that_was_not_looked_at_in_this_round_is_as_it_was() -> None:
    first = round_at(0)
    second = replace(round_at(1), snapshot=replace(round_at(1).snapshot, ksm=None))
    drawn = scene([first, second]).shown
    assert drawn is not None
    assert drawn.host.ksm_saved == 300_000 * 4096
    assert isinstance(first.snapshot.ksm, KsmState)


GUESTS: Final = [
    figures(id="db1", name="Data Base", kind="database", verdict="normal"),
    figures(id="web1", verdict="distress", used=Bytes(4 * GIB - MIB), kind="default"),
    figures(id="web2", verdict=None, state="paused", maximum=Bytes(2 * GIB), age=90.0),
    figures(id="ci", verdict="exempt", used=None, maximum=None, actual=None),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "db1 web1 web2 ci"),
        ("web", "web1 web2"),
        ("WEB*", "web1 web2"),
        ("web?", "web1 web2"),
        ("base", "db1"),
        ("name:data*", "db1"),
        ("state:distress", "web1"),
        ("state:paused", "web2"),
        ("state:exempt", "ci"),
        ("class:db", "db1"),
        ("class:default", "web1"),
        (">4G", "db1 web1"),
        ("<4G", "web2"),
        ("max>=4G web", "web1"),
        ("used>3G", "web1"),
        ("press>90%", "web1"),
        ("age>60s", "web2"),
        ("!web", "db1 ci"),
        ("!state:distress web", "web2"),
        ("state:distress class:db", ""),
    ],
)
def test_a_filter_takes(text: str, expected: str) -> None:
    found = parse(text)
    assert [each.id for each in GUESTS if found.takes(each)] == expected.split()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour:red", "begins with state:"),
        ("state:", "begins with state:"),
        (">4", "a unit is missing"),
        (">x", "not a size"),
        ("size>4G", "size is none of"),
        ("press>much", "is no number"),
    ],
)
def test_a_filter_that_means_nothing_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


@pytest.mark.parametrize(
    ("sort", "inverted", "expected"),
    [
        ("suffering", False, "web1 web2 db1 ci"),
        ("suffering", True, "ci db1 web2 web1"),
        ("id", False, "ci db1 web1 web2"),
        ("max", False, "db1 web1 web2 ci"),
        ("max", True, "web2 db1 web1 ci"),
        ("used", False, "web1 db1 web2 ci"),
        ("class", False, "db1 web1 web2 ci"),
        ("age", False, "web2 db1 web1 ci"),
    ],
)
def test_guests_are_sorted(sort: str, inverted: bool, expected: str) -> None:  # noqa: FBT001 - a row of the table
    assert [each.id for each in ordered(GUESTS, sort, inverted=inverted)] == expected.split()


@pytest.mark.parametrize("sort", ORDERS)
def test_every_order_takes_every_guest(sort: str) -> None:
    assert len(ordered(GUESTS, sort, inverted=True)) == len(GUESTS)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (40, "actual"),
        (60, "actual used press told"),
        (80, "max actual used press told age"),
    ],
)
def test_columns_that_have_no_room_are_left_out(width: int, expected: str) -> None:
    layout = arranged(USUAL, GUESTS, Canvas(width=width, height=24))
    assert [each.name for each in layout.columns] == expected.split()
    assert layout.bar >= 10


def test_every_column_fits_its_width() -> None:
    layout = arranged([each.name for each in COLUMNS], GUESTS, Canvas(width=300, height=24))
    assert layout.columns == COLUMNS
    assert layout.reason > 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, "-"), (0, "0"), (1, "1B"), (1023, "1023B"), (1024, "1K"), (1536, "1.5K"),
        (512 * MIB, "512M"), (int(1.44 * GIB), "1.4G"), (12 * GIB, "12G"), (1 << 50, "1024T"),
        (-MIB, "-1M"),
    ],
)  # fmt: skip
def test_sizes_are_brief(size: int | None, expected: str) -> None:
    assert brief(None if size is None else Bytes(size)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-"), (0.4, "0s"), (41.0, "41s"), (600.0, "10m"), (9e5, "10d"), (-3.0, "0s")],
)
def test_ages_are_brief(seconds: float | None, expected: str) -> None:
    assert age(seconds) == expected


@given(st.text(max_size=30), st.integers(1, 40))
def test_texts_are_cut_and_filled_to_their_width(text: str, width: int) -> None:
    text = "".join(char for char in text if char.isprintable())
    assert cells(left(text, width)) <= width
    assert cells(right(text, width)) <= width
    assert cells(cut(text, width)) <= width
    if text.isascii():
        assert cells(left(text, width)) == cells(right(text, width)) == width


def test_a_line_is_written_in_signs_that_a_terminal_has() -> None:
    line = (Span("a → b", "good"), Span(" Büro · 東京", "dim"))
    poor = fitted(line, POOR)
    assert plain(poor).isascii()
    assert plain(poor).startswith("a > b")
    assert plain(fitted(line, Canvas(width=4, height=1))) == "a →…"
    assert encoded(line, colour=True).startswith("\x1b[32ma")
    assert encoded(line, colour=False).startswith("a")


def test_every_style_has_a_look() -> None:
    assert all(code.replace(";", "").isdigit() or not code for code in SGR.values())


def history_of(count: int, used: Callable[[int], float] = lambda _: 0.0) -> History:
    history = History()
    for number in range(count):
        history.add(round_at(number, used=used(number)))
    return history


def test_the_history_tells_of_a_time() -> None:
    history = history_of(70)
    assert history.span() == (WALL, WALL + 69)
    assert history.target("db1", WALL - 1) is None
    assert history.target("db1", WALL + 69) == 6 * GIB
    assert history.target("none", WALL) is None
    assert [each.time - WALL for each in history.points("db1", WALL + 3, WALL + 5)] == [3, 4, 5]
    assert [each.time - WALL for each in history.decisions("db1", WALL + 31)] == [0, 30]
    assert history.points("none", WALL, WALL + 9) == []
    assert len(history.available(WALL + 9, 5)) == 5


def test_the_history_stays_small() -> None:
    history = History()
    for number in range(3 * LENGTH):
        history.add(round_at(number, count=1))
    assert len(history.points("db1-000", 0.0, 9e9)) <= LENGTH + LENGTH // 8
    assert len(history.available(9e9, 10**6)) <= LENGTH + LENGTH // 8


def test_rounds_that_are_not_later_are_left_out() -> None:
    history = history_of(5)
    history.add(round_at(2))
    history.add(round_at(4))
    assert len(history.points("db1", 0.0, 9e9)) == 5


def test_a_guest_that_is_gone_is_forgotten_after_a_while() -> None:
    history = history_of(5)
    history.add(round_at(30, count=1))
    assert history.points("db1", 0.0, 9e9)
    history.add(round_at(300, count=1))
    assert not history.points("db1", 0.0, 9e9)


def test_a_guest_that_was_started_again_was_told_nothing() -> None:
    history = history_of(5)
    assert history.target("db1", 9e9) == 6 * GIB
    again = round_at(6)
    guests = tuple(replace(each, up=3.0) for each in again.snapshot.guests)
    history.add(replace(again, snapshot=replace(again.snapshot, guests=guests)))
    assert history.target("db1", 9e9) is None


@pytest.mark.parametrize(
    "canvas", [Canvas(width=40, height=10), Canvas(width=40, height=10, unicode=False)]
)
def test_a_plot_rises_with_what_is_used(canvas: Canvas) -> None:
    history = history_of(600, lambda number: number / 300)
    span = (WALL, WALL + 599)
    decisions = history.decisions("db1", span[1])
    drawn = plot(history.points("db1", *span), decisions, span, Bytes(8 * GIB), canvas)
    lines = [plain(line) for line in drawn]
    assert len(lines) == 10
    assert all(cells(line) <= 40 for line in lines)
    assert lines[0].split()[0] == "8G"
    assert "↓" in lines[-2]
    assert "10m before" in lines[-1]
    filled = {"⣿", "#"}
    heights = [
        sum(line[column : column + 1] in filled for line in lines[:-2]) for column in (8, 39)
    ]
    assert 0 < heights[0] < heights[1]


def test_a_gap_is_no_line() -> None:
    history = History()
    for number in (*range(10), *range(500, 520)):
        history.add(round_at(number))
    span = (WALL, WALL + 519)
    canvas = Canvas(width=58, height=6, unicode=False)
    bottom = plain(plot(history.points("db1", *span), [], span, Bytes(8 * GIB), canvas)[3])
    assert "  " in bottom[6:].strip()


@pytest.mark.parametrize("size", [(3, 9), (40, 2), (9, 9)])
def test_a_plot_without_room_is_none(size: tuple[int, int]) -> None:
    width, height = size
    assert plot([], [], (0.0, 1.0), Bytes(9), Canvas(width=width, height=height)) == []
    assert plot([], [], (0.0, 1.0), Bytes(0), WIDE) == []


def test_a_sparkline_shows_what_is_known() -> None:
    values = [Bytes(each) for each in (1, 4, 8)]
    assert sparkline([*values, None], 4, WIDE) == "▁▄█ "
    assert sparkline(values, 2, POOR) == "=@"
    assert sparkline([None], 3, WIDE) == ""


def test_csv_is_read_back() -> None:
    drawn = scene([round_at(0), round_at(1)]).shown
    assert drawn is not None
    hostile = replace(drawn.guests[0], name='a "b",\nc')
    text = "\n".join([export.csv_header(), *export.csv_rows(drawn, [hostile, *drawn.guests[1:]])])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == [each.id for each in drawn.guests]
    assert rows[0]["name"] == 'a "b",\nc'
    assert rows[0]["actual"] == str(drawn.guests[0].actual)
    assert next(row for row in rows if row["id"] == "win10")["used"] == ""
    assert {row["host_state"] for row in rows} == {"SOFT"}
