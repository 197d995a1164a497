"""When a guest begins anew, and when it only goes on.

Theory of operation:
    After a reset the guest's memory, counters and balloon are others, and QEMU still shows the old
    size (hw/virtio/virtio-balloon.c keeps `num_pages` and `actual`). After a pause, a suspend or a
    failed migration its memory is as it was. Only the time over which its counters ran is not
    known, so the last report is void and the next one is compared with none before it.

    When a snapshot is loaded, QEMU sends the same events as for a pause (QEMU: load_snapshot resets
    the machine without the event RESET). Counters of the guest's kernel that are lower after a
    pause than before tell that its memory is another. A guest gains nothing by such a lie: it
    cannot pause itself, and could reset itself to the same effect.

Rules of this file:
    Pure.
"""

from typing import Final

from qmpmem.model.guest import GuestStats
from qmpmem.model.observation import Beginning

RESETS: Final = frozenset({"RESET"})
"""Events after which nothing that was known of a guest holds."""
RESUMES: Final = frozenset({"RESUME", "WAKEUP"})
"""Events after which a guest goes on with the memory that it had."""
ARRIVALS: Final = frozenset({"inmigrate", "restore-vm", "prelaunch", "preconfig", "colo"})
"""Run states that a guest leaves with memory that was not here before (qapi: RunState). It leaves
the others, such as ``postmigrate`` and ``save-vm``, as it entered them."""

_COUNTERS: Final = ("minor_faults", "major_faults", "swap_in", "swap_out")


def arrives(before: str, state: str) -> bool:
    """Tell whether a guest that goes from one run state to another begins anew.

    Args:
        before: the run state that was seen last; also our own words where there is no session.
        state: the run state now.
    """
    return before in ARRIVALS and state not in ARRIVALS


def went_back(before: GuestStats | None, after: GuestStats | None) -> bool:
    """Tell whether a counter of the guest's kernel is lower than it was."""
    if before is None or after is None:
        return False
    pairs = ((getattr(before, name), getattr(after, name)) for name in _COUNTERS)
    return any(old is not None and new is not None and new < old for old, new in pairs)


def beginning(state: str) -> Beginning:
    """Return how a guest began that leaves one of `ARRIVALS`."""
    return "seen" if state in ("prelaunch", "preconfig") else "arrived"
