"""How often guests are asked what they use.

A guest that can come to need little between two reports is asked for few of them: a report costs
the guest and the host some hundred microseconds.
"""

from collections.abc import Mapping
from typing import Final

from qmpmem.model.observation import GuestReading
from qmpmem.model.round import HostState
from qmpmem.policy.state import GuestTrend

EVERY: Final[Mapping[HostState, float]] = {
    "SLACK": 10.0,
    "BALANCED": 2.0,
    "SOFT": 2.0,
    "HARD": 1.0,
    "CRITICAL": 1.0,
}
"""Seconds between two reports of a guest that has all it may have."""
SQUEEZED: Final = 2.0
"""Most seconds between two reports of a guest that has less than it may have: it may need more at
any time."""
NEW: Final = 1.0
"""Seconds between two reports of a guest that has just started."""
NEW_SECONDS: Final = 15.0
"""Seconds for which a guest counts as one that has just started."""
HURRY: Final = 1.0
"""Seconds between two reports that are asked for at once."""
GROWN_PERCENT: Final = 2
"""Percent of its size: a guest that costs the host so much more than at its last report is asked at
once. Page cache costs the host as well, and only a report tells which it is."""


def every(state: HostState, *, squeezed: bool, up: float) -> float:
    """Return the seconds from one report of a guest to the next.

    Args:
        state: how short of memory the host is.
        squeezed: the guest has less than it may have.
        up: seconds since the guest was first seen, or was reset.
    """
    if up < NEW_SECONDS:
        return NEW
    return min(EVERY[state], SQUEEZED) if squeezed else EVERY[state]


def has_grown(reading: GuestReading, trend: GuestTrend | None) -> bool:
    """Return whether a guest costs the host clearly more than at its last report."""
    counters = None if trend is None else trend.counters
    if counters is None or counters.cost is None or None in (reading.cost, reading.actual):
        return False
    more = (reading.cost or 0) - counters.cost
    return more * 100 > (reading.actual or 0) * GROWN_PERCENT
