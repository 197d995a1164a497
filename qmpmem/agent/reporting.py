"""How often each guest is asked what it uses.

Rules of this file:
    Pure. The seconds themselves are those of `qmpmem.policy.cadence`.
"""

from typing import Final

from qmpmem.actions import HostState
from qmpmem.policy import cadence
from qmpmem.policy.history import GuestTrend
from qmpmem.sight import GuestSight

BOOTING: Final = 120.0
"""Seconds for which a guest that has not reported twice counts as one that has just started: first
come its firmware and its kernel."""
GROWN_PERCENT: Final = 2
"""Of its size: a guest that costs so much more than at its last report is asked at once. Page cache
costs as well, and only its report tells which it is."""


def every(state: HostState, sight: GuestSight, trend: GuestTrend | None, now: float) -> float:
    """Return the seconds from one report of a guest to the next.

    Args:
        state: how short of memory the host is.
        sight: the guest, as it was seen in the last round.
        trend: what is remembered of it; None: nothing.
        now: when that round was.
    """
    has, most = sight.actual, sight.maximum
    is_squeezed = has is not None and most is not None and has < most
    up = 0.0 if trend is None else now - trend.born
    if trend is not None and trend.reports < 2 and up < BOOTING:  # noqa: PLR2004
        up = 0.0
    return cadence.every(state, squeezed=is_squeezed, up=up)


def has_grown(sight: GuestSight, trend: GuestTrend | None) -> bool:
    """Whether a guest costs the host clearly more than at its last report."""
    counters = None if trend is None else trend.counters
    if counters is None or counters.cost is None or None in (sight.cost, sight.actual):
        return False
    more = (sight.cost or 0) - counters.cost
    return more * 100 > (sight.actual or 0) * GROWN_PERCENT
