"""What ends the pause between two rounds early: a guest starts or ends, or tasks wait for memory.

Theory of operation:
    Each round finds the guests and reads the host by itself, so nothing is missed where the kernel
    reports nothing, or not all (inotify(7): a queue that overflows; accounting/psi: a trigger needs
    a right). An alarm is a reason to look sooner, never a fact.

    A pressure file is always readable, so the loop cannot wait for its POLLPRI. An epoll that holds
    it alone is readable when there is one (epoll(7)).
"""

import asyncio
import select
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from asyncinotify import Inotify, Mask

from qmpmem.wire.kernel import pressure
from qmpmem.wire.kernel.host import ROOT

STALL: Final = 100_000
"""Microseconds of `pressure.WINDOW` that tasks must wait: 5 %, between what makes SOFT and HARD."""
COMINGS: Final = Mask.CREATE | Mask.MOVED_TO
GOINGS: Final = Mask.DELETE | Mask.MOVED_FROM


@asynccontextmanager
async def alarms(run: Path, hurry: Callable[[], None], root: Path = ROOT) -> AsyncGenerator[None]:
    """Call `hurry` when something happens, while the context lasts.

    Args:
        run: the run directory.
        hurry: called in the event loop.
        root: what stands for the root of the file system.
    """
    async with arrivals(run, hurry):
        with pressure.trigger(STALL, root=root) as descriptor, urgent(descriptor, hurry):
            yield


@asynccontextmanager
async def arrivals(run: Path, hurry: Callable[[], None]) -> AsyncGenerator[None]:
    """Call `hurry` in the event loop when a guest starts or ends, while the context lasts."""
    watching = asyncio.create_task(_watch(run, hurry))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait((watching,))


@contextmanager
def urgent(descriptor: int | None, hurry: Callable[[], None]) -> Generator[None]:
    """Call `hurry` whenever a descriptor has something urgent (POLLPRI), while the context lasts.

    Args:
        descriptor: the descriptor; None: there is nothing to wait for.
        hurry: called in the event loop.
    """
    if descriptor is None:
        yield
        return
    loop = asyncio.get_running_loop()
    with select.epoll() as waiting:
        waiting.register(descriptor, select.EPOLLPRI)
        loop.add_reader(waiting.fileno(), _hear, waiting, hurry)
        try:
            yield
        finally:
            loop.remove_reader(waiting.fileno())


async def _watch(run: Path, hurry: Callable[[], None]) -> None:
    # There may be no inotify instance left (ENFILE, EMFILE), or no directory: the rounds look then.
    with suppress(OSError), Inotify() as inotify:
        inotify.add_watch(  # pyright: ignore[reportUnknownMemberType]
            run, COMINGS | GOINGS | Mask.ONLYDIR
        )
        async for _ in inotify:
            hurry()


def _hear(waiting: select.epoll, hurry: Callable[[], None]) -> None:
    for descriptor, event in waiting.poll(0):
        if event & select.EPOLLERR:  # it is gone, and would report that for ever
            waiting.unregister(descriptor)
    hurry()
