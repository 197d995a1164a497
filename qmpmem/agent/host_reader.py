"""The host: all of it that a round needs, read in one go.

Rules of this file:
    Everything here blocks for microseconds a file: call `read` in a thread.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from qmpmem.agent.cgroups import CgroupFinder, OwnCgroups
from qmpmem.errors import KernelError
from qmpmem.model.host import Pressure
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import HostReading
from qmpmem.records import Record, replace
from qmpmem.units import Bytes
from qmpmem.wire.kernel import cgroup, host, ksm, pressure, process_limits

SERVICE: Final = ".service"


class HostSurvey(Record, frozen=True):
    """What the kernel tells in one round."""

    host: HostReading
    ksm: KsmState | None
    ksmd: float | None
    ceilings: Mapping[int, Bytes] = {}
    """What their own cgroups let guests have, by process."""
    own: Mapping[int, OwnCgroups] = {}
    """The groups that are each guest's own, by process."""
    problem: str | None = None
    """Why the budget is not known; then it is not known what is available."""


class HostReader:
    """Reads the host.

    Args:
        root: its file system.
        budget: bytes, or the path of a cgroup, narrower than the host; None: the host.
    """

    def __init__(self, root: Path = Path("/"), budget: Bytes | str | None = None) -> None:
        self._root = root
        self._budget = budget
        self._ksmd: int | None = None
        self.groups = CgroupFinder(root)

    def read(self, held: Bytes, pids: Sequence[int] = ()) -> HostSurvey:
        """Read all of it. What cannot be read is not known, and raises nothing.

        Args:
            held: what all guests together cost.
            pids: the guests' processes.
        """
        try:
            merging = ksm.state(self._root)
        except KernelError:
            merging = None
        if self._ksmd is None and merging is not None:
            self._ksmd = ksm.ksmd(self._root)
        host, problem = self._read_host(), None
        ours = self.groups.ours()
        try:
            limit, headroom, name = self._read_budget(held, pids, ours.memory)
            host = replace(host, limit=limit, headroom=headroom, limited_by=name)
            if name is not None:
                host = _with_pressure(host, pressure.pressure(cgroup.PRESSURE, Path(name)))
        except KernelError as error:
            # To go on with all of the host would give away memory that is not ours.
            host, problem = replace(host, available=None), f"budget {error.message}"
        return HostSurvey(
            host=host,
            ksm=merging,
            ksmd=None if self._ksmd is None else ksm.cpu_time(self._ksmd, self._root),
            ceilings=self.groups.ceilings(pids, ours),
            own=self.groups.own,
            problem=problem,
        )

    def _read_host(self) -> HostReading:
        memory = host.memory(self._root)
        counters = host.counters(self._root)
        seen = HostReading(
            total=memory.total,
            available=memory.available,
            swap_total=memory.swap_total,
            swap_free=memory.swap_free,
            swap_fast=host.swaps_fast(self._root),
            swap_in=counters.swap_in,
            swap_out=counters.swap_out,
            cow_ksm=counters.cow_ksm,
        )
        return _with_pressure(seen, pressure.pressure(root=self._root))

    def _read_budget(
        self, held: Bytes, pids: Sequence[int], ours: Sequence[Path]
    ) -> tuple[Bytes | None, Bytes | None, str | None]:
        match self._budget:
            case None:
                found = process_limits.tightest(self._common(pids, ours))
                if found is None:
                    return None, None, None
                return found.limit, found.headroom, found.path
            case str() as path:
                group = cgroup.memory(Path(path))
                return group.limit, group.headroom, path
            case size:
                return size, Bytes(max(0, size - held)), None

    def _common(self, pids: Sequence[int], ours: Sequence[Path]) -> tuple[Path, ...]:
        """List the groups of the agent in which all guests are, too.

        A limit on the agent alone does not hold for guests. Where there are none yet, those to come
        are taken to be in the same container or slice, and not in the agent's own service
        (systemd.unit(5): the group of a service has the name of its unit).
        """
        where = [groups for pid in pids if (groups := self.groups.of(pid))]
        if not where:
            return tuple(group for group in ours if group.suffix != SERVICE)
        return tuple(group for group in ours if all(group in groups for groups in where))


def _with_pressure(host: HostReading, stalls: Pressure | None) -> HostReading:
    """Return a reading with how long tasks waited for memory, where that is told.

    Within a budget the waits of its own group count: those of another group mean nothing for it,
    and where the whole host is short, the group's tasks wait as well.
    """
    if stalls is None:
        return host
    full = None if stalls.full is None else stalls.full.avg10
    return replace(host, some=stalls.some.avg10, full=full, stalled=stalls.some.total)
