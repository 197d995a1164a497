"""What the rounds left: the last one, the last decisions about each guest, the last warnings.

Rules of this file:
    Everything here is bounded: by `DECISIONS` a guest that lives, by `WARNINGS` and `DURATIONS`.
"""

import asyncio
from collections import deque
from typing import Final

from qmpmem.actions import Explanation, Tick
from qmpmem.control.records import DECISIONS, Decision

WARNINGS: Final = 20
DURATIONS: Final = 120
"""Rounds whose length is kept: two minutes of quiet ones."""


class Rounds:
    """Is told of each round, and wakes who waits for one."""

    def __init__(self) -> None:
        self.last: Tick | None = None
        self.warnings: deque[str] = deque(maxlen=WARNINGS)
        self._durations: deque[float] = deque(maxlen=DURATIONS)
        self._decisions: dict[str, list[Decision]] = {}
        self._next = asyncio.Event()

    def publish(self, tick: Tick) -> None:
        """Take in one round."""
        self.last = tick
        self.warnings.extend(tick.plan.warnings)
        if tick.seconds is not None:
            self._durations.append(tick.seconds)
        told = {change.guest for change in tick.plan.balloons}
        for explanation in tick.plan.guests:
            self._note(tick, explanation, told=explanation.guest in told)
        present = {explanation.guest for explanation in tick.plan.guests}
        for gone in self._decisions.keys() - present:
            del self._decisions[gone]
        over, self._next = self._next, asyncio.Event()
        over.set()

    async def next(self) -> Tick:
        """Wait for the round after this."""
        await self._next.wait()
        if self.last is None:
            raise RuntimeError("woken without a round")
        return self.last

    def within(self, percent: int) -> float | None:
        """Say within how many seconds so many percent of the last rounds were done."""
        durations = sorted(self._durations)
        return durations[(len(durations) - 1) * percent // 100] if durations else None

    def decisions(self, guest: str) -> tuple[Decision, ...]:
        """Give the last decisions about a guest, oldest first."""
        return tuple(self._decisions.get(guest, ()))

    def _note(self, tick: Tick, explanation: Explanation, *, told: bool) -> None:
        """Keep what is a decision: the guest was told something, or is judged otherwise."""
        kept = self._decisions.setdefault(explanation.guest, [])
        before = kept[-1].explanation if kept else None
        if told or before is None or before.verdict != explanation.verdict:
            kept.append(
                Decision(
                    time=tick.snapshot.wall or 0.0,
                    number=tick.number,
                    state=tick.plan.state,
                    explanation=explanation,
                )
            )
            del kept[:-DECISIONS]
