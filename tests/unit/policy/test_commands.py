"""Whether a goal is worth a command now, and what the guest is told."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model.round import HostState, Kind
from qmpmem.policy import commands, progress
from qmpmem.policy.cases import Case
from qmpmem.policy.goals import Goal
from qmpmem.policy.state import Growing, Releasing, Shrinking, Told
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, PAGE, Bytes
from tests.rig.policy import case, limits, play, quiet, reading

CALM: Final = play(reading(2048), 100)
KINDS: Final[tuple[Kind, ...]] = (
    "stay",
    "release",
    "pin",
    "cap",
    "rescue",
    "need",
    "minimum",
    "cache",
    "habit",
    "plenty",
    "position",
    "take",
    "revoke",
)


def guest(trend: dict[str, object] | None = None, **more: object) -> Case:
    """Return a guest of 4 GiB that has 2, at second 100."""
    return case(replace(reading(2048), **more), replace(CALM, **(trend or {})))


def aim(size: int, kind: Kind = "need") -> Goal:
    """Return a goal in MiB."""
    return Goal(size=size * MIB, kind=kind, bound="demand", reason="for a test")


def target(found: Case, goal: Goal, **more: object) -> int | None:
    """Return what a guest is told, in MiB."""
    told = commands.command(found, goal, quiet(**more)).target
    return None if told is None else told // MIB


class TestWithin:
    """All targets go through one place."""

    @given(
        st.integers(0, 8192),
        st.integers(-5000, 9000),
        st.sampled_from(KINDS),
        st.sampled_from([2048, 4096, 6000]),
        st.sampled_from([1, 1433, 3000]),
    )
    def test_no_target_is_outside_the_limits_and_what_the_guest_has(
        self, actual: int, size: int, kind: Kind, most: int, least: int
    ) -> None:
        allowed = replace(limits(), minimum=Bytes(least * MIB), maximum=Bytes(most * MIB))
        found = replace(guest(actual=Bytes(actual * MIB)), limits=allowed)
        told = commands.command(found, aim(size, kind), quiet(state="CRITICAL")).target
        if told is not None:
            has = found.actual
            assert min(allowed.minimum, has) <= told or told == PAGE
            assert PAGE <= told <= min(max(allowed.maximum, has), 4 * GIB)

    def test_a_guest_outside_its_limits_goes_towards_them(self) -> None:
        low = guest(actual=Bytes(500 * MIB))
        assert target(low, aim(400, "take")) == 500
        assert target(low, aim(1000)) == 1000
        high = replace(guest(), limits=replace(limits(1024), shares=500))
        assert target(high, aim(3000)) == 2048
        assert target(high, aim(1024, "take")) == 1024


class TestWorth:
    BAND: Final = progress.band(limits()) // MIB

    @pytest.mark.parametrize(
        ("size", "kind", "told"),
        [
            (2048, "need", None),
            (2048 + BAND, "need", None),
            (2048 + BAND + 1, "need", 2048 + BAND + 1),
            (2048 - BAND, "take", None),
            (2048 - BAND - 1, "take", 2048 - BAND - 1),
            (2049, "pin", 2049),  # an operator may wait for just that size
            (2047, "pin", 2047),
            (2047, "cap", 2047),
            (2049, "release", 2049),
        ],
    )
    def test_a_change_is_worth_a_command(self, size: int, kind: Kind, told: int | None) -> None:
        assert target(guest(), aim(size, kind)) == told

    def test_a_bit_down_from_beyond_the_maximum_is_not(self) -> None:
        capped = replace(limits(), maximum=Bytes(1536 * MIB))
        assert target(replace(guest(), limits=capped), aim(2044, "revoke")) is None

    def test_the_last_bit_up_to_the_maximum_is(self) -> None:
        assert target(guest(actual=Bytes(4090 * MIB)), aim(4096)) == 4096

    @pytest.mark.parametrize(("speed", "at", "told"), [(8, 99.75, None), (8, 98.0, 2016)])
    def test_a_step_towards_it_is_worth_as_much_as_any(
        self, speed: int, at: float, told: int | None
    ) -> None:
        """A slow guest is told so little in a quarter of a second that it could take it back."""
        slow = {"speed": float(speed * MIB), "told": Told(target=Bytes(3 * GIB), at=at)}
        assert target(guest(slow), aim(1024, "cap"), state="CRITICAL") == told

    def test_on_the_way_it_counts_how_much_further_it_goes(self) -> None:
        going: dict[str, object] = {
            "phase": Shrinking(start=Bytes(2100 * MIB), since=99.0, cost=None),
            "told": Told(target=Bytes(1900 * MIB), at=99.0),
        }
        for size, told in ((1890, None), (1870, 1870), (1950, None), (2047, None)):
            assert target(guest(going), aim(size, "take")) == told
        growing: dict[str, object] = {
            "phase": Growing(granted=Bytes(300 * MIB), cost=Bytes(0), first=Bytes(0)),
            "told": Told(target=Bytes(2300 * MIB), at=99.0),
        }
        for size, told in ((2310, None), (2330, 2330), (2200, None)):
            assert target(guest(growing), aim(size)) == told


class TestPace:
    @pytest.mark.parametrize(
        ("kind", "told"),
        [("pin", 1844), ("cap", 1844), ("take", 1433), ("revoke", 1433), ("position", 1433)],
    )
    def test_what_allocation_or_the_guest_itself_did_not_pace_goes_step_by_step(
        self, kind: Kind, told: int
    ) -> None:
        assert target(guest(), aim(1000, kind)) == pytest.approx(told, abs=1)

    def test_growth_goes_at_once(self) -> None:
        assert target(guest(), aim(4096, "release")) == 4096

    @pytest.mark.parametrize(
        ("ago", "state", "due"),
        [
            (0.5, "SOFT", False),
            (0.89, "SOFT", False),
            (0.91, "SOFT", True),
            (0.2, "HARD", False),
            (0.25, "HARD", True),
            (0.25, "CRITICAL", True),
        ],
    )
    def test_a_guest_is_told_something_once_a_second_and_more_often_in_need(
        self, ago: float, state: HostState, *, due: bool
    ) -> None:
        told: dict[str, object] = {"told": Told(target=Bytes(2 * GIB), at=100 - ago)}
        move = commands.command(guest(told), aim(3000), quiet(state=state))
        assert (move.target is not None) is due
        assert (move.bound == "step") is not due


class TestToldAlready:
    TOLD: Final[dict[str, object]] = {"told": Told(target=Bytes(3000 * MIB), at=98.0)}

    def test_the_same_is_not_said_twice(self) -> None:
        assert target(guest(self.TOLD), aim(3000)) is None
        assert target(guest(self.TOLD), aim(3100)) == 3100

    def test_unless_the_command_was_refused(self) -> None:
        assert target(guest(self.TOLD, refused="busy"), aim(3000)) == 3000

    @pytest.mark.parametrize(("at", "told"), [(98.0, None), (95.5, None), (95.0, 4096)])
    def test_a_release_is_repeated_until_it_is_confirmed(self, at: float, told: int | None) -> None:
        releasing: dict[str, object] = {
            "phase": Releasing(size=Bytes(4 * GIB)),
            "told": Told(target=Bytes(4 * GIB), at=at),
        }
        assert target(guest(releasing), aim(4096, "release")) == told


class TestPressed:
    """QEMU has a target below what the guest has: its driver tries to reach it for ever."""

    OLD: Final[dict[str, object]] = {"told": Told(target=Bytes(1500 * MIB), at=90.0)}

    def test_a_guest_that_is_asked_for_nothing_any_more_is_told_to_stay(self) -> None:
        move = commands.command(guest(self.OLD), aim(2048, "stay"), quiet())
        assert (move.target, move.bound) == (2 * GIB, "actual")

    @pytest.mark.parametrize(
        ("trend", "more"),
        [
            ({"phase": Shrinking(start=Bytes(2 * GIB), since=98.0, cost=None)}, {}),
            ({"phase": Releasing(size=Bytes(2 * GIB))}, {}),
            ({"told": Told(target=Bytes(2040 * MIB), at=90.0)}, {}),
            ({"told": Told(target=Bytes(1500 * MIB), at=99.9)}, {}),
            ({}, {"exempt": "vfio"}),
            ({}, {"state": "paused"}),
            ({}, {"implausible": True}),
            ({}, {"actual": None}),  # 4 GiB would be a release
        ],
    )
    def test_others_are_not(self, trend: dict[str, object], more: dict[str, object]) -> None:
        found = guest(self.OLD | trend, **more)
        assert target(found, replace(aim(0, "stay"), size=found.actual)) is None


def test_a_target_is_whole_pages() -> None:
    goal = replace(aim(3000), size=3000 * MIB + 1234)
    assert commands.command(guest(), goal, quiet()).target == 3000 * MIB
