"""What a decision costs: `decide()` by itself, on hosts made up, in seconds of CPU.

Theory of operation:
    A round is a second. In each a tenth of the guests has a new report; of the others only time
    passes. What is available stays about the same, so the host stays in its state, and guests do
    as they are told. The least of many rounds counts: a busy machine only adds to it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from qmpmem.model.config import Config
from qmpmem.model.guest import GuestStats
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import HostState, Plan
from qmpmem.policy import History, decide
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.bench.table import AtMost, Figure
from tests.rig.readings import changed

RESERVE: Final = Bytes(8 * GIB)
AVAILABLE: Final[dict[HostState, float]] = {
    "SLACK": 3.0,
    "BALANCED": 2.0,
    "SOFT": 1.1,
    "HARD": 0.6,
}
"""Reserves that are available, in the states that are measured."""
GOALS: Final = {10: 0.5, 200: 2.0, 2200: 20.0}
"""Milliseconds, by the number of guests."""
PART: Final = 10
"""A round brings a new report of one in so many guests."""
SETTLES: Final = 40
"""Rounds until guests have given what a short host takes from them."""
FLICKER: Final = 4 * MIB
"""By which what is available changes from round to round."""


@dataclass(slots=True)
class Deck:
    """A host and its guests, from round to round."""

    random: Random
    state: HostState
    guests: list[GuestReading]
    now: float = 1.0
    round: int = 0

    def step(self, passed: float = 1.0) -> Snapshot:
        """Let so many seconds pass, and say what is seen."""
        self.now += passed
        self.round += 1
        for number, guest in enumerate(self.guests):
            fresh = number % PART == self.round % PART
            self.guests[number] = self._reported(guest) if fresh else _aged(guest, passed)
        flicker = self.random.randrange(FLICKER)
        available = Bytes(int(AVAILABLE[self.state] * RESERVE) + flicker)
        total = Bytes(sum(guest.maximum or 0 for guest in self.guests) // 2 + 2 * RESERVE)
        host = HostReading(total=total, available=available, swap_free=Bytes(64 * GIB))
        return Snapshot(time=self.now, host=host, guests=tuple(self.guests))

    def obey(self, plan: Plan) -> None:
        """Have guests go where they are told."""
        targets = {change.guest: change.target for change in plan.balloons}
        for number, guest in enumerate(self.guests):
            if (target := targets.get(guest.id)) is not None:
                used = (guest.actual or 0) - (guest.stats.available or 0)
                left = Bytes(max(0, target - used))
                costs = min(guest.cost or 0, target)
                self.guests[number] = changed(
                    guest, actual=target, available=left, free=left, cost=costs, rss=costs
                )

    def _reported(self, guest: GuestReading) -> GuestReading:
        more = self.random.randint(-2 * MIB, 2 * MIB)
        available = Bytes(max(0, min((guest.stats.available or 0) + more, guest.actual or 0)))
        return changed(guest, age=0.0, up=(guest.up or 0) + 1, available=available, free=available)


def _aged(guest: GuestReading, passed: float) -> GuestReading:
    age, up = guest.age, guest.up
    return replace(
        guest, age=None if age is None else age + passed, up=None if up is None else up + passed
    )


def deck(count: int, state: HostState, seed: int = 1) -> Deck:
    """Make a host with so many guests, in a state."""
    random = Random(seed)  # noqa: S311 - repeatable on purpose
    return Deck(random, state, [_guest(f"g{number:04}", random) for number in range(count)])


def _guest(name: str, random: Random) -> GuestReading:
    size = Bytes(random.choice((1, 2, 4, 8)) * GIB)
    available = Bytes(int(size * random.uniform(0.2, 0.7)))
    return GuestReading(
        id=name,
        name=name,
        state="running",
        up=1000.0,
        maximum=size,
        actual=size,
        deflates=True,
        rss=Bytes(size - available // 2),
        swap=Bytes(0),
        cost=Bytes(size - available // 2),
        stats=GuestStats(
            available=available,
            free=available,
            total=size,
            disk_caches=Bytes(size // 16),
            swap_in=Bytes(0),
            swap_out=Bytes(0),
            major_faults=0,
        ),
        reads=Bytes(0),
        age=random.uniform(0.0, 9.0),
        every=10.0,
    )


def seconds(of: Deck, rounds: int) -> Iterator[float]:
    """Decide on so many rounds after the guests have settled; the seconds of CPU of each."""
    history, config = History(), Config(reserve=RESERVE, grace=0.0)
    for number in range(SETTLES + rounds):
        snapshot = of.step()
        began = time.process_time()
        plan, history = decide(snapshot, history, config)
        took = time.process_time() - began
        of.obey(plan)
        if number >= SETTLES:
            assert plan.state == of.state, f"{plan.reason}, in round {number}"
            yield took


def measure(rounds: int) -> Iterator[Figure]:
    """Measure so many rounds of quiet and of short hosts, with few guests and with many."""
    for count, most in GOALS.items():
        for state in AVAILABLE:
            yield Figure(
                what=f"decide, {count} guests, {state}",
                unit="ms of CPU",
                ours=1000 * min(seconds(deck(count, state), rounds)),
                goal=AtMost(amount=most),
            )
