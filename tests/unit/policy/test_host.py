"""How short of memory the host is."""

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model import bounds
from qmpmem.model.config import Config
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import STATES, HostState, severity
from qmpmem.policy import host
from qmpmem.policy.host import CALM, PLAIN, SLACK_BEGINS, HostPressure, is_calm, worst
from qmpmem.policy.state import HostTrend
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes

RESERVE = Bytes(100 * MIB)
CONFIG = Config(reserve=RESERVE)
NONE: Mapping[str, int] = {}


def pinch(
    ratio: float,
    some: float = 0.0,
    full: float = 0.0,
    *,
    swapping: bool = False,
    least: float | None = None,
) -> HostPressure:
    """What is available in reserves; `least`: without what is kept against bursts."""
    return HostPressure(
        ratio=ratio,
        least=ratio if least is None else least,
        some=some,
        some10=some,
        full10=full,
        swapping=swapping,
    )


def seen(time: float, ratio: float, **more: float | None) -> Snapshot:
    reading = HostReading(
        total=Bytes(16 * GIB),
        available=Bytes(int(RESERVE * ratio)),
        **more,  # type: ignore[arg-type]
    )
    return Snapshot(time=time, host=reading)


def follow(
    snapshot: Snapshot, trend: HostTrend, config: Config = CONFIG, uses: Mapping[str, int] = NONE
) -> tuple[HostTrend, Bytes]:
    return host.follow(snapshot, trend, config, uses)


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
        (pinch(SLACK_BEGINS - 0.01, some=3.4), "BALANCED"),
        (pinch(SLACK_BEGINS - 0.01, some=3.5), "SOFT"),
        (pinch(SLACK_BEGINS - 0.01, some=10), "HARD"),
        (pinch(SLACK_BEGINS - 0.01, full=5), "HARD"),
        (pinch(SLACK_BEGINS - 0.01, full=15), "CRITICAL"),
        (pinch(SLACK_BEGINS, some=50, full=50), "SLACK"),  # that is a cgroup's own limit
        (pinch(1.2, swapping=True), "HARD"),
        (pinch(1.3, swapping=True), "BALANCED"),
        (pinch(8.0, some=50, full=50), "SLACK"),
    ],
)
def test_the_table_of_states(numbers: HostPressure, state: HostState) -> None:
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
    assert severity(worse) >= severity(better)


@given(st.floats(0, 10), st.floats(0, 100), st.floats(0, 100), st.booleans())
def test_what_calls_for_a_state_never_lets_it_go(
    ratio: float,
    some: float,
    full: float,
    swapping: bool,  # noqa: FBT001
) -> None:
    numbers = pinch(ratio, some, full, swapping=swapping)
    assert not is_calm(worst(numbers), numbers)


@pytest.mark.parametrize(
    ("ratio", "left"),
    [
        # So much is available that two better states would do, until the last one.
        (5.0, [("CRITICAL", PLAIN), ("HARD", PLAIN), ("SOFT", PLAIN), ("BALANCED", CALM)]),
        (1.7, [("CRITICAL", PLAIN), ("HARD", PLAIN), ("SOFT", CALM)]),
        (1.1, [("CRITICAL", PLAIN), ("HARD", CALM)]),
        (0.65, [("CRITICAL", CALM)]),
        (0.5, []),
    ],
)
def test_a_worse_state_is_entered_at_once_and_left_step_by_step(
    ratio: float, left: list[tuple[HostState, float]]
) -> None:
    trend, _ = follow(seen(0, 0.1), HostTrend())
    assert trend.state == "CRITICAL"
    states: list[HostState] = [trend.state]
    for time in range(1, 200):
        trend, _ = follow(seen(time, ratio), trend)
        states.append(trend.state)
    *runs, last = [(state, len(list(group))) for state, group in itertools.groupby(states)]
    assert [state for state, _ in (*runs, last)] == list(reversed(STATES))[: len(left) + 1]
    for (_, length), (_, seconds) in zip(runs, left, strict=True):
        assert seconds <= length <= seconds + 2


def test_calm_must_be_unbroken() -> None:
    trend, _ = follow(seen(0, 1.0), HostTrend())
    for time in range(1, 200):
        trend, _ = follow(seen(time, 1.5 if time % 20 == 0 else 2.0), trend)
    assert trend.state == "SOFT"


def test_an_unknown_host_keeps_its_state() -> None:
    before = HostTrend(state="HARD")
    trend, _ = follow(Snapshot(time=1, host=HostReading()), before)
    assert trend.state == "HARD"


@pytest.mark.parametrize(
    ("seconds", "stalled", "state"),
    [
        (2, 70_000, "SOFT"),
        (2, 60_000, "BALANCED"),
        (2, 200_000, "HARD"),
        (0.25, 20_000, "BALANCED"),  # over a fraction of a second that is noise
    ],
)
def test_stalls_are_counted_between_rounds(seconds: float, stalled: int, state: HostState) -> None:
    trend, _ = follow(seen(0, 2.0, stalled=0), HostTrend())
    trend, _ = follow(seen(seconds, 2.0, stalled=stalled), trend)
    assert trend.state == state


def test_a_host_that_swaps_in_while_short_is_in_need() -> None:
    trend, _ = follow(seen(0, 1.2, swap_in=0), HostTrend())
    trend, _ = follow(seen(1, 1.2, swap_in=2 * MIB), trend)
    assert trend.state == "HARD"


def test_the_budget_is_what_counts_where_it_is_narrower() -> None:
    reading = HostReading(
        total=Bytes(64 * GIB),
        available=Bytes(32 * GIB),
        limit=Bytes(4 * GIB),
        headroom=Bytes(10 * MIB),
    )
    assert host.total_of(reading) == 4 * GIB
    assert host.available_of(reading) == 10 * MIB
    trend, _ = follow(Snapshot(time=0, host=reading), HostTrend(), Config())
    assert trend.state == "CRITICAL"


def used(time: float, **uses: int) -> tuple[Snapshot, Mapping[str, int]]:
    reading = HostReading(total=Bytes(16 * GIB), available=Bytes(8 * GIB))
    return Snapshot(time=time, host=reading), uses


def reserves(*rounds: tuple[Snapshot, Mapping[str, int]]) -> list[int]:
    """Return the reserve of each round."""
    trend, found = HostTrend(), []
    for snapshot, uses in rounds:
        trend, kept = follow(snapshot, trend, Config(), uses)
        found.append(int(kept))
    return found


def test_a_burst_is_kept_for_and_forgotten_within_ten_minutes() -> None:
    before, after, later, gone = reserves(
        used(0, a=GIB), *(used(time, a=GIB + 512 * MIB) for time in (5, 305, 606))
    )
    assert after - before == 512 * MIB
    assert later - before == pytest.approx(256 * MIB, abs=MIB)
    assert gone == before


def test_slow_growth_is_no_burst() -> None:
    first, *_, last = reserves(*(used(20 * time, a=GIB + time * 100 * MIB) for time in range(9)))
    assert last == first


def test_no_burst_takes_more_than_a_tenth_of_the_host() -> None:
    before, after = reserves(used(0, a=GIB), used(5, a=9 * GIB))
    assert after - before == 16 * GIB // 10


def test_a_guest_that_starts_or_ends_is_no_burst() -> None:
    """It counts from when it has settled: what it uses then was not used all at once."""
    first, *_, gone, last = reserves(
        used(0),
        used(5, a=2 * GIB),
        used(10, a=2 * GIB, b=4 * GIB),
        used(15, a=2 * GIB),
        used(20, a=2 * GIB + 300 * MIB),
    )
    assert gone == first
    assert last - first == 300 * MIB


def test_what_guests_cost_the_host_is_no_burst() -> None:
    """Page cache that they read in is cost as well."""
    guest = GuestReading(id="a", state="running", cost=Bytes(GIB))
    rounds = [
        replace(snapshot, guests=(replace(guest, cost=Bytes(time * GIB)),))
        for time in (1, 5, 9)
        for snapshot in [used(time, a=GIB)[0]]
    ]
    first, *_, last = reserves(*((snapshot, {"a": GIB}) for snapshot in rounds))
    assert last == first
