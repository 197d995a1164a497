"""What happens to guests, at random: one after the other, and several at a time.

    nemesis = Nemesis(host, Random(seed))
    await nemesis.rage(seconds=600)     # at the end all is well again

Rules of this file:
    A deed undoes whatever it does to a guest, also when it is cut off. What it does is
    the seed's; when, only about: the clock is the real one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Final

from qmpmem.units import MIB
from tests.rig.fakeguest import NOT_REPORTED, FakeGuest, FakeHost

EVERY: Final = 0.2
"""Seconds between two deeds, about."""
LIES: Final[tuple[dict[str, object], ...]] = (
    {"stat-available-memory": 1 << 40},
    {"stat-available-memory": -1},
    {"stat-available-memory": "12"},
    {"stat-free-memory": 700 * MIB, "stat-available-memory": 0},
    {"stat-total-memory": 0},
    {"stat-total-memory": NOT_REPORTED, "stat-available-memory": NOT_REPORTED},
    {"stat-available-memory": 0, "stat-swap-in": 1 << 50},
    {"stat-available-memory": 1.5, "stat-major-faults": True},
)
STATES: Final = ("paused", "inmigrate", "postmigrate", "save-vm", "internal-error", "io-error")

Deed = Callable[[FakeGuest], Awaitable[None]]


class Nemesis:
    """Does things to the guests of a host."""

    def __init__(self, host: FakeHost, random: Random) -> None:
        self.done: Counter[str] = Counter()
        self._host = host
        self._random = random
        self._failed: list[BaseException] = []
        self._held: set[str] = set()
        self._total = host.total
        self._deeds: tuple[tuple[int, Deed], ...] = (
            (4, self.hang),
            (2, self.answer_slowly),
            (2, self.be_stuck),
            (3, self.lie),
            (1, self.be_silent),
            (3, self.drop),
            (3, self.reset),
            (2, self.die),
            (2, self.stop),
            (1, self.unplug),
            (1, self.take_over),
            (1, self.storm),
            (6, self.work),
            (2, self.squeeze_host),
        )

    async def rage(self, seconds: float) -> None:
        """Do one thing after the other, and undo all of it at the end."""
        end = asyncio.get_running_loop().time() + seconds
        weights = [weight for weight, _ in self._deeds]
        deeds = [deed for _, deed in self._deeds]
        running: set[asyncio.Task[None]] = set()
        try:
            while (left := end - asyncio.get_running_loop().time()) > 0:
                [deed] = self._random.choices(deeds, weights)
                task = asyncio.create_task(self._do(deed))
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(self._note)
                await asyncio.sleep(min(left, self._random.expovariate(1 / EVERY)))
        finally:
            for task in tuple(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if self._failed:
            raise BaseExceptionGroup("the nemesis", self._failed)

    def _note(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed.append(error)

    async def _do(self, deed: Deed) -> None:
        """Do it to a guest to which nothing else is being done."""
        free = sorted(self._host.guests.keys() - self._held)
        if not free:
            return
        guest = self._host.guests[self._random.choice(free)]
        self._held.add(guest.id)
        self.done[deed.__name__] += 1
        try:
            await deed(guest)
        finally:
            self._held.discard(guest.id)

    def _while(self, mean: float) -> Awaitable[None]:
        return asyncio.sleep(min(60.0, self._random.expovariate(1 / mean)))

    async def hang(self, guest: FakeGuest) -> None:
        """As SIGSTOP, and SIGCONT."""
        guest.letter = self._random.choice("TDS")
        guest.hang()
        try:
            await self._while(8)
        finally:
            guest.letter = "S"
            guest.go_on()

    async def answer_slowly(self, guest: FakeGuest) -> None:
        for _ in range(self._random.randint(3, 15)):
            guest.hang()
            try:
                await asyncio.sleep(self._random.uniform(0.2, 2.8))
            finally:
                guest.go_on()
            await asyncio.sleep(0.05)

    async def be_stuck(self, guest: FakeGuest) -> None:
        speed, guest.speed = guest.speed, self._random.choice((0.0, 0.001, 1.0))
        try:
            await self._while(20)
        finally:
            guest.have(guest.actual // MIB)
            guest.speed = speed

    async def lie(self, guest: FakeGuest) -> None:
        guest.stats = self._random.choice(LIES)
        try:
            await self._while(10)
        finally:
            guest.stats = {}

    async def be_silent(self, guest: FakeGuest) -> None:
        guest.reports = False
        try:
            await self._while(30)
        finally:
            guest.reports = True

    async def drop(self, guest: FakeGuest) -> None:
        for line in tuple(guest.lines):
            line.close()

    async def reset(self, guest: FakeGuest) -> None:
        guest.reset()

    async def die(self, guest: FakeGuest) -> None:
        """End, as by SIGKILL; another comes in its place, under another name."""
        self._host.end(guest.id)
        fresh = FakeGuest(f"n{self._random.getrandbits(48):x}", guest.size, used=guest.used)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(self._random.uniform(0, 3))
        await asyncio.shield(self._host.start(fresh))

    async def stop(self, guest: FakeGuest) -> None:
        guest.state = self._random.choice(STATES)
        guest.event("STOP")
        try:
            await self._while(5)
        finally:
            guest.state = "running"
            guest.event("RESUME")

    async def unplug(self, guest: FakeGuest) -> None:
        async with _set(guest, "balloon", value=False):
            guest.have(guest.size)
            await self._while(5)

    async def take_over(self, guest: FakeGuest) -> None:
        """Be another client, which moves the balloon."""
        for _ in range(3):
            guest.have(self._random.randint(200, guest.size))
            guest.event("BALLOON_CHANGE", {"actual": guest.actual})
            await asyncio.sleep(1)

    async def storm(self, guest: FakeGuest) -> None:
        for _ in range(300):
            name = self._random.choice(("STOP", "RESUME", "BALLOON_CHANGE", "NIC_RX", "WAKEUP"))
            guest.event(name, {"actual": self._random.choice((-1, 1 << 63, guest.actual))})
            await asyncio.sleep(0.001)

    async def work(self, guest: FakeGuest) -> None:
        async with _set(guest, "used", value=self._random.randint(20, guest.size)):
            await self._while(20)

    async def squeeze_host(self, guest: FakeGuest) -> None:  # noqa: ARG002 - any deed's signature
        self._host.total = int(self._total * self._random.uniform(0.9, 1.05))
        self._host.stalls = self._random.choice((0.0, 2.0, 12.0))
        try:
            await self._while(5)
        finally:
            self._host.total, self._host.stalls = self._total, 0.0


@asynccontextmanager
async def _set(guest: FakeGuest, name: str, *, value: object) -> AsyncIterator[None]:
    before = getattr(guest, name)
    setattr(guest, name, value)
    try:
        yield
    finally:
        setattr(guest, name, before)
