"""What the policy decides in worlds made by chance and in scenarios stays as it was.

Some of them in each run, all in `make soak`: `tests/rig/plans.py` says what to do where a change is
meant.
"""

from typing import Final

import pytest

from qmpmem.policy import reach
from tests.rig import chance, plans

PARTS: Final = 100
SOME: Final = 2
"""Parts that a run tries."""


def parts() -> list[list[str]]:
    """Deal out the names; scenarios, which take longer, are in different parts."""
    names = plans.names()
    return [names[part::PARTS] for part in range(PARTS)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("names", chance.some([(part,) for part in parts()], SOME))
def test_no_decision_changes_unnoticed(names: list[str]) -> None:
    assert plans.changed(names) == []


def test_all_are_recorded() -> None:
    assert list(plans.recorded()) == plans.names()


def test_another_decision_is_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    names = plans.names()[:10]
    before = [plans.digest(name) for name in names]
    monkeypatch.setattr(reach, "LEAST_STEP", 2 * reach.LEAST_STEP)
    assert [plans.digest(name) for name in names] != before
