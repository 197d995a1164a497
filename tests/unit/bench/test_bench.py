"""The table of the bench: ratios, goals, and what is not known."""

import re

import pytest

from tests.bench import timing
from tests.bench.table import (
    AtLeast,
    AtLeastTimes,
    AtMost,
    AtMostMore,
    AtMostTimes,
    Figure,
    Goal,
    lines,
    met,
    ratio,
)


def figure(ours: float | None, reference: float | None, goal: Goal | None) -> Figure:
    return Figure(what="x", unit="ms", ours=ours, reference=reference, goal=goal)


@pytest.mark.parametrize(
    ("ours", "reference", "expected"),
    [(130.0, 100.0, 1.3), (1.0, None, None), (None, 1.0, None), (1.0, 0.0, None)],
)
def test_a_ratio_needs_both(
    ours: float | None, reference: float | None, expected: float | None
) -> None:
    assert ratio(figure(ours, reference, None)) == expected


@pytest.mark.parametrize(
    ("goal", "inside", "outside"),
    [
        (AtMostTimes(factor=1.3), 130.0, 130.1),
        (AtLeastTimes(factor=0.5), 50.0, 49.9),
        (AtMostMore(amount=20), 120.0, 120.1),
        (AtMost(amount=90), 90.0, 90.1),
        (AtLeast(amount=90), 90.0, 89.9),
    ],
    ids=["at most times", "at least times", "at most more", "at most", "at least"],
)
def test_a_goal_is_met_up_to_its_edge(goal: Goal, inside: float, outside: float) -> None:
    assert met(figure(inside, 100.0, goal)) is True
    assert met(figure(outside, 100.0, goal)) is False
    assert met(figure(None, 100.0, goal)) is None


@pytest.mark.parametrize(
    "goal", [None, AtMostTimes(factor=1.3), AtLeastTimes(factor=0.5), AtMostMore(amount=20)]
)
def test_a_goal_without_what_it_is_measured_by_is_neither_met_nor_missed(goal: Goal | None) -> None:
    assert met(figure(1.0, None, goal)) is None


def test_the_table_says_what_and_how() -> None:
    seen = [
        Figure(
            what="fast",
            unit="ms",
            ours=12.34,
            reference=10.0,
            goal=AtMostTimes(factor=1.3),
            commands=["a", "b"],
        ),
        Figure(what="many", unit="/s", ours=1234.0, note="not installed"),
        Figure(what="late", unit="ms", ours=120.0, goal=AtMost(amount=100)),
    ]
    written = list(lines(seen))
    assert [re.split("  +", line) for line in written[1:4]] == [
        ["fast", "12.3 ms", "10.0 ms", "1.23", "<= 1.3 x", "yes"],
        ["many", "1234/s", "not installed", "-", "-", "-"],
        ["late", "120.0 ms", "-", "-", "<= 100 ms", "no"],
    ]
    assert written[4:8] == ["", "fast:", "    a", "    b"]


def test_commands_run_as_a_users_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("KEPT", "1")
    environ = timing.environment({"MORE": "2"})
    assert "PYTHONDONTWRITEBYTECODE" not in environ
    assert (environ["KEPT"], environ["MORE"]) == ("1", "2")
