"""How long an answer of the agent is waited for.

Theory of operation:
    An agent that hangs (stopped, or in a system call that does not return) is asleep for all the
    time. One on a busy host waits for a processor, and answers when it has had one for some
    milliseconds. The kernel counts that wait for each thread, so it can be left out, and so can the
    same wait of this process, which may be too late to see an answer that is there. On a kernel
    that does not count it every second counts.

Rules of this file:
    The first look at the kernel's numbers comes late: most answers are there before it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qmpmem.wire.kernel.processes import PROC, queued

AT_ONCE: Final = 0.25
"""Seconds in which an agent that has a processor answers: several times what it takes."""
LONGEST: Final = 30.0
"""Seconds of waiting for a processor that are left out, at the most: 10 ms of work take so long on
a host where a thousand programs share each processor (Linux: a slice is some 3 ms)."""
LEAST: Final = 0.05
"""Seconds between two looks, at the least."""


class AnswerDeadline:
    """Waits for one answer. The time runs from now on.

    Args:
        pid: of the agent, as this process sees it.
        seconds: how long an answer may take where the agent has a processor.
        clock: seconds of a steady clock.
        proc: where /proc is.
    """

    def __init__(
        self,
        pid: int,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        proc: Path = PROC,
    ) -> None:
        self._pids = (str(pid), "self")
        self._seconds = seconds
        self._clock = clock
        self._proc = proc
        self._began = clock()
        self._queued: float | None = None
        """At the first look."""
        self.left_out = 0.0
        """Seconds that did not count."""

    def left(self) -> float:
        """Return for how many seconds to wait before this is called again; 0.0: no more. Blocks."""
        first = min(AT_ONCE, self._seconds)
        if self._clock() - self._began < first:
            return first
        queued = self._read()
        if self._queued is None:
            self._queued = queued
        # A thread that has ended takes its number along.
        self.left_out = max(self.left_out, min(LONGEST, queued - self._queued))
        left = self._began + self._seconds + self.left_out - self._clock()
        return max(LEAST, left) if left > 0 else 0.0

    def _read(self) -> float:
        """Return the seconds for which the threads of both waited for a processor, since ever."""
        return sum(queued(pid, self._proc) for pid in self._pids)
