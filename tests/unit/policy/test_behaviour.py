"""What a guest is to the agent: verdicts, epochs, and a balloon that another program moves."""

from typing import Final

import pytest

from qmpmem.model.observation import GuestReading
from qmpmem.policy import behaviour
from qmpmem.policy.state import GuestTrend, Releasing, Shrinking
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.policy import GRACE, limits, play, reading
from tests.rig.readings import changed

MUTE: Final = changed(reading(), age=None, available=None, free=None)
"""A guest that does not report what it uses."""


def verdict(seen: GuestReading, trend: GuestTrend, now: float, **more: object) -> str:
    return behaviour.judge(seen, trend, limits(**more), GRACE, now).verdict  # type: ignore[arg-type]


class TestGrace:
    def test_a_new_guest_is_left_alone_for_a_while(self) -> None:
        trend = play(reading(), 60)
        assert verdict(reading(), trend, 59) == "grace"
        assert verdict(reading(), trend, 60) == "normal"

    def test_so_is_one_that_was_reset(self) -> None:
        trend = play(reading(epoch=1), 110, play(reading(), 100), 101)
        assert verdict(reading(epoch=1), trend, 110) == "grace"
        assert trend.born == 101

    def test_and_one_that_reported_once_only(self) -> None:
        trend = play(lambda now: reading(age=now), 100)
        assert verdict(reading(age=5.0), trend, 100) == "grace"

    @pytest.mark.parametrize(("seconds", "expected"), [(119, "grace"), (120, "stale")])
    def test_one_that_never_reports_is_new_for_two_minutes(
        self, seconds: int, expected: str
    ) -> None:
        assert verdict(MUTE, play(MUTE, seconds), seconds) == expected

    def test_one_that_has_just_begun_to_report_is_new_however_old_it_is(self) -> None:
        once = play(lambda now: reading(age=now - 200), 205, play(MUTE, 199), 200)
        assert once.reports == 1
        assert verdict(reading(age=5.0), once, 205) == "grace"

    @pytest.mark.parametrize(
        ("seconds", "settled"),
        [(0, False), (1, False), (4, False), (5, True), (20, True)],
    )
    def test_a_short_host_waits_for_two_reports_and_5_s(
        self, seconds: int, *, settled: bool
    ) -> None:
        assert behaviour.is_settled(reading(), play(reading(), seconds), seconds) is settled
        once = play(lambda now: reading(age=now), seconds)
        assert not behaviour.is_settled(reading(), once, seconds)

    @pytest.mark.parametrize(("seconds", "settled"), [(0, False), (4, False), (5, True)])
    def test_after_a_reset_it_waits_for_5_s_of_reports(
        self, seconds: int, *, settled: bool
    ) -> None:
        reset = replace(reading(epoch=1), began="reset")
        mute = changed(reset, age=None, available=None, free=None)
        trend = play(reset, 120 + seconds, play(mute, 119, play(reading(), 100), 101), 120)
        assert behaviour.is_settled(reset, trend, 120 + seconds) is settled


class TestVerdicts:
    @pytest.mark.parametrize(
        ("more", "name"),
        [
            ({"exempt": "vfio"}, "exempt"),
            ({"state": "paused"}, "exempt"),
            ({"implausible": True}, "implausible"),
            ({"actual": None}, "implausible"),
            ({"age": 31.0}, "stale"),
            ({"age": 29.0}, "normal"),
            ({"age": None, "available": None, "free": None}, "stale"),
        ],
    )
    def test_by_what_is_seen(self, more: dict[str, object], name: str) -> None:
        seen = changed(reading(), **more)
        assert verdict(seen, play(seen, 101, play(reading(), 100), 101), 101) == name

    @pytest.mark.parametrize(
        ("more", "name"),
        [
            ({"ineffective": True}, "ineffective"),
            ({"foreign_at": 41.0}, "foreign"),
            ({"foreign_at": 40.0}, "normal"),
            ({"hurt": 91.0}, "distress"),
            ({"hurt": 90.0}, "normal"),
            ({"stalls": (50.0, 60.0, 70.0)}, "uncooperative"),
            ({"stalls": (50.0, 60.0)}, "normal"),
            ({"rest_until": 101.0}, "stalled"),
            ({"suspect_since": 70.0}, "suspect"),
            ({"suspect_since": 71.0}, "normal"),
        ],
    )
    def test_by_what_is_remembered(self, more: dict[str, object], name: str) -> None:
        assert verdict(reading(), replace(play(reading(), 100), **more), 100) == name

    def test_not_managed(self) -> None:
        assert verdict(reading(), play(reading(), 100), 100, managed=False) == "exempt"

    def test_a_guest_that_is_exempt_is_nothing_else(self) -> None:
        worse = replace(play(reading(), 100), hurt=100.0, ineffective=True, foreign_at=100.0)
        assert verdict(reading(exempt="vfio"), worse, 100) == "exempt"


SMALL: Final = reading(2048, 500)
"""A guest of 4 GiB that has half of it."""


class TestReset:
    def released(self, trend: GuestTrend) -> bool:
        return isinstance(trend.phase, Releasing)

    def test_a_guest_that_was_reset_is_released_until_it_reports_and_has_all(self) -> None:
        trend = play(SMALL, 100)
        assert not self.released(trend)
        reset = changed(SMALL, epoch=1, age=None, available=None, free=None)
        trend = play(reset, 120, trend, 101)
        assert self.released(trend)
        trend = play(replace(SMALL, epoch=1), 121, trend, 121)
        assert trend.reports == 1
        assert self.released(trend)  # QEMU shows the old size still
        whole = replace(SMALL, epoch=1, actual=SMALL.maximum)
        assert not self.released(play(whole, 122, trend, 122))
        mute = replace(reset, actual=SMALL.maximum)
        assert self.released(play(mute, 120, play(SMALL, 100), 101))  # it has no driver yet

    @pytest.mark.parametrize(
        "more", [{"implausible": True}, {"age": 31.0}, {"age": None, "available": None}]
    )
    def test_it_is_not_released_for_ever_where_it_does_not_report(
        self, more: dict[str, object]
    ) -> None:
        reset = changed(SMALL, epoch=1, **more)
        trend = play(reset, 160, play(SMALL, 100), 101)
        assert self.released(trend)
        assert not self.released(play(reset, 161, trend, 161))

    def test_it_is_not_released_where_its_maximum_is_not_known(self) -> None:
        reset = replace(SMALL, epoch=1, age=None, maximum=None)
        assert not self.released(play(reset, 101, play(SMALL, 100), 101))

    def test_all_that_was_known_of_it_is_forgotten(self) -> None:
        before = replace(play(SMALL, 100), hurt=99.0, stalls=(90.0,), ineffective=True, speed=1.0)
        trend = play(replace(SMALL, epoch=1), 101, before, 101)
        assert (trend.hurt, trend.stalls, trend.ineffective, trend.speed) == (None, (), False, None)


@pytest.mark.parametrize("more", [{"implausible": True}, {"age": 31.0}, {"age": None}])
def test_a_report_that_cannot_be_true_or_is_too_old_is_none(more: dict[str, object]) -> None:
    trend = play(reading(used=500), 100)
    later = play(replace(reading(used=4000, oom_kills=9), **more), 110, trend, 101)
    assert (later.reports, later.used, later.hurt) == (trend.reports, trend.used, trend.hurt)


def test_a_guest_that_is_first_seen_is_told_nothing_and_not_released() -> None:
    trend = play(SMALL, 0)
    assert (trend.phase, trend.told, trend.actual) == (None, None, 2 * GIB)


def test_what_a_guest_was_on_its_way_to_ends_where_its_size_is_not_known() -> None:
    going = replace(play(SMALL, 100), phase=Shrinking(start=Bytes(2 * GIB), since=100.0, cost=None))
    lost = replace(SMALL, actual=None)
    assert play(lost, 101, going, 101).phase is None
    assert play(replace(SMALL, actual=Bytes(2040 * MIB)), 101, going, 101).phase is going.phase
