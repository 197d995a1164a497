"""Which guests there are: the run directory, looked at when it changed, and now and then anyway.

Theory of operation:
    A directory's time of change moves when an entry is made or removed, so a guest that starts or
    ends is seen at the next round for the price of one stat(2). A record is written a moment after
    its directory is made, and a guest may end and leave its directory: hence the rescan.
"""

import os
from pathlib import Path
from typing import Final

from qmpmem import inventory
from qmpmem.errors import ConfigError
from qmpmem.inventory import Found

RESCAN: Final = 5.0
"""Seconds."""


class Finder:
    """Looks for guests.

    Args:
        run: the run directory.
        proc: what stands for /proc.
    """

    def __init__(self, run: Path, proc: Path = Path("/proc")) -> None:
        self._run = run
        self._proc = proc
        self._changed: int | None = None
        self._looked = float("-inf")
        self._unready = False
        self._guests: tuple[Found, ...] = ()
        self.problem: str | None = None

    def find(self, now: float) -> tuple[Found, ...]:
        """List the guests that live. Blocks for some milliseconds when something changed."""
        changed = self._time_of_change()
        if changed == self._changed and now - self._looked < RESCAN and not self._unready:
            return self._guests
        try:
            seen = inventory.take(self._run, self._proc)
        except ConfigError as error:
            self.problem = error.message
            return self._guests
        inventory.sweep(self._run, seen.stale, self._proc)
        self.problem = None
        self._unready = any(entry.missing for entry in seen.unreadable)
        self._changed, self._looked, self._guests = changed, now, seen.guests
        return self._guests

    def _time_of_change(self) -> int | None:
        try:
            return os.stat(self._run).st_mtime_ns  # noqa: PTH116 - speed
        except OSError:
            return None
