"""How often each guest is asked what it uses.

Rules of this file:
    Pure. The seconds themselves are those of `qmpmem.policy.cadence`.
"""

from typing import Final

from qmpmem.model.observation import GuestReading
from qmpmem.model.round import HostState
from qmpmem.policy import cadence
from qmpmem.policy.state import GuestTrend

BOOTING: Final = 120.0
"""Seconds for which a guest that has not reported twice counts as one that has just started: its
firmware and its kernel start first."""


def every(state: HostState, reading: GuestReading, trend: GuestTrend | None, now: float) -> float:
    """Return the seconds from one report of a guest to the next.

    Args:
        state: how short of memory the host is.
        reading: the guest, as it was seen in the last round.
        trend: what is remembered of it; None: nothing is.
        now: when that round was.
    """
    has, most = reading.actual, reading.maximum
    is_squeezed = has is not None and most is not None and has < most
    up = 0.0 if trend is None else now - trend.born
    if trend is not None and trend.reports < 2 and up < BOOTING:  # noqa: PLR2004
        up = 0.0
    return cadence.every(state, squeezed=is_squeezed, up=up)
