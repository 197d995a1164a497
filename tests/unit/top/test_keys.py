"""What keys do in `qmpmem top`: a table of keys, and what is seen and asked for after them."""

from collections.abc import Sequence
from typing import Final

import pytest

from qmpmem.records import replace
from qmpmem.top import keys
from qmpmem.top.change_dialog import Order
from qmpmem.top.header import Where
from qmpmem.top.keys import Check, Command, Do, Jump, Live, Pause, Quit, Save, Step, press
from qmpmem.top.view_state import Scene, Settings, View, listed
from qmpmem.units import GIB, Bytes
from tests.rig.screens import WALL, round_at, scene

NOW: Final = scene([round_at(number) for number in range(40)])
FIRST: Final = "web1"


def pressed(
    *words: str, seen: Scene = NOW, view: View | None = None
) -> tuple[View, Command | None]:
    """Press some keys; `text:abc` types."""
    view, command = view or View(), None
    for word in words:
        kind, _, text = word.partition("text:")
        for key in text if not kind and text else [word]:
            view, command = press(view, key, seen)
    return view, command


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["q"], Quit()),
        (["ctrl+c"], Quit()),
        (["/", "ctrl+c"], Quit()),
        (["?", "q"], Quit()),
        (["?", "x"], None),
        (["left"], Step(rounds=-1)),
        (["right"], Step(rounds=1)),
        (["["], Step(seconds=-60.0)),
        (["}"], Step(seconds=3600.0)),
        (["end"], Live()),
        ([" "], Pause()),
        (["W"], Save()),
        (["t", "text:14:03", "enter"], Jump(text="14:03")),
        (["t", "enter"], Live()),
        (["t", "text:14:03", "escape"], None),
        (["H"], None),
        (["H", "enter"], Do(order=Order(kind="hold"))),
        (["r", "text:2G", "enter"], Do(order=Order(kind="reserve", size=Bytes(2 * GIB)))),
        (["r", "text:2", "enter"], None),
        (["r", "enter"], None),
        (["s", "text:1G"], Check(order=Order(kind="set", guest=FIRST, size=Bytes(GIB)))),
        (["s", "text:1"], None),
        (["s", "text:9G"], None),
        (["s", "text:1G", "enter"], Do(order=Order(kind="set", guest=FIRST, size=Bytes(GIB)))),
        (["s", "text:1G", "escape", "enter"], None),
        (["s", "text:100M", "enter"], None),
        (["s", "text:50%", "enter"], Do(order=Order(kind="set", guest=FIRST, size=Bytes(GIB)))),
        (["s", "text:1XG", "backspace", "backspace", "G", "enter"],
         Do(order=Order(kind="set", guest=FIRST, size=Bytes(GIB)))),
        (["s", "text:9G", "ctrl+u", "text:1G", "enter"],
         Do(order=Order(kind="set", guest=FIRST, size=Bytes(GIB)))),
        (["u"], None),
        (["x"], None),
        (["f5"], None),
    ],
)  # fmt: skip
def test_a_key_asks_for(words: Sequence[str], command: Command | None) -> None:
    assert pressed(*words)[1] == command


def test_a_pin_begins_with_what_the_guest_has() -> None:
    view, command = pressed("p", view=View(chosen="desk3"))
    assert view.dialog is not None
    assert (view.dialog.guest, view.dialog.text) == ("desk3", "2G")
    assert command == Check(order=Order(kind="pin", guest="desk3", size=Bytes(2 * GIB)))


def test_a_pin_of_a_guest_below_its_floor_begins_with_the_floor() -> None:
    view, command = pressed("p", view=View(chosen="ci-2"))
    assert view.dialog is not None
    assert view.dialog.text == "1434M"
    assert command is not None


def test_a_pinned_guest_is_let_go() -> None:
    view = View(chosen="db2")
    assert pressed("u", "enter", view=view)[1] == Do(order=Order(kind="unpin", guest="db2"))


def test_a_hold_is_ended_where_there_is_one() -> None:
    shown = NOW.shown
    assert shown is not None
    held = replace(NOW, shown=replace(shown, host=replace(shown.host, hold=True)))
    assert pressed("H", "enter", seen=held)[1] == Do(order=Order(kind="release"))


@pytest.mark.parametrize("key", ["s", "p", "u", "H", "r"])
@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (replace(NOW, may_write=False), keys.READ_ONLY),
        (replace(NOW, where=Where(now=WALL, is_live=False)), keys.PAST),
    ],
)
def test_a_user_that_may_only_read_and_the_past_change_nothing(
    key: str, seen: Scene, said: str
) -> None:
    view, command = pressed(key, "text:1G", "enter", seen=seen)
    assert command is None or not isinstance(command, Do)
    assert pressed(key, seen=seen)[0].message == said
    assert pressed(key, seen=seen)[0].dialog is None
    assert view.dialog is None


def test_a_guest_that_vanishes_while_it_is_asked_about_is_not_moved() -> None:
    view, _ = pressed("s", "text:1G")
    shown = NOW.shown
    assert shown is not None
    gone = replace(NOW, shown=replace(shown, guests=shown.guests[:2]))
    after, command = pressed("enter", seen=gone, view=view)
    assert command is None
    assert after.dialog is not None
    assert after.dialog.is_refused


def test_an_answer_to_another_question_is_not_shown() -> None:
    view, _ = pressed("s", "text:1G")
    mine, other = (Order(kind="set", guest=each, size=Bytes(GIB)) for each in (FIRST, "db1"))
    assert keys.checked(view, mine, "no", is_refused=True).dialog != view.dialog
    assert keys.checked(view, other, "no", is_refused=True) == view
    assert keys.checked(View(), mine, "no", is_refused=True) == View()


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["down"], "ci-2"),
        (["j", "j", "k"], "ci-2"),
        (["G"], "gpu0"),
        (["G", "home"], FIRST),
        (["pagedown"], "build-07"),
        (["pagedown", "pageup"], FIRST),
        (["up"], FIRST),
    ],
)
def test_keys_choose_a_guest(words: Sequence[str], chosen: str) -> None:
    assert pressed(*words)[0].chosen == chosen


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["enter"], {"pane": "why"}),
        (["enter", "enter"], {"pane": "all"}),
        (["enter", "enter", "enter"], {"pane": "none"}),
        (["h"], {"pane": "plot"}),
        (["h", "h"], {"pane": "none"}),
        (["h", "enter"], {"pane": "why"}),
        (["enter", "escape"], {"pane": "none"}),
        ([">"], {"sort": "id"}),
        ([">", ">"], {"sort": "max"}),
        (["<"], {"sort": "age"}),
        (["I"], {"inverted": True}),
        (["%"], {"percent_of_host": True}),
        (["!"], {"suffering_only": True}),
        (["!", "!"], {}),
        (["/", "text:state:distress >1G", "enter"], {"filter": "state:distress >1G"}),
        (["/", "text:colour:red", "enter"], {}),
        (["/", "text:web", "escape"], {}),
        (["c", " ", "enter"], {"columns": ("actual", "used", "press", "told", "age")}),
        (["c", *["down"] * 9, "space", "enter"],
         {"columns": ("max", "actual", "used", "press", "told", "age", "cost")}),
        (["c", " ", "escape"], {}),
    ],
)  # fmt: skip
def test_keys_change_what_is_seen(words: Sequence[str], changes: dict[str, object]) -> None:
    assert pressed(*words)[0].settings == replace(Settings(), **changes)


def test_columns_are_kept_when_they_are_chosen() -> None:
    assert pressed("c", " ", "enter")[1] == Save()


def test_a_wrong_filter_is_said_and_can_be_mended() -> None:
    view, _ = pressed("/", "text:colour:red", "enter")
    assert view.dialog is not None
    assert view.dialog.said is not None
    assert "begins with state:" in view.dialog.said
    view, _ = pressed("ctrl+u", "text:web", "enter", view=view)
    assert view.settings.filter == "web"
    assert view.dialog is None


def test_only_those_that_suffer_are_left() -> None:
    view, _ = pressed("!")
    assert [each.id for each in listed(NOW.shown, view.settings)] == [
        "web1",
        "ci-2",
        "stuck",
        "win10",
    ]


def test_a_click_chooses_and_a_second_one_asks_why() -> None:
    view = keys.clicked(View(), "db1")
    assert (view.chosen, view.settings.pane) == ("db1", "none")
    assert keys.clicked(view, "db1").settings.pane == "why"
    assert keys.clicked(pressed("s")[0], "db1").chosen is None


def test_nothing_to_be_seen_takes_every_key() -> None:
    shown = NOW.shown
    assert shown is not None
    empty = replace(NOW, shown=replace(shown, guests=()))
    none = replace(NOW, shown=None, seen=None)
    for seen in (empty, none):
        for key in ("down", "G", "enter", "h", "s", "p", "u", "H", "r", "/", "t", "c", "%", "!"):
            pressed(key, "enter", "escape", seen=seen)


def test_a_very_long_line_is_not_taken() -> None:
    view, _ = pressed("/", f"text:{'x' * 500}")
    assert view.dialog is not None
    assert len(view.dialog.text) == keys.LONGEST
