"""Rounds put together: what a row says is what its rounds say."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.journal.aggregate import Aggregate, fold, regroup
from qmpmem.journal.points import GuestPoint, HostPoint, Row, connected, no_guest, parts
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import Explanation, Plan, SetBalloon, Tick
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.rounds import busy

START = 1_800_000_000.0
MEANS = ("actual", "used", "cache", "free", "cost")
APPROXIMATE = ("available", *MEANS)


def rounds(walls: Sequence[float], guests: int = 3) -> list[Tick]:
    return [busy(number, wall=wall, guests=guests) for number, wall in enumerate(walls)]


walls = st.lists(st.floats(0, 4 * 3600), min_size=1, max_size=60).map(
    lambda found: sorted(START + each for each in found)
)


def alike(one: GuestPoint | HostPoint, other: GuestPoint | HostPoint) -> None:
    """Hold two points equal, but for the rounding of means to a byte."""
    for field in one.__struct_fields__:
        mine, others = getattr(one, field), getattr(other, field)
        if field in APPROXIMATE and mine is not None and others is not None:
            assert abs(mine - others) <= 1, field
        else:
            assert mine == others, field


@given(walls)
def test_an_hour_of_its_minutes_is_the_hour_of_its_rounds(found: list[float]) -> None:
    ticks = rounds(found)
    minutes = list(fold(ticks, 60))
    assert all(row.host.begin % 60 == 0 for row in minutes)
    hours = list(fold(ticks, 3600))
    again = regroup(reversed(minutes), 3600)
    assert [row.host.begin for row in hours] == [row.host.begin for row in again]
    for one, other in zip(hours, again, strict=True):
        alike(one.host, other.host)
        assert one.guests.keys() == other.guests.keys()
        for guest, point in one.guests.items():
            alike(point, other.guests[guest])


@given(walls)
def test_a_row_is_what_its_rounds_say(found: list[float]) -> None:
    ticks = rounds(found)
    for row in fold(ticks, 60):
        inside = [each for each in ticks if 0 <= (each.snapshot.wall or 0) - row.host.begin < 60]
        assert row.host.rounds == len(inside) == sum(row.host.states)
        for guest, point in row.guests.items():
            seen = [s for each in inside for s in each.snapshot.guests if s.id == guest]
            known = [reading.actual for reading in seen if reading.actual is not None]
            assert (point.rounds, point.sized) == (len(seen), len(known))
            if known:
                assert point.lowest == min(known)
                assert point.highest == max(known)
                assert point.actual is not None
                assert abs(point.actual - sum(known) / len(known)) <= 1
            told = [
                change.target
                for each in inside
                for change in each.plan.balloons
                if change.guest == guest and not each.dry_run
            ]
            assert point.less + point.more == len(told)
            assert point.target == (told[-1] if told else None)


@given(walls)
def test_what_is_known_of_the_parts_is_what_the_guest_has(found: list[float]) -> None:
    for tick in rounds(found):
        said = {each.guest: each for each in tick.plan.guests}
        for reading in tick.snapshot.guests:
            found_parts = parts(reading, said[reading.id])
            if found_parts is not None:
                each = (found_parts.used, found_parts.cache, found_parts.free)
                assert min(each) >= 0
                assert sum(each) == reading.actual
            if said[reading.id].verdict == "stale":
                assert found_parts is None


def test_a_guest_that_is_not_wanted_is_left_out() -> None:
    row = next(fold(rounds([START]), 60, no_guest))
    assert row.guests == {}
    assert row.host.guests > 0


def test_a_round_without_a_time_is_in_no_row() -> None:
    aggregate = Aggregate(60)
    tick = busy(1, wall=START)
    aggregate.add(replace(tick, snapshot=replace(tick.snapshot, wall=None)))
    assert aggregate.end() is None


@pytest.mark.parametrize(
    ("dry_run", "target", "expected"),
    [
        (False, 512 * MIB, (1, 0, 512 * MIB)),
        (False, 2 * GIB, (0, 1, 2 * GIB)),
        (True, 512 * MIB, (0, 0, None)),
    ],
)
def test_a_command_goes_in_one_direction_and_a_dry_run_tells_nothing(
    *, dry_run: bool, target: int, expected: tuple[int, int, int | None]
) -> None:
    tick = Tick(
        number=1,
        snapshot=Snapshot(
            time=0.0,
            wall=START,
            host=HostReading(),
            guests=(GuestReading(id="a", state="running", actual=Bytes(GIB)),),
        ),
        plan=Plan(
            balloons=(SetBalloon(guest="a", target=Bytes(target), reason=""),),
            guests=(Explanation(guest="a"),),
        ),
        dry_run=dry_run,
    )
    point = next(fold([tick], 60)).guests["a"]
    assert (point.less, point.more, point.target) == expected


def test_a_narrower_budget_is_what_is_available() -> None:
    tick = Tick(
        number=1,
        snapshot=Snapshot(
            time=0.0,
            wall=START,
            host=HostReading(
                total=Bytes(8 * GIB),
                available=Bytes(6 * GIB),
                limit=Bytes(2 * GIB),
                headroom=Bytes(GIB),
            ),
        ),
        plan=Plan(),
    )
    host = next(fold([tick], 60)).host
    assert (host.total, host.available) == (2 * GIB, GIB)


@pytest.mark.parametrize(
    ("times", "step", "expected"),
    [
        ([0, 10, 20], 10, [True, True]),
        ([0, 10, 41, 51], 10, [True, True, True]),
        ([0, 10, 51, 61], 10, [True, False, True]),
        ([0, 60, 180, 240, 300], 60, [True, False, True, True]),
        ([0, 60, 120, 180], 10, [True, True, True]),
        ([0], 60, []),
        ([], 60, []),
    ],
)
def test_where_something_is_known(times: list[float], step: float, expected: list[bool]) -> None:
    assert connected(times, step) == expected


def test_rows_of_the_same_minute_are_added_up() -> None:
    one, two = fold([busy(1, wall=START)], 60), fold([busy(2, wall=START)], 60)
    both: list[Row] = regroup([*one, *two], 60)
    assert [row.host.rounds for row in both] == [2]
