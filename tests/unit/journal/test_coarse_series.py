"""Minutes and hours in the journal: bounded, counted once, whatever clocks and kills do."""

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random

import pytest

from qmpmem.errors import ConfigError, KernelError
from qmpmem.journal import ranges
from qmpmem.journal.aggregate import Aggregate, fold, regroup, span
from qmpmem.journal.coarse_series import DAY, HOUR, MINUTE, UNIT, Range, decoded, encoded
from qmpmem.journal.deltas import Encoder
from qmpmem.journal.points import GuestPoint, HostPoint, Row
from qmpmem.journal.reader import Reader
from qmpmem.journal.store import Store
from qmpmem.model.config import Config
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig import chance
from tests.rig.memory import memory_directory
from tests.rig.rounds import busy, tick

START = 1_800_000_000.0
SIZE = Bytes(64 * MIB)
MONTH = 31.0


class Writer:
    """Writes rounds and what they come to, as the agent's thread does."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, SIZE)
        self._aggregate = Aggregate(MINUTE)
        self._upto = 0
        for number, each in self.store.unkept():
            self._take(number, self._aggregate.add(each))

    def add(self, number: int, wall: float) -> None:
        each = busy(number, wall=wall)
        self._take(self.store.add(each, Config()), self._aggregate.add(each))

    def _take(self, number: int, minute: Row | None) -> None:
        if minute is not None:
            self.store.keep(minute, self._upto, MONTH)
        self._upto = number


def write(path: Path, walls: Iterable[float], first: int = 0) -> None:
    """Write rounds, and end as after a kill: the minute that runs is not kept."""
    writer = Writer(path)
    with closing(writer.store):
        for number, wall in enumerate(walls, start=first):
            writer.add(number, wall)


def counted(path: Path, begin: float, end: float) -> int:
    with closing(Reader(path)) as reader:
        return sum(point.rounds for point in ranges.read(reader, None, begin, end).host)


def kept(path: Path, kind: int) -> list[Row]:
    with closing(Reader(path)) as reader:
        return list(reader.rows(kind, Range()))


def rounded(row: Row) -> Row:
    return decoded(encoded(row), row.host.begin)


def test_minutes_and_hours_are_what_the_rounds_say(tmp_path: Path) -> None:
    walls = [START + 7 * number for number in range(1500)]  # not quite three hours
    write(tmp_path / "j", walls)
    with closing(Reader(tmp_path / "j")) as reader:
        ticks = [entry.tick for entry in reader.entries(0.0)]
        minutes = list(reader.rows(MINUTE, Range()))
        hours = list(reader.rows(HOUR, Range()))
    expected = [rounded(row) for row in fold(ticks, MINUTE)]
    assert minutes == expected[:-1]
    assert hours == [rounded(row) for row in regroup(minutes, HOUR)][:-1]
    assert len(hours) == 2


def test_a_row_is_read_as_it_was_written_to_a_part_of_a_mib() -> None:
    row = Row(
        host=HostPoint(begin=START, rounds=3, total=Bytes(8 * GIB), some=1.5, swap=None),
        guests={"a": GuestPoint(guest="a", name="ä\n<", rounds=3, actual=Bytes(GIB + 1))},
    )
    again = decoded(encoded(row), START)
    assert again == replace(row, guests={"a": replace(row.guests["a"], actual=Bytes(GIB))})
    assert UNIT < MIB


@pytest.mark.parametrize("length", [600.0, 4 * HOUR, 40 * DAY])
@pytest.mark.parametrize("runs", [1, 2, 5])
def test_a_kill_loses_and_doubles_nothing(tmp_path: Path, runs: int, length: float) -> None:
    """Whatever a plot is made of: rounds, minutes, or hours."""
    path, rounds = tmp_path / "j", 300
    for run in range(runs):
        first = run * rounds
        write(path, [START + 4 * (first + each) + 0.5 for each in range(rounds)], first)
    end = START + 4 * runs * rounds
    expected = sum(end - length <= START + 4 * each + 0.5 for each in range(runs * rounds))
    step = 3600 if length > 3 * DAY else 60 if length > 2 * HOUR else 2
    found = counted(path, end - length, end)
    assert expected <= found <= expected + step  # the first point may begin before the axis


def test_a_clock_that_is_set_back_counts_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    walls = [START + each for each in range(0, 7200, 10)]
    write(tmp_path / "j", [*walls, *(each - 3600 for each in walls)])
    for length in (3600 * 4, 10 * DAY):
        assert counted(tmp_path / "j", START - length, START + length) == 2 * len(walls)


def test_a_clock_that_is_a_year_ahead_for_ten_minutes_costs_no_more_than_an_hour(
    tmp_path: Path,
) -> None:
    before = [START + 60 * each for each in range(600)]
    year = 366 * DAY
    ahead = [START + year + 60 * (600 + each) for each in range(10)]
    after = [START + 60 * (610 + each) for each in range(30)]
    write(tmp_path / "j", [*before, *ahead, *after])
    found = {row.host.begin for row in kept(tmp_path / "j", MINUTE)}
    assert len({span(each, MINUTE) for each in (*before, *ahead)} - found) <= 60
    assert {span(each, MINUTE) for each in after[:-1]} <= found


@pytest.mark.parametrize("wall", [-1e18, -5.0, 2.0**41, 1e300])
def test_a_time_of_no_calendar_is_kept_in_no_row(tmp_path: Path, wall: float) -> None:
    write(tmp_path / "j", [START, wall, START + 60, START + 120])
    assert [row.host.begin for row in kept(tmp_path / "j", MINUTE)] == [START, START + 60]


def test_each_kind_has_its_part_of_the_file_and_the_newest_stay(tmp_path: Path) -> None:
    path, size = tmp_path / "j", Bytes(MIB)
    row = next(fold([busy(1, wall=START, guests=40)], MINUTE))
    with closing(Store(path, size)) as store:
        for number in range(1500):
            host = replace(row.host, begin=START + 60 * number)
            guests = {
                guest: replace(point, actual=Bytes((number * 7919 + place) * MIB % GIB))
                for place, (guest, point) in enumerate(row.guests.items())
            }
            store.keep(Row(host=host, guests=guests), number, MONTH)
    found = kept(path, MINUTE)
    begins = [each.host.begin for each in found]
    assert begins[-1] == START + 60 * 1499
    assert begins == [begins[0] + 60 * each for each in range(len(begins))]
    assert begins[0] > START, "some were removed"
    with closing(sqlite3.connect(path)) as line:
        [taken] = line.execute("select sum(length(body)) from series where span = 60").fetchone()
    assert size // 16 < taken <= size // 8


def test_what_is_too_old_is_forgotten(tmp_path: Path) -> None:
    row = next(fold([busy(1, wall=START)], MINUTE))
    with closing(Store(tmp_path / "j", SIZE)) as store:
        for hour in range(72):
            host = replace(row.host, begin=START + hour * HOUR)
            store.keep(replace(row, host=host), hour, 1.0)
    begins = [each.host.begin for each in kept(tmp_path / "j", MINUTE)]
    assert len(begins) == 25
    assert begins[0] == START + 47 * HOUR


def test_a_smaller_file_keeps_less_of_it(tmp_path: Path) -> None:
    path, many = tmp_path / "j", next(fold([busy(1, wall=START, guests=200)], MINUTE))
    with closing(Store(path, SIZE)) as store:
        for number in range(300):
            host = replace(many.host, begin=START + 600 * number)
            store.keep(replace(many, host=host), number, MONTH)
    with closing(Store(path, Bytes(MIB))):
        pass
    found = kept(path, MINUTE)
    assert 0 < len(found) < 300
    assert found[-1].host.begin == START + 600 * 299


OLD = """
pragma auto_vacuum = incremental;
create table rounds (
    id integer primary key, wall real not null, whole integer not null, config integer not null,
    body blob not null
);
create index by_time on rounds (wall);
create index by_group on rounds (whole);
create table configs (id integer primary key, body blob not null);
insert into configs values (1, x'7b7d');
pragma user_version = 1;
"""
"""The journal before it had minutes and hours."""


def old_journal(path: Path, walls: Sequence[float]) -> None:
    encoder = Encoder()
    with closing(sqlite3.connect(path)) as line:
        line.executescript(OLD)
        for number, wall in enumerate(walls, start=1):
            each = busy(number, wall=wall)
            body = encoder.whole(each) if number == 1 else encoder.change(each)
            line.execute("insert into rounds values (?, ?, 1, 1, ?)", (number, wall, body))
        line.commit()


@pytest.mark.parametrize("length", [600.0, 4 * HOUR, 40 * DAY])
def test_an_older_journal_is_read_and_goes_on(tmp_path: Path, length: float) -> None:
    path, rounds = tmp_path / "j", 1000
    old_journal(path, [START + each for each in range(rounds)])
    end = START + 2 * rounds
    assert counted(path, end - 4 * HOUR, end) == rounds
    write(path, [START + rounds + each for each in range(rounds)], rounds)
    with closing(Reader(path)) as reader:
        assert len(list(reader.entries(0.0))) == 2 * rounds
    whole = length > rounds * 2
    assert counted(path, end - length, end) == (2 * rounds if whole else length)


def test_a_table_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, [START + each for each in range(0, 600, 5)])
    with closing(sqlite3.connect(path)) as line:
        line.execute("alter table series add column more")
        line.commit()
    write(path, [START + 600 + each for each in range(0, 600, 5)], 120)
    with closing(Reader(path)) as reader:
        assert len(list(reader.entries(0.0))) == 240
    assert kept(path, MINUTE)


@pytest.mark.parametrize(
    "change",
    ["body = x'00112233'", "format = 99", "body = 'text'", "base = 10000", "body = x'789c'"],
)
def test_a_row_that_cannot_be_read_is_left_out(tmp_path: Path, change: str) -> None:
    path = tmp_path / "j"
    write(path, [START + each for each in range(0, 600, 5)])
    before = kept(path, MINUTE)
    with closing(sqlite3.connect(path)) as line:
        line.execute(f"update series set {change} where id = 5")  # noqa: S608 - ours
        line.commit()
    assert kept(path, MINUTE) == [*before[:4], *before[5:]]


def test_rows_of_records_that_have_grown_are_read() -> None:
    """A field that is added at the end is missing in old rows, and unknown to old versions."""
    row = next(fold([busy(1, wall=START)], MINUTE))
    text = encoded(row)
    longer = text.replace(b"],[", b",7],[").replace(b"]]", b",7]]")
    assert decoded(longer, START) == decoded(text, START)
    shorter = decoded(b'[[0,3],["a",null]]', START)
    assert shorter.host.rounds == 3
    assert shorter.guests["a"] == GuestPoint(guest="a")


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b"[[0,1,[1,2]]]",
        b"[[0],[]]",
        b"[[0],[7,null]]",
        b'[[0],["a",null,1,"aaaa"]]',
        b'[[0],["a",null,1,1e999]]',
        b'[[0],["a",null,{}]]',
        b"\xff",
        b"[" * 5000,
    ],
    ids=range(10),
)
def test_a_row_that_says_nonsense_is_left_out(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "j"
    write(path, [START + each for each in range(0, 600, 5)])
    before = kept(path, MINUTE)
    with closing(sqlite3.connect(path)) as line:
        line.execute("update series set base = id, body = ? where id = 5", (zlib.compress(text),))
        line.commit()
    assert kept(path, MINUTE) == [*before[:4], *before[5:]]


@pytest.mark.parametrize("seed", chance.some(range(40), 10))
def test_flipped_bytes_never_give_another_error(tmp_path: Path, seed: int) -> None:
    path, random = tmp_path / "j", Random(seed)  # noqa: S311 - repeatable on purpose
    content = bytearray(three_hours())
    for _ in range(40):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    for length in (600.0, 3 * HOUR, 30 * DAY):
        try:
            counted(path, START + 3 * HOUR - length, START + 3 * HOUR)
        except (ConfigError, KernelError) as error:
            assert "journal" in error.message  # noqa: PT017 - it may also be read


@cache
def three_hours() -> bytes:
    with memory_directory() as directory:
        write(directory / "j", [START + 60 * each for each in range(180)])
        return (directory / "j").read_bytes()


def test_a_short_stretch_is_of_rounds_and_a_long_one_of_hours(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, [START + 30 * each for each in range(12 * 120)])
    end = START + 12 * HOUR
    with closing(Reader(path)) as reader:
        steps = [
            ranges.read(reader, None, end - length, end).step
            for length in (600.0, HOUR, 11.9 * HOUR)
        ]
        assert steps == [2.0, 10.0, 120.0]
        # It is twelve hours old: read from its minutes, it would have as many points.
        month = ranges.read(reader, None, end - 31 * DAY, end)
        assert (month.step, len(month.host)) == (7200.0, 6)


def test_a_guest_is_meant_by_its_id_or_its_name(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, [START + each for each in range(0, 1000, 5)])
    with closing(Reader(path)) as reader:
        one = ranges.read(reader, "g1", START, START + 1000)
        assert one == ranges.read(reader, "guest 1", START, START + 1000)
        assert (one.guest, one.name) == ("g1", "guest 1")
        assert {each.point.guest for each in one.points} == {"g1"}
        with pytest.raises(ConfigError, match="nothing of it") as caught:
            ranges.read(reader, "g9", START, START + 1000)
    assert caught.value.hint == "guests in it: guest 0 (g0), guest 1 (g1), guest 2 (g2)"


def test_what_is_written_meanwhile_counts_once(tmp_path: Path) -> None:
    """A reader that has read the hours reads the minutes as they were then."""
    path = tmp_path / "j"
    write(path, [START + 30 * each for each in range(2 * 120 - 1)])
    writer = Writer(path)
    with closing(writer.store), closing(Reader(path)) as reader, reader.at_once():
        before = (len(list(reader.rows(HOUR, Range()))), reader.upto(HOUR), reader.upto(MINUTE))
        for each in range(239, 300):
            writer.add(each, START + 30 * each)
        again = (len(list(reader.rows(HOUR, Range()))), reader.upto(HOUR), reader.upto(MINUTE))
        assert again == before
    assert counted(path, START, START + 4 * HOUR) == 300


def test_a_clock_that_was_ahead_hides_no_rounds(tmp_path: Path) -> None:
    """Reading does not end at the first round that is later than what is asked for."""
    path = tmp_path / "j"
    with closing(Store(path, SIZE)) as store:
        for number, wall in enumerate((1000.0, 9000.0, 1001.0, 1002.0)):
            store.add(tick(number, wall=wall), Config())
    with closing(Reader(path)) as reader:
        assert [entry.tick.number for entry in reader.entries(0.0, 2000.0)] == [0, 2, 3]
