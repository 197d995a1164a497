"""Has the host reclaim memory of guests' own cgroups, one step after the other.

Theory of operation:
    A step takes as long as the host's swap, so it runs in a thread of its own, for which no round
    waits. Two steps at once would only share the swap. The result is in a round that follows.

    A limit that an agent lowered before it was killed is put back as soon as the group is seen
    again.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from qmpmem.agent.cgroups import OwnCgroups
from qmpmem.errors import KernelError
from qmpmem.model.observation import Way
from qmpmem.model.round import Outcome, Reclaim
from qmpmem.units import Bytes
from qmpmem.wire.kernel import reclaim

LEAVING: Final = 3.0
"""Seconds that a step may go on when the agent stops."""


class Reclaimer:
    """Carries out steps.

    Args:
        warn: called with what went wrong, in a line.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: dict[str, asyncio.Future[Bytes]] = {}
        self._outcomes: list[Outcome] = []
        self._seen: dict[int, Path] = {}
        """The groups that were checked for what an earlier agent left, by process."""

    @property
    def under_way(self) -> frozenset[str]:
        """Return the guests of which memory is being reclaimed, or is about to be."""
        return frozenset(self._under_way)

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of steps since the last call."""
        found, self._outcomes = self._outcomes, []
        return found

    def order(self, steps: Sequence[Reclaim], own: Mapping[str, OwnCgroups]) -> None:
        """Begin to carry out steps; those of guests that have one under way are left out.

        Args:
            steps: the steps.
            own: the guests' groups, by id.
        """
        for each in steps:
            found = own.get(each.guest)
            if each.guest in self._under_way or found is None:
                continue
            if found.memory is not None and found.way is not None:
                self._begin(each, found.memory, found.way)

    async def restore(self, own: Mapping[int, OwnCgroups]) -> None:
        """Put back the limits that an earlier agent left lowered, in groups that are new to us."""
        fresh = {
            pid: each.memory
            for pid, each in own.items()
            if each.made and each.memory is not None and self._seen.get(pid) != each.memory
        }
        self._seen = {pid: group for pid, group in self._seen.items() if pid in own} | fresh
        if fresh:
            await asyncio.to_thread(self._restore, tuple(fresh.values()))

    async def stop(self) -> None:
        """Wait for the step that is under way, and begin no other."""
        if self._thread is None:
            return
        self._thread.shutdown(wait=False, cancel_futures=True)
        running = [step for step in self._under_way.values() if not step.done()]
        if running:
            await asyncio.wait(running, timeout=LEAVING)

    def _begin(self, step: Reclaim, group: Path, way: Way) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reclaim")
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, reclaim.step, group, way, step.size)
        self._under_way[step.guest] = future
        future.add_done_callback(lambda done: self._note(step.guest, done))

    def _note(self, guest: str, done: asyncio.Future[Bytes]) -> None:
        self._under_way.pop(guest, None)
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._outcomes.append(Outcome(guest=guest, done=True, reclaimed=done.result()))
            return
        self._seen.clear()  # so that a limit that it may have left lowered is put back
        said = error.message if isinstance(error, KernelError) else f"{type(error).__name__}"
        said = f"nothing is reclaimed of its cgroup: {said}"
        self._outcomes.append(Outcome(guest=guest, done=False, error=said, reclaimed=Bytes(0)))

    def _restore(self, groups: Sequence[Path]) -> None:
        for group in groups:
            try:
                if reclaim.restore(group):
                    self._warn(f"{group}/memory.high: an agent that was killed had lowered it")
            except KernelError as error:
                self._warn(f"{error.message}: {error.hint}")
