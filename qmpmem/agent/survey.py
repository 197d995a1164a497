"""The host: all of it that a round needs, read in one go.

Rules of this file:
    Everything here blocks for microseconds a file: call `read` in a thread.
"""

from pathlib import Path

from qmpmem.errors import KernelError
from qmpmem.records import Record
from qmpmem.sight import HostSight
from qmpmem.snapshot import KsmState
from qmpmem.units import Bytes
from qmpmem.wire.kernel import cgroup, host, ksm, pressure


class Survey(Record, frozen=True):
    """What the kernel says in one round."""

    host: HostSight
    ksm: KsmState | None
    ksmd: float | None


class Surveyor:
    """Reads the host.

    Args:
        root: its file system.
        budget: bytes, or the path of a cgroup, narrower than the host; None: the host.
    """

    def __init__(self, root: Path = Path("/"), budget: Bytes | str | None = None) -> None:
        self._root = root
        self._budget = budget
        self._ksmd: int | None = None

    def read(self, held: Bytes) -> Survey:
        """Read all of it. What cannot be read is not known; nothing is raised.

        Args:
            held: what all guests together cost.
        """
        try:
            merging = ksm.state(self._root)
        except KernelError:
            merging = None
        if self._ksmd is None and merging is not None:
            self._ksmd = ksm.ksmd(self._root)
        return Survey(
            host=self._read_host(held),
            ksm=merging,
            ksmd=None if self._ksmd is None else ksm.cpu_time(self._ksmd, self._root),
        )

    def _read_host(self, held: Bytes) -> HostSight:
        memory = host.memory(self._root)
        counters = host.counters(self._root)
        stalls = pressure.pressure(root=self._root)
        limit, headroom = self._read_budget(held)
        return HostSight(
            total=memory.total,
            available=memory.available,
            swap_free=memory.swap_free,
            swap_in=counters.swap_in,
            swap_out=counters.swap_out,
            cow_ksm=counters.cow_ksm,
            some=None if stalls is None else stalls.some.avg10,
            full=None if stalls is None or stalls.full is None else stalls.full.avg10,
            stalled=None if stalls is None else stalls.some.total,
            limit=limit,
            headroom=headroom,
        )

    def _read_budget(self, held: Bytes) -> tuple[Bytes | None, Bytes | None]:
        match self._budget:
            case None:
                return None, None
            case str() as path:
                try:
                    found = cgroup.memory(Path(path))
                except KernelError:
                    return None, None
                return found.limit, found.headroom
            case size:
                return size, Bytes(max(0, size - held))
