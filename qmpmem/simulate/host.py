"""A simulated host: what is left of its memory, what it swaps, and which guests wait for it.

Theory of operation:
    In each step guests take what they want in turn, and each step another one is first. What is
    free can be had at once. Beyond that only what the host can swap out meanwhile can be had, and a
    guest that takes that waits for the disk. Pressure (PSI) is that waiting, so a host without swap
    shows none until it is full, as real ones do. A kernel kills the largest process where reclaim
    has made no progress for `PATIENCE` seconds: where swap is full or missing, and also where it is
    so slow that tasks find no memory in time (Linux: MAX_RECLAIM_RETRIES).

    What is swapped out is mostly what guests do not use; a kernel's idea of that is not perfect.
"""

import math
from collections.abc import Sequence
from typing import Final

from qmpmem.model.observation import HostReading
from qmpmem.simulate.guest import OVERHEAD, STEP, Guest
from qmpmem.simulate.ksm import Ksm
from qmpmem.simulate.memory_supply import MemorySupply
from qmpmem.simulate.spec import GuestSpec, HostSpec
from qmpmem.units import MIB, Bytes

LEAST_FREE: Final = 1 / 200
"""Part of its memory that is free: with less, programs wait, and the kernel swaps (kernel: min
watermark)."""
WINDOW: Final = 10.0
"""Seconds over which PSI's avg10 is averaged."""
PATIENCE: Final = 0.75
"""Seconds without progress after which the kernel kills."""
PROGRESS: Final = 10.0 * MIB
"""Bytes a second: to swap out less is no progress. With 8 MiB/s guests were killed at once where
one of them touched 100 MiB/s, although swap had room."""
MISTAKEN: Final = 0.1
"""The part of what is swapped out that is in use: hardware tells only that a page was used."""

_FADE: Final = 1 - math.exp(-STEP / WINDOW)


class Host:
    """A host that runs guests. Sizes are bytes.

    Attributes:
        swap_in: what it read back from its swap so far.
        swap_out: what it wrote to its swap so far.
        kills: guests that its kernel killed.
        some: percent of time in which some guest waits for memory, over 10 s.
        full: percent of time in which all guests wait for memory, over 10 s.
    """

    def __init__(self, spec: HostSpec, guests: Sequence[GuestSpec]) -> None:
        self.spec = spec
        self._supply = MemorySupply()
        self._supply.most = max(1.0, spec.swap_speed * STEP)
        self.guests = tuple(Guest(each, self._supply) for each in guests)
        self.ksm = Ksm(spec.same) if spec.same else None
        self.swap_in = self.swap_out = 0.0
        self.kills = 0
        self.some = self.full = 0.0
        self._stalled = 0.0
        self._held = 0.0
        self._swapped = 0.0
        self._starved = 0.0
        self._turn = 0
        self._least = spec.memory * LEAST_FREE
        self._own = spec.own.at(0.0)

    @property
    def held(self) -> float:
        """Return what its guests hold, and the processes in which they run."""
        return self._held

    @property
    def merged(self) -> float:
        """Return the part of what its guests hold that is merged, 0 to 1."""
        return 0.0 if self.ksm is None or not self._held else self.ksm.merged / self._held

    def step(self, now: float) -> None:
        """Let `STEP` seconds pass."""
        supply = self._supply
        self._own = self.spec.own.at(now)
        free = self._free()
        disk = self.spec.swap_speed * STEP if self.spec.swap else 0.0
        supply.begin(free - self._least, disk, self.spec.swap - self._swapped)
        self._turn = (self._turn + 1) % max(1, len(self.guests))
        for guest in self.guests[self._turn :]:
            guest.step(now)
        for guest in self.guests[: self._turn]:
            guest.step(now)
        self.swap_in += supply.swap_in
        self._count(now)
        self._reclaim(now)
        self._measure_pressure(now)

    def available(self) -> float:
        """Return what is available without swapping."""
        return max(0.0, self._free_of_all() - self._least)

    def reading(self) -> HostReading:
        """Return what the agent sees of the host."""
        spec, budget = self.spec, self.spec.budget
        return HostReading(
            total=spec.memory,
            available=Bytes(int(self.available())),
            swap_total=Bytes(spec.swap),
            swap_free=Bytes(int(spec.swap - self._swapped)),
            swap_in=Bytes(int(self.swap_in)),
            swap_out=Bytes(int(self.swap_out)),
            cow_ksm=None if self.ksm is None else 0,
            some=self.some,
            full=self.full,
            stalled=int(self._stalled),
            limit=budget,
            headroom=None if budget is None else Bytes(max(0, int(budget - self._held))),
        )

    def _free_of_all(self) -> float:
        merged = 0.0 if self.ksm is None else self.ksm.merged
        return self.spec.memory - self._own - self._held + merged

    def _free(self) -> float:
        free = self._free_of_all()
        budget = self.spec.budget
        return free if budget is None else min(free, budget - self._held + self._least)

    def _count(self, now: float) -> None:
        held = swapped = largest = 0.0
        for guest in self.guests:
            if guest.is_up(now):
                resident = guest.resident
                held += resident + OVERHEAD
                swapped += guest.hosted
                largest = max(largest, resident)
        self._held, self._swapped = held, swapped
        if self.ksm is not None:
            self.ksm.step(STEP, held, largest)

    def _reclaim(self, now: float) -> None:
        """Swap out what is owed, and until enough is free again; kill where that is no progress."""
        supply = self._supply
        lacks = 2 * self._least - self._free() - supply.owed
        more = max(0.0, min(lacks, supply.disk, supply.room))
        is_slow = self._swap_out(supply.owed + more) < PROGRESS * STEP
        if lacks <= 0:
            self._starved = 0.0
            return
        is_stuck = (
            self._free() < 0
            or supply.refused > 0
            or (supply.room <= self._least and any(guest.stalled > 0 for guest in self.guests))
        )
        self._starved = self._starved + STEP if is_slow and is_stuck else 0.0
        if self._starved > PATIENCE:
            self._kill(now)

    def _swap_out(self, amount: float) -> float:
        """Swap out what is cold, and a little of the rest; return how much that was."""
        if amount <= 0:
            return 0.0
        parts = [(guest, guest.cold(), guest.resident - guest.kept) for guest in self.guests]
        cold = sum(each for _, each, _ in parts)
        warm = sum(each for _, _, each in parts)
        if warm <= 0:
            return 0.0
        first = min(amount * (1 - MISTAKEN), cold)
        swapped = 0.0
        for guest, part, rest in parts:
            idle = first * part / cold if cold > 0 else 0.0
            done = min(idle + (amount - first) * rest / warm, rest)
            guest.hosted += done
            swapped += done
        self.swap_out += swapped
        self._held -= swapped
        self._swapped += swapped
        return swapped

    def _kill(self, now: float) -> None:
        """Kill the largest guest, as a kernel does last; its users start it again."""
        up = [guest for guest in self.guests if guest.is_up(now)]
        if up:
            max(up, key=lambda guest: guest.resident + guest.hosted).start_over(now)
            self.kills += 1
            self._count(now)
        self._starved = 0.0

    def _measure_pressure(self, now: float) -> None:
        none, everyone, tasks = 1.0, 1.0, 0
        for guest in self.guests:
            if guest.is_up(now) and not guest.is_paused(now):
                tasks += 1
                none *= 1 - guest.stalled
                everyone = min(everyone, guest.stalled)
        some, full = (1 - none, everyone) if tasks else (0.0, 0.0)
        self.some += (some * 100 - self.some) * _FADE
        self.full += (full * 100 - self.full) * _FADE
        self._stalled += some * STEP * 1e6
