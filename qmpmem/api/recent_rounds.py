"""What the rounds left: the last one, the last decisions about each guest.

And the last events of all guests, for the clients that follow them.

Rules of this file:
    Everything here is bounded: by `DECISIONS` a guest that lives, by `DURATIONS` and `EVENTS`,
    however many clients there are and however slowly they read.
"""

import asyncio
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Final

from qmpmem.api.records import DECISIONS, Decision
from qmpmem.model.guest import GuestEvent
from qmpmem.model.round import Explanation, Tick
from qmpmem.records import replace
from qmpmem.wire.events import Event

DURATIONS: Final = 120
"""Rounds whose length is kept: two minutes of quiet ones."""

EVENTS: Final = 1024
"""Events that are kept for slow clients: 2000 guests that are paused together make 2000, and a
client that reads at all takes some thousand in a second. Most have some 200 bytes."""


class RecentEvents:
    """Keeps the last events of all guests; each client counts how many it has read.

    Attributes:
        count: how many events there have been.
        followers: how many clients follow them now.
    """

    def __init__(self) -> None:
        self.count = 0
        self.followers = 0
        self._kept: deque[GuestEvent] = deque(maxlen=EVENTS)
        self._next = asyncio.Event()

    def publish(self, guest: str, event: Event, name: str | None = None) -> None:
        """Keep an event, and wake the clients that wait for one."""
        when = time.time() if event.when is None else event.when
        self._kept.append(
            GuestEvent(id=guest, name=name, event=event.name, data=event.data, time=when)
        )
        self.count += 1
        over, self._next = self._next, asyncio.Event()
        over.set()

    @contextmanager
    def followed(self) -> Generator[None]:
        """Count a client as long as the context lasts."""
        self.followers += 1
        try:
            yield
        finally:
            self.followers -= 1

    async def after(self, place: int, seconds: float) -> None:
        """Wait until there have been more events than `place`, for so long at most."""
        if self.count == place:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._next.wait()

    def since(self, place: int, guest: str | None = None) -> list[GuestEvent]:
        """Return the events that a client has not read; the first says how many it missed.

        Args:
            place: the count when the client last read.
            guest: the id of the one that it follows; None: all of them.
        """
        first = self.count - len(self._kept)
        new = islice(self._kept, max(0, place - first), None)
        found = [event for event in new if guest in (None, event.id)]
        if found and place < first:
            found[0] = replace(found[0], dropped=first - place)
        return found


class RecentRounds:
    """The last rounds; each new one wakes the questions that wait for it."""

    def __init__(self) -> None:
        self.last: Tick | None = None
        self._durations: deque[float] = deque(maxlen=DURATIONS)
        self._decisions: dict[str, list[Decision]] = {}
        self._next = asyncio.Event()

    def publish(self, tick: Tick) -> None:
        """Take in one round."""
        self.last = tick
        if tick.seconds is not None:
            self._durations.append(tick.seconds)
        told = {change.guest for change in tick.plan.balloons}
        told |= {step.guest for step in tick.plan.reclaims}
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
        """Return within how many seconds so many percent of the last rounds were done."""
        durations = sorted(self._durations)
        return durations[(len(durations) - 1) * percent // 100] if durations else None

    def decisions(self, guest: str) -> tuple[Decision, ...]:
        """Return the last decisions about a guest, oldest first."""
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
