"""What a decision costs, in CPU time of this process: what else the machine does adds little to it.

`make bench ARGS="--only decide"` measures the figures themselves.
"""

from typing import Final

import pytest

from qmpmem.actions import HostState
from qmpmem.policy.kept import MANY
from tests.bench import deciding

GUESTS: Final = 200
ROUNDS: Final = 20
BUSY: Final[dict[HostState, float]] = {"BALANCED": 5, "HARD": 15}
"""Times as much CPU time as the goal: on a busy machine caches and cores are shared, and in HARD
most guests are judged anew."""


@pytest.mark.parametrize("count", [10, GUESTS])
@pytest.mark.parametrize("state", BUSY)
def test_a_round_takes_no_longer_than_it_may(count: int, state: HostState) -> None:
    took = min(deciding.seconds(deciding.deck(count, state), ROUNDS))
    assert 1000 * took < BUSY[state] * deciding.GOALS[count]


def test_guests_of_which_nothing_is_new_cost_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both in turn, so that what else the machine does hits both."""
    ways = {
        many: deciding.seconds(deciding.deck(GUESTS, "BALANCED"), ROUNDS)
        for many in (MANY, 1 << 30)
    }
    took: dict[int, list[float]] = {many: [] for many in ways}
    for _ in range(ROUNDS):
        for many, rounds in ways.items():
            monkeypatch.setattr("qmpmem.policy.engine.MANY", many)
            took[many].append(next(rounds))
    kept, anew = (min(times) for times in took.values())
    assert kept < 0.8 * anew  # 0.45 on average
