"""The agent's end of the journal: a thread that writes, and never holds up a round.

Theory of operation:
    A round is handed over and forgotten. Where the disk is slow, full, or gone, rounds are dropped
    and counted, and tried again later; where the file is damaged, or of another version, it is set
    aside under another name and a new one is begun. All of it is said, none of it stops the agent.
"""

import grp
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpmem import rundir
from qmpmem.actions import Tick
from qmpmem.config import Config, JournalConfig
from qmpmem.journal import store, uses
from qmpmem.journal.store import Store
from qmpmem.policy.habits import Hours

WAITING: Final = 30
"""Rounds that wait to be written; with more the disk does not keep up."""
LAST_WORDS: Final = 2.0
"""Seconds that the end waits for what is not written yet."""
AGAIN: Final = 10.0
"""Seconds before a file that could not be written is tried again."""
TIDY: Final = 60.0
"""Seconds between two looks for what is too old."""
READABLE: Final = 0o640
ASIDE: Final = ".damaged"
HOUR: Final = 3600.0

Clock = Callable[[], float]


def make_directory(directory: Path) -> None:
    """Make the journal's directory where it is missing; our group may read what is in it.

    Raises:
        OSError: it cannot be made.
    """
    if directory.is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        _share(directory)
        directory.chmod(0o2750)


def _share(path: Path) -> None:
    """Give something to our group, where there is one; else it is root's alone."""
    with suppress(KeyError):
        os.chown(path, -1, grp.getgrnam(rundir.GROUP).gr_gid)


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
        """Rounds that are not in it, and that was not said yet."""
        self._kept = kept
        self._clock = clock
        self._rounds: queue.Queue[tuple[Tick, Config] | None] = queue.Queue(WAITING)
        self._problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._store: Store | None = None
        self._hours = Hours()
        self._tried = self._tidied = float("-inf")
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def add(self, tick: Tick, config: Config) -> None:
        """Have a round written down, with the settings that it was decided with."""
        try:
            self._rounds.put_nowait((tick, config))
        except queue.Full:
            self._drop("the disk does not keep up")

    def problems(self) -> list[str]:
        """Give what went wrong since the last call."""
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
                self._store.close()

    def _write(self, tick: Tick, config: Config) -> None:
        now = self._clock()
        if self._store is None:
            if now - self._tried < AGAIN:
                self._drop("")
                return
            self._tried = now
            self._store = self._open()
        self._store.add(tick, config)
        self._learn(self._store, tick, config)
        if self.dropped:
            self._say(f"{self.dropped} rounds are not in it")
            self.dropped = 0
        if now - self._tidied >= TIDY:
            self._tidied = now
            self._store.forget((tick.snapshot.wall or 0.0) - self._kept.hours * HOUR)

    def _learn(self, opened: Store, tick: Tick, config: Config) -> None:
        """Keep what guests used in the hours that are over."""
        if not config.journal.learn:
            self._hours = Hours()
        elif tick.snapshot.wall is not None:
            ended = self._hours.add(tick, uses.local(tick.snapshot.wall))
            if ended:
                opened.learn(ended)

    def _open(self) -> Store:
        make_directory(self.path.parent)
        with suppress(FileExistsError):
            self.path.touch(mode=READABLE, exist_ok=False)
            if os.geteuid() == 0:
                _share(self.path)  # those beside it get the same owner and mode (SQLite)
        try:
            return Store(self.path, self._kept.size)
        except sqlite3.Error as error:
            if not store.is_damage(error):
                raise
            self._set_aside(error)
            return Store(self.path, self._kept.size)

    def _give_up(self, error: Exception) -> None:
        self._drop(f"{error}")
        found, self._store = self._store, None
        if found is not None:
            with suppress(sqlite3.Error):
                found.close()
        if found is not None and isinstance(error, sqlite3.Error) and store.is_damage(error):
            with suppress(OSError):
                self._set_aside(error)
            self._tried = float("-inf")

    def _set_aside(self, error: Exception) -> None:
        """Keep one damaged file for whoever wants to know, and make way for a new one."""
        aside = self.path.with_name(self.path.name + ASIDE)
        self.path.replace(aside)
        for beside in ("-wal", "-shm"):
            self.path.with_name(self.path.name + beside).unlink(missing_ok=True)
        self._say(f"{error}; set aside as {aside.name}, and begun anew")

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if why and self.dropped == 1:
            self._say(f"{why}; rounds are not written down meanwhile")

    def _say(self, text: str) -> None:
        self._problems.put(f"journal {self.path}: {text}")
