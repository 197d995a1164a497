"""How long an answer of the agent is waited for.

Theory of operation:
    An agent that hangs (stopped, or waiting for what does not come) is asleep for all the time. One
    on a busy host waits for a processor, and answers when it has had one for some milliseconds. The
    kernel counts that wait for each thread, so it can be left out, and so can the same wait of this
    process, which may be too late to see an answer that is there. On a kernel that does not count
    it every second counts.
    One on a busy disk waits for that: for its own memory to come out of swap, for the pages of its
    program, for a line of its log, for a request to be in its file (fsync(2)). Few kernels count
    this (Documentation/accounting/delay-accounting.rst), but each shows a thread that waits so, in
    state D (proc(5)). While there is one at the end of the time, the wait goes on; and for
    `AT_ONCE` after that, in which an agent that has what it waited for answers.

Rules of this file:
    The first look at the kernel's numbers comes late: most answers are there before it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qmpmem.wire.kernel.processes import PROC, queued, waits_for_a_device

AT_ONCE: Final = 0.25
"""Seconds in which an agent that has a processor answers: several times what it takes."""
LONGEST: Final = 30.0
"""Seconds of waiting for a processor or a disk that are left out, at the most: 10 ms of work take
so long on a host where a thousand programs share each processor (Linux: a slice is some 3 ms)."""
LEAST: Final = 0.05
"""Seconds between two looks, at the least."""


class AnswerDeadline:
    """Waits for one answer. The time runs from now on.

    Args:
        pid: of the agent, as this process sees it.
        seconds: how long an answer may take where the agent waits for nothing.
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
        self._queued_before: float | None = None
        """At the first look."""
        self._queued = 0.0
        """Seconds since then for which the two processes waited for a processor."""
        self._disk = 0.0
        """Seconds that were added since the agent waited for a disk."""
        self._waited = False
        """Whether it did at the last look."""

    @property
    def is_used_up(self) -> bool:
        """Whether as many seconds were left out as may be."""
        return self._left_out() >= LONGEST

    def left(self) -> float:
        """Return for how many seconds to wait before this is called again; 0.0: no more. Blocks."""
        first = min(AT_ONCE, self._seconds)
        if self._clock() - self._began < first:
            return first
        queued = self._read()
        if self._queued_before is None:
            self._queued_before = queued
        # A thread that has ended takes its number along.
        self._queued = max(self._queued, queued - self._queued_before)
        left = self._remaining()
        if left <= 0:
            waits = waits_for_a_device(self._pids[0], self._proc)
            self._disk += AT_ONCE - left if waits or self._waited else 0.0
            self._waited = waits
            left = self._remaining()
        return max(LEAST, left) if left > 0 else 0.0

    def _left_out(self) -> float:
        return min(LONGEST, self._queued + self._disk)

    def _remaining(self) -> float:
        return self._began + self._seconds + self._left_out() - self._clock()

    def _read(self) -> float:
        """Return the seconds for which the threads of both waited for a processor, since ever."""
        return sum(queued(pid, self._proc) for pid in self._pids)
