"""What the rounds leave: how long they took."""

import pytest

from qmpmem.api.recent_rounds import DURATIONS, RecentRounds
from qmpmem.model.observation import HostReading, Snapshot
from qmpmem.model.round import Plan, Tick
from qmpmem.units import Bytes


def tick(seconds: float | None) -> Tick:
    snapshot = Snapshot(time=0.0, host=HostReading(total=None, available=None), guests=())
    none = Bytes(0)
    plan = Plan(state="SLACK", reason="", reserve=none, budget=none, spare=none)
    return Tick(number=1, snapshot=snapshot, plan=plan, seconds=seconds)


@pytest.mark.parametrize(
    ("durations", "percent", "expected"),
    [
        ([], 99, None),
        ([None], 99, None),
        ([3.0], 99, 3.0),
        ([float(each) for each in range(1, 101)], 99, 99.0),
        ([float(each) for each in range(100, 0, -1)], 50, 50.0),
        ([1.0, 9.0], 100, 9.0),
        ([9.0] + [1.0] * DURATIONS, 100, 1.0),
    ],
)
def test_so_many_of_the_last_rounds_were_done_by_then(
    durations: list[float | None], percent: int, expected: float | None
) -> None:
    rounds = RecentRounds()
    for seconds in durations:
        rounds.publish(tick(seconds))
    assert rounds.within(percent) == expected
