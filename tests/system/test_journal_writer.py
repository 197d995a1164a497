"""The agent's end of the journal: whatever is wrong with the disk, rounds go on."""

import itertools
import os
import resource
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from qmpmem.config import Config, JournalConfig
from qmpmem.errors import ConfigError, KernelError
from qmpmem.journal import store, writer
from qmpmem.journal.places import journal_path, readable_journal
from qmpmem.journal.store import Reader
from qmpmem.journal.writer import Journal
from tests.rig.patience import patient
from tests.rig.qemu import until
from tests.rig.rounds import tick

KEPT = JournalConfig()
BOUND = 15.0
"""Seconds after which a test gives up; nothing waits so long."""


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


def test_damage_that_shows_later_is_set_aside_as_well(tmp_path: Path) -> None:
    path, clock = tmp_path / "j", Clock()
    count = itertools.count(1)
    with closing(Journal(path, KEPT, clock)) as journal:

        def is_written(*, since: int) -> bool:
            """Give it one more, long enough after the last: a round that it cannot write is lost.

            As when it meets the one who looks here whether it did.
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


def test_a_disk_that_does_not_keep_up_holds_up_nobody(tmp_path: Path) -> None:
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


def test_the_configured_journal_is_the_one_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    assert readable_journal("/x/y", {}, 7, tmp_path) == Path("/x/y")
