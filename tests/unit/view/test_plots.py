"""Plots: well formed whatever a series holds, all within their axes, names as text."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, timedelta, timezone
from typing import Final
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.journal.points import GuestPoint, HostPoint, Moment, Series
from qmpmem.model.escapes import printable
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.view import plots, svg, terminal_plot
from qmpmem.view.plots import plot
from qmpmem.view.svg import LEAST_WIDTH, LEFT, PAD, breadth
from qmpmem.view.table import cells
from tests.rig import picture, readme

NAMESPACE: Final = "{http://www.w3.org/2000/svg}"
START = 1_800_000_000.0

sizes = st.one_of(st.none(), st.integers(-(2**40), 2**70).map(Bytes))
counts = st.integers(0, 100)
percents = st.one_of(st.none(), st.floats())
texts = st.one_of(
    st.text(),
    st.sampled_from(
        ["<script>alert(1)</script>", "&amp;\"'", "a\x00b\x1b[2J\n", "\udcff", "W" * 999]
    ),
)
begins = st.one_of(
    st.lists(st.floats(-1e18, 1e18), unique=True, max_size=12).map(sorted),
    st.lists(st.integers(0, 60), unique=True, max_size=30).map(
        lambda found: [START + 60.0 * each for each in sorted(found)]
    ),
)


@st.composite
def points(draw: st.DrawFn, name: str) -> GuestPoint:
    return GuestPoint(
        guest="g",
        name=name,
        maximum=draw(sizes),
        actual=draw(sizes),
        lowest=draw(sizes),
        highest=draw(sizes),
        used=draw(sizes),
        peak=draw(sizes),
        cache=draw(sizes),
        target=draw(sizes),
        less=draw(counts),
        more=draw(counts),
    )


@st.composite
def hosts(draw: st.DrawFn, begin: float) -> HostPoint:
    return HostPoint(
        begin=begin,
        states=draw(st.tuples(*[st.integers(0, 2)] * 5)),
        total=draw(sizes),
        reserve=draw(sizes),
        available=draw(sizes),
        least=draw(sizes),
        some=draw(percents),
        cost=draw(sizes),
    )


@st.composite
def serieses(draw: st.DrawFn) -> Series:
    times, name = draw(begins), draw(texts)
    is_host = draw(st.booleans())
    edge = st.one_of(st.floats(), st.just(START), st.just(START + 3600))
    return Series(
        begin=draw(edge),
        end=draw(edge),
        step=draw(st.sampled_from([1.0, 60.0, 3600.0])),
        host=tuple(draw(hosts(time)) for time in times),
        guest=None if is_host else "g",
        name=None if is_host else name,
        points=()
        if is_host
        else tuple(Moment(begin=time, point=draw(points(name))) for time in times),
    )


def corners(path: str) -> Iterator[tuple[float, float]]:
    """Walk along a path of absolute M, L, H, V and Z."""
    x = y = 0.0
    for command, numbers in re.findall(r"([MLHVZ])([-0-9.,]*)", path):
        given_ = [float(each) for each in numbers.split(",") if each]
        if command in "ML":
            x, y = given_
        elif command == "H":
            [x] = given_
        elif command == "V":
            [y] = given_
        yield x, y


def number(element: ET.Element, name: str) -> float:
    return float(element.get(name, "0"))


def drawn(element: ET.Element) -> Iterator[ET.Element]:
    """Yield what stands where its numbers say: not in a pattern, and not moved."""
    for child in element:
        if child.tag not in (f"{NAMESPACE}defs", f"{NAMESPACE}g"):
            yield child
            yield from drawn(child)


def check(text: str, width: int) -> ET.Element:
    """Hold a plot well formed, and all of it within its borders and axes."""
    root = ET.fromstring(text)  # noqa: S314 - our own
    assert not re.search(r"\b(nan|inf)\b", re.sub(r">[^<]*<", "><", text).lower())
    wide, high = number(root, "width"), number(root, "height")
    assert wide == max(width, LEAST_WIDTH)
    frames = [
        (min(xs), min(ys), max(xs), max(ys))
        for each in root.iter(f"{NAMESPACE}path")
        if each.get("class") == "frame"
        for xs, ys in [zip(*corners(each.get("d", "")), strict=True)]
    ]
    for each in drawn(root):
        if each.tag == f"{NAMESPACE}path":
            found = list(corners(each.get("d", "")))
            assert all(0 <= x <= wide and 0 <= y <= high for x, y in found)
            if each.get("class", "") not in ("less", "more"):
                assert any(
                    all(left <= x <= right and top <= y <= bottom for x, y in found)
                    for left, top, right, bottom in frames
                ), each.attrib
        if each.tag == f"{NAMESPACE}rect":
            x, y = number(each, "x"), number(each, "y")
            assert x >= 0 <= y
            assert x + number(each, "width") <= wide + 0.11
            assert y + number(each, "height") <= high + 0.11
        if each.tag == f"{NAMESPACE}text":
            assert 0 <= number(each, "y") <= high
            _within(each, wide)
    return root


def _within(element: ET.Element, width: float) -> None:
    """Hold a text between the borders; ticks of huge sizes need more than there is."""
    needs = breadth(element.text or "") * (1.3 if element.get("class") == "title" else 1)
    x = number(element, "x")
    begin = x - {"middle": needs / 2, "end": needs}.get(element.get("text-anchor", ""), 0.0)
    assert begin + needs <= width + 1, element.text
    assert begin >= 0 or needs > LEFT - PAD, element.text


@given(serieses(), st.sampled_from([1, 240, 360, 900]))
def test_every_series_is_well_formed_and_within_its_axes(series: Series, width: int) -> None:
    root = check(plot(series, width=width, zone=UTC), width)
    [title] = root.findall(f"{NAMESPACE}title")
    assert title.text == plots.figure(series, UTC).title


@pytest.mark.parametrize("value", [1e308, 1.7e308, float("nan"), float("inf"), -1e308])
def test_what_no_host_can_have_is_not_drawn(value: float) -> None:
    """It is out of a damaged journal; an axis up to it has no ticks that are numbers."""
    points = (HostPoint(begin=0.0, some=value), HostPoint(begin=60.0, some=5.0))
    series = Series(begin=0.0, end=120.0, step=60.0, host=points, guest=None, name=None, points=())
    check(plot(series, width=360, zone=UTC), 360)
    screen = terminal_plot.Screen(width=80, zone=UTC, is_ascii=True)
    assert list(terminal_plot.lines(plots.figure(series, UTC), screen))


@given(serieses(), st.integers(1, 200), st.booleans())
def test_every_series_fits_a_terminal(series: Series, width: int, is_ascii: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    screen = terminal_plot.Screen(width=width, zone=UTC, is_ascii=is_ascii)
    figure = plots.figure(series, UTC)
    for line in terminal_plot.lines(replace(figure, title="t"), screen):
        assert cells(line) <= max(width, terminal_plot.LEAST_WIDTH) or "_" not in line
        assert line.isprintable()
        assert line.isascii() or not is_ascii


@given(texts, st.integers(240, 1000))
def test_a_name_is_text_and_the_title_is_not_wider_than_the_plot(name: str, width: int) -> None:
    series = replace(picture.series(), guest=name, name=name)
    root = check(plot(series, width=width, zone=UTC), width)
    assert not list(root.iter(f"{NAMESPACE}script"))
    assert printable(name)[:10] in (root.findtext(f"{NAMESPACE}title") or "")


def classes(root: ET.Element) -> Counter[str]:
    return Counter(each.get("class", "") for each in drawn(root))


def texts_of(root: ET.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{NAMESPACE}text")]


def test_the_plot_of_the_manual_is_the_one_that_is_made() -> None:
    assert picture.PATH.read_text() == picture.draw(), "run .venv/bin/python -m tests.rig.picture"
    path = picture.PATH.relative_to(readme.ROOT)
    assert f"](../../{path})" in readme.chapter("history")


def test_all_that_a_guest_does_is_drawn_and_explained() -> None:
    root = check(picture.draw(), 900)
    found = classes(root)
    for name in ("used", "cache-area", "free-area", "silent-area", "balloon-area"):
        assert found[name] == 1, name
    assert found["gap-area"] == 1
    assert (found["less"], found["more"]) == (4, 3)
    assert (found["SOFT"], found["SLACK"], found["distress"]) == (1, 1, 1)
    words = texts_of(root)
    for word in (
        *("Memory of guest db1", "2027-01-15, UTC+00:00"),
        *("used", "cache", "free", "balloon", "actual", "target", "nothing known"),
        *(
            "host BALANCED",
            "host SOFT",
            "host SLACK",
            "guest distress",
            "told to give",
            "told to take",
        ),
        *("0 B", "1 GiB", "2 GiB", "3 GiB", "4 GiB", "10:00", "11:00", "12:00"),
    ):
        assert words.count(word) == 1, word
    [about] = root.findall(f"{NAMESPACE}desc")
    assert about.text == (
        "2027-01-15, UTC+00:00. It has 2.2 GiB to 3.6 GiB. It uses 2.5 GiB at most. It is told 4"
        " times to give memory, and 3 times to take some. It is in distress at"
        " times. The host's worst state is SOFT."
    )
    told = [
        each.findtext(f"{NAMESPACE}title") for each in drawn(root) if each.get("class") == "less"
    ]
    assert told[0] == "told to give: 3.1 GiB"


def test_nothing_is_drawn_where_nothing_is_known() -> None:
    """The edges of all areas are at the edges of the gap, and no line crosses it."""
    root = check(picture.draw(), 900)
    [gap] = [each for each in drawn(root) if each.get("class") == "gap-area"]
    left, right = number(gap, "x"), number(gap, "x") + number(gap, "width")
    for each in drawn(root):
        if each.get("class") in ("used", "balloon-area", "actual", "target", "SOFT", "BALANCED"):
            xs = [x for x, _ in corners(each.get("d", ""))]
            assert not [x for x in xs if left + 0.2 < x < right - 0.2]
            subpaths = each.get("d", "").split("M")[1:]
            for path in subpaths:
                inside = [x for x, _ in corners("M" + path)]
                assert max(inside) <= left + 0.2 or min(inside) >= right - 0.2


def test_a_target_is_not_known_after_a_gap_until_it_is_told_again() -> None:
    root = check(picture.draw(), 900)
    [target] = [each for each in drawn(root) if each.get("class") == "target"]
    [gap] = [each for each in drawn(root) if each.get("class") == "gap-area"]
    after = [x for x, _ in corners(target.get("d", "")) if x > number(gap, "x") + 1]
    told = [
        min(x for x, _ in corners(each.get("d", "")))
        for each in drawn(root)
        if each.get("class") == "more"
    ]
    assert min(after) >= min(told)


def test_without_colour_each_area_and_line_is_another() -> None:
    text = picture.draw()
    patterns = {name: re.sub(r'class="[^"]*"', "", shape) for name, shape in svg.PATTERNS.items()}
    assert len(set(patterns.values())) == len(patterns)
    assert "stroke-dasharray" in text
    bars = {
        each.get("class"): number(each, "height")
        for each in drawn(ET.fromstring(text))  # noqa: S314 - our own
        if each.get("class") in ("SLACK", "BALANCED", "SOFT")
    }
    assert bars["SLACK"] < bars["BALANCED"] < bars["SOFT"]


def test_both_sheets_have_the_same_colours_to_set() -> None:
    assert svg.LIGHT.keys() == svg.DARK.keys()
    light, _, dark = svg.STYLE.partition("@media (prefers-color-scheme:dark){")
    for name in svg.LIGHT:
        assert f"{name}{{" in light
        assert f"{name}{{" in dark


def test_a_page_with_a_strict_policy_can_have_it_inside() -> None:
    text = plot(picture.series(), zone=UTC, styled=False, name="one")
    assert "<style" not in text
    assert "style=" not in text
    assert 'id="one-title"' in text
    assert "url(#one-cache)" in text


def test_the_host_has_its_reserve_and_its_pressure() -> None:
    host = tuple(
        HostPoint(
            begin=START + 60 * each,
            rounds=60,
            states=(0, 60, 0, 0, 0),
            total=Bytes(16 * GIB),
            reserve=Bytes(GIB),
            available=Bytes(4 * GIB),
            least=Bytes(3 * GIB),
            some=each / 2,
            guests=12,
            maxima=Bytes(40 * GIB),
            cost=Bytes(9 * GIB),
        )
        for each in range(60)
    )
    series = Series(begin=START, end=START + 3600, step=60, host=host)
    root = check(plot(series, zone=UTC), 900)
    words = texts_of(root)
    for word in ("Memory of the host", "guests", "others", "available", "50 %", "16 GiB"):
        assert word in words
    [about] = root.findall(f"{NAMESPACE}desc")
    assert "At least 3 GiB are available. 12 guests may have 40 GiB together." in (about.text or "")
    found = classes(root)
    assert (found["used"], found["silent-area"], found["free-area"], found["waiting"]) == (1,) * 4


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=45))])
def test_times_are_those_of_the_zone(zone: timezone) -> None:
    words = texts_of(check(plot(picture.series(), zone=zone), 900))
    first = "10:00" if zone is UTC else "16:00"
    assert first in words


def test_what_a_terminal_shows() -> None:
    screen = terminal_plot.Screen(zone=UTC, height=8)
    lines = list(terminal_plot.lines(plots.figure(picture.series(), UTC), screen))
    assert lines == TERMINAL.splitlines()[1:]
    coloured = replace(screen, is_coloured=True)
    again = list(terminal_plot.lines(plots.figure(picture.series(), UTC), coloured))
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in again] == lines
    assert any("\x1b[" in line for line in again)


TERMINAL: Final = """
Memory of guest db1                                        2027-01-15, UTC+00:00
      host bbbbbbbbbssssssbbbbbbbbb   bbbbbbb___________________________________
     guest                                     !!!
      told           ▼▼▼ ▼                      ▲ ▲▲
     4 GiB┤························   ·············━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
          │░░░░░░░░░░━·············   ············━░░░░░░░░░░░░▒▒▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓
          │░░░░░░░░░░░━━━··········   ··········━━░░░░░░░░░▓▓▓▓▒▒▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓
     2 GiB┤░░░░░░░░░░░░░░━━━━━━━━━━   ···········░░░▓▓▓▓▓▓▓▓▓▓▓▒▒▒▓▓▓▓▓█████████
          │░░░░▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓   ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓█▒▒▒██████████████
          │▓▓▓▓▓▓████████████▓▓▓▓▓▓   ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓████████▒▒▒██████████████
          │████████████████████████   █████████████████████████▒▒▒██████████████
       0 B┤████████████████████████   █████████████████████████▒▒▒██████████████
          └┬────────────────┬────────────────┬────────────────┬────────────────┬
           10:00            10:30            11:00            11:30        12:00
█ used  ▓ cache  ░ free  ▒ actual, not reported what for  · balloon  ━ target
_ SLACK  b BALANCED  s SOFT  ! distress  ▼ told to give  ▲ told to take
"""


def test_a_guest_of_which_nothing_is_known_is_a_plot_all_the_same() -> None:
    series = replace(picture.series(), points=())
    root = check(plot(series, zone=UTC), 900)
    assert classes(root)["gap-area"] == 1
    assert "Nothing is known of it in this time." in (root.findtext(f"{NAMESPACE}desc") or "")


def test_parts_are_never_more_than_the_whole() -> None:
    point = GuestPoint(
        guest="a",
        maximum=Bytes(100 * MIB),
        actual=Bytes(50 * MIB),
        used=Bytes(40 * MIB),
        cache=Bytes(30 * MIB),
    )
    found = plots.stack(point)
    assert (found.used, found.cache, found.free, found.balloon) == (
        40 * MIB,
        10 * MIB,
        0,
        50 * MIB,
    )
