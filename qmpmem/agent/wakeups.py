"""What ends the rest between two rounds early: a guest comes or goes, or tasks wait for memory.

Theory of operation:
    Each round looks by itself at who is there and at how the host is, so nothing is missed where
    the kernel gives no word, or not enough (inotify(7): a queue that overflows; accounting/psi: a
    trigger needs a right). An alarm is a reason to look sooner, never a fact.

    A pressure file is always readable, so the loop cannot wait for its POLLPRI; an epoll that holds
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
"""Microseconds of `pressure.WINDOW`: 5 %, between what calls for SOFT and for HARD."""
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
    """Call `hurry` in the event loop when a guest comes or goes, while the context lasts."""
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
        descriptor: None: there is nothing to wait for.
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
    # No inotify instance left for this user (ENFILE, EMFILE), or no directory: the rounds look.
    with suppress(OSError), Inotify() as inotify:
        inotify.add_watch(  # pyright: ignore[reportUnknownMemberType]
            run, COMINGS | GOINGS | Mask.ONLYDIR
        )
        async for _ in inotify:
            hurry()


def _hear(waiting: select.epoll, hurry: Callable[[], None]) -> None:
    for descriptor, event in waiting.poll(0):
        if event & select.EPOLLERR:  # it is gone: it would say so for ever
            waiting.unregister(descriptor)
    hurry()
