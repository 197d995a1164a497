"""How short of memory the host is."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem import bounds
from qmpmem.actions import HostState
from qmpmem.config import Config
from qmpmem.policy import host
from qmpmem.policy.history import HostTrend
from qmpmem.policy.host import CALM, STATES, Pinch, follow, is_calm, worst
from qmpmem.sight import GuestSight, HostSight, Snapshot
from qmpmem.units import GIB, MIB, Bytes

RESERVE = Bytes(100 * MIB)
CONFIG = Config(reserve=RESERVE)


def pinch(
    ratio: float,
    some: float = 0.0,
    full: float = 0.0,
    *,
    swapping: bool = False,
    least: float | None = None,
) -> Pinch:
    """What is available in reserves; `least`: without what is kept against bursts."""
    return Pinch(
        ratio=ratio,
        least=ratio if least is None else least,
        some=some,
        some10=some,
        full10=full,
        swapping=swapping,
    )


def seen(time: float, ratio: float, **more: float | None) -> Snapshot:
    sight = HostSight(
        total=Bytes(16 * GIB),
        available=Bytes(int(RESERVE * ratio)),
        **more,  # type: ignore[arg-type]
    )
    return Snapshot(time=time, host=sight)


def test_the_sliding_scale_is_that_of_esx() -> None:
    assert bounds.reserve(Bytes(4 * GIB)) == 4 * GIB * 6 // 100
    assert bounds.reserve(Bytes(24 * GIB)) // MIB == 819
    assert bounds.reserve(Bytes(0)) == 0


@given(st.integers(0, 1 << 44), st.integers(0, 1 << 44))
def test_a_larger_host_keeps_no_less(one: int, two: int) -> None:
    low, high = sorted((one, two))
    assert bounds.reserve(Bytes(low)) <= bounds.reserve(Bytes(high)) <= high


@pytest.mark.parametrize(
    ("numbers", "state"),
    [
        (pinch(2.5), "SLACK"),
        (pinch(2.49), "BALANCED"),
        (pinch(1.25), "BALANCED"),
        (pinch(1.24), "SOFT"),
        (pinch(0.75), "SOFT"),
        (pinch(0.74), "HARD"),
        (pinch(0.40), "HARD"),
        (pinch(0.39), "CRITICAL"),
        (pinch(0.30, least=0.75), "SOFT"),
        (pinch(0.30, least=0.40), "HARD"),
        (pinch(3.0, some=3.5), "SOFT"),
        (pinch(3.0, some=10), "HARD"),
        (pinch(3.0, full=5), "HARD"),
        (pinch(3.0, full=15), "CRITICAL"),
        (pinch(1.2, swapping=True), "HARD"),
        (pinch(1.3, swapping=True), "BALANCED"),
        (pinch(8.0, some=50, full=50), "SLACK"),
    ],
)
def test_the_table_of_states(numbers: Pinch, state: HostState) -> None:
    assert worst(numbers) == state


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 100), st.floats(0, 100), st.booleans())
def test_less_memory_is_never_a_better_state(
    one: float,
    two: float,
    some: float,
    full: float,
    swapping: bool,  # noqa: FBT001
) -> None:
    low, high = sorted((one, two))
    worse = worst(pinch(low, some, full, swapping=swapping))
    better = worst(pinch(high, some, full, swapping=swapping))
    assert STATES.index(worse) >= STATES.index(better)


@given(st.floats(0, 10), st.floats(0, 100), st.floats(0, 100), st.booleans())
def test_what_calls_for_a_state_never_lets_it_go(
    ratio: float,
    some: float,
    full: float,
    swapping: bool,  # noqa: FBT001
) -> None:
    numbers = pinch(ratio, some, full, swapping=swapping)
    assert not is_calm(worst(numbers), numbers)


def test_a_worse_state_is_entered_at_once_and_left_step_by_step() -> None:
    trend, _ = follow(seen(0, 0.1), HostTrend(), CONFIG)
    assert trend.state == "CRITICAL"
    states: list[HostState] = [trend.state]
    for time in range(1, 200):
        trend, _ = follow(seen(time, 5), trend, CONFIG)
        states.append(trend.state)
    runs = [(state, len(list(group))) for state, group in itertools.groupby(states)]
    assert [state for state, _ in runs] == ["CRITICAL", "HARD", "SOFT", "BALANCED", "SLACK"]
    assert all(length >= CALM for _, length in runs)


def test_calm_must_be_unbroken() -> None:
    trend, _ = follow(seen(0, 1.0), HostTrend(), CONFIG)
    for time in range(1, 200):
        trend, _ = follow(seen(time, 1.5 if time % 20 == 0 else 2.0), trend, CONFIG)
    assert trend.state == "SOFT"


def test_an_unknown_host_keeps_its_state() -> None:
    before = HostTrend(state="HARD")
    trend, _ = follow(Snapshot(time=1, host=HostSight()), before, CONFIG)
    assert trend.state == "HARD"


def test_stalls_are_counted_between_rounds() -> None:
    trend, _ = follow(seen(0, 3.0, stalled=0), HostTrend(), CONFIG)
    assert trend.state == "SLACK"
    trend, _ = follow(seen(2, 3.0, stalled=70_000), trend, CONFIG)
    assert trend.state == "SOFT"


def test_a_fraction_of_a_second_says_nothing_of_stalls() -> None:
    trend, _ = follow(seen(0, 3.0, stalled=0), HostTrend(), CONFIG)
    trend, _ = follow(seen(0.25, 3.0, stalled=20_000), trend, CONFIG)
    assert trend.state == "SLACK"


def test_a_host_that_swaps_in_while_short_is_in_need() -> None:
    trend, _ = follow(seen(0, 1.2, swap_in=0), HostTrend(), CONFIG)
    trend, _ = follow(seen(1, 1.2, swap_in=2 * MIB), trend, CONFIG)
    assert trend.state == "HARD"


def test_the_budget_is_what_counts_where_it_is_narrower() -> None:
    sight = HostSight(
        total=Bytes(64 * GIB),
        available=Bytes(32 * GIB),
        limit=Bytes(4 * GIB),
        headroom=Bytes(10 * MIB),
    )
    assert host.total_of(sight) == 4 * GIB
    assert host.available_of(sight) == 10 * MIB
    trend, _ = follow(Snapshot(time=0, host=sight), HostTrend(), Config())
    assert trend.state == "CRITICAL"


def cost(time: float, size: int) -> Snapshot:
    guest = GuestSight(id="a", state="running", cost=Bytes(size))
    sight = HostSight(total=Bytes(16 * GIB), available=Bytes(8 * GIB))
    return Snapshot(time=time, host=sight, guests=(guest,))


def test_a_burst_is_kept_for_and_forgotten_within_ten_minutes() -> None:
    trend, before = follow(cost(0, GIB), HostTrend(), Config())
    trend, after = follow(cost(5, GIB + 512 * MIB), trend, Config())
    assert after - before == 512 * MIB
    trend, later = follow(cost(305, GIB + 512 * MIB), trend, Config())
    assert later - before == pytest.approx(256 * MIB, abs=MIB)
    _, gone = follow(cost(606, GIB + 512 * MIB), trend, Config())
    assert gone == before


def test_no_burst_takes_more_than_a_tenth_of_the_host() -> None:
    trend, before = follow(cost(0, GIB), HostTrend(), Config())
    _, after = follow(cost(5, 9 * GIB), trend, Config())
    assert after - before == 16 * GIB // 10


def test_a_guest_that_starts_is_no_burst() -> None:
    trend, before = follow(cost(0, GIB), HostTrend(), Config(), frozenset())
    trend, after = follow(cost(5, 2 * GIB), trend, Config(), frozenset())
    assert after == before
    trend, _ = follow(cost(10, 2 * GIB), trend, Config(), frozenset("a"))
    _, later = follow(cost(15, 2 * GIB + 300 * MIB), trend, Config(), frozenset("a"))
    assert later - before == 300 * MIB
