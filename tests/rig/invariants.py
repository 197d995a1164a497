"""What must hold in every round of an agent, whatever is done to its guests.

    async with watched(place, config) as seen:
        await seen.rounds(5)

I1  nothing escapes: no watcher starts over, no round is left out
I5  descriptors, tasks and threads are as before
I6  no target below the floor, above the maximum, or further away than a step allows
I7  nothing is taken on unknown, stale or implausible data
I8  each action has one line that says why, and nothing is warned of twice in a minute
I9  one command in flight; I10 none that kills, pauses or reconfigures: `fakeguest` notes both

Of a whole process, under load and for minutes, tests/soak asks in addition:
I2  all guests are managed again at the end, whatever was done to the others
I3  99 of 100 rounds are quick
I4  memory grows by no more than what is kept of each guest and file
"""

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from qmpmem.agent.loop import Agent, Surroundings
from qmpmem.agent.systemd_notify import Notifier
from qmpmem.model.config import Config
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import SetBalloon, Tick
from qmpmem.policy import behaviour, goals, reach
from qmpmem.units import MIB
from tests.rig.fakeguest import FakeGuest
from tests.rig.memory import new_objects
from tests.rig.patience import patient

STEP_PERCENT: Final = max(reach.DOWN_PERCENT.values()) * reach.STEPS

AGAIN: Final = 60.0
"""Seconds in which the same is said once."""


class Watched:
    """A running agent, and its rounds."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.ticks: list[Tick] = []
        self._news = asyncio.Event()

    def publish(self, tick: Tick) -> None:
        self.ticks.append(tick)
        self._news.set()

    @property
    def last(self) -> Tick:
        return self.ticks[-1]

    @property
    def targets(self) -> list[SetBalloon]:
        return [change for tick in self.ticks for change in tick.plan.balloons]

    def reading(self, guest: str) -> GuestReading | None:
        """Give what was last seen of a guest."""
        if not self.ticks:
            return None
        return next((each for each in self.last.snapshot.guests if each.id == guest), None)

    def verdict(self, guest: str) -> str | None:
        """Give what a guest was last taken for."""
        if not self.ticks:
            return None
        return next((each.verdict for each in self.last.plan.guests if each.guest == guest), None)

    async def until(self, holds: Callable[[], object], *, seconds: float = 60.0) -> float:
        """Wait until something holds after a round; gives how long that took."""
        clock = asyncio.get_running_loop().time
        start = clock()
        async with asyncio.timeout(patient(seconds)):
            while not holds():
                self._news.clear()
                await self._news.wait()
        return clock() - start

    async def rounds(self, count: int) -> None:
        """Wait for so many more rounds."""
        end = len(self.ticks) + count
        await self.until(lambda: len(self.ticks) >= end, seconds=count * 5 + 60)


@asynccontextmanager
async def watched(
    place: Surroundings,
    config: Config | None = None,
    *,
    guests: Iterable[FakeGuest] = (),
    may_degrade: bool = False,
    dry_run: bool = False,
) -> AsyncIterator[Watched]:
    """Run an agent in this loop, by this loop's clock; at the end all rounds are judged."""
    before = _belongings()
    with new_objects():
        agent = Agent(
            place,
            config or Config(on_stop="keep"),
            [],
            Notifier({}),
            dry_run=dry_run,
        )
        seen = Watched(agent)
        agent._publish = [seen.publish]
        running = asyncio.create_task(agent.run())
        try:
            yield seen
        finally:
            agent.stop()
            async with asyncio.timeout(patient(12)):
                await running
        await asyncio.sleep(0.1)  # what was closed is told so
        gc.collect()
    assert _belongings() == before, "I5"
    assert may_degrade or agent.degraded_at is None, f"I1: {agent.warnings}"
    for tick in seen.ticks:
        judge(tick, agent.config)
    _judge_warnings(seen.ticks)
    for guest in guests:
        assert not guest.mistakes, f"I9, I10: {guest.mistakes}"


def judge(tick: Tick, config: Config) -> None:
    """Hold a round against what must always hold."""
    readings = {reading.id: reading for reading in tick.snapshot.guests}
    for change in tick.plan.balloons:
        reading = readings[change.guest]
        assert reading.maximum is not None, f"I7: {change}"
        limits = config.limits(reading.id, reading.maximum, reading.name, reading.current)
        lowest = min(limits.minimum, reading.actual or limits.minimum)
        assert lowest <= change.target <= reading.maximum, f"I6: {change}"
        assert change.target > 0, f"I6: {change}"
        assert change.reason, f"I8: {change}"
        assert "\n" not in change.reason, f"I8: {change}"
        if reading.actual is None or change.target < reading.actual:
            _judge_shrink(change, reading)


def _judge_shrink(change: SetBalloon, reading: GuestReading) -> None:
    assert reading.actual is not None, f"I7: {change}"
    assert reading.maximum is not None
    assert reading.state == "running", f"I7: {change}"
    assert not reading.implausible, f"I7: {change}"
    assert reading.exempt is None, f"I7: {change}"
    if change.kind == "position" and reading.deflates:
        return  # what it has not touched, or takes back by itself
    assert not behaviour.is_stale(reading), f"I7: {change}"
    step = max(reading.maximum * STEP_PERCENT // 100, reach.STEPS * reach.LEAST_STEP)
    held = reading.actual if reading.cost is None else reading.cost + (reading.swap or 0)
    lowest = min(reading.actual, held + reach.UNTOUCHED) - step
    if change.kind == "position":  # what is free goes at once: nothing is taken from the guest
        lowest = min(lowest, reading.actual - reading.maximum // goals.STRIDE_PART)
    assert change.target >= lowest - MIB, f"I6: {change}"


def _judge_warnings(ticks: Iterable[Tick]) -> None:
    said: dict[str, float] = {}
    for tick in ticks:
        for warning in tick.plan.warnings:
            since = tick.snapshot.time - said.get(warning, float("-inf"))
            assert since >= AGAIN, f"I8: said {since:.0f} s ago: {warning}"
            said[warning] = tick.snapshot.time


def _belongings() -> tuple[list[str], int, int]:
    """Say what this process has: descriptors, tasks, threads that are no worker's."""
    files = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all we want
    workers = [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]
    return files, len(asyncio.all_tasks()), len(workers)
