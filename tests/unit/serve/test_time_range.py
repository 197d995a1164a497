"""Which part of the past an address means, and what its plot says at each time."""

from datetime import UTC

import pytest

from qmpmem.serve.time_range import LONGEST, Window, window
from qmpmem.units import GIB, MIB
from qmpmem.view.figure import Area, Column, Figure, Line, Panel
from qmpmem.view.plot_values import values

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Window(stretch="10m")),
        ({"range": "1h"}, Window(stretch="1h")),
        ({"range": "2h"}, Window(stretch="10m")),
        ({"from": "100", "to": "200"}, Window(between=(100, 200))),
        ({"from": "100", "to": "200", "range": "1h"}, Window(between=(100, 200))),
        ({"from": "100", "range": "1h"}, Window(stretch="1h")),
        ({"from": "200", "to": "100"}, Window()),
        ({"from": "100", "to": "109"}, Window()),
        ({"from": "0", "to": str(LONGEST)}, Window(between=(0, LONGEST))),
        ({"from": "0", "to": str(LONGEST + 1)}, Window()),
        ({"from": "-5", "to": "200"}, Window()),
        ({"from": "1e3", "to": "2e3"}, Window()),
        ({"from": "\u0661\u0660\u0660", "to": "\u0662\u0660\u0660"}, Window()),
        ({"from": "9" * 400, "to": "9" * 401}, Window()),
        ({"from": "", "to": ""}, Window()),
    ],
)
def test_an_address_means_a_window(query: dict[str, str], expected: Window) -> None:
    assert window(query) == expected


@pytest.mark.parametrize("known", [Window(stretch="24h"), Window(between=(5, 99))])
def test_a_window_is_read_back_from_its_own_query(known: Window) -> None:
    assert window(dict(each.split("=") for each in known.query.split("&"))) == known


def test_windows_lie_beside_each_other() -> None:
    last = Window(stretch="1h")
    ((words, before),) = last.beside(NOW)
    assert (words, before.ends(NOW)) == ("Earlier", (NOW - 7200, NOW - 3600))
    found = dict(before.beside(NOW))
    assert found["Later"].ends(NOW) == (NOW - 3600, NOW)
    assert "Later" not in dict(found["Later"].beside(NOW))
    assert not dict(Window(between=(40, 100)).beside(60)), "nothing was before 1970, or is later"


def test_a_heading_says_when() -> None:
    assert Window(stretch="1h").words == "The last hour"
    assert Window(between=(1_000_000, 1_000_100)).words.count(":") == 4


def test_values_are_in_the_words_of_the_axes() -> None:
    sizes = Panel(
        title="",
        unit="bytes",
        top=float(GIB),
        spans=((0.0, 10.0), (10.0, 20.0), (30.0, 40.0)),
        areas=(Area(name="used", label="used", values=(256.0 * MIB, None, float("nan"))),),
        lines=(Line(name="target", label="target", values=(None, float(GIB), None)),),
    )
    waits = Panel(
        title="Waiting",
        unit="percent",
        top=10.0,
        spans=((0.0, 10.0),),
        areas=(Area(name="waiting", label="", values=(1.25,)),),
    )
    figure = Figure(
        title="",
        description="",
        begin=0.0,
        end=40.0,
        columns=(Column(title="", panels=(sizes, waits)),),
    )
    found = values(figure, UTC)
    assert [panel.names for panel in found.panels] == [("used", "target"), ("Waiting",)]
    assert [(row.begin, row.clock, row.words) for row in found.panels[0].rows] == [
        (0.0, "00:00:00", ("256 MiB", "-")),
        (10.0, "00:00:10", ("-", "1 GiB")),
    ]
    assert found.panels[1].rows[0].words == ("1.2 %",)
