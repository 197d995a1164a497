"""Which guests there are: the run directory is read when it changed, and a part of it each time.

Theory of operation:
    A directory's time of change moves when an entry is made or removed. So a guest that starts or
    ends is seen at the next search, for the price of one stat(2). A guest whose process is gone is
    looked at at once: the reader of process costs notices that. A record may also be written anew,
    or be written a moment after its directory was made. So of the other guests a part is looked at
    each time, and all of them within `RESCAN` seconds. To look at 2000 guests at once takes a
    thread seconds while the event loop is busy: each system call releases the interpreter's lock
    and waits to get it back.

    Before Linux 6.13 the times of files move in ticks of the kernel (CONFIG_HZ). An entry that is
    made after a directory was read, but within the same tick, leaves its time as it was. So a time
    of change counts only when it is older than a tick; until then the directory is read again.

Rules of this file:
    Everything here blocks: call `find` in a thread, and only one at a time.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Final

from qmpmem.guests import inventory, rundir
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.rundir import GuestRecord, Unreadable
from qmpmem.model.names import SAFE_ID
from qmpmem.records import Record

RESCAN: Final = 5.0
"""Seconds within which all guests are looked at."""
AT_LEAST: Final = 32
"""Least guests that are looked at each time: so few cost next to nothing."""


TICK: Final = 10_000_000
"""Nanoseconds of the longest tick (CONFIG_HZ=100)."""


class Entry(Record, frozen=True):
    """A directory with a guest's name, as it was last looked at."""

    changed: int | None
    """When it was last changed, in nanoseconds since 1970. None: just now, and it may be again."""
    record: GuestRecord | None
    found: LiveGuest | None
    """The guest; None: there is no record yet, or none that can be used."""


class Finder:
    """Looks for guests.

    Args:
        run: the run directory.
        proc: what stands for /proc.
        wall: returns nanoseconds since 1970.
    """

    def __init__(
        self, run: Path, proc: Path = Path("/proc"), wall: Callable[[], int] = time.time_ns
    ) -> None:
        self._run = run
        self._proc = proc
        self._wall = wall
        self._changed: int | None = None
        self._looked = float("-inf")
        self._next = 0
        self._entries: dict[str, Entry] = {}
        self.problem: str | None = None

    def find(self, now: float, gone: Collection[str] = ()) -> tuple[LiveGuest, ...]:
        """List the guests that live.

        Args:
            now: seconds of a steady clock.
            gone: guests whose process seems to have ended.
        """
        try:
            changed = self._time_of_change(self._run)
            fresh = self._list() if changed is None or changed != self._changed else []
        except FileNotFoundError:
            self._entries, self._changed, self.problem = {}, None, None
            return ()
        except OSError as error:
            self.problem = f"run directory {self._run}: {error.strerror}"
            return self._guests()
        self._changed, self.problem = changed, None
        self._sweep(self._look_at({*fresh, *gone, *self._unready(), *self._turn(now)}))
        return self._guests()

    def _guests(self) -> tuple[LiveGuest, ...]:
        return tuple(entry.found for entry in self._entries.values() if entry.found is not None)

    def _list(self) -> list[str]:
        """Bring the names up to date, and return the new ones."""
        names = {entry.name for entry in os.scandir(self._run)}
        names = {name for name in names if SAFE_ID.fullmatch(name)}
        for name in self._entries.keys() - names:
            del self._entries[name]
        return sorted(names - self._entries.keys())

    def _unready(self) -> Iterable[str]:
        return [name for name, entry in self._entries.items() if entry.record is None]

    def _turn(self, now: float) -> Iterable[str]:
        """Return the guests whose turn it is to be looked at."""
        part = min(1.0, max(0.0, now - self._looked) / RESCAN)
        self._looked = now
        count = max(AT_LEAST, int(len(self._entries) * part) + 1)
        start = 0 if self._next >= len(self._entries) else self._next
        self._next = start + count
        return list(islice(self._entries, start, self._next))

    def _look_at(self, names: Iterable[str]) -> list[GuestRecord]:
        """Look at guests, and return the records of those that are gone."""
        stale: list[GuestRecord] = []
        listeners = inventory.Listeners(self._proc)
        for name in sorted(names):
            entry = self._look(name, listeners)
            if entry is None:
                self._entries.pop(name, None)
                continue
            self._entries[name] = entry
            if entry.record is not None and entry.found is None:
                stale.append(entry.record)
        return stale

    def _look(self, name: str, listeners: inventory.Listeners) -> Entry | None:
        directory = self._run / name
        try:
            changed = self._time_of_change(directory)
        except OSError:
            return None
        before = self._entries.get(name)
        is_known = before is not None and changed is not None and before.changed == changed
        if before is None or before.record is None or not is_known:
            read = rundir.read_record(directory)
            if isinstance(read, Unreadable):
                return Entry(changed=changed, record=None, found=None)
            record = read
        else:
            record = before.record
        seen = inventory.judge(record, self._proc, listeners)
        if isinstance(seen, Unreadable):
            return Entry(changed=changed, record=None, found=None)
        return Entry(changed=changed, record=record, found=seen)

    def _sweep(self, stale: list[GuestRecord]) -> None:
        for guest in inventory.sweep(self._run, stale, self._proc):
            self._entries.pop(guest, None)

    def _time_of_change(self, directory: Path) -> int | None:
        """Return when a directory was changed, in ns; None: less than a tick ago."""
        now = self._wall()
        changed = os.stat(directory).st_mtime_ns  # noqa: PTH116 - speed
        return changed if changed < now - TICK else None
