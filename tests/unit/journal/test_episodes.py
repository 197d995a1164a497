"""What happened to a guest, times as people write them, and the past decided again."""

from datetime import UTC, datetime, timedelta, timezone
from functools import cache

import pytest

from qmpmem.errors import ConfigError
from qmpmem.journal.episodes import GAP, Episode, episodes
from qmpmem.journal.replay import replay, within
from qmpmem.journal.times import parse_moment
from qmpmem.model.config import Config, Rule
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import Explanation, HostState, Plan, SetBalloon, Tick
from qmpmem.policy import History, decide
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from qmpmem.view.journal import history_row
from tests.rig import laws

NOW = datetime(2026, 3, 1, 14, 30, 0, tzinfo=timezone(timedelta(hours=2)))


def told(
    second: float, actual: int, target: int | None = None, state: HostState = "SOFT", **more: object
) -> Tick:
    """A round about guest g; sizes in MiB."""
    said = Explanation(guest="g", actual=Bytes(actual * MIB), reason=f"at {second:.0f}")
    balloons = (
        () if target is None else (SetBalloon(guest="g", target=Bytes(target * MIB), reason="r"),)
    )
    return Tick(
        number=int(second) + 1,
        snapshot=Snapshot(time=second, wall=1000 + second, host=HostReading()),
        plan=Plan(state=state, guests=(replace(said, **more),), balloons=balloons),
    )


def fold(*ticks: Tick) -> list[Episode]:
    return list(episodes(ticks, "g"))


def test_quiet_rounds_are_one() -> None:
    [only] = fold(*(told(second, 512) for second in range(100)))
    assert (only.rounds, only.begin, only.end, only.way, only.told) == (
        100,
        1000,
        1099,
        "as it is",
        0,
    )
    assert only.reason == "at 99"


def test_steps_of_one_way_are_one_with_what_lies_between() -> None:
    before, less, after = fold(
        told(0, 512),
        *(told(1 + step, 512 - 16 * step, 496 - 16 * step) for step in range(5)),
        *(told(6 + second, 432) for second in range(2)),
        *(told(9 + second, 432) for second in range(3)),
    )
    assert (before.way, less.way, after.way) == ("as it is", "less", "as it is")
    assert (less.told, less.first, less.target) == (5, 512 * MIB, 432 * MIB)
    assert less.actual == 432 * MIB


@pytest.mark.parametrize(
    "second",
    [
        told(1, 512, state="HARD"),
        told(1, 512, verdict="distress"),
        told(1, 512, 600),
        told(GAP + 1, 512),
        told(-5, 512),
        told(1, 470),
    ],
)
def test_what_is_other_begins_anew(second: Tick) -> None:
    assert len(fold(told(0, 512), second)) == 2


def test_a_guest_that_is_not_there_has_no_history() -> None:
    assert list(episodes([told(0, 512)], "other")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("14:03", "2026-03-01T14:03:00+02:00"),
        ("14:03:09", "2026-03-01T14:03:09+02:00"),
        ("14:31", "2026-02-28T14:31:00+02:00"),
        ("2026-01-31", "2026-01-31T00:00:00+02:00"),
        ("2026-01-31T14:03", "2026-01-31T14:03:00+02:00"),
        ("2026-01-31 14:03:07Z", "2026-01-31T14:03:07+00:00"),
        ("10m", "2026-03-01T14:20:00+02:00"),
        ("-1h30m", "2026-03-01T13:00:00+02:00"),
        ("2d", "2026-02-27T14:30:00+02:00"),
        ("1.5h", "2026-03-01T13:00:00+02:00"),
    ],
)
def test_a_moment(text: str, expected: str) -> None:
    assert parse_moment(text, NOW) == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize(
    "text",
    ["", "now", "25:00", "1", "10", "-", "1h 30", "2026-13-01", "5w", "\u0661m", "9" * 30 + "d"],
)
def test_what_is_no_moment_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ConfigError, match="expected 14:03"):
        parse_moment(text, NOW.astimezone(UTC))


@cache
def recorded() -> tuple[list[Snapshot], Config]:
    """Record a host on which much is commanded; seed 6 is the first today."""
    worlds = (list(laws.rounds(laws.world(seed))) for seed in range(6, 200))
    seen = next(run for run in worlds if sum(len(each.plan.balloons) for each in run) > 30)
    return [each.snapshot for each in seen], seen[0].world.config


def test_with_the_same_settings_nothing_differs() -> None:
    snapshots, config = recorded()
    found = replay(((each, config) for each in snapshots), config)
    assert (found.rounds, found.differs, found.examples) == (len(snapshots), 0, ())
    assert all(guest.then == guest.now for guest in found.guests)
    assert found.states["then"] == found.states["now"]


def test_what_is_told_is_what_decide_says() -> None:
    snapshots, config = recorded()
    found = replay(((each, config) for each in snapshots), config)
    history, commands = History(), 0
    for snapshot in snapshots:
        plan, history = decide(snapshot, history, config)
        commands += len(plan.balloons)
    assert sum(guest.now.shrinks + guest.now.grows for guest in found.guests) == commands


def test_other_settings_show_where_they_matter() -> None:
    snapshots, config = recorded()
    hands_off = replace(config, rules=(Rule(match="*", managed=False),))
    found = replay(((each, config) for each in snapshots), hands_off)
    assert found.differs > 0
    assert all(guest.now.shrinks == guest.now.grows == 0 for guest in found.guests)
    assert all(example.now is None for example in found.examples)
    assert 0 < len(found.examples) <= 20


def test_another_budget_is_worked_out_anew() -> None:
    guests = (
        GuestReading(id="a", state="running", rss=Bytes(600 * MIB)),
        GuestReading(id="b", state="running", rss=Bytes(300 * MIB)),
    )
    host = HostReading(limit=Bytes(1000 * MIB), headroom=Bytes(100 * MIB))
    seen = Snapshot(time=0.0, host=host, guests=guests)
    then = Config(budget=Bytes(1000 * MIB))

    def limits(budget: Bytes | str | None) -> tuple[Bytes | None, Bytes | None]:
        host = within(seen, then, Config(budget=budget)).host
        return host.limit, host.headroom

    assert limits(Bytes(1000 * MIB)) == (1000 * MIB, 100 * MIB)
    assert limits(Bytes(1500 * MIB)) == (1500 * MIB, 600 * MIB)
    assert limits(Bytes(500 * MIB)) == (500 * MIB, 0)
    assert limits(None) == (None, None)
    with pytest.raises(ConfigError, match="not in the journal"):
        limits("/sys/fs/cgroup/guests")
    same = Config(budget="/sys/fs/cgroup/guests")
    assert within(seen, same, same) == seen


def test_what_no_guest_was_told_is_not_said_to_be_told() -> None:
    real, dry = told(0, 512, 500), replace(told(1, 512, 500), dry_run=True)
    assert [history_row(each)[7] for each in fold(real, dry)] == [
        "500 MiB (once)",
        "would be 500 MiB (once)",
    ]
