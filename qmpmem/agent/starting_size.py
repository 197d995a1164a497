"""The size with which a rule has a guest start, where its launcher was asked for none.

Theory of operation:
    The launcher does not read the agent's configuration, which would take as long as the rest of a
    launch. It makes a guest's directory before QEMU starts. So a running agent sees the guest
    before its kernel is up, and tells QEMU what the launcher would have told it.

Rules of this file:
    Only a guest that has just started, and whose balloon's driver has not reported yet, has not
    begun to use its memory. The policy decides about any other.
"""

import os
import time
from typing import Final

from qmpmem.guests.rundir import GuestRecord
from qmpmem.model.config import Config
from qmpmem.model.observation import GuestReading
from qmpmem.units import Bytes

JUST: Final = 60.0
"""Seconds after its start for which a guest has just started: an agent that restarts is up again by
then, and so is a QEMU on a loaded host."""
STATES: Final = frozenset({"running", "prelaunch", "paused"})
"""Run states in which a guest may be told a size: in the others its state is still to be loaded."""


def current(
    record: GuestRecord, reading: GuestReading, config: Config, age: float | None = None
) -> Bytes | None:
    """Return the size to tell a guest as it starts; None: there is nothing to tell it.

    Args:
        record: what its launcher wrote.
        reading: what was first seen of it.
        config: the configuration, with the rule for it.
        age: seconds since it was started; None: by its record.
    """
    if record.origin != "launcher" or record.arriving or record.current is not None:
        return None
    if reading.maximum is None or reading.actual != reading.maximum or reading.beyond:
        return None
    has_begun = reading.stats.available is not None or reading.state not in STATES
    if has_begun or not reading.deflates or reading.exempt is not None:
        return None
    limits = config.limits(record.id, reading.maximum, record.name)
    if limits.current is None or limits.current >= reading.maximum or not limits.managed:
        return None
    age = up(record) if age is None else age
    is_new = reading.state == "prelaunch" or (age is not None and age < JUST)
    return limits.current if is_new else None


def up(record: GuestRecord) -> float | None:
    """Return the seconds since a guest's QEMU started; None: it is not known.

    Source: proc(5), starttime counts from boot.
    """
    if not record.start_time:
        return None
    started = record.start_time / os.sysconf("SC_CLK_TCK")
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    return max(0.0, seconds) if seconds > -1 else None  # else another clock, of a time namespace
