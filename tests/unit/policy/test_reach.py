"""How far a guest may be taken: whether at all, down to where, and how far in one round."""

from typing import Final

import pytest

from qmpmem.model.round import STATES, HostState
from qmpmem.policy import reach
from qmpmem.policy.cases import Case, Depth
from qmpmem.policy.state import Releasing, Told
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.policy import case, limits, play, quiet, reading
from tests.rig.readings import changed

CALM: Final = play(reading(), 100)


assert CALM.counters is not None
REPORTED: Final = CALM.counters.time


def guest(trend: dict[str, object] | None = None, **more: object) -> Case:
    """Return a guest of 4 GiB that uses 1 GiB, at second 100."""
    return case(changed(reading(), **more), replace(CALM, **(trend or {})))


class TestKept:
    @pytest.mark.parametrize("size", [256, 1024, 4096, 65536])
    @pytest.mark.parametrize("deflates", [True, False, None])
    def test_what_cannot_take_memory_back_by_itself_keeps_three_quarters(
        self, size: int, *, deflates: bool | None
    ) -> None:
        seen = reading(size, size // 4, size, deflates=deflates)
        least = reach.kept(case(seen, play(seen, 100)))
        expected = size * MIB * 75 // 100 if deflates is False else limits(size).minimum
        assert least == expected - expected % 4096


class TestFloor:
    def sizes(self, found: Case, state: HostState = "CRITICAL") -> list[int]:
        depths: tuple[Depth, ...] = ("idle", "modest", "bare", "minimum")
        return [reach.floor(found, depth, quiet(state=state)) for depth in depths]

    def test_each_depth_takes_more(self) -> None:
        trend = play(reading(used=3000), 100)
        trend = play(reading(used=2000), 150, trend, 101)
        wants = case(reading(used=2000), trend, 150)
        paying = replace(trend, cache=replace(trend.cache, kept=Bytes(300 * MIB), until=900.0))
        pays = case(reading(used=2000), paying, 150)
        for found, cache in ((wants, 0), (pays, 300)):
            idle, modest, bare, minimum = self.sizes(found)
            assert idle == found.demand.wanted
            assert bare == found.demand.needs + found.demand.least
            assert modest == bare + cache * MIB
            assert minimum == found.limits.minimum
            assert idle > modest >= bare > minimum

    @pytest.mark.parametrize(
        "trend", [{"hurt": 60.0}, {"raised": 60.0}, {"used": 2500.0 * MIB}, {"hurt": 99.0}]
    )
    def test_what_it_wants_is_left_to_a_guest_that_suffered_or_grows(
        self, trend: dict[str, object]
    ) -> None:
        found = case(reading(used=2000), replace(play(reading(used=2000), 100), **trend))
        idle, modest, _, _ = self.sizes(found, "SOFT")
        assert idle == modest == found.demand.wanted > found.demand.modest
        idle, modest, bare, minimum = self.sizes(found)
        # In need a guest that was given memory, or grows, is as modest as the others.
        assert (modest == bare == idle) == ("hurt" in trend)
        # In the last need, but not from one that grows.
        assert minimum == (bare if "used" in trend else found.limits.minimum)

    def test_what_is_kept_in_any_case_is_kept_at_each_depth(self) -> None:
        assert set(self.sizes(guest(deflates=False))) == {3 * GIB}

    @pytest.mark.parametrize("size", [256, 1024, 4096, 65536])
    def test_it_is_never_below_the_minimum(self, size: int) -> None:
        seen = reading(size, 0, size)
        assert set(self.sizes(case(seen, play(seen, 100)))) == {limits(size).minimum}


class TestPace:
    @pytest.mark.parametrize(
        ("size", "state", "mib"),
        [
            (256, "SOFT", 16),
            (1024, "SOFT", 51.2),
            (4096, "SOFT", 204.8),
            (4096, "HARD", 409.6),
            (4096, "CRITICAL", 1024),
            (65536, "CRITICAL", 16384),
        ],
    )
    def test_a_step_is_a_part_of_the_maximum(self, size: int, state: HostState, mib: float) -> None:
        seen = reading(size, size // 4, size)
        assert reach.step(case(seen, play(seen, 100)), quiet(state=state)) == int(mib * MIB)

    def test_a_worse_state_is_no_slower(self) -> None:
        steps = [reach.step(guest(), quiet(state=state)) for state in STATES]
        assert steps == sorted(steps)

    @pytest.mark.parametrize(("speed", "mib"), [(10.0, 20), (1.0, 16), (9999.0, 1024)])
    def test_a_slow_guest_is_asked_for_twice_what_it_gives(self, speed: float, mib: int) -> None:
        slow = guest({"speed": speed * MIB})
        assert reach.step(slow, quiet(state="CRITICAL")) == mib * MIB

    def test_pages_that_were_never_touched_are_no_part_of_a_step(self) -> None:
        untouched = guest(cost=Bytes(GIB))
        room, step = 96 * MIB, 204 * MIB
        beyond = reach.lowest(untouched, quiet(state="SOFT"))
        assert GIB + room - step - MIB <= beyond <= GIB + room - step
        swapped = guest(cost=Bytes(GIB), swap=Bytes(GIB))  # they cost the host as well
        assert reach.lowest(swapped, quiet(state="SOFT")) == beyond + GIB

    def test_a_slow_guest_is_asked_for_what_it_holds_within_two_seconds(self) -> None:
        """With a step of 16 MiB it would never get there from 96 MiB above that."""
        told = Told(target=Bytes(4 * GIB), at=98.0)
        slow = guest({"speed": 8.0 * MIB, "told": told}, cost=Bytes(GIB))
        assert reach.lowest(slow, quiet(state="CRITICAL")) == GIB - 16 * MIB

    @pytest.mark.parametrize(("ago", "steps"), [(0.25, 0.25), (1.0, 1), (2.0, 2), (60.0, 2)])
    def test_a_target_is_at_most_two_steps_away(self, ago: float, steps: float) -> None:
        told = guest({"told": Told(target=Bytes(4 * GIB), at=100 - ago)})
        lowest = reach.lowest(told, quiet(state="CRITICAL"))
        assert lowest == 4 * GIB - int(steps * GIB)


class TestHeldBack:
    @pytest.mark.parametrize(
        ("trend", "more", "held"),
        [
            ({}, {}, ""),
            ({}, {"exempt": "vfio"}, "CRITICAL"),
            ({}, {"implausible": True}, "CRITICAL"),
            ({}, {"actual": None}, "CRITICAL"),
            ({}, {"age": 31.0}, "CRITICAL"),
            ({}, {"age": None, "available": None, "free": None}, "CRITICAL"),
            ({"foreign_at": 99.0}, {}, "CRITICAL"),
            ({"ineffective": True}, {}, "CRITICAL"),
            ({"rest_until": 101.0}, {}, "CRITICAL"),
            ({"stalls": (97.0, 98.0, 99.0)}, {}, "CRITICAL"),
            ({"suspect_since": 50.0}, {}, "CRITICAL"),
            ({"hurt": 95.0}, {}, "CRITICAL"),
            ({"hurt": 60.0}, {}, "SOFT"),  # where the host is in need, it gives what it can
            ({"raised": 41.0}, {}, "SOFT"),
            ({"raised": 39.0}, {}, ""),
            ({"used": 1500.0 * MIB}, {}, "SOFT"),
            ({"lowered": REPORTED - 0.9}, {}, "SOFT"),  # it may miss what it gave
            ({"lowered": REPORTED - 1.1}, {}, ""),
            ({"born": 50.0}, {}, "SOFT"),  # grace
            ({"born": 96.0}, {}, "CRITICAL"),
            ({"born": 50.0, "reported": 94.0}, {"began": "reset"}, "SOFT"),
            ({"born": 50.0, "reported": 96.0}, {"began": "reset"}, "CRITICAL"),  # its driver is up
            ({"phase": Releasing(size=Bytes(4 * GIB))}, {}, "CRITICAL"),
            ({"born": 50.0, "reports": 1}, {}, "CRITICAL"),
        ],
    )
    def test_up_to_which_state_a_guest_is_left_alone(
        self, trend: dict[str, object], more: dict[str, object], held: str
    ) -> None:
        worst = STATES.index(held) if held else -1
        for number, state in enumerate(STATES):
            reason = reach.held_back(guest(trend, **more), quiet(state=state))
            assert (reason is not None) == (number <= worst), (state, reason)
            assert reason != ""

    def test_in_grace_a_silent_guest_gives_nothing_either(self) -> None:
        silent = guest({"born": 60.0}, age=31.0)
        assert reach.held_back(silent, quiet(state="CRITICAL")) is not None

    @pytest.mark.parametrize("state", STATES)
    def test_holding_holds_all(self, state: HostState) -> None:
        assert reach.held_back(guest(), quiet(state=state, hold=True)) is not None

    @pytest.mark.parametrize("trend", [{"raised": 60.0}, {"used": 1500.0 * MIB}])
    def test_an_operator_does_not_wait_until_memory_has_stopped_to_sway(
        self, trend: dict[str, object]
    ) -> None:
        assert reach.held_back(guest(trend), quiet()) is not None
        pinned = replace(guest(trend), pin=Bytes(2 * GIB))
        assert reach.held_back(pinned, quiet()) is None

    def test_nor_until_it_is_known_what_the_guest_uses(self) -> None:
        odd = guest(available=None, free=None)
        assert reach.held_back(odd, quiet(state="CRITICAL")) is not None
        assert reach.held_back(replace(odd, pin=Bytes(2 * GIB)), quiet()) is None

    def test_one_that_suffered_gives_where_another_suffers_now(self) -> None:
        hurt = guest({"hurt": 60.0})
        assert reach.held_back(hurt, quiet(acute=True)) is None


class TestPosition:
    @pytest.mark.parametrize(
        ("trend", "more", "may"),
        [
            ({}, {}, True),
            ({"born": 99.0}, {"up": 1.0}, True),  # what it has not touched is no loss
            ({"born": 60.0}, {"up": 90.0}, True),
            ({"born": 99.0}, {"began": "reset", "up": 5000.0}, False),  # it is to boot as it was
            ({"born": 99.0}, {"began": "reset", "up": 1.0}, False),
            ({"born": 99.0}, {"up": 62.0}, False),  # it ran before the agent did
            ({"born": 99.0}, {}, False),
            ({}, {"deflates": False}, False),  # it could not take it back
            ({}, {"exempt": "vfio"}, False),
            ({"hurt": 99.0}, {}, False),
            ({"rest_until": 101.0}, {}, False),
            ({"raised": 60.0}, {}, False),
            ({"used": 1500.0 * MIB}, {}, False),
        ],
    )
    def test_whether_a_guests_free_memory_may_be_put_into_the_balloon(
        self, trend: dict[str, object], more: dict[str, object], *, may: bool
    ) -> None:
        assert reach.may_position(guest(trend, **more), quiet()) is may

    def test_not_where_an_operator_decides(self) -> None:
        assert not reach.may_position(replace(guest(), pin=Bytes(4 * GIB)), quiet())
        assert not reach.may_position(guest(), quiet(hold=True))


@pytest.mark.parametrize(
    ("grew", "grows"), [(0, False), (100, False), (204, False), (206, True), (-500, False)]
)
def test_five_percent_of_the_maximum_beyond_the_average_is_growing(
    grew: int, *, grows: bool
) -> None:
    assert reach.is_growing(guest({"used": CALM.fast + grew * MIB})) is grows


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("more", "waits"), [(206, True), (204, False)])
def test_what_the_host_sees_it_take_counts_until_it_reports_again(
    more: int, state: HostState, *, waits: bool
) -> None:
    """Its report is of the past: what that calls idle may be in use by now."""
    trend = play(reading(cost=Bytes(2 * GIB)), 100)
    grew = case(reading(cost=Bytes(2 * GIB + more * MIB)), trend)
    assert (reach.held_back(grew, quiet(state=state)) is not None) is waits
    assert reach.may_position(grew, quiet(state=state)) is not waits
    assert reach.held_back(replace(grew, pin=Bytes(GIB)), quiet(state=state)) is None
    new = play(grew.reading, 101, trend, 101)
    assert reach.held_back(case(grew.reading, new, 101), quiet(state=state)) is None


def test_what_was_never_touched_frees_nothing() -> None:
    assert reach.reclaimable(guest(), GIB) == 3 * GIB
    assert reach.reclaimable(guest(cost=Bytes(2 * GIB)), GIB) == GIB
    assert reach.reclaimable(guest(cost=Bytes(GIB)), GIB) == 0
    assert reach.reclaimable(guest(cost=Bytes(GIB), swap=Bytes(GIB)), GIB) == GIB
    assert reach.reclaimable(guest(cost=None), GIB) == 3 * GIB
