"""What each guest should have by itself: the first rule that holds."""

from typing import Final

import pytest

from qmpmem.model.observation import Habit
from qmpmem.model.round import STATES, HostState, Kind
from qmpmem.policy import commands, goals, progress
from qmpmem.policy.cases import Case
from qmpmem.policy.goals import SILENT, Goal, goal
from qmpmem.policy.state import CacheTrend, GuestTrend, Releasing, Shrinking, Told
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, PAGE, Bytes
from tests.rig.policy import case, limits, play, quiet, reading
from tests.rig.readings import changed

CALM: Final = play(reading(), 100)
TOLD: Final = Told(target=Bytes(2 * GIB), at=0.0)


def guest(trend: dict[str, object] | None = None, **more: object) -> Case:
    """Return a guest of 4 GiB that uses 1 GiB, at second 100."""
    return case(changed(reading(), **more), replace(CALM, **(trend or {})))


def small(used: int, actual: int = 2048, **more: object) -> Case:
    """Return a guest that has less than it may have."""
    seen = changed(reading(actual, used), **more)
    return case(seen, play(seen, 100))


class TestOrder:
    @pytest.mark.parametrize(
        ("trend", "more", "kind"),
        [
            ({}, {}, "stay"),
            ({"phase": Releasing(size=Bytes(4 * GIB))}, {"actual": Bytes(GIB)}, "release"),
            ({"ineffective": True}, {"actual": Bytes(GIB)}, "release"),
            ({"hurt": 99.0}, {"actual": Bytes(2 * GIB), "available": Bytes(0)}, "rescue"),
            ({}, {"actual": Bytes(2 * GIB), "available": Bytes(0)}, "need"),
            ({}, {"actual": Bytes(GIB), "available": Bytes(GIB)}, "minimum"),
            ({"hurt": 99.0}, {"exempt": "vfio", "available": Bytes(0)}, "stay"),
            ({}, {"implausible": True, "actual": Bytes(GIB)}, "stay"),
        ],
    )
    def test_the_first_rule_that_holds(
        self, trend: dict[str, object], more: dict[str, object], kind: Kind
    ) -> None:
        assert goal(guest(trend, **more), quiet()).kind == kind

    def test_a_guest_that_has_what_it_needs_stays(self) -> None:
        found = goal(small(1024), quiet())
        assert (found.size, found.kind, found.due) == (2 * GIB, "stay", 0)


class TestRelease:
    RELEASING: Final[dict[str, object]] = {"phase": Releasing(size=Bytes(4 * GIB))}

    def test_it_is_absolute(self) -> None:
        """But for a page: a driver that has nothing to move tells QEMU nothing."""
        held = guest(self.RELEASING, actual=Bytes(GIB))
        found = goal(replace(held, pin=Bytes(GIB)), quiet(state="CRITICAL", spare=0))
        assert found.size == 4 * GIB - PAGE

    @pytest.mark.parametrize("has", [4 * GIB - PAGE, 4 * GIB])
    def test_one_that_has_all_keeps_it_to_the_page(self, has: int) -> None:
        held = guest(self.RELEASING, actual=Bytes(has))
        assert goal(held, quiet(hold=True)).size == has

    def test_no_goal_is_above_what_it_may_have(self) -> None:
        allowed = limits(maximum=4096)
        capped = replace(allowed, maximum=Bytes(3 * GIB))
        held = replace(guest(self.RELEASING, actual=Bytes(GIB)), limits=capped)
        assert goal(held, quiet()).size == 3 * GIB - PAGE


class TestSilent:
    @pytest.mark.parametrize(
        ("born", "told", "kind"),
        [
            (100 - SILENT, TOLD, "release"),
            (100 - SILENT + 1, TOLD, "stay"),
            (0.0, None, "stay"),  # it was never told anything
            (0.0, Told(target=Bytes(4 * GIB), at=0.0), "stay"),
        ],
    )
    def test_one_that_was_started_small_and_does_not_report_has_its_memory_back(
        self, born: float, told: Told | None, kind: Kind
    ) -> None:
        silent = {"available": None, "free": None, "age": None}
        trend: dict[str, object] = {"born": born, "told": told, "used": None, "reports": 0}
        found = goal(guest(trend, actual=Bytes(2 * GIB), **silent), quiet())
        assert found.kind == kind


class TestPin:
    @pytest.mark.parametrize(
        ("pin", "size", "due"),
        [(3072, 3072, 1024), (1536, 1536, 0), (2048, 2048, 0), (100, None, 0), (9999, 4096, 2048)],
    )
    def test_an_operators_word_within_limits(self, pin: int, size: int | None, due: int) -> None:
        pinned = replace(small(500), pin=Bytes(pin * MIB))
        found = goal(pinned, quiet())
        assert found.size == (limits().minimum if size is None else size * MIB)
        assert (found.kind, found.due) == ("pin", due * MIB)

    def test_what_holds_it_up_is_said(self) -> None:
        pinned = replace(small(500), pin=Bytes(GIB + 512 * MIB))
        found = goal(pinned, quiet(hold=True))
        assert (found.kind, found.size) == ("stay", 2 * GIB)
        assert "all is held" in found.reason


def test_an_administrator_may_allow_less_than_it_was_started_with() -> None:
    capped = replace(guest(), limits=replace(limits(), maximum=Bytes(3 * GIB)))
    assert (goal(capped, quiet()).kind, goal(capped, quiet()).size) == ("cap", 3 * GIB)
    assert goal(capped, quiet(hold=True)).kind == "stay"


@pytest.mark.parametrize(("told", "kind"), [(2, "stay"), (3, "stay"), (3.5, "cap")])
def test_one_on_its_way_to_less_is_not_told_to_stop_there(told: float, kind: Kind) -> None:
    on_its_way: dict[str, object] = {
        "phase": Shrinking(start=Bytes(4 * GIB), since=99.0, cost=None),
        "told": Told(target=Bytes(int(told * GIB)), at=98.0),
    }
    capped = replace(guest(on_its_way), limits=replace(limits(), maximum=Bytes(3 * GIB)))
    assert goal(capped, quiet(state="HARD")).kind == kind


class TestNeed:
    @pytest.mark.parametrize("size", [256, 1024, 4096, 16384, 65536])
    @pytest.mark.parametrize(("left", "needs"), [(0.01, True), (0.15, False)])
    def test_a_guest_in_which_little_is_left_gets_what_it_wants(
        self, size: int, left: float, *, needs: bool
    ) -> None:
        has = size // 2
        seen = reading(has, int(has * (1 - left)), size)
        found = goal(case(seen, play(seen, 100)), quiet())
        assert (found.kind == "need") is needs
        if needs:
            assert found.size >= has * MIB * 119 // 100

    @pytest.mark.parametrize("state", ["BALANCED", "HARD"])
    @pytest.mark.parametrize("used", [60, 62, 63])
    def test_a_small_guest_gets_at_least_what_is_worth_a_command(
        self, used: int, state: HostState
    ) -> None:
        seen = reading(63, used, 128)
        now = quiet(state=state, spare=0)
        allowed = replace(limits(128), minimum=Bytes(32 * MIB))
        found = goal(case(seen, play(seen, 100), limits=allowed), now)
        assert found.kind == "need"
        assert found.due >= 8 * MIB

    @pytest.mark.parametrize(
        ("state", "acute", "depth"),
        [
            ("SLACK", False, "wanted"),
            ("BALANCED", False, "wanted"),
            ("SOFT", False, "modest"),
            ("BALANCED", True, "modest"),
            ("HARD", False, "bare"),
            ("CRITICAL", False, "bare"),
        ],
    )
    def test_others_give_only_for_what_it_cannot_do_without(
        self, state: HostState, depth: str, *, acute: bool
    ) -> None:
        trend = play(reading(2048, 1990), 100)
        trend = replace(
            trend, slow=2500.0 * MIB, cache=CacheTrend(kept=Bytes(200 * MIB), until=900.0)
        )
        found = case(reading(2048, 1990), trend)
        size = getattr(found.demand, depth)
        assert goal(found, quiet(state=state, acute=acute)).due == size - 2 * GIB
        assert found.demand.wanted > found.demand.modest > found.demand.bare

    @pytest.mark.parametrize(("lowered", "kind"), [(71.0, "stay"), (70.0, "need")])
    def test_after_a_shrink_it_is_given_more_only_where_little_is_left(
        self, lowered: float, kind: Kind
    ) -> None:
        full, fuller = small(1935), small(2040)
        assert goal(full, quiet()).kind == "need"
        cooling = replace(full, trend=replace(full.trend, lowered=lowered))
        assert goal(cooling, quiet()).kind == kind
        cooling = replace(fuller, trend=replace(fuller.trend, lowered=lowered))
        assert goal(cooling, quiet()).kind == "need"

    def test_one_that_fills_up_fast_is_given_more_than_it_wants(self) -> None:
        slow, fast = small(1935), small(1935)
        fast = replace(fast, trend=replace(fast.trend, fast=1700.0 * MIB))
        assert goal(fast, quiet(spare=GIB)).size > goal(slow, quiet(spare=GIB)).size
        assert goal(fast, quiet(spare=GIB)).size <= 4 * GIB
        harsh = quiet(spare=GIB, acute=True)
        assert goal(fast, harsh).size == fast.demand.wanted

    @pytest.mark.parametrize("state", STATES)
    def test_a_full_one_has_twice_as_much_at_once_within_its_entitlement(
        self, state: HostState
    ) -> None:
        full = small(2040)
        most = full.limits.maximum // goals.LEAP_PART
        for fair, due in ((4096, most), (2060, 12 * MIB)):
            entitled = replace(full, entitlement=Bytes(fair * MIB))
            found = goal(entitled, quiet(state=state, spare=GIB, acute=True))
            assert found.size >= full.actual + most
            assert found.due >= due

    def test_a_guest_below_its_minimum_is_given_that_without_a_report(self) -> None:
        silent = small(100, 1024, available=None, free=None, age=None)
        found = goal(silent, quiet())
        assert (found.kind, found.size) == ("minimum", limits().minimum)


class TestRescue:
    @pytest.mark.parametrize(("raised", "more"), [(None, True), (98.0, True), (99.0, False)])
    def test_as_long_as_it_still_hurts_it_is_given_more_than_it_seems_to_want(
        self, raised: float | None, *, more: bool
    ) -> None:
        found = small(1000)
        hurt = replace(found, trend=replace(found.trend, hurt=99.0, raised=raised))
        hurt = case(hurt.reading, hurt.trend)
        assert (goal(hurt, quiet()).size > 2 * GIB) is more
        assert goal(hurt, quiet()).kind == ("rescue" if more else "stay")


class TestForeign:
    @pytest.mark.parametrize(
        ("up", "used", "pin", "kind"),
        [
            (True, 2040, None, "need"),
            (True, 1024, None, "stay"),  # it has what it needs
            (False, 2040, None, "stay"),
            (True, 2040, 2048, "stay"),
        ],
    )
    def test_a_guest_that_may_have_helped_itself_is_given_what_it_lacks(
        self, used: int, pin: int | None, kind: Kind, *, up: bool
    ) -> None:
        trend = play(reading(2048, used), 100)
        seen = case(reading(2048, used), replace(trend, foreign_at=99.0, foreign_up=up))
        pinned = replace(seen, pin=None if pin is None else Bytes(pin * MIB))
        assert goal(pinned, quiet()).kind == kind


READS: Final = CacheTrend(rate=50.0 * MIB)


def reader(cache: CacheTrend = READS, free: int = 10, born: float = 0.0) -> Case:
    """Return a guest that fills all it has with files that it reads."""
    seen = reading(2048, 1024, free=Bytes(free * MIB), reads=Bytes(GIB))
    return case(seen, replace(play(seen, 100), cache=cache, born=born))


class TestCache:
    @pytest.mark.parametrize(
        ("found", "kind"),
        [
            (reader(), "cache"),
            (reader(READS, 500), "stay"),  # there is room for more files
            (reader(replace(READS, rate=0.5 * MIB)), "stay"),
            (reader(replace(READS, stream_until=101.0)), "stay"),
            (reader(replace(READS, stream_until=99.0)), "cache"),
            (reader(born=97.0), "stay"),  # it starts, and reads all its files once
        ],
    )
    def test_a_guest_that_reads_files_again_is_given_some_more(
        self, found: Case, kind: Kind
    ) -> None:
        assert goal(found, quiet()).kind == kind

    @pytest.mark.parametrize(("state", "kind"), [("SOFT", "cache"), ("HARD", "stay")])
    def test_not_where_the_host_is_in_need(self, state: HostState, kind: Kind) -> None:
        assert goal(reader(), quiet(state=state)).kind == kind

    def test_more_where_there_is_plenty(self) -> None:
        much, some = (goal(reader(), quiet(state=state)) for state in ("SLACK", "BALANCED"))
        assert much.size > some.size > 2 * GIB


class TestPlenty:
    @pytest.mark.parametrize(
        ("state", "plenty", "reads", "free", "kind"),
        [
            ("SLACK", GIB, None, 10, "plenty"),
            ("SLACK", 0, None, 10, "stay"),
            ("BALANCED", GIB, None, 10, "stay"),
            ("SLACK", GIB, None, 500, "stay"),
            ("SLACK", GIB, Bytes(0), 10, "stay"),  # it is given more when it reads
        ],
    )
    def test_a_guest_that_fills_what_it_has(
        self, state: HostState, plenty: int, reads: Bytes | None, free: int, kind: Kind
    ) -> None:
        found = small(1024, free=Bytes(free * MIB), reads=reads)
        assert goal(found, quiet(state=state, plenty=plenty)).kind == kind


class TestHabit:
    """A guest of 4 GiB that has 1.5 GiB, uses 500 MiB, and usually uses 2 GiB at this hour."""

    def found(self, maximum: int = 4096, trend: dict[str, object] | None = None) -> Case:
        known = Habit(usual=Bytes(2 * GIB), peak=Bytes(3 * GIB), maximum=Bytes(maximum * MIB))
        seen = replace(reading(1536, 500, free=Bytes(1000 * MIB)), habit=known)
        return case(seen, replace(play(seen, 100), **(trend or {})))

    @pytest.mark.parametrize(
        ("state", "plenty", "maximum", "trend", "kind"),
        [
            ("SLACK", GIB, 4096, {}, "habit"),
            ("SLACK", 0, 4096, {}, "stay"),
            ("BALANCED", GIB, 4096, {}, "stay"),
            ("SOFT", GIB, 4096, {}, "stay"),
            ("SLACK", GIB, 8192, {}, "stay"),  # it was of another size
            ("SLACK", GIB, 4096, {"lowered": 90.0}, "stay"),
            ("SLACK", GIB, 4096, {"lowered": 60.0}, "habit"),
        ],
    )
    def test_it_is_given_beforehand_where_there_is_plenty(
        self, state: HostState, plenty: int, maximum: int, trend: dict[str, object], kind: Kind
    ) -> None:
        aim = goal(self.found(maximum, trend), quiet(state=state, plenty=plenty))
        assert aim.kind == kind

    def test_with_headroom_and_nothing_of_it_is_due(self) -> None:
        aim = goal(self.found(), quiet(plenty=GIB))
        assert (aim.size, aim.due) == (2 * GIB * 6 // 5 // PAGE * PAGE, 0)
        assert "usually needs 2 GiB at this hour" in aim.reason

    def test_nor_does_it_change_what_a_guest_wants(self) -> None:
        known, bare = self.found().demand, self.found(8192).demand
        assert known.foreseen > known.habitual > bare.habitual == bare.wanted
        same = {"foreseen": Bytes(0), "habitual": Bytes(0)}
        assert replace(known, **same) == replace(bare, **same)

    @pytest.mark.parametrize(("state", "stays"), [("BALANCED", True), ("SOFT", False)])
    def test_what_was_most_at_this_hour_stays_while_nothing_is_short(
        self, state: HostState, *, stays: bool
    ) -> None:
        had = self.found()
        seen = replace(reading(3200, 500, free=Bytes(2700 * MIB)), habit=had.reading.habit)
        aim = goal(case(seen, play(seen, 100)), quiet(state=state, exposed=GIB))
        assert (aim.kind == "stay") is stays


class TestStart:
    """A guest of 4 GiB whose QEMU started just now."""

    def size(self, habit: Habit | None, plenty: int, current: int | None = None) -> int:
        asked = None if current is None else Bytes(current * MIB)
        seen = replace(
            reading(4096, available=None, free=None, age=None),
            habit=habit,
            up=3.0,
            deflates=True,
            cost=Bytes(0),
        )
        found = case(seen, play(seen, 0), limits=replace(limits(), current=asked))
        aim = goal(found, quiet(now=3.0, plenty=plenty * MIB))
        return aim.size // MIB

    @pytest.mark.parametrize(
        ("usual", "start", "plenty", "size"),
        [
            (None, None, 16384, 2048),  # an eighth of what there is plenty of
            (None, 2500, 16384, 3000),
            (2500, 1000, 16384, 3000),
            (2500, None, 2600, 2600),  # never more than there is plenty of
            (2500, None, -100, 1433),  # nor less than its minimum
            (200, 100, 100, 1433),
            (4000, None, 16384, 4096),
        ],
    )
    def test_it_starts_with_what_it_usually_needs(
        self, usual: int | None, start: int | None, plenty: int, size: int
    ) -> None:
        known = Habit(
            maximum=Bytes(4 * GIB),
            usual=None if usual is None else Bytes(usual * MIB),
            start=None if start is None else Bytes(start * MIB),
        )
        assert self.size(known, plenty) == size

    def test_not_where_it_was_of_another_size(self) -> None:
        known = Habit(maximum=Bytes(16 * GIB), usual=Bytes(3 * GIB))
        assert self.size(known, 16384) == self.size(None, 16384) == 2048

    def test_what_its_user_asked_for_comes_first(self) -> None:
        known = Habit(maximum=Bytes(4 * GIB), usual=Bytes(3 * GIB))
        assert self.size(known, 16384, current=1500) == 1500


class TestPosition:
    def found(self, free: int = 3072, more: dict[str, object] | None = None) -> Case:
        seen = changed(reading(4096, free=Bytes(free * MIB)), **(more or {}))
        return case(seen, play(seen, 100))

    def size(self, found: Case, exposed: int = GIB) -> int | None:
        aim = goal(found, quiet(exposed=exposed))
        return aim.size if aim.kind == "position" else None

    def test_what_is_free_goes_into_the_balloon_where_guests_could_touch_too_much(self) -> None:
        assert self.size(self.found()) == 3 * GIB  # a quarter of its maximum at once
        assert self.size(self.found(), exposed=0) is None

    def test_page_cache_and_room_to_grow_stay(self) -> None:
        few = self.found(free=400)
        size = self.size(few)
        assert size is not None
        assert size >= 4096 * MIB - 400 * MIB + few.demand.least
        assert self.size(self.found(free=300)) is None  # that is not worth a command
        burst = self.found()
        trend: GuestTrend = replace(burst.trend, burst=2500.0 * MIB, burst_at=90.0)
        grew = case(burst.reading, trend)
        assert self.size(grew) == grew.demand.eased

    @pytest.mark.parametrize(
        "more", [{"deflates": False}, {"exempt": "vfio"}, {"implausible": True}]
    )
    def test_not_of_every_guest(self, more: dict[str, object]) -> None:
        assert self.size(self.found(more=more)) is None

    def test_not_below_what_is_kept(self) -> None:
        seen = reading(1536, 100, 4096, free=Bytes(1400 * MIB))
        assert self.size(case(seen, play(seen, 100))) == limits().minimum


class TestStop:
    """A guest of 4 GiB that is on its way down from 3 GiB to a target."""

    def found(self, target: int, used: int = 1000, free: int = 1500, **trend: object) -> Case:
        seen = changed(reading(3072, used, 4096), free=Bytes(free * MIB))
        on_its_way = {
            "phase": Shrinking(start=Bytes(3 * GIB), since=99.0, cost=None),
            "told": Told(target=Bytes(target * MIB), at=98.0),
        }
        return case(seen, replace(play(seen, 100), **(on_its_way | trend)))

    def size(self, found: Case, **now: object) -> int | None:
        aim = goal(found, quiet(**now))
        return aim.size if aim.size != found.actual else None

    def test_it_stops_where_it_has_come_to_need_more(self) -> None:
        found = self.found(1100)
        assert self.size(found, filled=GIB) == found.demand.wanted > 1100 * MIB
        assert self.size(self.found(1600), filled=GIB) is None

    def test_and_keeps_what_it_has_filled_where_all_may(self) -> None:
        """Of 3 GiB, 1.5 are free still: the rest is page cache by now."""
        found = self.found(1100)
        filled = goals.filled(found)
        assert filled == (3072 - 1500 - 1100) * MIB
        assert self.size(found, filled=filled, plenty=filled) == (3072 - 1500) * MIB
        assert self.size(found, filled=filled, plenty=filled - 1) == found.demand.wanted

    def test_it_is_told_to_stop_where_it_is(self) -> None:
        """It has filled all that it was to give: without a command it would go on."""
        full = self.found(1100, free=0)
        found = replace(full, reading=replace(full.reading, reads=Bytes(0)))
        filled = goals.filled(found)
        move = commands.command(found, goal(found, quiet(filled=filled, plenty=filled)), quiet())
        assert move.target == 3 * GIB - PAGE

    @pytest.mark.parametrize("state", STATES[1:])
    def test_not_where_the_host_may_want_it(self, state: HostState) -> None:
        assert self.size(self.found(1100), state=state) is None

    def test_no_other_guest_does(self) -> None:
        calm = self.found(1100, phase=None)
        assert (goals.filled(calm), self.size(calm)) == (0, None)

    def test_it_is_still_on_its_way_and_was_told_less_no_later(self) -> None:
        found = self.found(1100, lowered=98.0)
        size = Bytes(1500 * MIB)
        trend = progress.note_sent(found.trend, found.actual, None, size, 100.0)
        assert trend == replace(
            found.trend, told=Told(target=size, at=100.0, before=Bytes(1100 * MIB))
        )

    @pytest.mark.parametrize(("more", "told"), [(20, None), (21, 1621)])
    def test_it_is_told_where_that_is_worth_a_command(self, more: int, told: int | None) -> None:
        """Half a percent of its maximum."""
        found = self.found(1600)
        wanted = Goal(size=(1600 + more) * MIB, kind="stay", bound="demand", reason="x")
        move = commands.command(found, wanted, quiet())
        assert move.target == (None if told is None else told * MIB)


def test_each_goal_is_named() -> None:
    for found in (guest(), small(2040), reader(), small(100, 1024)):
        aim = goals.goal(found, quiet())
        assert aim.reason
        assert "\n" not in aim.reason
