"""How often guests are asked what they use."""

import pytest

from qmpmem.model.round import STATES, HostState
from qmpmem.policy.cadence import every


@pytest.mark.parametrize(
    ("state", "squeezed", "up", "seconds"),
    [
        ("SLACK", False, 1000.0, 10.0),
        ("SLACK", True, 1000.0, 2.0),  # it may need more at any time
        ("SLACK", False, 14.0, 1.0),  # it has just started
        ("SLACK", False, 15.0, 10.0),
        ("BALANCED", False, 1000.0, 2.0),
        ("SOFT", True, 1000.0, 2.0),
        ("HARD", False, 1000.0, 1.0),
        ("CRITICAL", True, 1000.0, 1.0),
    ],
)
def test_the_table(state: HostState, *, squeezed: bool, up: float, seconds: float) -> None:
    assert every(state, squeezed=squeezed, up=up) == seconds


@pytest.mark.parametrize("up", [0.0, 14.0, 100.0])
def test_the_shorter_the_host_and_the_guest_are_the_more_often(up: float) -> None:
    for squeezed in (False, True):
        found = [every(state, squeezed=squeezed, up=up) for state in STATES]
        assert found == sorted(found, reverse=True)
    assert all(
        every(state, squeezed=True, up=up) <= every(state, squeezed=False, up=up)
        for state in STATES
    )
