"""What a guest was told, and how far it got with that: phases, stalls, yield, and unasked moves."""

import itertools

import pytest

from qmpmem.model.observation import GuestReading
from qmpmem.policy import behaviour, demand, progress
from qmpmem.policy.state import Growing, GuestTrend, Releasing, Shrinking, Told
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, PAGE, Bytes
from tests.rig.policy import GRACE, Course, limits, play, reading


def verdict(seen: GuestReading, trend: GuestTrend, now: float) -> str:
    return behaviour.judge(seen, trend, limits(), GRACE, now).verdict


def sent(trend: GuestTrend, target: int, now: float) -> GuestTrend:
    """Tell a guest a target in MiB."""
    cost = trend.counters.cost if trend.counters else None
    return progress.note_sent(trend, trend.actual, cost, Bytes(target * MIB), now)


def calm(actual: int = 4096, used: int = 1024, **more: object) -> GuestTrend:
    """Return what is remembered of a guest after 100 s."""
    return play(replace(reading(actual, used), **more), 100)


class TestPhases:
    @pytest.mark.parametrize(
        ("target", "phase", "lowered", "raised"),
        [(1500, Shrinking, 100.0, None), (2500, Growing, None, 100.0), (2048, None, None, None)],
    )
    def test_a_command_begins_one(
        self, target: int, phase: type | None, lowered: float | None, raised: float | None
    ) -> None:
        trend = sent(calm(2048), target, 100)
        assert (type(trend.phase) if trend.phase else None) is phase
        assert (trend.lowered, trend.raised) == (lowered, raised)
        assert trend.told == Told(target=Bytes(target * MIB), at=100.0)

    def test_the_target_before_is_known(self) -> None:
        trend = sent(sent(calm(), 3000, 100), 2500, 101)
        assert trend.told == Told(target=Bytes(2500 * MIB), at=101.0, before=Bytes(3000 * MIB))

    def test_going_on_with_a_shrink_does_not_begin_its_progress_anew(self) -> None:
        trend = sent(calm(), 3000, 100)
        on = sent(replace(trend, actual=Bytes(3900 * MIB)), 2800, 103)
        assert on.phase == trend.phase
        assert on.lowered == 103

    def test_it_ends_where_the_balloon_arrives(self) -> None:
        trend = play(reading(3074), 101, sent(calm(), 3072, 100), 101)
        assert trend.phase is None

    def test_a_release_goes_on_whatever_is_told(self) -> None:
        trend = replace(calm(2048), phase=Releasing(size=Bytes(4 * GIB)))
        for target in (1000, 2048, 3000):
            assert sent(trend, target, 100).phase == trend.phase

    def test_a_guest_whose_size_is_not_known_begins_none(self) -> None:
        trend = progress.note_sent(calm(2048), None, None, Bytes(GIB), 100)
        assert (trend.phase, trend.target) == (None, GIB)


class TestGrowth:
    def test_what_was_not_touched_yet_is_remembered_for_half_a_minute(self) -> None:
        small = reading(1024, 500, cost=Bytes(800 * MIB))
        trend = sent(play(small, 100), 2048, 100)
        assert trend.granted == GIB
        after = reading(2048, 500, cost=Bytes(1200 * MIB))
        trend = play(after, 130, trend, 101)
        assert trend.granted == 624 * MIB
        assert play(after, 131, trend, 131).granted == 0

    def test_what_it_gave_back_meanwhile_is_not_granted_again(self) -> None:
        trend = sent(play(reading(1024, 500), 100), 2048, 100)
        costs = (1024, 1500, 1100)
        for number, cost in enumerate(costs):
            seen = reading(2048, 500, cost=Bytes(cost * MIB))
            trend = play(seen, 101 + number, trend, 101 + number)
        assert trend.granted == 1024 * MIB - (1500 - 1024) * MIB

    def test_more_is_counted_once(self) -> None:
        trend = sent(play(reading(1024, 500), 100), 1536, 100)
        trend = sent(trend, 2048, 101)  # its balloon did not move yet
        assert trend.granted == GIB


class TestStalls:
    def test_a_guest_that_does_not_move_is_stalled_and_rests_longer_each_time(self) -> None:
        trend, rests, now = calm(), [], 101.0
        for _ in range(6):
            trend = play(reading(), now + 5, sent(trend, 3072, now), now + 1)
            rests.append(trend.rest_until - now - 5)
            now += 6
        assert rests == [60, 120, 240, 480, 900, 900]
        assert verdict(reading(), trend, now) == "uncooperative"
        assert trend.phase is None

    def test_stalls_are_forgotten_after_ten_minutes(self) -> None:
        trend = play(reading(), 105, sent(calm(), 3072, 100), 101)
        assert verdict(reading(), trend, 106) == "stalled"
        trend = replace(trend, stalls=(-495.0, -494.0, 105.0))
        assert len(play(reading(), 106, trend, 106).stalls) == 1

    @pytest.mark.parametrize(
        ("target", "moved", "stalls"),
        [
            (3072, 0, 1),
            (3072, 3, 1),
            (3072, 79, 1),
            (3072, 81, 0),  # 16 MiB a second are willing, however much it was asked for
            (512, 81, 0),
            (3596, 49, 1),
            (3596, 51, 0),
            (4090, 3, 0),
            (4080, 3, 1),
        ],
    )
    def test_a_page_now_and_then_is_no_progress(self, target: int, moved: int, stalls: int) -> None:
        trend = play(reading(4096 - moved), 105, sent(calm(), target, 100), 101)
        assert len(trend.stalls) == stalls

    def test_a_guest_that_moves_is_not_stalled_and_its_speed_is_known(self) -> None:
        trend = sent(calm(), 2048, 100)
        trend = play(lambda now: reading(4096 - int(now - 100) * 50), 110, trend, 101)
        assert trend.stalls == ()
        assert trend.speed == pytest.approx(50 * MIB, rel=0.1)

    def test_a_guest_that_got_there_is_forgiven(self) -> None:
        trend = play(reading(), 105, sent(calm(), 3072, 100), 101)
        assert trend.backoff == 1
        trend = play(reading(3072), 108, sent(trend, 3072, 106), 107)
        assert (trend.backoff, trend.phase) == (0, None)

    @pytest.mark.parametrize(("used", "rest", "stalls"), [(3900, 60, 1), (4070, 10, 0)])
    def test_a_full_guest_gave_what_it_could(self, used: int, rest: int, stalls: int) -> None:
        """It may have something to give again as soon as a program ends."""
        full = reading(used=used)
        trend = play(full, 105, sent(play(full, 100), 3900, 100), 101)
        assert (trend.rest_until, len(trend.stalls)) == (105 + rest, stalls)
        again = play(full, 111, sent(trend, 3900, 106), 107)
        assert again.rest_until == 111 + 2 * rest


class TestYield:
    def shrunk(self, cost: int, times: int = 2, step: int = 512) -> GuestTrend:
        """Shrink a guest that costs as much afterwards."""
        trend = calm()
        sizes = [4096 - number * step for number in range(times + 1)]
        for number, (start, end) in enumerate(itertools.pairwise(sizes)):
            now = 101.0 + 2 * number
            trend = play(reading(start, cost=Bytes(cost * MIB)), now, trend, now)
            trend = sent(trend, end, now)
            trend = play(reading(end, cost=Bytes(cost * MIB)), now + 1, trend, now + 1)
        return trend

    @pytest.mark.parametrize(
        ("cost", "times", "step", "ineffective"),
        [
            (4096, 2, 512, True),
            (4096, 1, 512, False),  # once may be chance
            (4096, 4, 100, False),  # too little to tell
            (3300, 2, 512, False),  # devices cost as much beside what the guest has
        ],
    )
    def test_a_balloon_that_frees_nothing_is_found_out_the_second_time(
        self, cost: int, times: int, step: int, *, ineffective: bool
    ) -> None:
        trend = self.shrunk(cost, times, step)
        assert trend.ineffective is ineffective

    def test_one_that_frees_is_not(self) -> None:
        trend = sent(replace(calm(), fruitless=1), 3072, 100)
        trend = play(reading(3072), 102, trend, 101)
        assert (trend.ineffective, trend.fruitless) == (False, 0)

    def test_a_guest_that_costs_more_than_it_has_for_long_is_suspect(self) -> None:
        thief = reading(3072, cost=Bytes(4 * GIB))
        trend = play(thief, 131, sent(calm(), 3072, 100), 101)
        assert verdict(thief, trend, 130) != "suspect"
        assert verdict(thief, trend, 131) == "suspect"
        assert play(reading(3072), 132, trend, 132).suspect_since is None

    def test_not_one_that_never_gave_anything(self) -> None:
        assert play(reading(3072, cost=Bytes(4 * GIB)), 200).suspect_since is None


def course(moved: int, used: int = 1024, **more: object) -> Course:
    """Return a guest of 2048 MiB whose balloon moves by so much at second 101."""
    return lambda now: replace(reading(2048 + (moved if now > 100 else 0), used), **more)


class TestUnaskedMoves:
    @pytest.mark.parametrize(
        ("moved", "used", "deflates", "foreign"),
        [
            (200, 500, True, 0),  # it took memory back: need, whatever its last report says
            (200, 2000, True, 0),
            (-200, 500, True, 1),
            (200, 500, False, 1),
            (200, 2000, False, 1),  # it has no such feature
            (200, 500, None, 1),
            (200, 1800, None, 0),  # it was nearly full
            (-200, 1800, None, 1),
            (20, 500, None, 0),  # its driver, page by page
            (-20, 500, None, 0),
        ],
    )
    def test_up_with_deflate_on_oom_is_need_and_anything_else_another_program(
        self, moved: int, used: int, foreign: int, *, deflates: bool | None
    ) -> None:
        trend = play(course(moved, used, deflates=deflates), 101)
        assert trend.foreign == foreign
        seen = course(moved, used, deflates=deflates)(101)
        assert (verdict(seen, trend, 101) == "foreign") == bool(foreign)

    def test_a_guest_that_took_memory_back_is_asked_for_nothing_for_a_minute(self) -> None:
        trend = sent(play(course(0, deflates=True), 100), 1900, 100)
        trend = play(course(100, deflates=True), 101, trend, 101)
        assert (trend.raised, trend.phase, trend.target) == (101, None, 1900 * MIB)

    @pytest.mark.parametrize("deflates", [True, False, None])
    def test_before_its_first_report_it_is_the_start_of_its_driver(
        self, *, deflates: bool | None
    ) -> None:
        """A reset guest shows the old size until then, and goes on to what QEMU was told."""
        silent = reading(1024, available=None, free=None, age=None, deflates=deflates)
        trend = sent(play(replace(silent, epoch=1), 0), 512, 0)
        whole = replace(silent, epoch=1, actual=Bytes(4 * GIB))
        trend = play(whole, 40, trend, 40)
        assert (trend.foreign, trend.raised, trend.shrinking) == (0, None, True)
        arrived = play(replace(whole, actual=Bytes(512 * MIB)), 41, trend, 41)
        assert (arrived.foreign, arrived.phase) == (0, None)

    def test_what_it_goes_back_to_is_what_qemu_was_told(self) -> None:
        trend = sent(play(reading(2048, 1900, deflates=True), 100), 1900, 100)
        trend = play(reading(2400, 2300, deflates=True), 101, trend, 101)
        assert play(reading(1900, 500, deflates=True), 102, trend, 102).foreign == 0

    def test_where_another_program_moved_it_that_is_its_target(self) -> None:
        trend = play(course(-200), 101)
        assert trend.told == Told(target=Bytes(1848 * MIB), at=101.0)
        assert not trend.foreign_up
        assert play(course(200), 101).foreign_up
        assert verdict(reading(1848), trend, 160) == "foreign"
        assert verdict(reading(1848), trend, 161) == "normal"

    def test_what_it_was_asked_for_is_no_surprise(self) -> None:
        trend = sent(calm(), 3072, 100)
        trend = play(lambda now: reading(4096 - int(now - 100) * 100), 110, trend, 101)
        assert trend.foreign == 0

    @pytest.mark.parametrize(("seconds", "foreign"), [(1, 0), (4, 0), (6, 1)])
    def test_nor_is_the_rest_of_the_way_to_the_target_before(
        self, seconds: int, foreign: int
    ) -> None:
        trend = play(reading(3600), 101, sent(calm(), 3072, 100), 101)
        trend = play(reading(3600), 100 + seconds, sent(trend, 3700, 101), 102)
        trend = play(reading(3300), 101 + seconds, trend, 101 + seconds)
        assert trend.foreign == foreign


class TestPlugged:
    """Memory is plugged in, or put online: the balloon stays as large as it is."""

    def grew(self, trend: GuestTrend) -> GuestTrend:
        """Follow a guest of 2048 of 4096 MiB into which 256 MiB are plugged."""
        return behaviour.follow(reading(2304, maximum=4352), trend, limits(4352), 101)

    def test_that_is_no_move_of_the_balloon(self) -> None:
        trend = self.grew(sent(calm(2048), 1800, 100))
        assert (trend.foreign, trend.actual) == (0, 2304 * MIB)
        assert trend.told == Told(target=Bytes(2056 * MIB), at=100.0)

    def test_what_it_is_on_its_way_from_moves_as_well(self) -> None:
        assert self.grew(sent(calm(2048), 1800, 100)).phase == Shrinking(
            start=Bytes(2304 * MIB), since=100.0, cost=Bytes(2048 * MIB)
        )

    def test_and_what_it_is_released_to(self) -> None:
        trend = replace(calm(2048), phase=Releasing(size=Bytes(4 * GIB)), reports=0, born=100.0)
        seen = reading(2304, maximum=4352, age=None)
        trend = behaviour.follow(seen, trend, limits(4352), 101)
        assert trend.phase == Releasing(size=Bytes(4352 * MIB))

    def test_what_is_unplugged_leaves_a_page(self) -> None:
        trend = progress._follow_maximum(
            reading(maximum=1024), replace(sent(calm(2048), 1800, 100), maximum=Bytes(4 * GIB))
        )
        assert trend.target == PAGE


@pytest.mark.parametrize(
    ("maximum", "mib"), [(256, 8), (1024, 8), (4096, 20.48), (16384, 81.92), (65536, 327.68)]
)
def test_the_dead_band_is_half_a_percent(maximum: int, mib: float) -> None:
    assert progress.band(limits(maximum)) == int(mib * MIB)


def test_a_guest_in_distress_that_takes_back_is_not_pressed() -> None:
    trend = sent(play(reading(2048, 2000, deflates=True), 100), 1990, 100)
    trend = play(reading(1990, 1980, deflates=True, oom_kills=1), 101, trend, 101)
    back = reading(2400, 2350, deflates=True, oom_kills=1)
    trend = play(back, 102, trend, 102)
    assert demand.in_distress(trend, 102)
    assert (trend.phase, trend.foreign) == (None, 0)


@pytest.mark.parametrize("size", [256, 1024, 4096, 65536])
@pytest.mark.parametrize(("more", "stalls"), [(-1, 1), (1, 0)])
def test_a_guest_of_any_size_that_gives_a_tenth_or_16_mib_a_second_is_not_stalled(
    size: int, more: int, stalls: int
) -> None:
    trend = sent(play(reading(size, size // 4, size), 100), size // 2, 100)
    moved = min(size // 20, 80) + more
    assert len(play(reading(size - moved, size // 4, size), 105, trend, 101).stalls) == stalls
