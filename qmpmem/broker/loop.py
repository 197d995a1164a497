"""The broker: a keeper for each guest that there is.

Theory of operation:
    The run directory is looked at when something comes or goes in it (inotify), and each second
    anyway. A guest is its process, not its id: another process of the same id gets another record
    and another socket, so an agent takes it for another guest. A broker that follows one that was
    killed shows the same processes in the same places.

Rules of this file:
    A mistake of ours with one guest costs that guest's sessions, and the keeper starts over.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from qmpmem.agent.adopter import Adopter
from qmpmem.agent.finder import Finder
from qmpmem.agent.systemd_notify import Notifier
from qmpmem.agent.wakeups import arrivals
from qmpmem.api.mistakes import report
from qmpmem.broker.directory import Directory
from qmpmem.broker.sessions import GuestSessions
from qmpmem.errors import GuestUnreachable
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model.config import Adoption
from qmpmem.records import replace
from qmpmem.wire import kernel, unix_socket
from qmpmem.wire.kernel.processes import Process

LOOK: Final = 1.0
"""Seconds between two looks for guests."""
LEAST: Final = 0.05
"""Seconds between two looks for guests where something happens all the time."""
_RUN: Final = ""
"""The id under which a message about the run directory is kept: no guest has this id."""
STARTING_OVER: Final = 1.0
"""Seconds before a keeper that a mistake of ours ended is started again."""


class _Shown(NamedTuple):
    """A guest that is shown."""

    found: LiveGuest
    """The guest as the look found it."""
    keeper: GuestSessions
    task: asyncio.Task[None]


class Broker:
    """Shows the guests of a run directory in another one, until it is told to stop.

    Args:
        run: where the guests' records are.
        directory: where they are shown.
        rules: which sockets to adopt.
        log: gets lines about what went wrong, and about sessions that have all of QMP.
        notifier: what systemd is told.
    """

    def __init__(
        self,
        run: Path,
        directory: Directory,
        rules: Sequence[Adoption],
        log: logging.Logger,
        notifier: Notifier,
    ) -> None:
        self._run = run
        self._directory = directory
        self._rules = rules
        self._log = log
        self._notifier = notifier
        self._finder = Finder(run)
        self._adopter = Adopter(run, log.warning)
        self._kept: dict[str, _Shown] = {}
        self._ended: set[str] = set()
        self._hurry = asyncio.Event()
        self._stop = asyncio.Event()
        self._said: dict[str, str] = {}

    def stop(self) -> None:
        """End after this look."""
        self._stop.set()
        self._hurry.set()

    async def run(self) -> None:
        """Look, until stopped."""
        is_ready = False
        async with arrivals(self._run, self._hurry.set), asyncio.TaskGroup() as tasks:
            try:
                while not self._stop.is_set():
                    self._hurry.clear()
                    await self._look(tasks)
                    if not is_ready:
                        await asyncio.to_thread(self._directory.hide_others, set(self._kept))
                    self._notifier.tell("WATCHDOG=1" if is_ready else "READY=1")
                    is_ready = True
                    await self._rest()
                self._notifier.tell("STOPPING=1")
            finally:
                for guest in list(self._kept):
                    await self._drop(guest)
                await self._adopter.stop()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        now = time.monotonic()
        self._adopter.tend(self._rules, now)
        gone, self._ended = self._ended, set()
        found = await asyncio.to_thread(self._finder.find, now, gone)
        present = {each.record.id: each for each in found}
        for guest, kept in list(self._kept.items()):
            if present.get(guest) != kept.found:
                await self._drop(guest)
        about = {*present, *([] if self._finder.problem is None else [_RUN])}
        self._said = {each: said for each, said in self._said.items() if each in about}
        if self._finder.problem is not None:
            self._say(_RUN, self._finder.problem)
        for guest, each in present.items():
            if guest not in self._kept:
                await self._add(each, tasks)

    async def _rest(self) -> None:
        await asyncio.sleep(LEAST)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await self._hurry.wait()

    async def _add(self, found: LiveGuest, tasks: asyncio.TaskGroup) -> None:
        guest = found.record.id
        if found.record.human:
            self._say(guest, f"guest {guest}: only a human monitor, which is not passed on")
            return
        process = await asyncio.to_thread(_process_of, found)
        if process is None:
            self._say(guest, f"guest {guest}: it is not known which process it is")
            return
        try:
            listener = await asyncio.to_thread(
                self._directory.show, found.record, process.pid, process.start_time
            )
        except OSError as error:
            self._say(guest, f"guest {guest}: {self._directory.path}: {error.strerror}")
            return
        met = replace(found, pid=process.pid)
        keeper = GuestSessions(met, listener, self._log, lambda: self._hear_of_end(guest))
        self._kept[guest] = _Shown(found, keeper, tasks.create_task(self._supervise(keeper)))

    async def _drop(self, guest: str) -> None:
        kept = self._kept.pop(guest)
        kept.task.cancel()
        await asyncio.wait((kept.task,))
        kept.keeper.close()
        await asyncio.to_thread(self._directory.hide, guest)

    def _hear_of_end(self, guest: str) -> None:
        self._ended.add(guest)
        self._hurry.set()

    async def _supervise(self, keeper: GuestSessions) -> None:
        while True:
            try:
                await keeper.run()
            except Exception as error:  # noqa: BLE001 - the one boundary around each guest's task
                guest = keeper.found.record.id
                report(self._log, f"guest {guest}: starting over", error)
                await asyncio.sleep(STARTING_OVER)

    def _say(self, about: str, text: str) -> None:
        """Warn of something about a guest, once while it is so."""
        if self._said.get(about) != text:
            self._said[about] = text
            self._log.warning(text)


def _process_of(found: LiveGuest) -> Process | None:
    """Find a guest's process, where its record does not name it (QEMU: -daemonize).

    Without capabilities the descriptors of root's processes cannot be seen, but their sockets can
    be asked (unix(7): SO_PEERCRED): this takes a place in the queue of the guest's monitor, once.
    """
    pid, record = found.pid, found.record
    if pid is None:
        try:
            with unix_socket.open_socket(record.socket, record.id) as connection:
                seen = unix_socket.peer_of(connection)
        except (GuestUnreachable, BlockingIOError):
            return None
        if seen.uid not in (0, record.uid):
            return None
        pid = seen.pid
    return kernel.process(pid)
