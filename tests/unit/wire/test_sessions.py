"""Recorded sessions, mutated (row F22): each ends in an answer or an error of ours, and in time.

2,000 other ones in each run, 1,000,000 in `make soak`, and each that ever failed. A failure names
the seed of its session, which then goes into FAILED. The client is whole but for its socket
(`tests.rig.played`); tests/system/wire/test_fuzz.py has sessions over sockets.
"""

import asyncio
import ctypes
import gc
import os
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.wire.errors import REASONS
from qmpmem.wire.events import Event
from qmpmem.wire.messages import Arguments
from qmpmem.wire.qmp import Deadlines, Session, Statistics, session_over
from qmpmem.wire.unix_socket import Peer
from tests.rig import chance, dialogues, mutate
from tests.rig.dialogues import TALKS, Dialogue, Step
from tests.rig.hostile import standing
from tests.rig.played import Part, PlayedLoop

FAILED: Final[tuple[int, ...]] = ()
"""Seeds of sessions out of which something else came once."""
COUNT: Final = 1_000
PARTS: Final = 2
SOAK_COUNT: Final = 25_000
SOAK_PARTS: Final = 40
"""1,000,000 in all."""
WARM_UP: Final = 300
"""Sessions after which the process has what it keeps."""
MORE_OBJECTS: Final = 300
"""Objects that it may have more after all the others: what a module loads late."""
MORE_MEMORY: Final = 12 << 20
"""Bytes likewise. Some lines are of several MiB, which leaves holes between what malloc gave."""
RECORDED: Final = dialogues.read()
LIMITS: Final = Deadlines()
PEER: Final = Peer(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())
SLACK: Final = 0.001
"""Seconds, by a clock that only deadlines and delays move."""
EVENTS: Final = 60.0
REACHED: Final = {"ok", "refused", "event", "silence", "closed", "protocol", "timeout", "busy"}
DELAYS: Final = (*(0.0,) * 12, 0.4, 0.6, 0.9, 2.9, 3.0, 3.5, 4.5, 4.9, 6.0, 70.0)
"""Seconds before a piece: within each deadline, past it, and past that of the probe."""
CUTS: Final = (*(0,) * 12, 1, 7, 1000, 4096)


def make(seed: int) -> tuple[str, Part]:
    """Make a session: which dialogue it was, and what the server does in it."""
    dice = random.Random(seed)  # noqa: S311 - it shall be the same again
    name, recorded = dice.choice(RECORDED)
    pieces = list(recorded)
    mutate.damage(dice, pieces)
    late = dice.random() < 0.3
    delays = tuple(dice.choice(DELAYS) for _ in pieces) if late else ()
    cut = dice.choice(CUTS)
    return name, Part(pieces=tuple(pieces), closes=dice.random() < 0.5, delays=delays, cut=cut)


class Timed:
    """A session, of which each answer and each error comes in time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._clock = asyncio.get_running_loop().time
        self.guest = session.guest
        self.peer = session.peer
        self.version = session.version
        self.grain = session.grain
        self.lacks = session.lacks

    @property
    def statistics(self) -> Statistics:
        return self._session.statistics

    async def query(self, command: str, arguments: Arguments | None = None) -> object:
        return await self._in_time(self._session.query(command, arguments), LIMITS.query)

    async def change(self, command: str, arguments: Arguments | None = None) -> object:
        return await self._in_time(self._session.change(command, arguments), LIMITS.change)

    def events(self) -> AsyncIterator[Event]:
        return self._session.events()

    def listen(self, hear: Callable[[], None]) -> None:
        self._session.listen(hear)

    def take_events(self) -> Iterator[Event]:
        return self._session.take_events()

    async def _in_time(self, asking: Awaitable[object], limit: float) -> object:
        began = self._clock()
        try:
            return await asking
        finally:
            assert self._clock() - began <= limit + LIMITS.probe + SLACK


async def talk(channel: Timed, steps: Iterable[Step], ends: Counter[str]) -> None:
    """Ask all that was asked, whatever becomes of each, and read the events."""
    for step in steps:
        try:
            await step(channel)
            ends["ok"] += 1
        except GuestRefused:
            ends["refused"] += 1
        except GuestUnreachable as error:
            ends[error.reason] += 1
    async for event in channel.events():
        ends["event"] += isinstance(event.data, dict)


async def meet(name: str, part: Part, connection: socket.socket, ends: Counter[str]) -> None:
    """Have one session, and count how each of its steps ended."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PlayedLoop)
    loop.next = part
    began = loop.time()
    try:
        async with session_over(connection, "/nowhere", "g", LIMITS, PEER) as session:
            assert loop.time() - began <= LIMITS.handshake + SLACK
            async with asyncio.timeout(EVENTS):
                await talk(Timed(session), TALKS[name], ends)
    except GuestUnreachable as error:
        ends[error.reason] += 1
    except TimeoutError:  # our own: no more events come, and no end
        ends["silence"] += 1
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left: {left}"


async def play_all(seeds: Iterable[int]) -> Counter[str]:
    ends: Counter[str] = Counter()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for seed in seeds:
            try:
                await meet(*make(seed), ours, ends)
            except BaseException as error:
                error.add_note(f"the session of seed {seed}")
                raise
    return ends


def play_apart(seeds: Iterable[int]) -> Counter[str]:
    with standing(), asyncio.Runner(loop_factory=PlayedLoop) as runner:
        return runner.run(play_all(seeds))


def memory() -> int:
    """Return what this process has in memory, less what malloc has free; bytes (proc(5): statm)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def flat() -> Iterator[None]:
    """Hold that nothing is kept of what is done meanwhile."""
    before, objects = memory(), len(gc.get_objects())
    yield
    more = memory() - before
    assert len(gc.get_objects()) - objects <= MORE_OBJECTS
    assert more <= MORE_MEMORY, f"{more >> 10} KiB more"


def check(seeds: range) -> None:
    ends = play_apart(seeds[:WARM_UP])
    with flat():
        ends += play_apart(seeds[WARM_UP:])
    assert REACHED <= ends.keys() <= {*REASONS, *REACHED}, ends


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_escapes(part: int) -> None:
    check(chance.cases(PARTS * COUNT, part, PARTS))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_nothing_of_a_million_escapes(part: int) -> None:
    seeds = chance.cases(SOAK_PARTS * SOAK_COUNT, part, SOAK_PARTS)
    assert len(seeds) == SOAK_COUNT
    check(seeds)


def test_nothing_escapes_that_once_did() -> None:
    play_apart(FAILED)


@pytest.mark.parametrize("dialogue", RECORDED, ids=lambda each: each.name)
def test_what_was_recorded_is_what_is_asked(dialogue: Dialogue) -> None:
    """Without damage each step is answered, so the damage is all that the others meet."""
    ends: Counter[str] = Counter()
    ours, theirs = socket.socketpair()
    with ours, theirs, asyncio.Runner(loop_factory=PlayedLoop) as runner:
        runner.run(meet(dialogue.name, Part(pieces=dialogue.pieces), ours, ends))
    expected = "refused" if dialogue.name == "refused" else "ok"
    assert ends.pop(expected) == len(TALKS[dialogue.name])
    assert ends.pop("silence") == 1
    assert ends.keys() <= {"event"}


def test_every_talk_was_recorded() -> None:
    assert [each.name for each in RECORDED] == list(TALKS)
