"""The cgroups of guests' processes: which groups are a guest's own, and which limits hold for it.

Theory of operation:
    A group is a guest's own where no other guest is in it or below it, the agent is not, and what
    else is in it is small, such as a shell that started the guest. What it counts is then the
    guest's: what it costs, which is right also where KSM merged its pages and where its memory is
    shared or in swap, and how long it waited for memory, which no guest can forge.

    Memory stays with the group in which it was touched (kernel: admin-guide/cgroup-v2, "Memory
    Ownership"). So a group into which a guest was moved while it ran does not count what it costs.
    It is known by that: it holds less than the process does.

Rules of this file:
    Everything here blocks for microseconds a file: use it in a thread. A process seldom changes its
    group, and a limit seldom changes: of thousands of guests a few are read in each round.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from qmpmem.errors import KernelError
from qmpmem.model.observation import Way
from qmpmem.records import Record, replace
from qmpmem.units import MIB, Bytes
from qmpmem.wire.kernel import cgroup, host, process_limits, processes, reclaim
from qmpmem.wire.kernel.files import read
from qmpmem.wire.kernel.process_limits import Places

IN_A_ROUND: Final = 32
"""Guests whose groups and limits are read in a round, which takes about 5 ms."""
JUDGED: Final = 4
"""Guests of which it is found out anew in a round whether their groups are their own, which takes
about 3 ms. That seldom changes but by other guests, which are read in any case."""
OVERHEAD: Final = Bytes(64 * MIB)
"""What QEMU needs in its group beside the guest's memory: 62 MiB measured, with a small translation
cache. Other processes in a guest's own group may have as much."""
MOST_OTHERS: Final = 16
"""Most groups below a guest's own, and most processes in each."""
MISSING: Final = 8
"""Divisor of what a process has that gives how much its group may lack: the kernel's counts lag
behind by some pages for each processor (mm/memcontrol.c: memcg_rstat_updated)."""


class OwnCgroups(Record, frozen=True):
    """The groups that are a guest's own."""

    memory: Path | None = None
    """The group that counts its memory."""
    version: int | None = None
    """The version of that group, 1 or 2."""
    waits: Path | None = None
    """The group that counts its waits for memory."""
    made: bool = False
    """Whether the launcher made the group that counts its memory."""
    way: Way | None = None
    """How memory of that group can be reclaimed."""
    forbidden: bool = False
    """Whether its memory could be reclaimed, but the files for that may not be written."""


class CgroupFinder:
    """Reads in which groups guests' processes are.

    Args:
        root: the file system's root.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mounted: Sequence[process_limits.Mount] | None = None
        self._places: dict[int, Places] = {}
        self._guests: Counter[Path] = Counter()
        """How many guests are in each group or below it."""
        self._ceilings: dict[int, Bytes] = {}
        self._own: dict[int, OwnCgroups] = {}
        self._told: dict[int, str] = {}
        """The content of /proc/PID/cgroup of each."""
        self._turn = self._next = 0
        self._is_complete = False
        """Whether it is known of all guests in which groups they are."""

    def ours(self) -> Places:
        """Read the mounts, for this round, and list the groups that the agent is in."""
        mounted = process_limits.mounts(self._root)
        if mounted != self._mounted:
            self._mounted = mounted
            self._told.clear()
        return process_limits.places("self", self._root, self._mounted)

    def of(self, pid: int) -> tuple[Path, ...]:
        """List the memory groups of a process, its own first."""
        if pid not in self._places:
            self._put(pid)
        return self._places[pid].memory

    def ceilings(self, pids: Sequence[int], ours: Places) -> Mapping[int, Bytes]:
        """Return what the limits of their own groups let guests have, for those with a limit.

        Args:
            pids: the guests' processes.
            ours: the groups of the agent; none of them is a guest's own.
        """
        self._forget(set(pids))
        fresh = [pid for pid in pids if pid not in self._places]
        start = 0 if self._turn >= len(pids) else self._turn
        self._turn = start + IN_A_ROUND
        turn = tuple(dict.fromkeys((*fresh[:IN_A_ROUND], *pids[start : self._turn])))
        for pid in turn:
            self._put(pid)
            own = [group for group in self._places[pid].memory if group not in ours.memory]
            found = [
                fence.limit for group in own if (fence := process_limits.fence(group)) is not None
            ]
            self._ceilings.pop(pid, None)
            if found:
                self._ceilings[pid] = Bytes(max(0, min(found) - OVERHEAD))
        self._is_complete = all(pid in self._places for pid in pids)
        self._judge_some(pids, ours)
        return dict(self._ceilings)

    @property
    def own(self) -> Mapping[int, OwnCgroups]:
        """Return the groups that were last known as a guest's own, for guests that have some."""
        known = self._own if self._is_complete else {}
        kept = ((pid, self._unshared(own)) for pid, own in known.items())
        return {pid: own for pid, own in kept if own != OwnCgroups()}

    def _judge_some(self, pids: Sequence[int], ours: Places) -> None:
        """Find out which groups are a guest's own, for guests that moved, and for some in turn."""
        moved = [pid for pid in pids if pid in self._places and pid not in self._own]
        start = 0 if self._next >= len(pids) else self._next
        self._next = start + JUDGED
        for pid in (*moved[:IN_A_ROUND], *pids[start : self._next]):
            if pid in self._places:
                self._put(pid, anew=True)
                self._own[pid] = self._judge(pid, ours)

    def _judge(self, pid: int, ours: Places) -> OwnCgroups:
        places = self._places[pid]
        if ours == Places():  # it may be in any
            return OwnCgroups()
        memory = self._first(pid, places.memory, ours.memory)
        version = None if memory is None else self._charged_in(pid, memory)
        waits = self._first(pid, places.waits, ours.waits)
        if memory is None or version is None:
            return OwnCgroups(waits=waits)
        made = memory.parent.name == cgroup.OURS
        return OwnCgroups(
            memory=memory,
            version=version,
            waits=waits,
            made=made,
            way=reclaim.way(memory, version, made=made),
            forbidden=reclaim.is_forbidden(memory, version),
        )

    def _first(self, pid: int, groups: Sequence[Path], ours: Sequence[Path]) -> Path | None:
        """Return a process's own group, where that is the guest's alone; the root group is ours."""
        if not groups or groups[0] in ours or self._guests[groups[0]] > 1:
            return None
        return groups[0] if self._is_alone(pid, groups[0]) else None

    def _unshared(self, own: OwnCgroups) -> OwnCgroups:
        """Return a guest's groups without those that another guest has entered since."""
        waits = own.waits if own.waits is None or self._guests[own.waits] == 1 else None
        if own.memory is None or self._guests[own.memory] != 1:
            return OwnCgroups(waits=waits)
        return own if waits == own.waits else replace(own, waits=waits)

    def _is_alone(self, pid: int, group: Path) -> bool:
        found = cgroup.members(group, MOST_OTHERS)
        if found is None or pid not in found or len(found) > MOST_OTHERS:
            return False
        others = [processes.memory(each, self._root / "proc").rss for each in found - {pid}]
        return None not in others and sum(size or 0 for size in others) <= OVERHEAD

    def _charged_in(self, pid: int, group: Path) -> int | None:
        """Return the version of a group, if what a process has was counted in it; else None."""
        try:
            version = cgroup.version_of(group)
        except KernelError:  # it is gone
            return None
        held = cgroup.held(read(group / cgroup.STAT) or "", version)
        touched = processes.touched(pid, self._root / "proc")
        if held is None or touched is None:
            return None
        least = touched - (touched + OVERHEAD) // MISSING
        if held < least:
            least -= processes.merged_pages(pid, self._root / "proc") * host.page_size()
        return version.number if held >= least else None

    def _put(self, pid: int, *, anew: bool = False) -> None:
        """Find out in which groups a process is; where /proc tells the same, only if `anew`."""
        told = read(f"{self._root}/proc/{pid}/cgroup") or ""
        if not anew and self._told.get(pid) == told:
            return
        found = process_limits.resolve(told, self._root, self._mounts())
        if found != self._places.get(pid):
            self._remove(pid)
            self._places[pid] = found
            self._guests.update({*found.memory, *found.waits})
        self._told[pid] = told

    def _remove(self, pid: int) -> None:
        self._own.pop(pid, None)
        self._told.pop(pid, None)
        places = self._places.pop(pid, None)
        gone = () if places is None else (*places.memory, *places.waits)
        for group in set(gone):
            self._guests[group] -= 1
            if not self._guests[group]:
                del self._guests[group]

    def _mounts(self) -> Sequence[process_limits.Mount]:
        return process_limits.mounts(self._root) if self._mounted is None else self._mounted

    def _forget(self, present: set[int]) -> None:
        for pid in [pid for pid in self._places if pid not in present]:
            self._remove(pid)
            self._ceilings.pop(pid, None)
