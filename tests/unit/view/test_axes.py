"""Ticks: round numbers, never more than there is room for, all on the axis."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.units import GIB, MIB
from qmpmem.view import axes

DAY = 86400


@pytest.mark.parametrize(
    ("top", "most", "expected"),
    [
        (4 * GIB, 7, ["0 B", "1 GiB", "2 GiB", "3 GiB", "4 GiB"]),
        (512 * MIB, 4, ["0 B", "128 MiB", "256 MiB", "384 MiB", "512 MiB"]),
        (3 * GIB, 2, ["0 B", "2 GiB"]),
        (3.9 * GIB, 4, ["0 B", "1 GiB", "2 GiB", "3 GiB", "3.9 GiB"]),
        (0, 4, ["0 B"]),
    ],
)
def test_sizes_are_at_powers_of_two(top: float, most: int, expected: list[str]) -> None:
    assert [tick.label for tick in axes.sizes(top, most)] == expected


@given(st.floats(0, 1e20), st.integers(1, 50))
def test_sizes_and_percents_are_on_the_axis_and_not_too_many(top: float, most: int) -> None:
    for ticks in (axes.sizes(top, most), axes.percents(top, most)):
        assert ticks[0].at == 0
        assert all(0 <= tick.at <= max(top, 1) for tick in ticks)
        assert len(ticks) <= most + 2


@given(st.floats(-(2.0**40), 2.0**40), st.floats(1, 1e9), st.integers(1, 50))
def test_times_are_on_the_axis_and_not_too_many(begin: float, length: float, most: int) -> None:
    ticks = axes.times(begin, begin + length, most, UTC)
    assert all(begin <= tick.at <= begin + length for tick in ticks)
    assert len(ticks) <= most + 1


@pytest.mark.parametrize(
    ("length", "most", "expected"),
    [
        (60, 4, ["10:00:00", "10:00:15", "10:00:30", "10:00:45", "10:01:00"]),
        (3600, 4, ["10:00", "10:15", "10:30", "10:45", "11:00"]),
        (DAY, 4, ["12:00", "18:00", "16 Jan", "06:00"]),
        (3 * DAY, 4, ["16 Jan", "17 Jan", "18 Jan"]),
        (30 * DAY, 4, ["28 Jan", "11 Feb"]),
    ],
)
def test_times_are_what_a_clock_and_a_calendar_show(
    length: float, most: int, expected: list[str]
) -> None:
    begin = 1_800_007_200.0  # 2027-01-15 10:00
    assert [tick.label for tick in axes.times(begin, begin + length, most, UTC)] == expected


def test_a_day_on_which_the_clock_is_put_forward_has_round_times_before() -> None:
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2027, 3, 28, tzinfo=zone).timestamp()
    labels = [tick.label for tick in axes.times(begin, begin + 6 * 3600, 6, zone)]
    assert labels == ["28 Mar", "01:00", "03:00", "04:00", "05:00", "06:00", "07:00"]


def test_seconds_begin_at_nothing() -> None:
    labels = [tick.label for tick in axes.seconds(180, 4)]
    assert labels == ["0s", "1min", "2min", "3min"]


@pytest.mark.parametrize("seconds", [1e18, -1e18, float("inf")])
def test_a_time_of_no_calendar_is_none(seconds: float) -> None:
    assert axes.local(seconds, UTC) is None
    assert axes.offset(seconds, UTC) == 0.0
    assert axes.dates(seconds, seconds, UTC) == ""
