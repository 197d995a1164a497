"""The cgroups of guests' processes, and the limits that are theirs alone.

Rules of this file:
    Everything here blocks for microseconds a file: use it in a thread. A process seldom changes its
    group, and a limit seldom changes: of thousands of guests a few are looked at in each round.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from qmpmem.units import MIB, Bytes
from qmpmem.wire.kernel import fences

IN_A_ROUND: Final = 32
"""Guests whose limits are read in a round: about 2 ms."""
OVERHEAD: Final = Bytes(64 * MIB)
"""What QEMU needs in its group beside the guest's memory: 62 MiB measured, with a small
translation cache."""


class Groups:
    """Reads where guests' processes are.

    Args:
        root: the file system's root.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mounted: Sequence[fences.Mount] | None = None
        self._groups: dict[int, tuple[Path, ...]] = {}
        self._ceilings: dict[int, Bytes] = {}
        self._turn = 0

    def ours(self) -> tuple[Path, ...]:
        """Read the mounts, for this round, and list the groups that the agent is in."""
        self._mounted = fences.mounts(self._root)
        return self._look("self")

    def of(self, pid: int) -> tuple[Path, ...]:
        """List the groups of a process, its own first."""
        if pid not in self._groups:
            self._groups[pid] = self._look(pid)
        return self._groups[pid]

    def ceilings(self, pids: Sequence[int], ours: Collection[Path]) -> Mapping[int, Bytes]:
        """Return what the limits of their own groups let guests have; nothing of those without one.

        Args:
            pids: the guests' processes.
            ours: the groups that the agent is in; none of them is a guest's own.
        """
        self._forget(set(pids))
        fresh = [pid for pid in pids if pid not in self._groups]
        start = 0 if self._turn >= len(pids) else self._turn
        self._turn = start + IN_A_ROUND
        for pid in dict.fromkeys((*fresh[:IN_A_ROUND], *pids[start : self._turn])):
            self._groups[pid] = self._look(pid)
            own = [group for group in self._groups[pid] if group not in ours]
            found = [fence.limit for group in own if (fence := fences.fence(group)) is not None]
            self._ceilings.pop(pid, None)
            if found:
                self._ceilings[pid] = Bytes(max(0, min(found) - OVERHEAD))
        return dict(self._ceilings)

    def _look(self, pid: int | str) -> tuple[Path, ...]:
        return fences.groups(pid, self._root, self._mounted)

    def _forget(self, present: set[int]) -> None:
        for pid in [pid for pid in self._groups if pid not in present]:
            del self._groups[pid]
            self._ceilings.pop(pid, None)
