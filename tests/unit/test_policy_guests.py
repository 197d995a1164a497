"""What one guest wants and how it behaves: demand, and conduct, over a played course of time."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.config import Config, Limits
from qmpmem.policy import conduct, demand
from qmpmem.policy.history import GuestTrend
from qmpmem.records import replace
from qmpmem.sight import GuestSight
from qmpmem.units import GIB, MIB, Bytes

MAXIMUM = Bytes(4 * GIB)
LIMITS: Limits = Config().limits("a", MAXIMUM)
GRACE = 60.0


def sight(actual: int = 4096, used: int = 1024, **more: object) -> GuestSight:
    """A guest with sizes in MiB; its host gave it all it has."""
    base = GuestSight(
        id="a",
        state="running",
        maximum=MAXIMUM,
        actual=Bytes(actual * MIB),
        rss=Bytes(actual * MIB),
        cost=Bytes(actual * MIB),
        available=Bytes((actual - used) * MIB),
        age=0.5,
        swap_in=Bytes(0),
        major_faults=0,
        oom_kills=0,
        alloc_stalls=0,
    )
    return replace(base, **more)


def play(
    course: Callable[[float], GuestSight],
    until: float,
    trend: GuestTrend | None = None,
    start: float = 0.0,
) -> GuestTrend:
    """Follow a guest once a second."""
    now = start
    while now <= until:
        trend = conduct.follow(course(now), trend, LIMITS, now)
        now += 1.0
    assert trend is not None
    return trend


def wants(seen: GuestSight, trend: GuestTrend, now: float) -> demand.Demand:
    return demand.estimate(seen, trend, LIMITS, now)


def verdict(seen: GuestSight, trend: GuestTrend) -> str:
    return conduct.judge(seen, trend, LIMITS, GRACE).verdict


class TestDemand:
    def test_what_a_guest_uses_is_what_it_cannot_give_up(self) -> None:
        assert demand.used(sight(4096, 1024)) == 1024 * MIB
        assert demand.used(sight(available=None)) is None
        assert demand.used(sight(actual=4096, used=0, available=Bytes(5 * GIB))) == 0

    def test_it_cannot_use_more_than_the_host_ever_gave_it(self) -> None:
        liar = sight(4096, 4096, rss=Bytes(256 * MIB), swap=Bytes(64 * MIB))
        assert demand.used(liar) == 256 * MIB + 64 * MIB + demand.OVERHEAD

    def test_demand_rises_at_once_and_falls_slowly(self) -> None:
        trend = play(lambda now: sight(used=3000 if 100 <= now < 110 else 500), 99)
        assert wants(sight(used=500), trend, 99).working == pytest.approx(500 * MIB, rel=0.01)
        trend = play(lambda _: sight(used=3000), 109, trend, 100)
        assert wants(sight(used=3000), trend, 109).working == 3000 * MIB
        trend = play(lambda _: sight(used=500), 119, trend, 110)
        assert wants(sight(used=500), trend, 119).working > 1000 * MIB
        trend = play(lambda _: sight(used=500), 900, trend, 120)
        assert wants(sight(used=500), trend, 900).working < 550 * MIB

    def test_headroom_is_a_fifth_within_bounds(self) -> None:
        for used, headroom in ((100, 64), (2000, 400)):
            trend = play(lambda _, used=used: sight(used=used), 5)  # type: ignore[misc]
            found = wants(sight(used=used), trend, 5)
            assert found.headroom == headroom * MIB
        big = Config().limits("a", Bytes(64 * GIB))
        full = sight(used=0, actual=64 * 1024, available=Bytes(0))
        trend = conduct.follow(full, None, big, 0)
        assert demand.estimate(full, trend, big, 0).headroom == GIB

    @given(st.integers(0, 8192), st.integers(0, 8192))
    def test_demand_is_within_the_limits(self, actual: int, available: int) -> None:
        seen = sight(actual=actual, available=Bytes(available * MIB))
        trend = conduct.follow(seen, None, LIMITS, 0)
        assert LIMITS.minimum <= wants(seen, trend, 0).wanted <= LIMITS.maximum

    def test_without_a_report_a_guest_wants_what_it_has(self) -> None:
        silent = sight(2048, available=None, age=None)
        found = wants(silent, conduct.follow(silent, None, LIMITS, 0), 0)
        assert (found.wanted, found.known) == (2048 * MIB, False)

    def test_what_the_host_saw_it_touch_since_its_report_counts(self) -> None:
        trend = play(lambda _: sight(used=1000, cost=Bytes(1200 * MIB)), 3)
        grown = sight(used=1000, cost=Bytes(2200 * MIB), age=3.0)
        trend = conduct.follow(grown, trend, LIMITS, 4)
        assert wants(grown, trend, 4).used == 2000 * MIB


class TestDistress:
    def test_swapping_in_for_two_reports_is_distress(self) -> None:
        trend = play(lambda now: sight(swap_in=Bytes(int(now) * 2 * MIB)), 1)
        assert not demand.in_distress(trend, 1)
        trend = play(lambda now: sight(swap_in=Bytes(int(now) * 2 * MIB)), 2, trend, 2)
        assert demand.in_distress(trend, 2)

    def test_one_report_with_swapping_is_not(self) -> None:
        trend = play(lambda now: sight(swap_in=Bytes(0 if now < 5 else 9 * MIB)), 10)
        assert not demand.in_distress(trend, 10)

    def test_faults_count_where_little_is_available(self) -> None:
        for used, hurts in ((4000, True), (2000, False)):
            trend = play(lambda now, u=used: sight(used=u, major_faults=int(now) * 60), 3)  # type: ignore[misc]
            assert demand.in_distress(trend, 3) is hurts

    def test_a_killed_program_is_distress_at_once(self) -> None:
        trend = play(lambda now: sight(oom_kills=int(now >= 3)), 3)
        assert demand.in_distress(trend, 3)

    def test_a_counter_that_went_back_says_nothing(self) -> None:
        trend = play(lambda now: sight(oom_kills=9 - int(now), swap_in=Bytes(GIB)), 5)
        assert not demand.in_distress(trend, 5)

    def test_nothing_is_taken_for_a_minute_and_headroom_is_larger_for_ten(self) -> None:
        trend = play(lambda now: sight(oom_kills=int(now >= 3)), 3)
        assert demand.was_in_distress(trend, 62)
        assert not demand.was_in_distress(trend, 64)
        calm = play(lambda _: sight(), 3)
        rooms = [wants(sight(), trend, now).headroom for now in (3, 303, 700)]
        assert rooms[0] == pytest.approx(1.5 * wants(sight(), calm, 3).headroom, rel=0.01)
        assert rooms[0] > rooms[1] > rooms[2]

    def test_the_same_report_seen_again_is_not_another_one(self) -> None:
        trend = conduct.follow(sight(age=0.0), None, LIMITS, 0)
        trend = conduct.follow(sight(age=1.0), trend, LIMITS, 1)
        assert trend.reports == 1


class TestGrace:
    def test_a_new_guest_is_left_alone(self) -> None:
        trend = play(lambda _: sight(), 59)
        assert verdict(sight(), trend) == "grace"
        trend = play(lambda _: sight(), 60, trend, 60)
        assert verdict(sight(), trend) == "normal"

    def test_so_is_one_that_was_reset(self) -> None:
        trend = play(lambda _: sight(), 100)
        trend = play(lambda _: sight(epoch=1), 110, trend, 101)
        assert verdict(sight(epoch=1), trend) == "grace"
        assert trend.born == 101

    def test_and_one_that_reported_once_only(self) -> None:
        trend = play(lambda now: sight(age=now), 100)
        assert verdict(sight(age=5.0), trend) == "grace"


class TestVerdicts:
    @pytest.mark.parametrize(
        ("more", "name"),
        [
            ({"exempt": "vfio"}, "exempt"),
            ({"state": "paused"}, "exempt"),
            ({"implausible": True}, "implausible"),
            ({"actual": None}, "implausible"),
            ({"age": 31.0}, "stale"),
            ({"age": None, "available": None}, "stale"),
        ],
    )
    def test_by_what_is_seen(self, more: dict[str, object], name: str) -> None:
        trend = play(lambda _: sight(), 100)
        seen = replace(sight(), **more)
        assert verdict(seen, conduct.follow(seen, trend, LIMITS, 101)) == name

    def test_not_managed(self) -> None:
        trend = play(lambda _: sight(), 100)
        limits = replace(LIMITS, managed=False)
        assert conduct.judge(sight(), trend, limits, GRACE).verdict == "exempt"

    def test_who_does_not_move_is_stalled_and_rests_longer_each_time(self) -> None:
        trend = play(lambda _: sight(), 100)
        rests = []
        now = 101.0
        for _ in range(3):
            trend = conduct.note_sent(trend, Bytes(3 * GIB), now)
            trend = play(lambda _: sight(), now + 5, trend, now + 1)
            rests.append(trend.rest_until - now - 5)
            now += 6
        assert rests == [60, 120, 240]
        assert verdict(sight(), trend) == "uncooperative"

    def test_a_page_now_and_then_is_no_progress(self) -> None:
        trend = conduct.note_sent(play(lambda _: sight(), 100), Bytes(3 * GIB), 100)
        trend = play(
            lambda now: sight(actual=Bytes(MAXIMUM - int(now) * 4096) // MIB), 105, trend, 101
        )
        assert len(trend.stalls) == 1

    def test_who_moves_is_not_stalled_and_its_speed_is_known(self) -> None:
        trend = conduct.note_sent(play(lambda _: sight(), 100), Bytes(2 * GIB), 100)
        trend = play(lambda now: sight(actual=4096 - int(now - 100) * 50), 110, trend, 101)
        assert trend.stalls == ()
        assert trend.speed == pytest.approx(50 * MIB, rel=0.1)

    def test_who_got_there_is_forgiven(self) -> None:
        trend = conduct.note_sent(play(lambda _: sight(), 100), Bytes(3 * GIB), 100)
        trend = play(lambda _: sight(), 105, trend, 101)
        assert trend.backoff == 1
        trend = conduct.note_sent(trend, Bytes(3 * GIB), 106)
        trend = play(lambda _: sight(actual=3072), 108, trend, 107)
        assert (trend.backoff, trend.asked_from) == (0, None)

    def test_a_balloon_that_frees_nothing_is_found_out_the_second_time(self) -> None:
        trend = play(lambda _: sight(), 100)
        heavy = Bytes(4 * GIB)
        sizes = (4096, 3584, 3072)
        for step, (start, end) in enumerate(itertools.pairwise(sizes)):
            now = 101.0 + 2 * step
            trend = play(lambda _, s=start: sight(actual=s, cost=heavy), now, trend, now)  # type: ignore[misc]
            trend = conduct.note_sent(trend, Bytes(end * MIB), now)
            trend = play(lambda _, e=end: sight(actual=e, cost=heavy), now + 1, trend, now + 1)  # type: ignore[misc]
        assert trend.ineffective
        assert verdict(sight(actual=3072, cost=heavy), trend) == "ineffective"

    def test_a_balloon_that_frees_is_not(self) -> None:
        trend = play(lambda _: sight(), 100)
        trend = conduct.note_sent(trend, Bytes(3 * GIB), 100)
        trend = play(lambda _: sight(actual=3072), 102, trend, 101)
        assert (trend.ineffective, trend.idle_yield) == (False, 0)

    def test_who_costs_more_than_it_has_for_long_is_suspect(self) -> None:
        trend = play(lambda _: sight(), 100)
        trend = conduct.note_sent(trend, Bytes(3 * GIB), 100)
        thief = sight(actual=3072, cost=Bytes(4 * GIB))
        trend = play(lambda _: thief, 130, trend, 101)
        assert verdict(thief, trend) != "suspect"
        trend = play(lambda _: thief, 132, trend, 131)
        assert verdict(thief, trend) == "suspect"
        trend = play(lambda _: sight(actual=3072), 133, trend, 133)
        assert trend.suspect_since is None


class TestForeignHands:
    def test_a_balloon_that_moved_by_itself_is_somebody_elses_doing(self) -> None:
        trend = play(lambda _: sight(), 100)
        moved = sight(actual=3000)
        trend = conduct.follow(moved, trend, LIMITS, 101)
        assert verdict(moved, trend) == "foreign"
        assert trend.target == 3000 * MIB
        trend = play(lambda _: moved, 161, trend, 102)
        assert verdict(moved, trend) == "normal"

    def test_what_we_asked_for_is_not(self) -> None:
        trend = conduct.note_sent(play(lambda _: sight(), 100), Bytes(3 * GIB), 100)
        trend = play(lambda now: sight(actual=4096 - int(now - 100) * 100), 110, trend, 101)
        assert trend.foreign == 0

    def test_nor_is_the_rest_of_the_way_to_the_target_before(self) -> None:
        trend = conduct.note_sent(play(lambda _: sight(), 100), Bytes(3 * GIB), 100)
        trend = play(lambda _: sight(actual=3600), 101, trend, 101)
        trend = conduct.note_sent(trend, Bytes(3700 * MIB), 101)
        trend = play(lambda _: sight(actual=3300), 102, trend, 102)
        assert trend.foreign == 0

    def test_a_guest_in_need_that_takes_back_is_in_distress_and_not_pressed(self) -> None:
        trend = play(lambda _: sight(actual=2048, used=1900), 100)
        trend = conduct.note_sent(trend, Bytes(1900 * MIB), 100)
        trend = play(lambda _: sight(actual=1900, used=1880), 101, trend, 101)
        back = sight(actual=2400, used=2350)
        trend = conduct.follow(back, trend, LIMITS, 102)
        assert verdict(back, trend) == "distress"
        assert (trend.target, trend.asked_from, trend.foreign) == (1900 * MIB, None, 0)
        trend = play(lambda _: sight(actual=1900, used=500), 103, trend, 103)
        assert trend.foreign == 0  # it goes back to what QEMU was told last


def test_growth_that_was_not_touched_yet_is_remembered_for_a_while() -> None:
    small = sight(actual=1024, used=500, cost=Bytes(800 * MIB))
    trend = conduct.note_sent(play(lambda _: small, 100), Bytes(2 * GIB), 100)
    assert trend.granted == GIB
    after = sight(actual=2048, used=500, cost=Bytes(1200 * MIB))
    trend = conduct.follow(after, trend, LIMITS, 101)
    assert trend.granted == 624 * MIB
    trend = play(lambda _: after, 140, trend, 102)
    assert trend.granted == 0


def test_a_release_is_confirmed_by_the_size_itself() -> None:
    trend = replace(play(lambda _: sight(actual=2048), 100), released=MAXIMUM)
    trend = conduct.follow(sight(actual=3000), trend, LIMITS, 101)
    assert trend.released == MAXIMUM
    trend = conduct.follow(sight(actual=4096), trend, LIMITS, 102)
    assert trend.released is None


def test_a_program_that_was_killed_is_noticed_without_a_word_of_the_guest() -> None:
    """QEMU 7.2 reports no kills; the memory that is suddenly free tells."""
    trend = play(lambda _: sight(actual=2048, used=1950, oom_kills=None), 100)
    killed = sight(actual=2048, used=200, oom_kills=None)
    trend = conduct.follow(killed, trend, LIMITS, 101)
    assert verdict(killed, trend) == "distress"
    assert wants(killed, trend, 101).working > 1900 * MIB


def test_a_program_that_ends_in_a_guest_with_room_is_not() -> None:
    trend = play(lambda _: sight(actual=4096, used=1950), 100)
    trend = conduct.follow(sight(actual=4096, used=200), trend, LIMITS, 101)
    assert not demand.in_distress(trend, 101)
