"""How often guests are asked what they use.

The less a guest can come to need between two reports, the fewer it is asked for: a report costs the
guest and the host some hundred microseconds.
"""

from collections.abc import Mapping
from typing import Final

from qmpmem.actions import HostState

EVERY: Final[Mapping[HostState, float]] = {
    "SLACK": 10.0,
    "BALANCED": 2.0,
    "SOFT": 2.0,
    "HARD": 1.0,
    "CRITICAL": 1.0,
}
"""Seconds between two reports of a guest that has all it may have."""
SQUEEZED: Final = 2.0
"""Likewise at the most of one that has less: it may need more at any time."""
NEW: Final = 1.0
"""Likewise of one that has just started."""
NEW_SECONDS: Final = 15.0
"""Seconds for which a guest has just started."""


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
