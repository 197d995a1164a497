"""What oVirt's Memory Overcommitment Manager does: all shrink below 20 % free, all grow above.

It takes free memory alone as unused, so page cache counts as in use.

Source: the documentation of MOM and the constants at the head of its balloon rules. Written in our
own words.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from qmpmem.model.config import Config
from qmpmem.model.observation import Snapshot
from qmpmem.model.round import Plan
from qmpmem.policy import History
from qmpmem.policy.host import available_of, total_of
from qmpmem.records import replace
from qmpmem.simulate.ksmtuned import Ksmtuned
from qmpmem.simulate.policy_helpers import Movable, Turns, movable, plan

PERIOD: Final = 10.0
"""Seconds from one decision to the next (policy-manager-interval)."""
SAMPLE: Final = 5.0
"""Seconds from one sample to the next (host-monitor-interval)."""
SAMPLES: Final = 10
"""Samples over which it averages (sample-history-length)."""
PRESSURE: Final = 0.20
"""Part of the host that is free: with less, every guest shrinks."""
PRESSED: Final = 0.05
"""Part of the host that is free: with less, guests are made to swap."""
GUEST_FREE: Final = 0.20
"""Part of a guest that is left free, where the host is just at `PRESSURE`; less below."""
CHANGE: Final = 0.05
"""Part of its size by which a guest shrinks at most, or grows at least."""
LEAST: Final = 0.0025
"""Part of its size: a smaller change is not worth a command."""


class Mean:
    """The average of the last samples."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def add(self, sample: float) -> None:
        """Take in one more sample."""
        self._samples.append(sample)

    @property
    def value(self) -> float:
        """Return the average; there must be a sample."""
        return sum(self._samples) / len(self._samples)


class Mom:
    """Shrink all guests while the host is short, else let all grow; merge as ksmtuned does."""

    def __init__(self) -> None:
        self._ksm = Ksmtuned(PERIOD)
        self._turns, self._sampling = Turns(PERIOD), Turns(SAMPLE)
        self._free = Mean()
        self._used: dict[str, Mean] = {}

    def __call__(
        self, snapshot: Snapshot, history: History, config: Config
    ) -> tuple[Plan, History]:
        """Decide on one round."""
        total, available = total_of(snapshot.host), available_of(snapshot.host)
        if total is None or available is None:
            return Plan(), history
        guests = movable(snapshot, config)
        if self._sampling.is_due(snapshot.time):
            self._free.add(available / total)
            self._sample(guests)
        merging = self._ksm.merging(snapshot)
        if not self._turns.is_due(snapshot.time):
            return Plan(ksm=merging), history
        free = self._free.value
        targets = {
            guest.id: _target(guest, free, self._used[guest.id].value)
            for guest in guests
            if guest.id in self._used
        }
        found = plan(snapshot, targets, "below 20 % free all shrink, above all grow")
        return replace(found, ksm=merging), history

    def _sample(self, guests: Sequence[Movable]) -> None:
        for guest in guests:
            if guest.free is not None:
                used = guest.actual - guest.free
                self._used.setdefault(guest.id, Mean()).add(used)


def _target(guest: Movable, free: float, used: float) -> float:
    if free < PRESSURE:
        part = free - PRESSED if free <= PRESSED else GUEST_FREE * free / PRESSURE
        wanted = max(guest.actual * (1 - CHANGE), used + part * guest.actual)
        wanted = min(guest.actual, max(guest.minimum, wanted))
    else:
        wanted = max(guest.actual * (1 + CHANGE), used + GUEST_FREE * guest.maximum)
        wanted = min(guest.maximum, wanted)
    return wanted if abs(wanted - guest.actual) > LEAST * guest.actual else guest.actual
