"""What guests used at each hour: learned over days by the journal, and read by the agent."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent import habits
from qmpmem.journal import hourly_use, writer
from qmpmem.journal.reader import Reader
from qmpmem.journal.store import Store
from qmpmem.journal.writer import Journal
from qmpmem.model.config import Config, JournalConfig
from qmpmem.model.observation import GuestReading, Habit, HostReading, Snapshot
from qmpmem.model.round import Explanation, Plan, Tick
from qmpmem.policy.habits import DAYS, HOUR, HOURS, Hours, Use, habit
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.policy import use
from tests.rig.rounds import tick

SIZE: Final = Bytes(4 * MIB)
NOW: Final = 1_700_000_000.0
DAY: Final = HOURS * HOUR
TODAY: Final = int(hourly_use.local(NOW) // DAY)
USE: Final = use(TODAY - 1)


def at(hour: float, day: int = TODAY) -> float:
    """Return the seconds of local time at an hour."""
    return (day * HOURS + hour) * HOUR


def learn(path: Path, *found: Use, size: Bytes = SIZE) -> None:
    with closing(Store(path, size)) as opened:
        opened.learn(found)


def known(path: Path, guest: str = "a") -> list[Use]:
    with closing(Reader(path)) as reader:
        return reader.uses(guest, [9])


def test_what_is_asked_for_is_some_hours_and_each_start(tmp_path: Path) -> None:
    path = tmp_path / "j"
    starts = replace(USE, hour=3, start=Bytes(5))
    learn(path, USE, starts, replace(USE, hour=10), replace(USE, hour=11), replace(USE, guest="b"))
    with closing(Reader(path)) as reader:
        assert [use.hour for use in reader.uses("a", [9, 10])] == [3, 9, 10]


def rounds(days: int) -> Iterator[Tick]:
    """Return ten rounds of each hour: guest `a` uses 1500 MiB from nine to ten, else 300 MiB."""
    begin = at(0, TODAY - days) - (hourly_use.local(NOW) - NOW)
    for number in range(int(days * HOURS * 10)):
        hour = number // 10 % HOURS
        used = Bytes((1500 if hour == 9 else 300) * MIB)
        seen = GuestReading(id="a", state="running", maximum=Bytes(2 * GIB), up=1e6)
        yield Tick(
            number=number,
            snapshot=Snapshot(
                time=float(number),
                wall=begin + number * HOUR / 10 + 1,
                host=HostReading(),
                guests=(seen,),
            ),
            plan=Plan(guests=(Explanation(guest="a", used=used),)),
        )


@pytest.fixture
def in_one_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def live(path: Path, kept: JournalConfig, days: int, patch: pytest.MonkeyPatch) -> None:
    """Have the agent's own thread write the rounds of some days until today."""
    patch.setattr(writer, "WAITING", 10_000)
    patch.setattr(writer, "LAST_WORDS", 60.0)
    with closing(Journal(path, kept)) as journal:
        for each in rounds(days):
            journal.add(each, Config(journal=kept))


@pytest.mark.usefixtures("in_one_zone")
@pytest.mark.parametrize("learns", [True, False])
def test_days_are_learned_and_outlive_the_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, learns: bool
) -> None:
    path = tmp_path / "j"
    live(path, JournalConfig(hours=2.0, learn=learns), 3, monkeypatch)
    expected = [
        Habit(usual=Bytes(size * MIB), peak=Bytes(size * MIB), maximum=Bytes(2 * GIB), days=3)
        for size in (1500, 300)
    ]
    for hour, usual in zip((9.5, 10.5), expected, strict=True):
        local = hourly_use.local(NOW) // DAY * DAY + hour * HOUR
        found = habits.read(path, ["a", "b"], local)
        assert found == ({"a": usual} if learns else {})


def test_an_hour_in_which_the_agent_was_started_again_is_added_up(tmp_path: Path) -> None:
    path = tmp_path / "j"
    learn(path, replace(USE, minutes=20, start=Bytes(5)))
    learn(path, replace(USE, minutes=50, usual=Bytes(950 * MIB), peak=Bytes(960 * MIB)))
    expected = replace(USE, minutes=60, usual=Bytes(950 * MIB), start=Bytes(5))
    assert known(path) == [expected]


def test_what_is_old_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "j"
    learn(path, *(replace(USE, day=TODAY - ago) for ago in (DAYS + 5, DAYS, 0)))
    assert {use.day for use in known(path)} == {TODAY - DAYS, TODAY}


def test_there_is_room_for_some_and_the_newest_stay(tmp_path: Path) -> None:
    """Guests whose names never come again do not fill the journal."""
    path, most = tmp_path / "j", MIB // 8 // hourly_use.SIZE
    with closing(Store(path, Bytes(MIB))) as opened:
        for number in range(5):
            day = TODAY + number
            opened.learn([replace(USE, guest=f"g{day}-{each}", day=day) for each in range(900)])
    with closing(sqlite3.connect(path)) as line:
        rows = line.execute("select day, count(*) from uses group by day order by day").fetchall()
    assert sum(count for _, count in rows) == most
    assert rows[-1] == (TODAY + 4, 900)
    assert path.stat().st_size < MIB


def test_a_clock_that_once_was_years_ahead_costs_what_it_said_and_nothing_else(
    tmp_path: Path,
) -> None:
    path, most = tmp_path / "j", MIB // 8 // hourly_use.SIZE
    with closing(Store(path, Bytes(MIB))) as opened:
        opened.learn([replace(USE, guest=f"g{number}", day=TODAY) for number in range(most - 1)])
        opened.learn([replace(USE, day=TODAY + 5)])
        opened.learn([USE])
    assert known(path) == [USE]


def _cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def _without_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as line:
        line.execute("drop table uses")


def _other_columns(path: Path) -> None:
    _without_table(path)
    with closing(sqlite3.connect(path)) as line:
        line.execute("create table uses (guest text, what blob)")
        line.execute("insert into uses values ('a', x'ff')")
        line.commit()


def _other_types(path: Path) -> None:
    with closing(sqlite3.connect(path)) as line:
        line.execute("update uses set usual = 'much', peak = x'00', minutes = 1.5")
        line.commit()


DAMAGES: Final = (
    Path.unlink,
    _cut_off,
    _scribble,
    _without_table,
    _other_columns,
    _other_types,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"nonsense" * 999),
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_damaged_journal_nothing_is_known_and_learning_goes_on(
    tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    learn(path, USE, *(replace(USE, hour=hour) for hour in range(8)))
    assert habits.read(path, ["a"], at(9.5))
    damage(path)
    assert habits.read(path, ["a"], at(9.5)) == {}
    live(path, JournalConfig(), 2, monkeypatch)
    assert habits.read(path, ["a"], at(9.5))


def test_a_journal_of_an_older_version_learns_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(Store(path, SIZE)) as opened:
        opened.add(tick(1), Config())
    _without_table(path)
    assert habits.read(path, ["a"], at(9.5)) == {}
    learn(path, USE)
    assert known(path) == [USE]
    with closing(Reader(path)) as reader:
        assert [entry.tick for entry in reader.entries(0.0)] == [tick(1)]


def test_a_question_is_answered_out_of_the_index(tmp_path: Path) -> None:
    path = tmp_path / "j"
    learn(path, USE)
    with closing(sqlite3.connect(path)) as line:
        [plan] = line.execute(f"explain query plan {hourly_use.QUESTION}", ("a", 9, 9)).fetchall()
    assert "SEARCH uses USING PRIMARY KEY (guest=?)" in plan[-1]


@pytest.mark.parametrize("wall", [1e300, float("inf"), float("nan"), -1e18])
def test_a_time_without_a_calendar_is_no_mistake(wall: float) -> None:
    assert str(hourly_use.local(wall)) == str(wall)
    assert not Hours().add(tick(1), hourly_use.local(wall))


def test_a_habit_is_the_same_after_a_row_went_through_the_file(tmp_path: Path) -> None:
    path, found = tmp_path / "j", [replace(USE, day=TODAY - ago) for ago in range(1, 5)]
    learn(path, *found)
    assert habit(known(path), at(9.2)) == habit(found, at(9.2))
