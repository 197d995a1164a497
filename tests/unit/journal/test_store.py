"""The journal's file: bounded, readable while it is written, and honest about damage."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random

import pytest

from qmpmem.errors import ConfigError, KernelError
from qmpmem.journal import database, store
from qmpmem.journal.reader import Reader
from qmpmem.journal.store import GROUP, Store
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from qmpmem.units import MIB, Bytes
from tests.rig import chance, journals
from tests.rig.memory import memory_directory
from tests.rig.patience import patient
from tests.rig.rounds import tick

SIZE = Bytes(64 * MIB)


def write(path: Path, ticks: Iterator[Tick] | list[Tick], size: Bytes = SIZE) -> None:
    with closing(Store(path, size)) as opened:
        for each in ticks:
            opened.add(each, Config())


def read(path: Path, since: float = 0.0, until: float = float("inf")) -> list[Tick]:
    with closing(Reader(path)) as reader:
        return [entry.tick for entry in reader.entries(since, until)]


def taken(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(path.name + "*"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, ticks = tmp_path / "j", [tick(number) for number in range(3 * GROUP + 7)]
    write(path, ticks)
    assert read(path) == ticks
    assert read(path, 1000.0 + GROUP + 5, 1000.0 + GROUP + 9) == ticks[GROUP + 5 : GROUP + 10]


def test_it_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(Store(path, SIZE)) as opened:
        for number in range(5):
            opened.add(tick(number), Config())
            assert [each.number for each in read(path)] == list(range(number + 1))


def test_a_file_that_is_being_recovered_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    write(path, [tick(1)])
    monkeypatch.setattr(store, "OPENING", 60.0)
    with (
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        opening = thread.submit(write, path, [tick(2)])
        with pytest.raises(TimeoutError):
            opening.result(timeout=0.2)
        other.execute("rollback")
        other.close()
        opening.result(timeout=patient(10))
    assert read(path) == [tick(1), tick(2)]


def test_a_writer_that_goes_on_begins_with_a_whole_round(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, [tick(1), tick(2)])
    write(path, [tick(3), tick(4)])
    assert read(path) == [tick(number) for number in (1, 2, 3, 4)]


def test_settings_are_kept_with_the_rounds_that_they_held_for(tmp_path: Path) -> None:
    path = tmp_path / "j"
    one, two = Config(grace=1.0), Config(grace=2.0)
    with closing(Store(path, SIZE)) as opened:
        for number, config in enumerate((one, one, two, one)):
            opened.add(tick(number), config)
    with closing(Reader(path)) as reader:
        found = [reader.config(entry.config) for entry in reader.entries(0.0)]
    assert found == [one, one, two, one]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [Bytes(MIB), Bytes(4 * MIB)])
def test_it_stays_within_its_size_and_keeps_the_newest(tmp_path: Path, size: Bytes) -> None:
    """Some five groups have room in the file."""
    path, rounds = tmp_path / "j", (30 if chance.is_soak() else 10) * GROUP
    with closing(Store(path, size)) as opened:
        for number in range(rounds):
            opened.add(tick(number, noise=size // 400), Config())
            if number % 20 == 0:
                assert taken(path) <= size
    assert taken(path) <= size
    kept = [each.number for each in read(path)]
    assert kept == list(range(kept[0], rounds))
    assert kept[0] > 0
    assert len(kept) > GROUP


def test_a_file_that_was_allowed_more_is_made_smaller(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, [tick(number, noise=10_000) for number in range(10 * GROUP)])
    before = taken(path)
    assert before > 4 * store.BESIDE
    half = Bytes(before // 2)
    with closing(Store(path, half)) as opened:
        assert taken(path) <= half
        opened.add(tick(5000), Config())
    assert taken(path) <= half
    kept = [each.number for each in read(path)]
    assert kept == [*range(kept[0], 10 * GROUP), 5000]
    assert len(kept) > 2 * GROUP


@pytest.mark.parametrize("forge", journals.CROWDED)
def test_what_fills_a_file_is_removed_or_damage(tmp_path: Path, forge: str) -> None:
    """Row F113: all of the next rounds are written, or none is, and the journal is set aside."""
    path = tmp_path / "j"
    journals.make(path, 1000.0)
    journals.CROWDED[forge](path)
    try:
        write(path, [tick(1000 + number, noise=20_000) for number in range(60)], journals.SIZE)
    except sqlite3.DatabaseError as error:
        assert forge == "a-table-of-others-fills-it"
        assert database.is_damage(error)  # noqa: PT017 - the others are mended
    else:
        assert [each.number for each in read(path)][-60:] == [*range(1000, 1060)]
        assert taken(path) <= journals.SIZE


def test_a_table_of_others_that_fills_a_file_later_is_damage(tmp_path: Path) -> None:
    """Row F113."""
    path = tmp_path / "j"
    with closing(Store(path, journals.SIZE)) as opened:
        journals.CROWDED["a-table-of-others-fills-it"](path)
        with pytest.raises(sqlite3.DatabaseError, match="what is no round") as caught:
            opened.add(tick(1, noise=20_000), Config())
    assert database.is_damage(caught.value)


def test_a_group_that_is_larger_than_the_file_makes_room(tmp_path: Path) -> None:
    """Row F113."""
    path = tmp_path / "j"
    write(path, [tick(number, noise=20_000) for number in range(60)], Bytes(MIB))
    assert read(path)[-1].number == 59
    assert taken(path) <= MIB


def test_what_many_rounds_took_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(Store(path, SIZE)) as opened:
        for number in range(5 * GROUP):
            opened.add(tick(number, noise=2000), Config())
        before = path.stat().st_size
        opened.forget(1e12)
        assert path.stat().st_size < before // 4


def test_what_is_too_old_is_forgotten_by_groups(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(Store(path, SIZE)) as opened:
        for number in range(3 * GROUP):
            opened.add(tick(number), Config())
        opened.forget(1000.0 + 1.5 * GROUP)
        assert read(path)[0].number == GROUP
        opened.forget(1e12)
        assert read(path)[0].number == 2 * GROUP  # the one that is being written stays
        opened.add(tick(3 * GROUP), Config())
    assert read(path)[-1].number == 3 * GROUP


@pytest.mark.parametrize(("now", "first"), [(5000.0, 4 * GROUP), (500.0, 0), (1e9, GROUP)])
def test_rounds_of_a_time_to_come_are_forgotten_with_those_around_them(
    tmp_path: Path, now: float, first: int
) -> None:
    """The clock was ahead for two groups; while it is wrong itself, nothing is removed."""
    path, ahead = tmp_path / "j", range(60, 180)
    with closing(Store(path, SIZE)) as opened:
        for number in range(5 * GROUP):
            opened.add(tick(number, wall=1000.0 + number + 1e6 * (number in ahead)), Config())
        opened.forget(min(1000.0 + 4 * GROUP, now), now)
    assert [each.number for each in read(path)] == list(range(first, 5 * GROUP))


def test_a_clock_that_is_set_back_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j"
    ticks = [tick(1, wall=5000.0), tick(2, wall=100.0), tick(3, wall=101.0)]
    write(path, ticks)
    assert read(path) == ticks


def test_no_journal_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no journal"):
        Reader(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_what_is_no_journal_is_said_to_be_none_of_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(KernelError, match="journal"):
        read(path)


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    return str(path) in {
        str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()
    }


def not_a_database(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)


def not_finished(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    path.with_name("j-wal").touch()


def of_another_version(path: Path) -> None:
    write(path, [tick(1)])
    with closing(sqlite3.connect(path)) as line:
        line.execute(f"pragma user_version = {store.VERSION + 1}")
        line.commit()


def with_a_damaged_schema(path: Path) -> None:
    write(path, [tick(1)])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE", b"CR\0ATE"))


def with_a_schema_that_is_no_text(path: Path) -> None:
    """SQLite quotes it in its message, which Python then fails to decode."""
    write(path, [tick(1)])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE", b"CRE\xccTE"))


@pytest.mark.parametrize(
    "make",
    [
        with_a_schema_that_is_no_text,
        not_a_database,
        not_finished,
        of_another_version,
        with_a_damaged_schema,
    ],
)
@pytest.mark.parametrize("opened", [Reader, lambda path: Store(path, SIZE)], ids=["read", "write"])
def test_a_file_that_cannot_be_used_is_closed(
    tmp_path: Path, make: Callable[[Path], None], opened: Callable[[Path], object]
) -> None:
    path = tmp_path / "j"
    make(path)
    # The traceback holds what was not closed, which would else go unnoticed before Python 3.13.
    with pytest.raises((KernelError, sqlite3.Error)) as caught:
        opened(path)
    assert not is_open(path), caught.value


@pytest.mark.parametrize("forge", [each for each in journals.BODIES if "settings" in each])
def test_settings_that_are_damaged_are_said_to_be(tmp_path: Path, forge: str) -> None:
    """Row F83."""
    path = tmp_path / "j"
    journals.make(path, 1000.0)
    journals.BODIES[forge](path)
    with closing(Reader(path)) as reader, pytest.raises(KernelError, match="damaged"):
        reader.config(1)


def test_another_version_is_neither_read_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, [tick(1)])
    with closing(sqlite3.connect(path)) as line:
        line.execute(f"pragma user_version = {store.VERSION + 1}")
        line.commit()
    with pytest.raises(KernelError, match="version"):
        Reader(path)
    with pytest.raises(sqlite3.DatabaseError, match="version"):
        Store(path, SIZE)


def test_what_is_before_a_damaged_round_is_given(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, [tick(number) for number in range(9)])
    with closing(sqlite3.connect(path)) as line:
        line.execute("update rounds set body = x'00112233' where id = 5")
        line.commit()
    found: list[int] = []
    with closing(Reader(path)) as reader, pytest.raises(KernelError, match="round 5 is damaged"):
        found.extend(entry.tick.number for entry in reader.entries(0.0))
    assert found == [0, 1, 2, 3]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is kept out by no mode")
def test_a_directory_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, [tick(1)])
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    assert read(path) == [tick(1)]


@cache
def a_hundred_rounds() -> bytes:
    """Give the content of a file."""
    with memory_directory() as directory:
        write(directory / "j", [tick(number, guests=5) for number in range(100)])
        return (directory / "j").read_bytes()


@pytest.mark.parametrize("seed", chance.some(range(80), 20))
def test_flipped_bytes_never_give_another_error(tmp_path: Path, seed: int) -> None:
    path, random = tmp_path / "j", Random(seed)  # noqa: S311 - repeatable on purpose
    content = bytearray(a_hundred_rounds())
    for _ in range(40):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    try:
        read(path)
    except (ConfigError, KernelError) as error:
        assert "journal" in error.message  # noqa: PT017 - it may also be read
