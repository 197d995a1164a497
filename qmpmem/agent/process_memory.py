"""What each guest's process costs: /proc/PID/status of thousands, a part in each round.

Theory of operation:
    The file stays open, so a reading is one system call, and of the process that was meant: reading
    the descriptor of a process that ended fails (ESRCH), also when another process has its pid.

    It is read in the event loop, a few files at a time. The kernel makes this file without waiting
    for another task (fs/proc/array.c, proc_pid_status: no mmap_lock, unlike smaps or cmdline), in
    30 us each. A thread would take a hundred times as long: for each system call it releases the
    interpreter's lock, and while the loop is busy it gets it back after 5 ms
    (sys.setswitchinterval).

    The less memory the host has, the more often it is read: while there is plenty, no decision
    rests on what a guest touched a second ago.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpmem.wire.kernel.processes import Memory, parse_memory

AT_ONCE: Final = 32
"""Files that are read before the event loop gets its turn: about 1 ms."""
AT_LEAST: Final = 256
"""Least files that are read in a round, however short the period is."""
SIZE: Final = 8192
"""Most bytes that are read of a file, which has some 1500."""


class ProcessMemory:
    """Reads what processes cost.

    Args:
        proc: what stands for /proc.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._files: dict[int, int] = {}
        self._known: dict[int, Memory] = {}
        self._next = 0
        self.gone: set[int] = set()
        """Processes that have ended."""

    @property
    def known(self) -> Mapping[int, Memory]:
        """Return what each process cost when it was last read."""
        return self._known

    async def read(self, pids: Sequence[int], part: float) -> Mapping[int, Memory]:
        """Read some of these processes, those first that were never read.

        Args:
            pids: all of them; others are forgotten.
            part: the part of them that is read now, 0 to 1.
        """
        self._forget(set(self._files) - set(pids))
        fresh = [pid for pid in pids if pid not in self._files]
        count = max(AT_LEAST, int(len(pids) * part) + 1)
        start = 0 if self._next >= len(pids) else self._next
        self._next = start + count
        turn = list(dict.fromkeys((*fresh, *pids[start : self._next])))
        for at in range(0, len(turn), AT_ONCE):
            for pid in turn[at : at + AT_ONCE]:
                self._look(pid)
            await asyncio.sleep(0)
        return self._known

    def close(self) -> None:
        """Close all files."""
        self._forget(set(self._files))

    def _forget(self, pids: set[int]) -> None:
        for pid in pids:
            os.close(self._files.pop(pid))
            self._known.pop(pid, None)
        self.gone -= pids

    def _look(self, pid: int) -> None:
        try:
            if pid not in self._files:
                path = f"{self._proc}/{pid}/status"
                self._files[pid] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            content = os.pread(self._files[pid], SIZE, 0)
        except OSError:
            self._lose(pid)
            return
        if not content:
            self._lose(pid)
            return
        found = parse_memory(content.decode("utf-8", "surrogateescape"))
        self._known[pid] = found
        if found.state == "Z":
            self.gone.add(pid)

    def _lose(self, pid: int) -> None:
        self._known.pop(pid, None)
        self.gone.add(pid)
        with suppress(KeyError):
            os.close(self._files.pop(pid))
