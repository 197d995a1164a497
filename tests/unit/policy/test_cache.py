"""Page cache that pays is told from a stream, and from what is read once, by trial."""

from typing import Final

import pytest

from qmpmem.model.observation import GuestReading
from qmpmem.policy import behaviour, cache, demand
from qmpmem.policy.cache import FAILED, KEPT, NOTED, SETTLES, STREAM
from qmpmem.policy.state import CacheTrend, Counters, GuestTrend, Trial
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.policy import World, limits, reading, told
from tests.rig.readings import changed

PROGRAMS: Final = 400


class Reader:
    """A guest that reads its files round and round: with less cache than they have, from disk."""

    def __init__(self, files: int, *, speed: float = 100, size: int = 1024) -> None:
        self.files = files
        """MiB."""
        self.speed = speed
        """MiB a second."""
        self.size = size
        self.disk = float("inf")
        """MiB a second that its disk reads, where that is less."""
        self.read = 0.0
        self.waited = 0.0
        self.cached = 0.0
        self.time = 0.0
        self.trend: GuestTrend | None = None

    @property
    def seen(self) -> GuestReading:
        cached = int(self.cached)
        return changed(
            reading(self.size, PROGRAMS, 4096),
            free=Bytes((self.size - PROGRAMS - cached) * MIB),
            disk_caches=Bytes(cached * MIB),
            reads=Bytes(int(self.read * MIB)),
            reads_waited=int(self.waited * 1e6),
        )

    def tick(self) -> None:
        """Read for a second: what is in the cache is not read from the disk."""
        room = self.size - PROGRAMS
        missing = 1 - min(1.0, self.cached / self.files) if self.files else 1.0
        read = min(self.speed * missing, self.disk)
        self.read += read
        self.waited += read / self.disk
        self.cached = min(room, self.cached + read, self.files or room)

    def run(self, seconds: int) -> GuestTrend:
        for _ in range(seconds):
            self.tick()
            self.time += 1.0
            self.trend = behaviour.follow(self.seen, self.trend, limits(), self.time)
        assert self.trend is not None
        return self.trend

    def note(self, found: CacheTrend) -> None:
        assert self.trend is not None
        self.trend = replace(self.trend, cache=found)

    def shrinks(self, size: int) -> None:
        """Take memory from it, as the engine does."""
        assert self.trend is not None
        self.note(cache.note_shrink(self.trend, self.time))
        self._resize(size)

    def grows(self, size: int) -> None:
        """Give it more because it reads much, as the engine does."""
        assert self.trend is not None
        self.note(cache.note_growth(self.trend, self.time))
        self._resize(size)

    def _resize(self, size: int) -> None:
        self.size = size
        self.cached = min(self.cached, size - PROGRAMS)
        assert self.trend is not None
        self.trend = replace(self.trend, actual=Bytes(size * MIB))

    @property
    def pays(self) -> int:
        """What of its cache is known to pay, in MiB."""
        assert self.trend is not None
        found = demand.estimate(self.seen, self.trend, limits(), self.time)
        return found.cache // MIB

    @property
    def wants_more(self) -> bool:
        assert self.trend is not None
        return cache.reads_again(self.seen, self.trend, self.time)


STREAM_OF_FILES: Final = 0
"""Files that are read once."""


class TestReading:
    def test_what_is_read_for_the_first_time_is_not_read_again(self) -> None:
        reader = Reader(2000, size=4096)
        assert reader.run(10).cache.rate < MIB
        assert not reader.wants_more

    @pytest.mark.parametrize(("files", "again"), [(500, False), (1500, True), (0, True)])
    def test_what_does_not_fit_is_read_again(self, files: int, *, again: bool) -> None:
        reader = Reader(files)
        reader.run(60)
        assert reader.wants_more is again

    def test_what_comes_from_swap_is_no_file(self) -> None:
        def swapped(now: float) -> GuestReading:
            more = Bytes(int(now) * 50 * MIB)
            return reading(disk_caches=Bytes(GIB), reads=more, swap_in=more)

        trend: GuestTrend | None = None
        for now in range(20):
            trend = behaviour.follow(swapped(now), trend, limits(), float(now))
        assert trend is not None
        assert trend.cache.rate == 0

    def test_without_the_host_seeing_what_it_reads_nothing_is_known(self) -> None:
        reader = Reader(1500)
        reader.run(60)
        for more in ({"reads": None}, {"disk_caches": None, "reads": None}):
            trend = behaviour.follow(changed(reader.seen, **more), reader.trend, limits(), 61.0)
            again = behaviour.follow(changed(reader.seen, **more), trend, limits(), 62.0)
            assert again.cache == trend.cache

    def test_a_counter_that_went_back_says_nothing(self) -> None:
        """A disk was unplugged."""
        reader = Reader(500)
        reader.run(60)
        reader.read = 0.0
        assert reader.run(3).cache.rate < MIB

    def test_a_guest_with_room_for_more_cache_does_not_want_more(self) -> None:
        reader = Reader(1500)
        reader.run(60)
        roomy = changed(reader.seen, free=Bytes(100 * MIB))
        assert reader.trend is not None
        assert not cache.reads_again(roomy, reader.trend, reader.time)


class TestSmaller:
    def test_what_is_read_again_after_a_shrink_is_kept_for_ten_minutes(self) -> None:
        reader = Reader(500)
        reader.run(60)
        assert reader.pays == 0
        reader.shrinks(700)
        reader.run(5)
        assert reader.pays == pytest.approx(500, abs=2)
        reader.size = 1024
        reader.run(int(KEPT) - 10)
        assert reader.pays == pytest.approx(500, abs=2)
        reader.run(10)
        assert reader.pays == 0

    def test_what_is_not_missed_is_not_kept(self) -> None:
        reader = Reader(500, speed=0)
        reader.cached = 500
        reader.run(60)
        reader.shrinks(700)
        reader.run(60)
        assert reader.pays == 0

    def test_a_stream_reads_as_much_as_before(self) -> None:
        reader = Reader(STREAM_OF_FILES)
        reader.run(60)
        reader.shrinks(700)
        reader.run(60)
        assert reader.pays == 0

    def test_what_begins_long_after_a_shrink_has_nothing_to_do_with_it(self) -> None:
        reader = Reader(500, speed=0)
        reader.cached = 500
        reader.run(60)
        reader.shrinks(700)
        reader.run(int(NOTED))
        reader.speed = 100
        reader.run(10)
        assert reader.pays == 0

    def test_of_a_shrink_in_steps_a_size_that_was_missed_at_once_counts(self) -> None:
        """Neither the first, which is more than it misses, nor the last."""
        reader = Reader(500, speed=5)
        reader.cached = 500
        reader.run(60)
        for size in (850, 810, 700):  # the first two are not missed
            reader.shrinks(size)
            reader.run(2)
        assert 400 < reader.pays < 500

    def test_what_it_filled_since_counts(self) -> None:
        """It was asked while it had hardly read anything yet."""
        reader = Reader(500, speed=50)
        reader.run(7)
        reader.shrinks(900)  # it still fits
        reader.run(30)
        reader.shrinks(800)
        reader.run(8)
        assert reader.pays == pytest.approx(500, abs=80)

    def test_one_that_counts_as_a_stream_keeps_nothing(self) -> None:
        reader = Reader(500)
        trend = reader.run(60)
        reader.note(replace(trend.cache, stream_until=reader.time + 100))
        reader.shrinks(700)
        reader.run(5)
        assert reader.pays == 0


def test_what_a_guest_reads_while_it_starts_is_no_part_of_what_it_reads_later() -> None:
    reader = Reader(0, speed=300)
    reader.run(int(cache.STARTS) - 1)
    reader.speed = 0
    trend = reader.run(1)
    assert trend.cache.rate == 0


class TestLarger:
    def test_where_more_cache_makes_it_read_less_it_is_kept(self) -> None:
        reader = Reader(1000)
        reader.run(60)
        reader.grows(1224)
        assert not reader.wants_more  # until it is known what came of it
        reader.run(20)
        assert reader.pays == pytest.approx(1224 - PROGRAMS, abs=2)
        assert reader.wants_more

    def test_a_stream_is_found_out_after_a_few_times_and_left_alone(self) -> None:
        reader = Reader(STREAM_OF_FILES)
        reader.run(60)
        for _ in range(FAILED):
            assert reader.wants_more
            reader.grows(reader.size + 128)
            reader.run(int(SETTLES) + 4)
            assert reader.pays == 0
        assert not reader.wants_more
        reader.run(int(STREAM) - 10)
        assert not reader.wants_more
        reader.run(10)
        assert reader.wants_more

    def test_reading_that_stops_is_no_proof_that_the_cache_pays(self) -> None:
        reader = Reader(STREAM_OF_FILES)
        reader.run(60)
        reader.grows(1152)
        reader.speed = 0
        trend = reader.run(20)
        assert reader.pays == 0
        assert (trend.cache.larger, trend.cache.stream_until) == (None, 0.0)

    def test_a_guest_that_has_all_its_files_is_not_given_more(self) -> None:
        reader = Reader(700)
        reader.run(60)
        reader.grows(2048)
        trend = reader.run(60)
        assert not reader.wants_more
        assert trend.cache.larger is None

    def test_it_is_not_judged_before_it_uses_what_it_was_given(self) -> None:
        reader = Reader(3000, speed=10)
        reader.run(200)
        reader.grows(1500)
        trend = reader.run(int(SETTLES) + 1)
        assert trend.cache.larger is not None
        assert not trend.cache.larger.judged
        assert trend.cache.failed == 0


@pytest.mark.parametrize("reads", [0, 100, 900])
def test_less_than_a_mib_a_second_is_nothing(reads: int) -> None:
    """However many times more than before that is."""
    trial = Trial(size=Bytes(GIB), rate=0.0, since=0.0)
    kib = Bytes(reads << 10)
    found = CacheTrend(smaller=trial)
    assert cache._judge_smaller(found, trial.size, kib, 1.0, 5.0).kept == 0
    assert cache._judge_smaller(found, trial.size, 2 * MIB, 1.0, 5.0).kept == GIB


class TestSlowDisk:
    """A disk that seeks for each read reads little, and is waited for all the time."""

    def test_one_that_misses_nothing_does_not_suffer(self) -> None:
        assert not self.reader().wants_more

    @staticmethod
    def reader() -> Reader:
        reader = Reader(500)
        reader.disk = 0.8
        reader.cached = 500.0
        reader.run(30)
        return reader

    def test_what_is_missed_is_seen_in_the_time_that_it_waits(self) -> None:
        reader = self.reader()
        reader.shrinks(PROGRAMS + 250)
        reader.run(10)
        assert reader.wants_more
        assert reader.pays >= 450

    def test_what_it_has_counts_where_it_waits_all_the_time(self) -> None:
        """With more it reads as much as before, until it has nearly all: that is no stream."""
        reader = self.reader()
        reader.shrinks(PROGRAMS + 100)
        reader.run(10)
        for size in range(150, 400, 50):
            reader.grows(PROGRAMS + size)
            reader.run(80)
            assert reader.wants_more
        assert reader.pays >= 350

    @pytest.mark.parametrize(
        ("read", "swapped", "waited", "expected"),
        [
            (MIB, 0, 1_000_000, True),
            (MIB, 0, 500_000, True),
            (MIB, 0, 499_999, False),  # it computes as well: what it reads depends on that
            (10 * MIB, 0, 1_000_000, True),
            (10 * MIB + 1, 0, 1_000_000, False),  # a slow disk in turn, or a fast one
            (0, 0, 1_000_000, False),
            (MIB, MIB // 2, 1_000_000, True),
            (MIB, MIB // 2 + 1, 1_000_000, False),  # it waits for its own swap
            (MIB, 0, None, False),
        ],
    )
    def test_it_waits_for_seeks(
        self, read: int, swapped: int, waited: int | None, *, expected: bool
    ) -> None:
        before, now = Counters(time=5.0, reads_waited=7), Counters(time=6.0)
        now = replace(now, reads_waited=None if waited is None else 7 + waited)
        time = cache._waited(before, now)
        assert cache._waits_for_seeks(read, swapped, time, 1.0) is expected

    def test_few_reads_of_a_fast_disk_are_nothing(self) -> None:
        reader = Reader(STREAM_OF_FILES, speed=0.8)
        reader.cached = 4096.0
        reader.run(60)
        assert not reader.wants_more

    @pytest.mark.parametrize(
        ("read", "waited", "expected"),
        [
            (20 * MIB, 1_000_000, 1.0),
            (200 * MIB, 1_000_000, 1.0),  # a fast disk
            (MIB, 1_000_000, 20.0),
            (MIB, 500_000, 10.0),
            (MIB, 64_000_000, 20.0),  # for many at once
            (MIB, None, 1.0),
            (0, 1_000_000, 1.0),  # for none
        ],
    )
    def test_a_read_counts_as_what_a_slow_disk_reads_meanwhile(
        self, read: int, waited: int | None, expected: float
    ) -> None:
        before = Counters(time=5.0, reads_waited=7)
        told = None if waited is None else 7 + waited
        time = cache._waited(before, Counters(time=6.0, reads_waited=told))
        assert cache._weight(read, time) == expected


class Shop(World):
    """A host one of whose guests, `files`, is a `Reader`."""

    def __init__(self, total: int, reader: Reader, **others: int) -> None:
        super().__init__(total, {"files": PROGRAMS, **others}, maximum=2048)
        self.reader = reader
        reader.cached = min(reader.files or 4096, reader.size - PROGRAMS)
        self.actual["files"] = reader.size

    def reading(self, name: str) -> GuestReading:
        if name != "files":
            return super().reading(name)
        self.reader.size = self.actual["files"]
        room = self.reader.size - PROGRAMS
        self.reader.cached = min(self.reader.cached, room)
        self.reader.tick()
        seen = self.reader.seen
        return replace(seen, id="files", maximum=Bytes(2048 * MIB))


class TestRounds:
    def test_a_guest_that_reads_its_files_again_is_given_cache_until_they_fit(self) -> None:
        shop = Shop(16_000, Reader(1000), idle=100)
        shop.run(400)
        assert shop.actual["files"] >= PROGRAMS + 1000

    @pytest.mark.parametrize("speed", [3, 10, 30, 100, 500])
    def test_a_stream_is_not_given_the_host(self, speed: int) -> None:
        shop = Shop(3000, Reader(STREAM_OF_FILES, speed=speed), idle=100)
        shop.run(250)
        assert shop.actual["files"] < 2000

    def test_a_short_host_takes_from_the_idle_before_cache_that_pays(self) -> None:
        shop = Shop(3600, Reader(1000, size=1500), idle=100)
        shop.run(30)
        shop.kept = 100
        for _ in range(12):
            shop.kept += 50
            shop.run(15)
        assert shop.actual["idle"] < 1500
        assert shop.actual["files"] >= PROGRAMS + 950

    def test_a_short_host_takes_cache_that_pays_before_it_is_in_need(self) -> None:
        shop = Shop(2600, Reader(1000, size=1500), idle=100)
        shop.actual["idle"] = 720
        shop.run(30)
        shop.kept = shop.available - 60
        assert "files" in told(shop.run(20))

    @pytest.mark.parametrize("files", [STREAM_OF_FILES, 1000])
    def test_what_is_handed_out_little_by_little_is_taken_from_no_guest(self, files: int) -> None:
        shop = Shop(6000, Reader(files), idle=100)
        for _ in range(200):
            before = dict(shop.actual)
            plan = shop.step()
            assert plan.state == "SLACK"
            assert all(change.target // MIB >= before[change.guest] for change in plan.balloons)

    @pytest.mark.parametrize("files", [STREAM_OF_FILES, 2000])
    def test_what_is_handed_out_does_not_make_the_host_short(self, files: int) -> None:
        """Else it is taken back a minute later, and handed out again."""
        shop = Shop(2700, Reader(files), idle=100)
        shop.actual["idle"] = 1200
        assert "SOFT" not in {plan.state for plan in shop.run(100)}
