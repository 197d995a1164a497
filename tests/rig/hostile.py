"""Meetings of our client with a scripted server, and what must hold after every one of them.

    met = meet([greet(), pause(10)], status)
    assert met.reason == "handshake-timeout" and met.seconds == 5.0

Theory of operation:
    A meeting runs in a loop of its own, on a clock that jumps (`tests.rig.clock`), so the deadlines
    are the real ones and take no time. Whatever the server did, afterwards no task, descriptor or
    log line may be left, and no exception but ours may have come out.
"""

import asyncio
import gc
import io
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from qmpmem.errors import GuestError, GuestRefused, GuestUnreachable
from qmpmem.wire.qmp import Deadlines, Session, Statistics, connect
from tests.rig.clock import VirtualLoop
from tests.rig.fakeqmp import Conversation, FakeQmp, Step
from tests.rig.memory import memory_directory, new_objects

Talk = Callable[[Session], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class Met:
    """How a meeting went."""

    value: object
    """What the talk returned; None where it failed."""
    error: GuestError | None
    seconds: float
    """From connecting to the end of the talk, by the loop's clock."""
    statistics: Statistics | None
    conversation: Conversation

    @property
    def reason(self) -> str:
        """The reason word, the error class of a refusal, or ``ok``."""
        match self.error:
            case None:
                return "ok"
            case GuestUnreachable(reason=reason):
                return reason
            case GuestRefused(error_class=error_class):
                return error_class
            case other:
                raise AssertionError(other)


async def status(session: Session) -> object:
    """Talk: ask one question."""
    return await session.query("query-status")


async def balloon_twice(session: Session) -> object:
    """Talk: ask the same question twice, whatever became of the first."""
    try:
        first: object = await session.query("query-balloon")
    except GuestUnreachable as error:
        first = error.reason
    return first, await session.query("query-balloon")


def meet(script: Sequence[Step], talk: Talk = status, deadlines: Deadlines | None = None) -> Met:
    """Connect to a server that follows a script, talk to it, and leave."""
    with (
        standing(),
        memory_directory() as directory,
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        return runner.run(_meet(directory / "q", script, talk, deadlines or Deadlines()))


async def _meet(path: Path, script: Sequence[Step], talk: Talk, deadlines: Deadlines) -> Met:
    clock = asyncio.get_running_loop().time
    value: object = None
    problem: GuestError | None = None
    statistics: Statistics | None = None
    async with FakeQmp(path, script) as fake:
        start = end = clock()
        try:
            async with connect(
                str(path), guest="g", expect_pid=os.getpid(), deadlines=deadlines
            ) as session:
                try:
                    value = await talk(session)
                finally:
                    end = clock()
                    statistics = session.statistics
        except GuestError as error:
            problem = error
            end = end if statistics else clock()
        left = asyncio.all_tasks() - {asyncio.current_task()} - set(fake.serving)
        assert not left, f"tasks left: {left}"
    return Met(
        value=value,
        error=problem,
        seconds=end - start,
        statistics=statistics,
        conversation=fake.conversations[0],
    )


@contextmanager
def standing() -> Iterator[None]:
    """Hold what must hold after every meeting: no descriptor is left, and nothing was logged.

    Not even what qemu.qmp logs for information, should a program have turned that on.
    """
    heard = io.StringIO()
    listener = logging.StreamHandler(heard)
    library = logging.getLogger("qemu.qmp")
    roots = [logging.getLogger(), library]
    before = _descriptors()
    for root in roots:
        root.addHandler(listener)
    library.setLevel(logging.INFO)
    try:
        with new_objects():
            yield
            gc.collect()  # a forgotten task speaks up when it is collected
    finally:
        library.setLevel(logging.NOTSET)
        for root in roots:
            root.removeHandler(listener)
    assert not heard.getvalue(), f"logged: {heard.getvalue()}"
    assert _descriptors() == before, "descriptors left open"


def _descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all we want


def connected(fake: FakeQmp) -> AbstractAsyncContextManager[Session]:
    """Connect to a server of our own process."""
    return connect(str(fake.path), guest="g", expect_pid=os.getpid())
