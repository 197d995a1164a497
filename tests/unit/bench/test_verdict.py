"""The rule of the simulated scenarios: what breaks it, and that every scenario can be played."""

from dataclasses import replace
from pathlib import Path

import pytest

from qmpmem.simulate import policy_table
from qmpmem.simulate.loads import Steps
from tests.bench import scenarios, verdict
from tests.bench.scenarios import FOLDER, Run
from tests.bench.verdict import Outcome, Row

SCENARIOS = sorted(FOLDER.glob("*.toml"))


def row(policy: str, unmet: float, **more: object) -> Row:
    found = Row(
        policy=policy,
        devices="launcher",
        unmet=unmet,
        guest_kills=0,
        host_kills=0,
        turns=0,
        reversals=0,
        causes={},
        commands=0,
        late=0,
        swap_in=0.0,
    )
    return replace(found, **more)  # type: ignore[arg-type]


def outcome(*rows: Row, is_constant: bool = False) -> Outcome:
    return Outcome(name="s", is_constant=is_constant, rows=rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((row("ours", 1049), row("mom", 1000)), ""),
        ((row("ours", 1060), row("mom", 1000)), ""),  # 60 MiB·s are no difference
        ((row("ours", 2101), row("mom", 2000)), "2101 MiB·s unmet, mom with launcher devices 2000"),
        ((row("ours", 2099), row("mom", 2000)), ""),
        ((row("ours", 100), row("mom", 0)), "100 MiB·s unmet, mom with launcher devices 0 (none)"),
        ((row("ours", 5000), row("mom", 1, guest_kills=1)), ""),  # what others are killed for
        ((row("ours", 5000), row("at-minimum", 1)), "at-minimum with launcher devices is better"),
        ((row("ours", 1, host_kills=1), row("mom", 9)), "1 kills, which are none with another"),
        ((row("ours", 1, host_kills=1), row("mom", 9, guest_kills=1)), ""),
        (
            (row("ours", 1, reversals=2, causes={"a -> b": 2}), row("mom", 9)),
            "memory came back within 30 s 2 times: 2 x a -> b",
        ),
        ((row("ours", 1, late=1), row("mom", 9)), ""),
    ],
)
def test_what_is_wrong_is_said(rows: tuple[Row, ...], said: str) -> None:
    found = outcome(*rows)
    assert said in "; ".join(verdict.lost(found))
    assert bool(said) is bool(list(verdict.lost(found)))
    assert verdict.holds([found]) is (not said and found.is_won())


def test_where_no_demand_changes_no_command_is_sent() -> None:
    rows = (row("ours", 1, late=1), row("mom", 9))
    assert list(verdict.lost(outcome(*rows, is_constant=True))) == [
        "1 commands while no demand changed"
    ]


def test_two_thirds_of_the_scenarios_have_to_be_won() -> None:
    won = outcome(row("ours", 1000), row("mom", 1000))
    near = outcome(row("ours", 1040), row("mom", 1000))
    assert verdict.holds([won, won, near])
    assert not verdict.holds([won, near])


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_can_be_read_by_every_chance(path: Path) -> None:
    first, second = (scenarios.world(path, shift) for shift in (0, 1))
    assert first == scenarios.world(path, 0)
    assert [guest.id for guest in first.guests] == [guest.id for guest in second.guests]
    lists = any(isinstance(guest.load, Steps) for guest in first.guests)
    assert not lists or first != second


def test_a_run_is_one_row_of_one_scenario() -> None:
    names = [row.name for row in policy_table.rows()]
    path = next(path for path in SCENARIOS if path.stem == "quarter")
    report = scenarios.play(Run(path=path, shift=0, row=names.index("static")))
    assert (report.policy, report.commands, report.seconds) == ("static", 0, 400)
