"""What a decision costs, in CPU time of this process: what else the machine does adds little to it.

`make bench ARGS="--only decide"` measures the figures themselves.
"""

from typing import Final
from unittest.mock import Mock

import pytest

from qmpmem.model.round import HostState
from qmpmem.policy import assess
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


def test_guests_of_which_nothing_is_new_are_not_judged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A round brings a report of one in ten, and judges few more; counted, since times vary."""
    judge = Mock(wraps=assess.judge)
    rounds = deciding.seconds(deciding.deck(GUESTS, "BALANCED"), ROUNDS)
    next(rounds)
    monkeypatch.setattr("qmpmem.policy.judgement_cache.assess.judge", judge)
    assert len(list(rounds)) == ROUNDS - 1
    assert judge.call_count < 0.2 * GUESTS * ROUNDS
