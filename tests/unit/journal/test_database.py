"""A database file that is not to be believed: nothing in it decides more than what is read."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from qmpmem.errors import KernelError
from qmpmem.journal import coarse_series, compression, database, schema, store
from qmpmem.journal.database import Database
from qmpmem.journal.reader import Reader
from tests.rig import journals

BEGIN = 1_790_000_000.0
ENDLESS = "with recursive z(x) as (select 1 union all select x from z) select count(*) from z"


def opened(path: Path, *, is_bounded: bool = True) -> Database:
    return Database(path.absolute().as_uri(), 1.0, is_bounded=is_bounded)


@pytest.mark.timeout(30)
def test_a_question_that_takes_too_long_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row F83."""
    monkeypatch.setattr(database, "MOST", 0.1)
    with closing(opened(tmp_path / "j")) as journal:
        journal.line.set_authorizer(None)
        with pytest.raises(sqlite3.DatabaseError, match="one question takes more than") as caught:
            journal.first(tuple[int], ENDLESS)
    assert database.is_damage(caught.value)


@pytest.mark.timeout(30)
def test_rows_that_are_quick_and_never_end_are_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row F111."""
    monkeypatch.setattr(database, "LOOKS", 100)
    monkeypatch.setattr(database, "STEPS", 10)
    with closing(opened(tmp_path / "j")) as journal:
        journal.line.set_authorizer(None)
        question = ENDLESS.replace("count(*)", "x")
        with pytest.raises(sqlite3.DatabaseError, match="one question takes more than") as caught:
            for _ in journal.rows(tuple[int], question):
                pass
    assert database.is_damage(caught.value)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", [coarse_series.MINUTE, coarse_series.HOUR])
def test_an_index_that_leads_to_the_same_minutes_for_ever_ends(tmp_path: Path, kind: int) -> None:
    """Row F111."""
    path = tmp_path / "j"
    journals.make(path, BEGIN, 200)
    journals.run(path, "update series set span = ?", kind)
    journals.again_and_again("by_span")(path)
    with closing(Reader(path)) as reader, pytest.raises(KernelError, match="comes after"):
        for _ in reader.rows(kind, coarse_series.Range()):
            pass


@pytest.mark.timeout(30)
def test_an_index_that_leads_to_the_same_hours_of_a_guest_for_ever_ends(tmp_path: Path) -> None:
    """Row F111."""
    path = tmp_path / "j"
    journals.make(path, BEGIN)
    journals.again_and_again("uses")(path)
    with closing(Reader(path)) as reader, pytest.raises(KernelError, match="comes after"):
        reader.uses(journals.GUEST, (1,))


@pytest.mark.parametrize("rows", [[1, 1], [1, 3, 2], [1, "x"], [(1, "x"), (1, None)]])
def test_what_does_not_rise_is_damage(rows: list[object]) -> None:
    with pytest.raises(sqlite3.DatabaseError, match="comes after") as caught:
        list(database.rising(rows, lambda row: row))
    assert database.is_damage(caught.value)


def test_a_slow_reader_takes_no_time_of_sqlites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MOST", 0.2)
    monkeypatch.setattr(database, "STEPS", 1)
    question = "select 1 union all select 2 union all select 3"
    with closing(opened(tmp_path / "j")) as journal:
        for _ in journal.rows(tuple[int], question):
            end = time.thread_time() + 0.3
            while time.thread_time() < end:
                pass


def _view(path: Path) -> None:
    journals.SCHEMAS["configs-is-a-view"](path)


def test_a_view_that_comes_after_the_schema_was_looked_at_is_not_followed(tmp_path: Path) -> None:
    """Row F83."""
    path = tmp_path / "j"
    journals.make(path, BEGIN)
    with closing(Reader(path)) as reader:
        _view(path)
        with pytest.raises(KernelError, match=r"prohibited|not authorized"):
            reader.config(1)


def test_a_trigger_that_comes_later_is_not_run(tmp_path: Path) -> None:
    """Row F84."""
    path = tmp_path / "j"
    journals.make(path, BEGIN)
    with closing(opened(path, is_bounded=False)) as journal:
        journals.SCHEMAS["a-trigger-removes"](path)
        with pytest.raises(sqlite3.DatabaseError) as caught:
            journal.line.execute("insert into configs (body) values (x'')")
        assert database.is_damage(caught.value)
        assert journal.first(tuple[int], "select count(*) from rounds") == (90,)


def test_a_value_that_is_too_large_is_damage(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "j")) as journal:
        question = f"select zeroblob({compression.LARGEST + 1})"
        with pytest.raises(sqlite3.Error) as caught:
            journal.first(tuple[bytes], question)
    assert database.is_damage(caught.value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (tuple[int], "'7'"),
        (tuple[int], "7.0"),
        (tuple[int], "null"),
        (tuple[bytes], "'Nw=='"),
        (tuple[float], "'7'"),
        (tuple[str], "x'37'"),
        (tuple[int, int], "7"),
    ],
)
def test_a_value_of_another_kind_is_damage(
    tmp_path: Path, kind: type[tuple[object, ...]], value: str
) -> None:
    with closing(opened(tmp_path / "j")) as journal:
        with pytest.raises(sqlite3.DatabaseError, match="damaged: ") as caught:
            journal.first(kind, f"select {value}")
        assert database.is_damage(caught.value)
        assert " - at " not in str(caught.value)


def test_text_that_is_none_is_read_all_the_same(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "j")) as journal:
        assert journal.first(tuple[str], "select cast(x'41ff' as text)") == ("A\ufffd",)


@pytest.mark.parametrize(
    ("code", "is_damage"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_ERROR, True),
        (sqlite3.SQLITE_CONSTRAINT_TRIGGER, True),
        (sqlite3.SQLITE_MISMATCH, True),
        (sqlite3.SQLITE_TOOBIG, True),
        (sqlite3.SQLITE_AUTH, True),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, False),
        (sqlite3.SQLITE_LOCKED, False),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_CANTOPEN, False),
        (sqlite3.SQLITE_NOMEM, False),
        (sqlite3.SQLITE_PERM, False),
    ],
)
def test_what_fails_outside_the_file_is_no_damage(code: int, *, is_damage: bool) -> None:
    error = sqlite3.OperationalError("made up")
    error.sqlite_errorcode = code
    assert database.is_damage(error) == is_damage


def test_a_file_that_leads_to_the_same_rows_again_and_again_ends(tmp_path: Path) -> None:
    """Row F83: each inner page of a table names the pages below it."""
    path = tmp_path / "j"
    journals.make(path, BEGIN, 900)
    journals.in_a_circle(path)
    with closing(Reader(path)) as reader, pytest.raises(KernelError, match="is damaged it comes"):
        list(reader.entries(0.0))


def test_another_table_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journals.make(path, BEGIN)
    journals.run(path, "create table later (a); create index of_later on later (a)")
    with closing(opened(path)) as journal:
        ours = schema.expect_ours(journal, store.SCHEMA, store.OTHERS)
    assert ours == {"rounds", "configs", "uses", "series"}
    with closing(store.Store(path, journals.SIZE)):
        pass
    with closing(opened(path)) as journal:
        assert journal.first(tuple[int], "select count(*) from later") == (0,)


@pytest.mark.parametrize("change", ["alter table {} add column more", "drop table {}"])
def test_what_another_version_has_of_minutes_and_hours_is_not_read(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "j"
    journals.make(path, BEGIN)
    for table in ("series", "uses"):
        journals.run(path, change.format(table))
    with closing(Reader(path)) as reader:
        assert reader.upto(60) == 0
        assert len(list(reader.entries(0.0))) == 90


def test_too_many_tables_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journals.make(path, BEGIN)
    many = (f"create table more_{number} (a);" for number in range(schema.OBJECTS))
    journals.run(path, "".join(many))
    with pytest.raises(KernelError, match="more than 100"):
        Reader(path)
