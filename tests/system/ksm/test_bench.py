"""What the bench makes of KSM's counters, and how KSM is put back; both on invented values."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from qmpmem.wire.kernel import ksm as wire
from tests.bench import ksm, ksm_table
from tests.bench.ksm_table import BASE, EAGER, QUIET, Row, Sample
from tests.bench.table import met
from tests.rig import ksm as rig


def row(name: str, saved: Sequence[float], cpu: float, *, step: float = 60) -> Row:
    """A row with a sample each minute; its CPU time grows evenly."""
    last = max(1, len(saved) - 1)
    samples = [
        Sample(
            at=number * step, saved=value, profit=value - 1, cpu=cpu * number / last, scans=number
        )
        for number, value in enumerate(saved)
    ]
    return Row(name=name, samples=samples)


def verdicts(*measured: Row) -> dict[str, bool | None]:
    return {figure.what: met(figure) for figure in ksm_table.figures(measured)}


OFF = row("off", [0, 0, 0], 0)
SLOW = row(BASE, [0, 0, 300], 1)
FAST = row("advisor, 20 s", [0, 0, 950, 1000], 40)


def test_the_presets_are_judged_by_the_best_and_the_fastest() -> None:
    eager = row(EAGER, [0, 1000, 1000], 50)
    quiet = row(QUIET, [0, 0, 0, 960], 10)
    assert verdicts(OFF, SLOW, FAST, quiet, eager) == {
        "ksm quiet, saved": True,
        "ksm quiet, ksmd's CPU": True,
        "ksm quiet, beside the cheapest": None,
        "ksm eager, to 90 % of its saving": True,
    }


@pytest.mark.parametrize(
    ("quiet", "eager", "missed"),
    [
        (row(QUIET, [0, 940], 1), row(EAGER, [0, 1000], 50), "ksm quiet, saved"),
        (row(QUIET, [0, 1000], 12.6), row(EAGER, [0, 999], 50), "ksm quiet, ksmd's CPU"),
        (
            row(QUIET, [0, 1000], 1),
            row(EAGER, [0, 0, 0, 1000], 50),
            "ksm eager, to 90 % of its saving",
        ),
    ],
)
def test_a_goal_that_is_missed_is_told(quiet: Row, eager: Row, missed: str) -> None:
    assert [what for what, is_met in verdicts(FAST, quiet, eager).items() if is_met is False] == [
        missed
    ]


def test_the_row_that_saved_as_much_sooner_is_the_better() -> None:
    sooner = row("sooner", [0, 999, 999], 9)
    later = row("later", [0, 0, 1000], 1)
    assert ksm_table.best([sooner, later]) is sooner
    assert ksm_table.best([row("less", [0, 900, 900], 9), later]) is later
    assert ksm_table.best([OFF]) is None


def test_a_row_that_hardly_saves_is_no_rival_for_speed() -> None:
    little = row("little", [10, 10], 1)
    assert verdicts(little, row(EAGER, [0, 1000], 9))["ksm eager, to 90 % of its saving"] is None


def test_nothing_measured_meets_and_misses_nothing() -> None:
    assert set(verdicts(OFF, Row(name=EAGER, samples=())).values()) == {None}


def test_speed_is_measured_against_the_final_saving() -> None:
    assert ksm_table.time_to(FAST, 0.9) == 120
    assert ksm_table.time_to(OFF, 0.9) is None
    assert ksm_table.per_cpu_second(FAST) == 25
    assert ksm_table.per_cpu_second(OFF) is None


def test_the_table_knows_what_it_does_not_know() -> None:
    short = row("short", [0, 10], 1, step=3)
    none = Row(name="none", samples=(), note="no such package")
    lines = list(ksm_table.lines([FAST, short, none]))
    assert [re.split("  +", line) for line in lines[1:4]] == [
        ["advisor, 20 s", "0 MiB", "1000 MiB", "999 MiB", "40.00 s", "25 MiB", "120 s", "3"],
        ["short", "-", "10 MiB", "9 MiB", "1.00 s", "10 MiB", "3 s", "1"],
        ["none", "-", "-", "-", "-", "-", "-", "-"],
    ]
    assert lines[4:] == ["", "none: no such package"]


def test_every_way_has_a_name_of_its_own() -> None:
    names = [way.name for way in ksm.ways()]
    assert len(names) == len(set(names))
    assert {BASE, QUIET, EAGER} < set(names)


# The rest is about putting back; ordinary files take any value, so only what is written is seen.


@pytest.fixture
def host(tmp_path: Path) -> Path:
    directory = tmp_path / wire.DIRECTORY
    directory.mkdir(parents=True)
    for name, value in rig.BOOT.items():
        (directory / name).write_text(f"{value}\n")
    (directory / wire.MODE).unlink()  # an ordinary file does not read as it was written
    shared = directory / "pages_shared"
    shared.write_text("7\n")
    shared.chmod(0o444)
    return tmp_path


def knob(host: Path, name: str) -> str:
    return (host / wire.DIRECTORY / name).read_text().strip()


def test_what_was_changed_is_put_back_also_after_a_failure(host: Path) -> None:
    with pytest.raises(ZeroDivisionError), rig.held(root=host) as machine:  # noqa: PT012
        assert "pages_shared" not in machine.before
        machine.write({"run": 1, "sleep_millisecs": 50})
        assert knob(host, "run") == "1"
        raise ZeroDivisionError
    assert {name: knob(host, name) for name in machine.before} == machine.before
    assert not (host / rig.BEFORE).exists()


def test_the_next_one_puts_back_what_a_killed_one_left(host: Path) -> None:
    (host / rig.BEFORE).parent.mkdir(parents=True)
    (host / rig.BEFORE).write_text('{"sleep_millisecs": "33"}')
    with rig.held(root=host) as machine:
        assert machine.before["sleep_millisecs"] == "33"
        assert (host / rig.BEFORE).exists()
    assert not (host / rig.BEFORE).exists()
    assert knob(host, "sleep_millisecs") == "33"


def test_it_is_held_by_one_at_a_time(host: Path) -> None:
    with rig.held(root=host):
        with pytest.raises(TimeoutError, match="held by others"), rig.held(root=host, timeout=0.2):
            pass
        assert (host / rig.BEFORE).exists()
