"""The host: all of it that a round needs, read in one go.

Rules of this file:
    Everything here blocks for microseconds a file: call `read` in a thread.
"""

from pathlib import Path

from qmpmem.errors import KernelError
from qmpmem.records import Record, replace
from qmpmem.sight import HostSight
from qmpmem.snapshot import KsmState
from qmpmem.units import Bytes
from qmpmem.wire.kernel import cgroup, host, ksm, pressure


class Survey(Record, frozen=True):
    """What the kernel says in one round."""

    host: HostSight
    ksm: KsmState | None
    ksmd: float | None
    problem: str | None = None
    """Why the budget is not known; then nobody knows what is available."""


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
        host, problem = self._read_host(), None
        try:
            limit, headroom = self._read_budget(held)
            host = replace(host, limit=limit, headroom=headroom)
        except KernelError as error:
            # To go on with all of the host would hand out what is not ours to give.
            host, problem = replace(host, available=None), f"budget {error.message}"
        return Survey(
            host=host,
            ksm=merging,
            ksmd=None if self._ksmd is None else ksm.cpu_time(self._ksmd, self._root),
            problem=problem,
        )

    def _read_host(self) -> HostSight:
        memory = host.memory(self._root)
        counters = host.counters(self._root)
        stalls = pressure.pressure(root=self._root)
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
        )

    def _read_budget(self, held: Bytes) -> tuple[Bytes | None, Bytes | None]:
        match self._budget:
            case None:
                return None, None
            case str() as path:
                found = cgroup.memory(Path(path))
                return found.limit, found.headroom
            case size:
                return size, Bytes(max(0, size - held))
