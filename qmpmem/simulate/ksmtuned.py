"""What ksmtuned does: balloons stay as they are, and merging depends on how much memory is free.

Proxmox VE runs it as it is; MOM has the same rules and numbers of its own.

Source: the defaults in its configuration file.
"""

from typing import Final

from qmpmem.model.config import Config
from qmpmem.model.observation import Snapshot
from qmpmem.model.round import Plan, SetKsm
from qmpmem.policy import History
from qmpmem.simulate.policy_helpers import Turns
from qmpmem.units import MIB, Bytes

PERIOD: Final = 60.0
"""Seconds between two decisions (KSM_MONITOR_INTERVAL)."""
FREE_PERCENT: Final = 20
FREE: Final = Bytes(2048 * MIB)
BOOST: Final = 300
DECAY: Final = 50
LEAST: Final = 64
MOST: Final = 1250
SLEEP: Final = 10
"""Milliseconds between two batches on a host of 16 GiB; on a larger one less, but not below
this."""
SCALE: Final = Bytes(16 * 1024 * MIB)


class Ksmtuned:
    """Let ksmd work harder while little is free, less afterwards, and not at all where all fits.

    Args:
        period: seconds between two decisions.
    """

    def __init__(self, period: float = PERIOD) -> None:
        self._turns = Turns(period)

    def __call__(self, snapshot: Snapshot, history: History, _: Config) -> tuple[Plan, History]:
        """Decide on one round."""
        return Plan(ksm=self.merging(snapshot)), history

    def merging(self, snapshot: Snapshot) -> SetKsm | None:
        """Return what is written to the kernel's files in this round."""
        total, available, seen = snapshot.host.total, snapshot.host.available, snapshot.ksm
        due = self._turns.is_due(snapshot.time)
        if not due or total is None or available is None or seen is None:
            return None
        enough = max(total * FREE_PERCENT // 100, FREE)
        committed = sum(guest.maximum or 0 for guest in snapshot.guests)
        if committed + enough <= total:
            return SetKsm(changes={"run": "0"}, reason="all fits")
        change = BOOST if available < enough else -DECAY
        pages = max(LEAST, min(MOST, (seen.pages_to_scan or 0) + change))
        sleep = max(SLEEP, SLEEP * SCALE // total)
        changes = {"run": "1", "pages_to_scan": str(pages), "sleep_millisecs": str(sleep)}
        return SetKsm(changes=changes, reason="by what is free")
