"""The agent's end of the journal: whatever is wrong with the disk, rounds go on."""

import itertools
import os
import pwd
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from qmpmem.errors import ConfigError, KernelError
from qmpmem.files.launcher_paths import launchers_directory
from qmpmem.journal import coarse_series, store, writer
from qmpmem.journal.aggregate import fold
from qmpmem.journal.paths import journal_path, readable_journal, unit_journal
from qmpmem.journal.reader import Reader
from qmpmem.journal.writer import Journal
from qmpmem.model.config import Config, JournalConfig
from qmpmem.units import MIB
from tests.rig import journals, mounts, odd
from tests.rig.patience import patient
from tests.rig.qemu import until
from tests.rig.rounds import busy, tick

KEPT = JournalConfig()
CHECKOUT = Path(__file__).parents[3]
BOUND = 15.0
"""Seconds after which a test gives up; nothing waits so long."""
USER = next(user for user in pwd.getpwall() if user.pw_uid != 0)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def numbers(path: Path) -> list[int]:
    with closing(Reader(path)) as reader:
        return [entry.tick.number for entry in reader.entries(0.0)]


def written(path: Path, *rounds: int, kept: JournalConfig = KEPT) -> list[str]:
    """Write rounds; gives what was said."""
    with closing(Journal(path, kept)) as journal:
        for number in rounds:
            journal.add(tick(number), Config())
    return journal.problems()


def test_rounds_are_written_and_the_group_may_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state" / "journal.db"
    assert written(path, 1, 2, 3) == []
    assert numbers(path) == [1, 2, 3]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o007 == 0


def _wait_for(path: Path, number: int) -> None:
    until(lambda: _is_in(path, number))


def _is_in(path: Path, number: int) -> bool:
    try:
        return number in numbers(path)
    except (ConfigError, KernelError):  # there is no file yet, or nothing in it
        return False


def _nonsense(path: Path) -> None:
    path.write_bytes(b"nonsense" * 999)


def _cut_off(path: Path) -> None:
    for _ in range(4):
        written(path, *range(writer.WAITING))
    os.truncate(path, path.stat().st_size // 2)


def _other_version(path: Path) -> None:
    written(path, 1)
    with closing(sqlite3.connect(path)) as line:
        line.execute(f"pragma user_version = {store.VERSION + 1}")


def _other_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as line:
        line.execute("create table rounds (id)")


@pytest.mark.parametrize("damage", [_nonsense, _cut_off, _other_version, _other_tables])
def test_a_damaged_file_is_set_aside_and_begun_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "j"
    damage(path)
    said = written(path, 7, 8)
    assert any("set aside as j.damaged" in each for each in said), said
    assert numbers(path)[-1] == 8
    assert (tmp_path / "j.damaged").exists()


@pytest.mark.parametrize("umask", [0, 0o022])
@pytest.mark.parametrize("damage", [None, _nonsense, _cut_off])
def test_what_replaces_a_damaged_file_is_for_the_group_only(
    tmp_path: Path, damage: Callable[[Path], None] | None, umask: int
) -> None:
    path = tmp_path / "j"
    if damage is not None:
        damage(path)
        path.chmod(0o644)
    before = os.umask(umask)
    try:
        with closing(Journal(path, KEPT)) as journal:
            journal.add(tick(1), Config())
            _wait_for(path, 1)
            every = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert every.pop("j.damaged", 0o640) == 0o640
    assert every == {"j": 0o640, "j-wal": 0o640, "j-shm": 0o640}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("beside", ["", "-wal", "-shm"])
@pytest.mark.parametrize("make", odd.EVERY)
def test_what_is_no_file_of_ours_is_said_in_a_line_and_rounds_go_on(
    tmp_path: Path, make: odd.Make, beside: str
) -> None:
    if make is odd.sparse:
        pytest.skip("a file of ours, however large, is damaged at most")
    path = tmp_path / "state" / "j"
    path.parent.mkdir()
    make(path.with_name("j" + beside))
    with closing(Journal(path, KEPT)) as journal:
        journal.add(tick(1), Config())
        until(lambda: journal.dropped == 1)
    [said] = journal.problems()
    assert said.startswith(f"journal {path}: ")
    assert said.endswith("; rounds are not written down meanwhile")
    if make is odd.link:
        assert odd.victim(path).read_bytes() == odd.WORDS


@pytest.mark.timeout(10)
@pytest.mark.parametrize("beside", ["", "-wal", "-shm"])
def test_a_reader_waits_for_no_fifo(tmp_path: Path, beside: str) -> None:
    path = tmp_path / "j"
    if beside:
        written(path, 1)
    os.mkfifo(path.with_name("j" + beside))
    with pytest.raises(KernelError, match="expected a file"):
        Reader(path)


def test_damage_that_shows_later_is_set_aside_as_well(tmp_path: Path) -> None:
    path, clock = tmp_path / "j", Clock()
    count = itertools.count(1)
    with closing(Journal(path, KEPT, clock)) as journal:

        def is_written(*, since: int) -> bool:
            """Give it one more, long enough after the last: a round that it cannot write is lost.

            As when it meets the reader that looks here whether it did.
            """
            clock.now += writer.AGAIN
            last = next(count)
            journal.add(tick(last), Config())
            return any(_is_in(path, number) for number in range(since, last + 1))

        until(lambda: is_written(since=1), seconds=15, what="the journal is written")
        with closing(sqlite3.connect(path, timeout=patient(10))) as line:
            line.execute("drop table rounds")
            line.commit()
        after = next(count)
        until(lambda: is_written(since=after), seconds=15, what="a new one is written")


def _no_directory(path: Path) -> None:
    path.parent.write_text("in the way")


def _is_directory(path: Path) -> None:
    path.mkdir(parents=True)


@pytest.mark.parametrize("hinder", [_no_directory, _is_directory])
def test_where_it_cannot_be_written_rounds_are_dropped_and_counted(
    tmp_path: Path, hinder: Callable[[Path], None]
) -> None:
    path, clock = tmp_path / "state" / "j", Clock()
    hinder(path)
    with closing(Journal(path, KEPT, clock)) as journal:
        for number in range(3):
            journal.add(tick(number), Config())
        until(lambda: journal.dropped == 3)
        _make_way(path)
        clock.now += writer.AGAIN
        journal.add(tick(3), Config())
    assert numbers(path) == [3]
    said = journal.problems()
    assert "3 rounds are not in it" in said[-1], said


def _make_way(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    if path.parent.is_file():
        path.parent.unlink()


def test_a_file_that_another_holds_is_tried_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "j", Clock()
    written(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with closing(Journal(path, KEPT, clock)) as journal:
            journal.add(tick(2), Config())
            until(lambda: journal.dropped == 1)
            other.execute("rollback")
            clock.now += writer.AGAIN
            journal.add(tick(3), Config())
    assert numbers(path) == [1, 3]


def test_a_full_disk_drops_rounds_and_goes_on(tmp_path: Path) -> None:
    path, clock = tmp_path / "j", Clock()
    written(path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Journal(path, KEPT, clock)) as journal:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (16384, before[1]))
            for number in range(2, 20):
                journal.add(tick(number, noise=2000), Config())
                clock.now += writer.AGAIN
            until(lambda: journal.dropped > 0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        clock.now += writer.AGAIN
        journal.add(tick(99), Config())
    assert numbers(path)[-1] == 99
    assert any("not written down" in each for each in journal.problems())


class StoppedClock:
    """A clock that its reader waits for: it holds up the writer as a slow disk does."""

    def __init__(self, last: int) -> None:
        self.asked, self.goes_on, self.done = (threading.Event() for _ in range(3))
        self._left = last

    def __call__(self) -> float:
        self.asked.set()
        assert self.goes_on.wait(BOUND)
        self._left -= 1
        if self._left == 0:
            self.done.set()
        return 0.0


def test_a_disk_that_does_not_keep_up_does_not_hold_up_the_agent(tmp_path: Path) -> None:
    path, clock = tmp_path / "j", StoppedClock(last=writer.WAITING + 1)
    with closing(Journal(path, KEPT, clock)) as journal:
        journal.add(tick(0), Config())
        assert clock.asked.wait(BOUND)
        for number in range(1, writer.WAITING * 3):
            journal.add(tick(number), Config())
        assert journal.dropped == writer.WAITING * 2 - 1
        assert any("does not keep up" in each for each in journal.problems())
        clock.goes_on.set()
        assert clock.done.wait(BOUND)
    assert numbers(path) == list(range(writer.WAITING + 1))


def test_only_what_is_young_enough_is_kept(tmp_path: Path) -> None:
    path, clock = tmp_path / "j", Clock()
    with closing(Journal(path, JournalConfig(hours=1.0), clock)) as journal:
        for hour in range(4):
            for number in range(hour * 3600, hour * 3600 + store.GROUP):
                journal.add(tick(number), Config())
                _wait_for(path, number)
            clock.now += writer.TIDY
    assert min(numbers(path)) >= 2 * 3600


def test_a_wall_clock_that_is_a_day_ahead_costs_minutes_and_no_day(tmp_path: Path) -> None:
    path, clock, day = tmp_path / "j", Clock(), 24 * 3600
    for hour in range(20):
        written(path, hour * 3600)  # a group each
    for start in (20 * 3600, 21 * 3600):  # it may be ahead from the start, too
        with closing(Journal(path, JournalConfig(hours=24.0), clock)) as journal:
            for each in (start, start + day, start + 2 * day):
                journal.add(tick(each), Config())
                _wait_for(path, each)
                clock.now += writer.TIDY
    lost = {hour * 3600 for hour in range(20)} - set(numbers(path))
    assert len(lost) <= 4, "one group a look"


KILLED = """
import os, signal, sys, time
from pathlib import Path
from qmpmem.model.config import Config, JournalConfig
from qmpmem.journal.writer import Journal
from tests.rig.rounds import busy
path, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
journal = Journal(path, JournalConfig())
for number in range(first, last):
    journal.add(busy(number, wall=1_800_000_000.0 + 4 * number), Config())
    while journal._rounds.qsize():
        time.sleep(0.001)
print("written", flush=True)
time.sleep(600)
"""
"""Writes rounds until it is killed."""


@pytest.mark.timeout(60)
def test_minutes_are_what_the_rounds_say_over_a_kill(tmp_path: Path) -> None:
    """A round every four seconds, and a SIGKILL in the middle of a minute, twice."""
    path, ends = tmp_path / "j", (0, 52, 97, 150)
    for first, last in pairwise(ends):
        words = [sys.executable, "-c", KILLED, str(path), str(first), str(last)]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"written\n"
            _wait_for(path, last - 1)
            child.kill()
    with closing(Reader(path)) as reader:
        ticks = [entry.tick for entry in reader.entries(0.0)]
        minutes = list(reader.rows(coarse_series.MINUTE, coarse_series.Range()))
    assert [tick.number for tick in ticks] == list(range(150))
    expected = [
        coarse_series.decoded(coarse_series.encoded(row), row.host.begin) for row in fold(ticks, 60)
    ]
    assert minutes == expected[:-1]


LOCK: Final = """
import fcntl, sys, time
file = open(sys.argv[1], "rb")
fcntl.lockf(file, fcntl.LOCK_SH, 1, 120)
print("locked", flush=True)
time.sleep(600)
"""
"""Locks the byte by which SQLite keeps others from writing (wal.c: WAL_WRITE_LOCK)."""


def test_what_keeps_it_from_being_written_is_named(tmp_path: Path) -> None:
    """Each member of the group that may read it may lock it as well, as all files."""
    path, clock = tmp_path / "j", Clock()
    with closing(Journal(path, KEPT, clock)) as journal:
        journal.add(tick(1), Config())
        _wait_for(path, 1)
        words = [sys.executable, "-c", LOCK, f"{path}-shm"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"locked\n"
            journal.add(tick(2), Config())
            until(lambda: journal.dropped == 1, what="it cannot be written")
            [said] = journal.problems()
            child.kill()
        assert said.startswith(f"journal {path}: database is locked by process {child.pid}; ")
        clock.now += writer.AGAIN
        journal.add(tick(3), Config())
        _wait_for(path, 3)
    assert numbers(path) == [1, 3]


def test_an_end_in_good_order_keeps_the_minute_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for number in (1, 2, 3):
        with closing(Journal(path, KEPT)) as journal:
            journal.add(busy(number, wall=1_800_000_000.0 + number), Config())
    with closing(Reader(path)) as reader:
        rows = list(reader.rows(coarse_series.MINUTE, coarse_series.Range()))
    assert [row.host.rounds for row in rows] == [1, 1, 1]


def test_no_minutes_are_kept_where_none_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(Journal(path, JournalConfig(days=0.0))) as journal:
        for number in range(10):
            journal.add(busy(number, wall=1_800_000_000.0 + 60 * number), Config())
    with closing(Reader(path)) as reader:
        assert len(list(reader.entries(0.0))) == 10
        assert list(reader.rows(coarse_series.MINUTE, coarse_series.Range())) == []


@pytest.mark.parametrize(
    ("given", "environ", "uid", "expected"),
    [
        ("/x/y", {"STATE_DIRECTORY": "/s"}, 0, "/x/y"),
        (None, {"STATE_DIRECTORY": "/s:/t"}, 0, "/s/journal.db"),
        (None, {}, 0, "/var/lib/qmpmem/journal.db"),
        (None, {"XDG_STATE_HOME": "/h/s"}, 7, "/h/s/qmpmem/journal.db"),
        (None, {"HOME": "/h"}, 7, "/h/.local/state/qmpmem/journal.db"),
    ],
)
def test_where_it_is(given: str | None, environ: dict[str, str], uid: int, expected: str) -> None:
    assert str(journal_path(given, environ, uid)) == expected


@pytest.mark.parametrize(
    ("has_own", "has_roots", "named", "expected"),
    [
        (False, True, {}, "root"),
        (True, True, {}, "own"),
        (False, False, {}, "own"),
        (False, True, {"STATE_DIRECTORY": "/s"}, "named"),
    ],
)
def test_a_user_without_a_journal_reads_roots(
    tmp_path: Path, *, has_own: bool, has_roots: bool, named: dict[str, str], expected: str
) -> None:
    own, roots = tmp_path / "state/qmpmem/journal.db", tmp_path / "root/journal.db"
    for path, is_there in ((own, has_own), (roots, has_roots)):
        path.parent.mkdir(parents=True)
        if is_there:
            path.touch()
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), **named}
    paths = {"own": own, "root": roots, "named": Path("/s/journal.db")}
    assert readable_journal(None, environ, 7, roots.parent) == paths[expected]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("own unit root", "root"),
        ("root own unit", "unit"),
        ("root unit own", "own"),
        ("unit root", "unit"),
    ],
)
def test_a_user_whose_agent_is_a_unit_reads_that_units_journal(
    tmp_path: Path, written: str, expected: str
) -> None:
    """Of the user's own, the one that was written last; root's only without any."""
    paths = {
        "own": tmp_path / "state/qmpmem/journal.db",
        "unit": tmp_path / f"lib/qmpmem-{USER.pw_name}/journal.db",
        "root": tmp_path / "lib/qmpmem/journal.db",
    }
    for number, word in enumerate(written.split(), 1):
        paths[word].parent.mkdir(parents=True)
        paths[word].touch()
        os.utime(paths[word], (number, number))
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    if expected == "root":
        paths["own"].unlink()
        paths["unit"].unlink()
    found = readable_journal(None, environ, USER.pw_uid, paths["root"].parent)
    assert found == paths[expected]


def test_a_journal_counts_by_its_latest_round(tmp_path: Path) -> None:
    """Which SQLite writes to a file beside it first."""
    own, unit = tmp_path / "state/qmpmem/journal.db", tmp_path / f"lib-{USER.pw_name}/journal.db"
    for number, path in enumerate((own, unit, own.with_name("journal.db-wal")), 1):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (number, number))
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert readable_journal(None, environ, USER.pw_uid, tmp_path / "lib") == own


def test_the_journal_of_the_users_unit_is_where_the_unit_has_it() -> None:
    text = (launchers_directory() / "qmpmem-agent-user.service").read_text()
    assert "\nStateDirectory=qmpmem-@USER@\n" in text
    assert unit_journal("@USER@") == Path("/var/lib/qmpmem-@USER@/journal.db")


def test_the_configured_journal_is_the_one_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    assert readable_journal("/x/y", {}, 7, tmp_path) == Path("/x/y")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("forge", [*journals.SCHEMAS, *journals.ROWS, *journals.HEADS])
def test_what_our_statements_cannot_work_with_is_set_aside(tmp_path: Path, forge: str) -> None:
    """Rows F84, F110: rounds are written at once, and never dropped for ever."""
    path = tmp_path / "j"
    journals.make(path, 1_790_000_000.0)
    journals.EVERY[forge](path)
    said = written(path, 7, 8)
    assert [each for each in said if "set aside as j.damaged" in each], said
    assert numbers(path) == [7, 8]


READ_ONLY: Final = """
mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; exec "$2" -c "$3" "$1"
"""
AGAIN: Final = """
import sys
from pathlib import Path
from tests.system.journal.test_writer import written
for said in written(Path(sys.argv[1]) / "j", 7, 8): print(said)
"""


def test_a_journal_on_a_file_system_that_is_read_only_stays(tmp_path: Path) -> None:
    """Row F110: to try again may help, and its bytes are good."""
    path = tmp_path / "j"
    journals.make(path, 1_790_000_000.0)
    before = path.read_bytes()
    words = (*mounts.apart(), "sh", "-ec", READ_ONLY, "sh", str(tmp_path), sys.executable, AGAIN)
    ran = subprocess.run(words, capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert ran.stdout.endswith("; rounds are not written down meanwhile\n"), ran
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def _trigger(path: Path) -> None:
    journals.SCHEMAS["a-trigger-refuses"](path)


def _strange_wall(path: Path) -> None:
    journals.run(path, "update rounds set wall = x'00'")


@pytest.mark.parametrize("forge", [_trigger, _strange_wall])
def test_what_our_statements_fail_on_later_is_set_aside(
    tmp_path: Path, forge: Callable[[Path], None]
) -> None:
    """Row F84."""
    path, clock = tmp_path / "j", Clock()
    with closing(Journal(path, KEPT, clock)) as journal:
        journal.add(tick(1), Config())
        _wait_for(path, 1)
        forge(path)
        clock.now += writer.TIDY
        journal.add(tick(2), Config())
        until((tmp_path / "j.damaged").exists)
        journal.add(tick(3), Config())
        _wait_for(path, 3)


def _remove(path: Path) -> None:
    path.unlink()


def _remove_all(path: Path) -> None:
    shutil.rmtree(path.parent)


def _move(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def _replace(path: Path) -> None:
    other = path.with_name("other")
    journals.make(other, 1_790_000_000.0)
    other.replace(path)


@pytest.mark.parametrize("change", [_remove, _remove_all, _move, _replace])
def test_a_journal_that_is_no_longer_there_is_begun_anew(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Row F114: rounds of another minute are in the file that is at its path."""
    path, clock = tmp_path / "state" / "j", Clock()
    with closing(Journal(path, KEPT, clock)) as journal:
        journal.add(tick(1), Config())
        _wait_for(path, 1)
        change(path)
        clock.now += writer.TIDY
        journal.add(tick(1002), Config())
        journal.add(tick(1003), Config())
        _wait_for(path, 1003)
        assert numbers(path)[-2:] == [1002, 1003]
    assert journal.problems() == [f"journal {path}: removed or replaced; opened anew"]


def test_damage_that_comes_back_at_once_waits(tmp_path: Path) -> None:
    """A fault that is not the file's does not put one new file after the other in its place."""
    path, clock = tmp_path / "j", Clock()
    with closing(Journal(path, KEPT, clock)) as journal:
        journal.add(tick(1), Config())
        _wait_for(path, 1)
        for number in (2, 4):
            _trigger(path)
            journal.add(tick(number), Config())
            until(lambda: not path.exists())
            before = journal.dropped
            journal.add(tick(number + 1), Config())
            if number == 2:
                _wait_for(path, 3)
        until(lambda: journal.dropped > before)
        assert not path.exists()
        clock.now += writer.AGAIN
        journal.add(tick(6), Config())
        _wait_for(path, 6)


@pytest.mark.parametrize("blocked", range(len(writer.ASIDE) + 1))
def test_what_is_in_the_way_of_a_damaged_file_does_not_stop_the_journal(
    tmp_path: Path, blocked: int
) -> None:
    """Row F85."""
    path = tmp_path / "j"
    for each in writer.ASIDE[:blocked]:
        (tmp_path / f"j{each}" / "inside").mkdir(parents=True)
    _nonsense(path)
    said = written(path, 7, 8)
    if blocked < len(writer.ASIDE):
        assert f"set aside as j{writer.ASIDE[blocked]}, and begun anew" in said[0]
    else:
        assert "; removed, since j.damaged is in the way, and begun anew" in said[0]
    assert numbers(path) == [7, 8]


def test_what_is_behind_the_last_page_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, 1)
    os.truncate(path, 100 << 30)
    assert written(path, 2) == []
    assert path.stat().st_size < MIB
    assert numbers(path) == [1, 2]


def test_what_a_reader_may_need_behind_the_last_page_stays(tmp_path: Path) -> None:
    """It is cut off when the journal is opened again."""
    path = tmp_path / "j"
    written(path, 1)
    with closing(Journal(path, KEPT)) as journal:  # what is beside the file stays
        journal.add(tick(2), Config())
        _wait_for(path, 2)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("begin")
            assert reader.execute("select count(*) from rounds").fetchone() == (2,)
            journal.add(tick(3), Config())
            _wait_for(path, 3)
            os.truncate(path, 100 << 30)
            with closing(store.Store(path, KEPT.size)):
                assert path.stat().st_size == 100 << 30
    written(path, 4)
    assert path.stat().st_size < MIB
    assert numbers(path) == [1, 2, 3, 4]
