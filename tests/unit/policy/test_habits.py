"""What guests usually use at an hour: learned from rounds, and forgotten where it does not hold."""

from collections.abc import Iterable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model.observation import GuestReading, Habit, HostReading, Snapshot
from qmpmem.model.round import Explanation, Plan, Tick, Verdict
from qmpmem.policy import habits
from qmpmem.policy.habits import DAYS, HOUR, HOURS, Hours, Use, habit
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.policy import use

TODAY: Final = 100
MINUTE: Final = 60.0
NINE: Final = (TODAY * HOURS + 9) * HOUR + 30 * MINUTE
"""Half past nine."""
USE: Final = use(TODAY - 1)


def mib(size: int) -> Bytes:
    return Bytes(size * MIB)


def usual(uses: Iterable[Use], local: float = NINE) -> int | None:
    found = habit(uses, local)
    return None if found is None or found.usual is None else found.usual // MIB


def tick(used: int | None, *, up: float = 9999.0, verdict: Verdict = "normal") -> Tick:
    reading = GuestReading(id="a", state="running", maximum=Bytes(2 * GIB), up=up)
    said = Explanation(guest="a", used=None if used is None else mib(used), verdict=verdict)
    seen = Snapshot(time=0.0, host=HostReading(), guests=(reading,))
    return Tick(number=1, snapshot=seen, plan=Plan(guests=(said,)))


class TestHours:
    def test_an_hour_is_what_was_used_in_it(self) -> None:
        running, ended = Hours(), list[Use]()
        for minute in range(60):
            used = 1500 if minute == 30 else 700 if minute > 50 else 300
            assert not running.add(tick(used), NINE - 30 * MINUTE + minute * MINUTE)
        ended = running.add(tick(300), NINE + 30 * MINUTE)
        expected = replace(USE, day=TODAY, usual=mib(700), peak=mib(1500))
        assert ended == [expected]

    def test_what_it_uses_right_after_its_start_counts_as_its_start(self) -> None:
        running = Hours()
        for minute in range(30):
            running.add(tick(800 if minute < 5 else 2000, up=minute * MINUTE), NINE)
        [found] = running.end()
        assert (found.start, found.peak) == (mib(800), mib(2000))

    @pytest.mark.parametrize(
        "odd", [tick(None), tick(500, verdict="implausible"), tick(500, verdict="frozen")]
    )
    def test_what_cannot_be_believed_is_not_learned(self, odd: Tick) -> None:
        running = Hours()
        running.add(odd, NINE)
        assert not running.end()

    @pytest.mark.parametrize("local", [-1.0, 1e300, float("inf")])
    def test_nor_what_was_seen_by_a_clock_that_cannot_be(self, local: float) -> None:
        running = Hours()
        assert not running.add(tick(500), local)
        assert not running.end()

    def test_a_clock_that_is_set_ends_an_hour(self) -> None:
        running = Hours()
        running.add(tick(500), NINE)
        assert [use.hour for use in running.add(tick(500), NINE - 5 * HOUR)] == [9]
        assert [use.hour for use in running.end()] == [4]


class TestHabit:
    def test_of_some_days_the_middle_counts_and_the_peak_of_all(self) -> None:
        sizes = (300, 900, 500)
        uses = [
            replace(USE, day=TODAY - 1 - ago, usual=mib(size), peak=mib(size + 100))
            for ago, size in enumerate(sizes)
        ]
        assert habit(uses, NINE) == Habit(
            usual=mib(500), peak=mib(1000), maximum=Bytes(2 * GIB), days=3
        )

    @pytest.mark.parametrize(
        ("local", "known"),
        [
            (NINE, True),
            (NINE - HOUR, False),  # half past eight
            (NINE - 36 * MINUTE, False),
            (NINE - 34 * MINUTE, True),  # 4 minutes to nine
            (NINE + 29 * MINUTE, True),
            (NINE + 31 * MINUTE, False),
            (NINE + DAYS * HOURS * HOUR, False),
            (NINE - 2 * HOURS * HOUR, False),  # it is of the future: a clock was wrong
        ],
    )
    def test_it_holds_in_its_hour_and_shortly_before(self, local: float, *, known: bool) -> None:
        assert (usual([USE], local) is not None) is known

    def test_before_the_hour_what_is_more_counts(self) -> None:
        uses = [USE, replace(USE, hour=8, usual=mib(100), peak=mib(1900))]
        found = habit(uses, NINE - 33 * MINUTE)
        assert found is not None
        assert (found.usual, found.peak) == (mib(900), mib(1900))

    def test_midnight_is_an_hour_like_any_other(self) -> None:
        assert usual([replace(USE, hour=0, day=TODAY)], (TODAY + 1) * HOURS * HOUR - 60) == 900

    @pytest.mark.parametrize(
        "odd",
        [
            {"minutes": 5},
            {"minutes": 0},
            {"minutes": 61},
            {"hour": 33},
            {"usual": mib(1500)},  # above its peak
            {"peak": mib(4096)},  # above its maximum
            {"usual": Bytes(-1)},
            {"start": mib(1300)},
            {"maximum": Bytes(0)},
            {"peak": Bytes(1 << 62), "maximum": Bytes(1 << 62)},
            {"day": TODAY},  # the hour that is running
            {"day": TODAY + 1},
        ],
    )
    def test_what_contradicts_itself_counts_for_nothing(self, odd: dict[str, object]) -> None:
        assert usual([replace(USE, **odd)]) is None

    def test_what_was_learned_under_another_maximum_is_dropped(self) -> None:
        before = replace(USE, day=TODAY - 2, maximum=Bytes(8 * GIB), usual=mib(1000))
        assert usual([before, USE]) == 900
        late = replace(USE, hour=3, maximum=Bytes(8 * GIB))
        assert usual([USE, late]) == 900  # it was so only before
        late = replace(late, hour=12)
        assert usual([USE, late]) is None
        assert usual([USE, replace(late, maximum=Bytes(2 * GIB + 100 * MIB))]) == 900

    def test_its_last_starts_count_at_any_hour(self) -> None:
        starts = [
            replace(USE, hour=hour, start=mib(size), minutes=5)
            for hour, size in ((1, 900), (2, 100), (3, 200), (4, 300), (5, 400), (6, 500))
        ]
        found = habit(starts, NINE)
        assert found is not None
        assert (found.start, found.usual, found.days) == (mib(300), None, 0)

    def test_nothing_is_known_of_nothing(self) -> None:
        assert habit([], NINE) is None

    @given(
        st.lists(
            st.builds(
                Use,
                guest=st.just("a"),
                day=st.integers(TODAY - 3, TODAY + 1),
                hour=st.integers(-1, 25),
                usual=st.integers(-1, 4000),
                peak=st.integers(-1, 4000),
                start=st.none() | st.integers(-1, 4000),
                maximum=st.integers(-1, 4000),
                minutes=st.integers(-1, 70),
            )
        ),
        st.floats(0, 2 * NINE),
    )
    def test_whatever_is_in_the_journal_a_habit_is_within_what_the_guest_could_have(
        self, uses: list[Use], local: float
    ) -> None:
        found = habit(uses, local)
        if found is not None:
            assert found.usual is not None or found.start is not None
            for size in (found.usual, found.peak, found.start):
                assert size is None or 0 <= size <= found.maximum * 9 // 8
            assert 0 <= found.days <= 2 * DAYS


def test_a_day_may_be_shorter() -> None:
    hour = 100.0
    running, uses = Hours(hour), list[Use]()
    for second in range(int(26 * hour)):
        used = 1500 if 900 <= second < 1000 else 300
        uses += running.add(tick(used), float(second))
    assert usual_at(uses, 33.5 * hour, hour) == 1500
    assert usual_at(uses, 34.5 * hour, hour) == 300


def usual_at(uses: Iterable[Use], local: float, hour: float) -> int | None:
    found = habits.habit(uses, local, hour)
    return None if found is None or found.usual is None else found.usual // MIB
