"""The agent's part of the journal: a thread that writes, and never delays a round.

Theory of operation:
    The agent queues a round and goes on. Where the disk is slow, full, or gone, rounds are dropped
    and counted, and writing is tried again later. Where the file is damaged, or of another version,
    it gets another name and a new one is begun. The agent reports all of that, and none of it stops
    the agent.
"""

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpmem.files import directories, state_files
from qmpmem.guests import access
from qmpmem.journal import coarse_series, damage, database, hourly_use
from qmpmem.journal.aggregate import Aggregate
from qmpmem.journal.points import Row
from qmpmem.journal.store import Store
from qmpmem.model.config import Config, JournalConfig
from qmpmem.model.round import Tick
from qmpmem.policy.habits import Hours
from qmpmem.wire.kernel import locks

WAITING: Final = 30
"""Most rounds that wait to be written; with more the disk does not keep up."""
LAST_WORDS: Final = 2.0
"""Most seconds that `close` waits for what is not written yet."""
AGAIN: Final = 10.0
"""Seconds after which a file that could not be written is tried again."""
TIDY: Final = 60.0
"""Seconds between two searches for what is too old."""
READABLE: Final = 0o640
SHOWN: Final = 0o750
ASIDE: Final = (".damaged", ".damaged-2", ".damaged-3")
"""What is added to the name of a damaged file: the first that nothing is in the way of."""
PACE: Final = 2
"""Most seconds of the journal that are removed in a second: where the wall clock is a day ahead for
a minute, the journal does not lose a day."""
HOUR: Final = 3600.0

Clock = Callable[[], float]


def make_directory(directory: Path) -> None:
    """Make the journal's directory where it is missing; our group may read what is in it.

    Raises:
        OSError: it cannot be made.
    """
    if directory.is_dir():
        return
    descriptor, is_new = directories.open_or_make(directory, directories.PRIVATE)
    try:
        if is_new and os.geteuid() == 0:
            os.fchown(descriptor, -1, -1 if (group := _group()) is None else group)
            os.fchmod(descriptor, SHOWN)
    finally:
        os.close(descriptor)


def _group() -> int | None:
    """Return the group that may read what an agent of root's guests writes.

    None: the file keeps the group that it gets.
    """
    group = access.group_id(access.READERS)
    if os.geteuid() == 0:
        return group
    # An agent that is not root can use the group only if it is in that group.
    is_agents = os.geteuid() == access.user_id(access.AGENT)
    return group if is_agents and access.is_in(group) else None


class Journal:
    """Writes rounds down.

    Args:
        path: the file; its directory is made where there is none.
        kept: how much is kept.
        clock: seconds of a steady clock.
    """

    def __init__(self, path: Path, kept: JournalConfig, clock: Clock = time.monotonic) -> None:
        self.path = path
        self.dropped = 0
        """Rounds that were dropped and not reported yet."""
        self._kept = kept
        self._clock = clock
        self._rounds: queue.Queue[tuple[Tick, Config] | None] = queue.Queue(WAITING)
        self._problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._store: Store | None = None
        self._place: tuple[int, int] | None = None
        """Which file it is."""
        self._hours = Hours()
        self._minutes = Aggregate(coarse_series.MINUTE)
        self._upto = 0
        """The number of the last round that is in `_minutes`."""
        self._tried = self._tidied = self._aside = float("-inf")
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def add(self, tick: Tick, config: Config) -> None:
        """Have a round written down, with the settings that it was decided with."""
        try:
            self._rounds.put_nowait((tick, config))
        except queue.Full:
            self._drop("the disk does not keep up")

    def problems(self) -> list[str]:
        """Return what went wrong since the last call."""
        said: list[str] = []
        with suppress(queue.Empty):
            while True:
                said.append(self._problems.get_nowait())
        return said

    def close(self) -> None:
        """Write what is left, if that takes no time."""
        with suppress(queue.Full):
            self._rounds.put(None, timeout=LAST_WORDS)
        self._thread.join(LAST_WORDS)

    def _work(self) -> None:
        while (waiting := self._rounds.get()) is not None:
            try:
                self._write(*waiting)
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
            except Exception as error:  # noqa: BLE001 - the one boundary around this thread
                self._give_up(error)
        if self._store is not None:
            with suppress(sqlite3.Error):
                self._store.learn(self._hours.end())
            with suppress(sqlite3.Error):
                self._keep(self._store, self._minutes.end())
            with suppress(sqlite3.Error):
                self._store.close()

    def _write(self, tick: Tick, config: Config) -> None:
        now = self._clock()
        if self._store is not None and now - self._tidied >= TIDY:
            self._expect_in_place(self._store)
        if self._store is None:
            if now - self._tried < AGAIN:
                self._drop("")
                return
            self._tried = now
            self._store = self._open()
            self._place = self._find()
            self._add_up_again(self._store)
        self._add_up(self._store, self._store.add(tick, config), tick)
        self._learn(self._store, tick, config)
        if self.dropped:
            self._say(f"{self.dropped} rounds are not in it")
            self.dropped = 0
        if now - self._tidied >= TIDY:
            self._forget(self._store, tick.snapshot.wall or 0.0, now)

    def _expect_in_place(self, opened: Store) -> None:
        """Begin anew where the file is no longer the one at its path: no reader finds it."""
        if self._find() == self._place:
            return
        self._say("removed or replaced; opened anew")
        self._store, self._tried = None, float("-inf")
        with suppress(sqlite3.Error):
            opened.close()

    def _find(self) -> tuple[int, int] | None:
        """Return the device and the number of the file at the path; None: there is none."""
        try:
            found = self.path.lstat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _forget(self, opened: Store, wall: float, now: float) -> None:
        """Remove what is too old by the wall clock, no faster than `PACE` by the steady clock."""
        oldest = opened.oldest()
        if oldest is not None:
            latest = oldest + PACE * (now - self._tidied)
            opened.forget(min(wall - self._kept.hours * HOUR, latest), wall)
        self._tidied = now

    def _learn(self, opened: Store, tick: Tick, config: Config) -> None:
        """Keep what guests used in the hours that are over."""
        if not config.journal.learn:
            self._hours = Hours()
        elif tick.snapshot.wall is not None:
            ended = self._hours.add(tick, hourly_use.local(tick.snapshot.wall))
            if ended:
                opened.learn(ended)

    def _add_up(self, opened: Store, number: int, tick: Tick) -> None:
        """Write the minute that ended before this round, if one did."""
        self._keep(opened, self._minutes.add(tick))
        self._upto = number

    def _keep(self, opened: Store, minute: Row | None) -> None:
        if minute is not None and self._kept.days > 0:
            opened.keep(minute, self._upto, self._kept.days)

    def _add_up_again(self, opened: Store) -> None:
        """Begin with the rounds of the file that are in no minute yet."""
        self._minutes = Aggregate(coarse_series.MINUTE)
        for number, tick in opened.unkept():
            self._add_up(opened, number, tick)

    def _open(self) -> Store:
        make_directory(self.path.parent)
        self._make_file()
        self._tidied = self._clock()
        try:
            return Store(self.path, self._kept.size)
        except sqlite3.Error as error:
            if not damage.is_damage(self.path, error):
                raise
            self._set_aside(error)
            self._make_file()
            return Store(self.path, self._kept.size)

    def _make_file(self) -> None:
        """Make the file, and check that those beside it are ours, too: SQLite opens all by path.

        The files beside it get its owner and mode (SQLite: findCreateFileMode).
        """
        group = _group()
        state_files.make(self.path, READABLE, group)
        with directories.opened(self.path.parent) as directory:
            for path in (self.path, *damage.beside(self.path)):
                state_files.narrow(path, READABLE, directory)
                # systemd changes the owner of all of it to a unit's user, and that user's group.
                if group is not None:
                    state_files.give(path, group, directory)

    def _give_up(self, error: Exception) -> None:
        why = (isinstance(error, OSError) and error.strerror) or f"{error}"
        if isinstance(error, sqlite3.Error) and database.is_locked(error):
            why += self._locked_by()
        self._drop(why)
        found, self._store = self._store, None
        if found is not None:
            with suppress(sqlite3.Error):
                found.close()
        if (
            found is not None
            and isinstance(error, sqlite3.Error)
            and damage.is_damage(self.path, error)
        ):
            with suppress(OSError):
                self._set_aside(error)
                # Where one damaged file follows another, the fault is elsewhere, as in the disk.
                now = self._clock()
                self._tried = now if now - self._aside < AGAIN else float("-inf")
                self._aside = now

    def _locked_by(self) -> str:
        """Return which processes keep the journal from being written, as the end of a sentence.

        All that may read it may lock it, and then it is theirs to end.
        """
        files = (self.path, *damage.beside(self.path))
        pids = frozenset[int]().union(*map(locks.lock_holders, files)) - {os.getpid()}
        return f" by process {', '.join(map(str, sorted(pids)))}" if pids else ""

    def _set_aside(self, error: Exception) -> None:
        """Rename a damaged file, so that it can be looked at, and make room for a new one.

        Where none of the names can be had, as of a directory, the file is removed.

        Raises:
            OSError: nothing can be changed in its directory.
        """
        # First: what is beside a file that is gone would be taken for a part of the new one.
        for each in damage.beside(self.path):
            each.unlink(missing_ok=True)
        names = [self.path.name + each for each in ASIDE]
        for name in names:
            with suppress(OSError):
                self.path.replace(self.path.with_name(name))
                self._say(f"{error}; set aside as {name}, and begun anew")
                return
        self.path.unlink()
        self._say(f"{error}; removed, since {names[0]} is in the way, and begun anew")

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if why and self.dropped == 1:
            self._say(f"{why}; rounds are not written down meanwhile")

    def _say(self, text: str) -> None:
        self._problems.put(f"journal {self.path}: {text}")
