"""What one guest wants, and whether it suffers, over a played course of time."""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model.config import LEAST_HEADROOM
from qmpmem.model.observation import GuestReading
from qmpmem.policy import behaviour, demand
from qmpmem.policy.demand import BURST_MEMORY, Demand
from qmpmem.policy.state import GuestTrend
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.policy import Course, limits, play, reading
from tests.rig.readings import changed


def wants(seen: GuestReading, trend: GuestTrend, now: float) -> Demand:
    return demand.estimate(seen, trend, limits((seen.maximum or Bytes(0)) // MIB), now)


class TestUse:
    @pytest.mark.parametrize(
        ("seen", "used"),
        [
            (reading(4096, 1024), 1024),
            (reading(available=None, free=Bytes(3000 * MIB)), 1096),  # what is free can be given up
            (reading(available=None, free=None), None),
            (reading(actual=4096, available=Bytes(5 * GIB)), 0),
            (reading(available=Bytes(0), rss=None), 4096),
            (
                reading(available=Bytes(0), rss=Bytes(256 * MIB), swap=Bytes(64 * MIB)),
                256 + 64 + 64,
            ),
        ],
    )
    def test_what_a_guest_uses_is_what_it_cannot_give_up(
        self, seen: GuestReading, used: int | None
    ) -> None:
        assert demand.used(seen) == (None if used is None else used * MIB)

    def test_demand_rises_at_once_and_falls_slowly(self) -> None:
        trend = play(reading(used=500), 99)
        assert wants(reading(used=500), trend, 99).working == pytest.approx(500 * MIB, rel=0.01)
        trend = play(reading(used=3000), 109, trend, 100)
        assert wants(reading(used=3000), trend, 109).working == 3000 * MIB
        trend = play(reading(used=500), 119, trend, 110)
        assert wants(reading(used=500), trend, 119).working > 1000 * MIB
        trend = play(reading(used=500), 900, trend, 120)
        assert wants(reading(used=500), trend, 900).working < 550 * MIB

    def test_what_it_cannot_do_without_is_forgotten_within_a_minute(self) -> None:
        trend = play(reading(used=3000), 120)
        trend = play(reading(used=500), 180, trend, 121)
        found = wants(reading(used=500), trend, 180)
        assert found.needs < 530 * MIB < 1500 * MIB < found.working

    def test_what_the_host_sees_it_touch_between_two_reports_says_nothing_yet(self) -> None:
        """Page cache that is read in is touched as well."""
        trend = play(reading(used=1000, cost=Bytes(1200 * MIB)), 3)
        grown = reading(used=1000, cost=Bytes(2200 * MIB), age=3.0)
        assert wants(grown, behaviour.follow(grown, trend, limits(), 4), 4).used == 1000 * MIB

    def test_the_same_report_seen_again_is_not_another_one(self) -> None:
        trend = play(lambda now: reading(age=now), 1)
        assert trend.reports == 1


class TestWishes:
    @pytest.mark.parametrize(
        ("maximum", "used", "headroom"),
        [
            (256, 100, 25),  # a tenth: no 64 MiB of a guest that has 256
            (1024, 100, 64),
            (4096, 100, 102),  # what it may have grows into a fortieth of its maximum
            (4096, 2000, 400),
            (16 << 10, 10 << 10, 2 << 10),
            (64 << 10, 40 << 10, 8 << 10),  # a fifth is a fifth, however large the guest
        ],
    )
    def test_headroom_is_a_part_at_any_size(self, maximum: int, used: int, headroom: int) -> None:
        seen = reading(maximum, used, maximum)
        assert wants(seen, play(seen, 5), 5).headroom // MIB == headroom

    @given(st.integers(0, 8192), st.integers(0, 8192))
    def test_demand_is_within_the_limits(self, actual: int, available: int) -> None:
        seen = reading(actual=actual, available=Bytes(available * MIB))
        found, allowed = wants(seen, play(seen, 0), 0), limits()
        for size in (found.wanted, found.eased, found.modest, found.bare):
            assert allowed.minimum <= size <= allowed.maximum

    @given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 300))
    def test_the_deeper_a_guest_is_taken_the_less_it_has(
        self, before: int, after: int, seconds: int
    ) -> None:
        trend = play(reading(used=before), 3)
        trend = play(reading(used=after), 4, trend, 3.0 + seconds)
        trend = play(reading(used=after), seconds + 4.0, trend, seconds + 4.0)
        found = wants(reading(used=after), trend, seconds + 4.0)
        assert found.bare <= found.modest <= found.wanted <= found.eased

    def test_without_a_report_a_guest_wants_what_it_has(self) -> None:
        silent = reading(2048, available=None, free=None, age=None)
        found = wants(silent, play(silent, 0), 0)
        assert (found.wanted, found.bare, found.known) == (2048 * MIB, 2048 * MIB, False)

    def test_one_that_grew_at_once_keeps_room_to_do_so_again_for_a_quarter_of_an_hour(self) -> None:
        trend = play(lambda now: reading(used=2600 if 100 <= now < 160 else 1200), 400)
        small = reading(used=1200)
        assert wants(small, trend, 400).eased - wants(small, trend, 400).wanted > 900 * MIB
        trend = play(small, 100 + 60 + BURST_MEMORY, trend, 401)
        late = wants(small, trend, 100 + 60 + BURST_MEMORY)
        assert late.eased == late.wanted

    @pytest.mark.parametrize(
        ("at", "counts"),
        [
            (30, False),
            (70, True),
        ],
    )
    def test_what_it_takes_when_it_starts_is_no_burst(self, at: int, *, counts: bool) -> None:
        trend = play(lambda now: reading(used=2000 if now >= at else 300), 200)
        found = wants(reading(used=2000), trend, 200)
        assert (found.eased > found.wanted) is counts

    @pytest.mark.parametrize(
        ("percent", "every", "waits"),
        [(50, 1, True), (50, 2, True), (5, 1, False), (0, 1, False)],
    )
    def test_whether_a_guest_waits_for_the_host(
        self, percent: int, every: int, *, waits: bool
    ) -> None:
        """The groups of guests are read every other second."""

        def seen(now: float) -> GuestReading:
            return reading(stalled=int(now // every * every * percent * 10_000))

        trend = play(seen, 60)
        assert demand.waits(trend) is waits
        rests = play(reading(stalled=60 * percent * 10_000), 120, trend, 61)
        assert not demand.waits(rests)
        assert not demand.waits(play(reading(stalled=None), 62, trend, 61))

    def test_next_to_nothing_available_is_starving(self) -> None:
        for used, starves in ((3900, False), (4060, True)):
            seen = reading(used=used)
            assert wants(seen, play(seen, 3), 3).starving is starves


LITTLE: Final = 40
"""MiB available in a guest of 4 GiB that is next to full."""


def swaps(mib: int, used: int = 4096 - LITTLE, **more: int) -> Course:
    """Return the course of a guest that reads so much back from swap in a second."""
    return lambda now: reading(**more, used=used, swap_in=Bytes(int(now) * mib * MIB))


def counts(counter: str, each: int, used: int = 4096 - LITTLE, size: int = 4096) -> Course:
    """Return the course of a guest one of whose counters goes up by `each` a second."""
    return lambda now: reading(size, used, size, **{counter: int(now) * each})


class TestDistress:
    @pytest.mark.parametrize(
        ("course", "hurts"),
        [
            (swaps(5), True),
            (swaps(5, used=2048), False),  # zram, Windows' page reads: it has plenty
            (swaps(5, used=3600), False),
            (swaps(3), False),  # of 4 GiB that is nothing
            (swaps(3, used=1000, actual=1024), True),
            (swaps(0), False),
            (counts("oom_kills", 1), True),
            (counts("oom_kills", 1, used=2048), False),  # a container at its own limit
            (counts("alloc_stalls", 1), True),
            (counts("alloc_stalls", 1, used=2048), False),
            (counts("major_faults", 60), True),
            (counts("major_faults", 60, used=2048), False),
            (counts("major_faults", 40), False),
            (counts("major_faults", 60, 21 * 1024, 21 * 1024 + 512), False),  # 3 a GiB
            (counts("major_faults", 300, 21 * 1024, 21 * 1024 + 512), True),
            (counts("oom_kills", 1, 60 << 10, 64 << 10), False),  # 4 GiB are no little
            (counts("oom_kills", 1, 250, 256), True),
            (counts("oom_kills", 1, 200, 256), False),
        ],
    )
    def test_signs_of_it_count_where_little_is_available(
        self, course: Callable[[float], GuestReading], *, hurts: bool
    ) -> None:
        assert demand.in_distress(play(course, 5), 5) is hurts

    def test_swapping_in_takes_two_reports(self) -> None:
        trend = play(swaps(5), 1)
        assert not demand.in_distress(trend, 1)
        assert demand.in_distress(play(swaps(5), 2, trend, 2), 2)

    def test_one_report_with_swapping_is_a_program_that_wakes_up(self) -> None:
        trend = play(lambda now: reading(used=4080, swap_in=Bytes(0 if now < 5 else GIB)), 10)
        assert not demand.in_distress(trend, 10)

    def test_a_counter_that_went_back_says_nothing(self) -> None:
        trend = play(lambda now: reading(used=4080, oom_kills=9 - int(now), swap_in=Bytes(GIB)), 5)
        assert not demand.in_distress(trend, 5)

    def test_nothing_is_taken_for_a_minute_and_headroom_is_larger_for_ten(self) -> None:
        full = reading(used=4080)
        trend = play(lambda now: reading(used=4080, oom_kills=int(now >= 3)), 3)
        assert demand.was_in_distress(trend, 62)
        assert not demand.was_in_distress(trend, 64)
        rooms = [wants(full, trend, now).headroom for now in (3, 303, 700)]
        assert rooms[0] == pytest.approx(1.5 * wants(full, play(full, 3), 3).headroom, rel=0.01)
        assert rooms[0] > rooms[1] > rooms[2]


UNTOLD: Final = {"oom_kills": None, "alloc_stalls": None}
"""QEMU before 9.2 reports neither."""


class TestCollapse:
    @pytest.mark.parametrize(
        ("before", "more", "after", "hurts"),
        [
            (2000, UNTOLD, 200, True),
            (1950, UNTOLD, 200, False),  # it had room: a program ended
            (2000, UNTOLD, 1300, False),
            (2000, {}, 200, False),  # it would say so
            (2000, {"oom_kills": None}, 200, False),
            (2000, UNTOLD | {"deflates": True}, 200, False),  # its balloon would have gone first
            (2000, UNTOLD | {"deflates": False}, 200, True),
            (2000, UNTOLD | {"maximum": Bytes(2 * GIB)}, 200, False),  # more could not have helped
            (2000, UNTOLD | {"free": Bytes(100 * MIB)}, 200, False),  # it is files now
        ],
    )
    def test_a_program_that_was_killed_is_noticed_without_a_word_of_the_guest(
        self, before: int, more: dict[str, object], after: int, *, hurts: bool
    ) -> None:
        quiet = {name: value for name, value in more.items() if name != "free"}
        trend = play(changed(reading(2048, before), **quiet), 100)
        killed = changed(reading(2048, after), **more)
        trend = play(killed, 101, trend, 101)
        assert demand.in_distress(trend, 101) is hurts
        if hurts:  # it is kept in mind as it was: what was killed is started again
            assert wants(killed, trend, 101).working > 1900 * MIB


@pytest.mark.parametrize("gib", [1, 2, 4, 16, 64, 512])
def test_little_is_a_fortieth_and_no_less_than_64_mib(gib: int) -> None:
    assert demand.little(gib * GIB) == max(LEAST_HEADROOM, gib * GIB // 40)


@pytest.mark.parametrize("mib", [128, 256, 512])
def test_in_a_small_guest_little_is_a_tenth(mib: int) -> None:
    assert demand.little(mib * MIB) == mib * MIB // 10
