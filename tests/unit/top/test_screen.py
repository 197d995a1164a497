"""Whole screens of `qmpmem top`, as text: at three sizes, with and without block elements."""

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.feed import Round
from qmpmem.model.observation import OperatorRequests
from qmpmem.records import replace
from qmpmem.top.change_dialog import Dialog
from qmpmem.top.columns import USUAL
from qmpmem.top.figures import Figures, HostFigures, Shown
from qmpmem.top.header import Where
from qmpmem.top.history import History
from qmpmem.top.screen import LEAST, frame, listing
from qmpmem.top.text import Canvas, encoded, plain
from qmpmem.top.view_state import Scene, Settings, View
from qmpmem.view.table import cells
from tests.rig import readme
from tests.rig.screens import WALL, round_at, scene

GOLDEN: Final = Path(__file__).with_name("golden") / "top.txt"
MARK: Final = "=" * 10 + " "


def rounds() -> list[Round]:
    """Nine minutes in which the first guest uses more and more."""
    return [round_at(number, used=max(0.0, (number - 120) / 180)) for number in range(0, 540, 3)]


def alone() -> Round:
    """A round without an agent."""
    seen = round_at(9)
    snapshot = replace(seen.snapshot, requests=OperatorRequests())
    return replace(
        seen,
        source="guests",
        plan=None,
        number=None,
        snapshot=snapshot,
        problem="no agent runs",
        notes={"win10": "its virtio_balloon driver is not loaded"},
    )


def shown(pane: str = "none", chosen: str | None = None, **more: object) -> View:
    settings = Settings(pane=pane, columns=USUAL)  # type: ignore[arg-type]
    return View(settings=settings, chosen=chosen, **more)  # type: ignore[arg-type]


def screens() -> Mapping[str, tuple[Scene, View, Canvas]]:
    """Each screen that is compared, by its name."""
    busy, small, large = scene(rounds()), (80, 24), (200, 60)
    past = scene(rounds(), where=Where(now=WALL + 1260, is_live=False))
    lost = scene([round_at(5)], where=Where(now=WALL + 47, lost="the agent has ended"))
    typed = Dialog(kind="set", guest="db1", text="4G", said="the agent would take it")
    short = Dialog(kind="pin", guest="web1", text="600M")
    wanted: dict[str, tuple[Scene, View, tuple[int, int], bool]] = {
        "why": (busy, shown("why", "web1"), small, True),
        "why-ascii": (busy, shown("why", "web1"), small, False),
        "narrow": (busy, shown(), (60, 20), True),
        "narrow-plot-ascii": (busy, shown("plot", "db1"), (60, 20), False),
        "plot": (busy, shown("plot", "db1"), small, True),
        "wide": (busy, shown("all", "db1"), large, True),
        "set": (busy, shown(dialog=typed), small, True),
        "pin": (busy, shown(dialog=short), small, True),
        "reserve": (busy, shown(dialog=Dialog(kind="reserve", text="1G")), small, True),
        "columns": (busy, shown(dialog=Dialog(kind="columns", chosen=USUAL)), small, True),
        "help": (busy, shown(helps=True), small, True),
        "help-read-only": (replace(busy, may_write=False), shown(helps=True), small, False),
        "past": (past, shown("why", "db2"), small, True),
        "no-agent": (scene([alone()]), shown("why", "win10"), small, True),
        "lost": (lost, shown(), (80, 12), True),
        "gone": (busy, shown("why", "gone1"), (80, 14), True),
        "filtered": (busy, View(settings=Settings(filter="state:frozen")), (80, 10), True),
        "nothing": (
            Scene(history=History(), where=Where(now=WALL, lost="no agent runs")),
            shown(),
            (60, 10),
            True,
        ),
        "too-small": (busy, shown(), (30, 8), True),
    }
    return {
        name: (seen, view, Canvas(width=width, height=height, unicode=unicode))
        for name, (seen, view, (width, height), unicode) in wanted.items()
    }


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have clocks on the wall of no place."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def drawn(name: str) -> str:
    return "\n".join(plain(line) for line in frame(*screens()[name]).lines)


@pytest.mark.parametrize("name", sorted(screens()))
def test_a_screen_looks_like_this(name: str) -> None:
    """To write the file again: TZ=UTC python -m tests.unit.top.test_screen."""
    parts = GOLDEN.read_text().split(MARK)
    [expected] = [part for part in parts if part.partition("\n")[0] == name]
    assert drawn(name).rstrip("\n") == expected.partition("\n")[2].rstrip("\n")


def test_the_picture_in_the_manual_is_this_screen() -> None:
    assert f"```text\n{drawn('why')}\n```" in readme.chapter("top")


def test_the_manual_names_every_key_of_json() -> None:
    [row] = [line for line in readme.chapter("json").splitlines() if line.startswith("| `top` |")]
    named = set(re.findall(r"`(\w+)`", row)) - {"top"}
    kinds = (Shown, HostFigures, Figures)
    assert named == {name for kind in kinds for name in kind.__struct_fields__}


@pytest.mark.parametrize("name", sorted(screens()))
def test_a_screen_has_exactly_its_lines_and_no_line_is_too_long(name: str) -> None:
    seen, view, canvas = screens()[name]
    lines = frame(seen, view, canvas).lines
    assert len(lines) == canvas.height
    assert all(cells(plain(line)) <= canvas.width for line in lines)


@given(
    st.integers(1, 220), st.integers(1, 70), st.booleans(), st.sampled_from(["why", "all", "plot"])
)
def test_every_size_has_a_screen(width: int, height: int, unicode: bool, pane: str) -> None:  # noqa: FBT001 - drawn by hypothesis
    canvas = Canvas(width=width, height=height, unicode=unicode)
    lines = frame(BUSY, shown(pane, "db1"), canvas).lines
    assert len(lines) == height
    assert all(cells(plain(line)) <= width for line in lines)
    assert unicode or all(plain(line).isascii() for line in lines)


BUSY: Final = scene([round_at(number) for number in range(60)])


@pytest.mark.parametrize(("width", "height"), [(LEAST[0] - 1, 24), (80, LEAST[1] - 1), (1, 1)])
def test_too_small_a_terminal_is_told_what_it_needs(width: int, height: int) -> None:
    lines = frame(BUSY, View(), Canvas(width=width, height=height)).lines
    assert "40x10"[:width] in "".join(plain(line) for line in lines) or width < 20


def test_without_colour_there_are_no_colours() -> None:
    lines = frame(BUSY, shown("why", "web1"), Canvas(width=80, height=24)).lines
    with_colour = "\n".join(encoded(line, colour=True) for line in lines)
    without = "\n".join(encoded(line, colour=False) for line in lines)
    assert "\x1b[1;31m" in with_colour
    assert "\x1b[32m" in with_colour
    for code in range(30, 48):
        assert f";{code}m" not in without
        assert f"[{code}m" not in without


def test_only_what_has_room_is_drawn() -> None:
    many = scene([round_at(0, count=500)])
    small, large = (Canvas(width=80, height=height) for height in (24, 48))
    first = frame(many, View(), small)
    assert len(first.guests) == first.page == 24 - 6
    assert len(frame(many, View(), large).guests) == 48 - 6
    assert plain(first.lines[-1]).endswith("1-18/500")


def test_the_chosen_guest_stays_on_the_screen() -> None:
    many, canvas = scene([round_at(0, count=500)]), Canvas(width=80, height=24)
    ids = [each.id for each in many.shown.guests] if many.shown else []
    view = View()
    for guest in (ids[0], ids[250], ids[251], ids[499], ids[3]):
        view = replace(view, chosen=guest)
        seen = frame(many, view, canvas)
        view = replace(view, first=seen.first)
        assert guest in seen.guests.values()


def test_a_listing_has_every_guest() -> None:
    lines = listing(BUSY, View(), Canvas(width=120, height=5))
    text = "\n".join(plain(line) for line in lines)
    assert BUSY.shown is not None
    assert all(each.id in text for each in BUSY.shown.guests)


def main() -> None:
    parts = (f"{MARK}{name}\n{drawn(name)}\n" for name in sorted(screens()))
    GOLDEN.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
