"""Mutated sessions (row F22): whatever comes, only our errors come out.

5,000 other ones in each run, 50,000 in `make soak`, and each that ever failed. A failure names the
seed of its session, which then goes into FAILED.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.wire.errors import REASONS
from qmpmem.wire.qmp import Deadlines, Session, session_over
from tests.rig import chance, mutate
from tests.rig.clock import VirtualLoop
from tests.rig.hostile import standing
from tests.rig.patience import patient

FAILED: Final[tuple[int, ...]] = ()
"""Seeds of sessions out of which something else came once."""
WHOLE: Final = 2500
"""Sessions of one test: enough for the mutations to reach every part of the wire."""
REACHED = {"ok", "refused", "event", "silence", "closed", "protocol", "timeout", "busy"}


@contextmanager
def playing(pieces: list[bytes], closes: bool) -> Iterator[socket.socket]:  # noqa: FBT001 - as mutate.session returns it
    """Send a piece at once and another for each request; yield the client's end."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    left = iter(pieces)
    token = b""

    def send() -> None:
        piece = next(left, None)
        if piece is not None:
            ours.send(piece.replace(b'"id": "', b'"id": "' + token))
        elif closes:
            loop.remove_reader(ours)
            ours.shutdown(socket.SHUT_RDWR)

    def read() -> None:
        nonlocal token
        try:
            content = ours.recv(65536)
            requests = content.count(b'"id":"')
            token = content.partition(b'"id":"')[2][:2]
            for _ in range(requests):
                send()
        except OSError:  # the client has left
            requests = 0
        if not requests:
            loop.remove_reader(ours)

    with ours, theirs:
        ours.settimeout(0)
        theirs.settimeout(0)
        loop.add_reader(ours, read)
        send()
        yield theirs
        loop.remove_reader(ours)


async def talk(session: Session, ends: Counter[str]) -> None:
    """Ask, change, and read the events, whatever becomes of each."""
    for command in ("query-status", "query-balloon", "balloon"):
        try:
            await session.change(command, {"value": 1 << 28})
            ends["ok"] += 1
        except GuestRefused:
            ends["refused"] += 1
        except GuestUnreachable as error:
            ends[error.reason] += 1
    async for event in session.events():
        ends["event"] += isinstance(event.data, dict)


async def play(seed: int, ends: Counter[str]) -> None:
    pieces, closes = mutate.session(seed)
    with playing(pieces, closes) as connection:
        try:
            async with session_over(connection, "/nowhere", "g", Deadlines()) as session:
                async with asyncio.timeout(patient(60)):
                    await talk(session, ends)
        except GuestUnreachable as error:
            ends[error.reason] += 1
        except TimeoutError:  # our own: no more events come, and no end
            ends["silence"] += 1
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left: {left}"
    assert connection.fileno() == -1


async def play_all(seeds: Iterable[int]) -> Counter[str]:
    ends: Counter[str] = Counter()
    for seed in seeds:
        try:
            await play(seed, ends)
        except BaseException as error:
            error.add_note(f"the session of seed {seed}")
            raise
    return ends


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", range(2))
def test_nothing_escapes(part: int) -> None:
    check(chance.cases(2 * WHOLE, part, 2))


@pytest.mark.soak
@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", range(20))
def test_nothing_of_much_escapes(part: int) -> None:
    check(chance.cases(20 * WHOLE, part, 20))


def test_nothing_escapes_that_once_did() -> None:
    play_apart(FAILED)


def check(seeds: range) -> None:
    ends = play_apart(seeds)
    assert len(seeds) == WHOLE
    assert REACHED <= ends.keys() <= {*REASONS, *REACHED}, ends


def play_apart(seeds: Iterable[int]) -> Counter[str]:
    with standing(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(play_all(seeds))
