"""The host's lock: held by the test file that uses what a host has once.

Rules of this file:
    The lock is one of a directory that every host has and every user can open, so it leaves
    nothing behind and outlives no process (flock(2)). A whole file of tests holds it, because
    fixtures of the file hold on to KSM between its tests.
"""

import fcntl
import os
from pathlib import Path
from typing import Final

PLACE: Final = Path("/sys/kernel")


class HostLock:
    """Taken by the first test of a file, and given back after its last."""

    def __init__(self, place: Path = PLACE) -> None:
        self._place = place
        self._descriptor: int | None = None

    def take(self) -> None:
        """Wait, for as long as it takes, until no other run of the tests holds it."""
        if self._descriptor is None:
            self._descriptor = os.open(self._place, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def give_back(self) -> None:
        """Let other runs have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
