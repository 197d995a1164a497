"""What the cgroups of guests count: what each guest costs, and how long it waited for memory.

Theory of operation:
    The files stay open, and some of them are read in each round, in the event loop;
    `qmpmem.agent.process_memory` tells why. Where there are too few descriptors for that, a group's
    files are closed again after they were read: guests come first.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from qmpmem.agent.cgroups import OwnCgroups
from qmpmem.agent.process_memory import AT_ONCE, SIZE
from qmpmem.records import Record
from qmpmem.units import Bytes
from qmpmem.wire.kernel import cgroup, pressure
from qmpmem.wire.kernel.files import is_count, pick

AT_LEAST: Final = 64
"""Least guests that are read in a round, however short the period is: they take about 5 ms, as a
memory.stat takes 60 us."""
FILES: Final = 3
"""Most descriptors for a guest's groups."""


class CgroupUse(Record, frozen=True):
    """What a guest's own groups count."""

    held: Bytes | None = None
    """The memory that they hold, less file cache."""
    swap: Bytes | None = None
    stalled: int | None = None
    """Microseconds in which some task waited for memory."""
    refaults: Bytes | None = None
    """Bytes that were read back from swap soon after they were reclaimed."""


class CgroupUsage:
    """Reads what guests' own groups count."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[OwnCgroups, Mapping[str, int]]] = {}
        self._known: dict[int, CgroupUse] = {}
        self._next = 0

    @property
    def known(self) -> Mapping[int, CgroupUse]:
        """Return what each process's groups counted when they were last read."""
        return self._known

    async def read(
        self, own: Mapping[int, OwnCgroups], part: float, room: int
    ) -> Mapping[int, CgroupUse]:
        """Read some of these groups, those first that were never read.

        Args:
            own: the groups of each guest's process; others are forgotten.
            part: the part of them that is read now, 0 to 1.
            room: descriptors that may stay open.
        """
        for pid in [pid for pid, (known, _) in self._open.items() if own.get(pid) != known]:
            self._close(pid)
        for pid in [pid for pid in self._known if pid not in own]:
            del self._known[pid]
        fresh = [pid for pid in own if pid not in self._known]
        count = max(AT_LEAST, int(len(own) * part) + 1)
        start = 0 if self._next >= len(own) else self._next
        self._next = start + count
        turn = dict.fromkeys((*fresh, *islice(own, start, self._next)))
        for number, pid in enumerate(turn, 1):
            self._look(pid, own[pid])
            if len(self._open) * FILES > room:
                self._close(pid)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return self._known

    def close(self) -> None:
        """Close all files."""
        for pid in tuple(self._open):
            self._close(pid)

    def _look(self, pid: int, own: OwnCgroups) -> None:
        try:
            if pid not in self._open:
                self._open[pid] = own, _open(own)
            files = self._open[pid][1]
            told = {name: os.pread(file, SIZE, 0).decode() for name, file in files.items()}
        except (OSError, UnicodeDecodeError):  # the group is gone
            self._close(pid)
            self._known[pid] = CgroupUse()
            return
        self._known[pid] = parse(told, own.version)

    def _close(self, pid: int) -> None:
        _, files = self._open.pop(pid, (None, dict[str, int]()))
        for file in files.values():
            os.close(file)


def parse(told: Mapping[str, str], version: int | None) -> CgroupUse:
    """Return what the files of a guest's groups tell; `told` has their texts by name. Pure."""
    stalls = pressure.parse_pressure(told.get(cgroup.PRESSURE, ""))
    stalled = None if stalls is None else stalls.some.total
    if version is None:
        return CgroupUse(stalled=stalled)
    stat = told.get(cgroup.STAT, "")
    names = cgroup.V1 if version == cgroup.V1.number else cgroup.V2
    if names is cgroup.V1:
        swap = pick(stat, ("total_swap",)).get("total_swap")
    else:
        word = told.get(cgroup.V2.swap_usage, "").strip()
        swap = int(word) if is_count(word) else None
    return CgroupUse(
        held=cgroup.held(stat, names),
        swap=None if swap is None else Bytes(swap),
        stalled=stalled,
        refaults=cgroup.refaults(stat, names),
    )


def _open(own: OwnCgroups) -> Mapping[str, int]:
    """Open the files of a guest's groups.

    Raises:
        OSError: one of them is gone; none stays open.
    """
    files: dict[str, int] = {}
    try:
        for path in _files(own):
            files[path.name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if own.memory is not None and own.version == cgroup.V2.number:
            with suppress(FileNotFoundError):  # the kernel has no swap
                path = own.memory / cgroup.V2.swap_usage
                files[path.name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        for file in files.values():
            os.close(file)
        raise
    return files


def _files(own: OwnCgroups) -> Iterator[Path]:
    if own.memory is not None:
        yield own.memory / cgroup.STAT
    if own.waits is not None:
        yield own.waits / cgroup.PRESSURE
