"""What is tried by chance: some cases in each run, all of them in `make soak`."""

import pytest

from tests.rig import chance

CASES = [("a", 1), ("b", 2), ("c", 3), ("d", 4)]


def tried(cases: list[object], count: int = 1) -> list[object]:
    return [each.values for each in chance.some(cases, count) if not each.marks]


def test_a_run_tries_some_and_all_runs_try_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(chance.ALL, raising=False)
    seen = set[object]()
    for seed in range(60):
        monkeypatch.setenv(chance.VARIABLE, str(seed))
        [case] = tried([*CASES])
        assert tried([*CASES]) == [case]  # the same in each worker
        assert len(tried([*CASES], 3)) == 3
        assert len(chance.some(CASES)) == len(CASES)
        seen.add(case)
    assert seen == set(CASES)


def test_where_all_are_asked_for_none_is_left_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chance.ALL, "1")
    assert tried([*CASES]) == []
    assert {mark.name for each in chance.some(CASES) for mark in each.marks} == {"soak"}
