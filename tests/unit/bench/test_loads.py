"""The bench's loads without guests: which rows are meant, and what is made of them."""

import json
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Final

import pytest

from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import Plan, SetBalloon, Tick
from qmpmem.units import MIB, Bytes
from tests.bench import database, squeeze, stacks, table
from tests.bench.load import Load, Played
from tests.bench.policed import Watch
from tests.bench.run import LOADS
from tests.bench.stacks import DOUBLE, MINIMUM, NONE, OURS, OUTSIDE, REPORTING, STACKS, Stack
from tests.bench.working import Pace


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], list(STACKS)),
        (["ours"], [OURS]),
        (["minimum", "ours"], [OURS, MINIMUM]),
        (["none"], [REPORTING, NONE]),
        (["none/absent"], [NONE]),
        (["double"], []),
    ],
)
def test_rows_are_chosen_by_policy_or_by_key(words: list[str], expected: list[Stack]) -> None:
    assert stacks.chosen(words, STACKS) == expected


def test_rows_and_loads_have_names_of_their_own() -> None:
    assert len({stack.key for stack in stacks.EVERY}) == len(stacks.EVERY)
    assert len({load.name for load in LOADS}) == len(LOADS)
    for load in LOADS:
        assert set(load.stacks) <= set(stacks.EVERY)
        assert OURS in load.stacks
        assert MINIMUM in load.stacks


def test_policies_of_others_are_measured_with_their_own_balloons_too() -> None:
    rivals = {stack.rival for stack in STACKS} - {None, OURS.rival}
    assert rivals == {"proxmox", "mom"}
    for rival in rivals:
        devices = [stack.devices for stack in STACKS if stack.rival == rival]
        assert devices[0] == "launcher"
        assert devices[1] != "launcher"


@dataclass(frozen=True, kw_only=True)
class Row:
    seen: int


def test_a_load_shows_its_rows_as_a_table_and_as_a_document() -> None:
    said: list[str] = []
    load: Load[int, Row] = Load(
        name="some",
        full=10,
        quick=1,
        play=lambda stack, size: Row(seen=size + stack.times),
        cells=lambda row: [("SEEN", f"{row.seen} MiB")],
        figures=lambda played: [
            table.Figure(what=each.stack.key, unit="", ours=float(each.row.seen)) for each in played
        ],
        stacks=(DOUBLE, *STACKS),
    )
    measured = load.show(quick=True, words=["double", "ours"], say=said.append)
    header, double, ours = measured.table
    assert header.split() == ["POLICY", "BALLOONS", "SEEN", "LOAD"]
    assert double.startswith("none, twice the memory  deflates on OOM, reports")
    assert ours.split()[-3:-1] == ["2", "MiB"]
    document = json.loads(json.dumps(measured.document))
    assert all(row.pop("load") >= 0 for row in document)
    assert document == [
        {"policy": "double/launcher", "balloons": "deflates on OOM, reports", "seen": 3},
        {"policy": "ours/launcher", "balloons": "deflates on OOM, reports", "seen": 2},
    ]
    assert [figure.ours for figure in measured.figures] == [3.0, 2.0]
    assert said[-1] == "some: ours/launcher: seen 2 MiB"
    assert list(load.written([]).table) == []


def squeezed(
    burst: float | None, *, by_then: int = 0, work: int = 100, unmet: int = 50
) -> squeeze.Row:
    return squeeze.Row(
        burst=burst,
        by_then=by_then,
        work=work,
        unmet=unmet,
        turns=None,
        kills=0,
        lost=0,
        swapped=0,
        hits=0,
    )


def test_a_burst_that_others_were_killed_for_is_no_reference() -> None:
    rows = [
        Played(stack=OURS, row=squeezed(3.0)),
        Played(stack=MINIMUM, row=squeezed(2.0, unmet=40)),
        Played(stack=NONE, row=squeezed(1.0, by_then=2, work=20, unmet=500)),
        Played(stack=REPORTING, row=squeezed(None)),
    ]
    references = {figure.what: figure.reference for figure in squeeze.figures(rows)}
    assert references["burst: beside the fastest other that no guest was killed for"] == 2.0
    assert references["jobs: unmet"] == 40.0
    assert references["jobs: work done"] == 100.0
    assert not list(squeeze.figures(rows[1:]))  # without ours there is nothing to say


def read(rate: float | None, *, lost: int = 0, unmet: int = 100) -> database.Row:
    pace = None if rate is None else Pace(rate=rate, median=1.0, p99=2.0)
    return database.Row(database=pace, work=0, unmet=unmet, kills=0, lost=lost, swapped=0)


@pytest.mark.parametrize(
    ("ours", "met"),
    [(read(590.0), [True, True, True]), (read(400.0, unmet=200), [False, False, False])],
)
def test_a_database_is_seen_beside_twice_the_memory_and_beside_the_others(
    ours: database.Row, met: list[bool]
) -> None:
    rows = [
        Played(stack=DOUBLE, row=read(700.0)),
        Played(stack=OURS, row=ours),
        Played(stack=MINIMUM, row=read(500.0)),
        Played(stack=REPORTING, row=read(None)),
        Played(stack=NONE, row=read(650.0, lost=1, unmet=10)),
    ]
    assert [table.met(figure) for figure in database.figures(rows)] == met


SIZES: Final = (100, 200)


def tick(number: int, time: float, target: int) -> Tick:
    reading = GuestReading(id="g", state="running", actual=Bytes(150 * MIB))
    change = SetBalloon(guest="g", target=Bytes(target * MIB), reason="")
    return Tick(
        number=number,
        snapshot=Snapshot(time=time, host=HostReading(), guests=(reading,)),
        plan=Plan(state="HARD" if number else "SLACK", balloons=(change,)),
    )


@pytest.mark.parametrize("sizes", list(product(SIZES, repeat=3)))
def test_an_agent_counts_rounds_and_turns(sizes: tuple[int, ...]) -> None:
    watch = Watch()
    for number, (time, size) in enumerate(zip((0.0, 1.0, 4.5), sizes, strict=True)):
        watch.publish(tick(number, time, size))
    seen = watch.summary()
    assert (seen.rounds, seen.commands, seen.longest) == (3, 3, 3.5)
    assert seen.turns == sum(one != other for one, other in pairwise(sizes))
    assert round(seen.states["HARD"]) == 67


def test_an_agent_that_did_no_round_has_nothing_to_say() -> None:
    assert Watch().summary().states == {}


def test_the_agent_outside_is_ours() -> None:
    assert OUTSIDE.rival == OURS.rival
