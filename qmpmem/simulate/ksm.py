"""Merging on a simulated host: how much is the same, and how fast ksmd finds it."""

from collections.abc import Mapping
from typing import Final

from qmpmem.model.ksm import KsmState
from qmpmem.units import PAGE, Bytes

LOOK: Final = 2e-6
"""Seconds that ksmd takes for a page."""
ITEM: Final = 64
"""Bytes that the kernel needs for each page that it looks at (kernel: admin-guide/mm/ksm)."""


class Ksm:
    """The kernel's merging.

    Args:
        same: the part of what guests touched that is the same in all of them.

    Attributes:
        merged: bytes that are saved.
        worked: seconds that ksmd ran.
    """

    def __init__(self, same: float) -> None:
        self.merged = 0.0
        self.worked = 0.0
        self._same = same
        self._scans = 0.0
        self._knobs = {"run": 0, "pages_to_scan": 100, "sleep_millisecs": 20}

    def step(self, seconds: float, touched: float, largest: float) -> None:
        """Merge for a while.

        Args:
            seconds: how long.
            touched: bytes that all guests together hold.
            largest: bytes that the largest of them holds: one copy has to stay.
        """
        most = self._same * (touched - largest)
        self.merged = min(self.merged, max(0.0, most))  # freed or changed pages are not merged
        if self._knobs["run"] != 1 or touched <= 0:
            return
        pages = self._knobs["pages_to_scan"]
        turn = self._knobs["sleep_millisecs"] / 1000 + pages * LOOK
        scanned = pages * PAGE * seconds / turn
        self.worked += pages * LOOK * seconds / turn
        self._scans += scanned / touched
        self.merged = min(most, self.merged + scanned * self._same)

    def set(self, changes: Mapping[str, str]) -> None:
        """Write to the files of KSM; those that this kernel does not have are ignored."""
        self._knobs.update(
            {name: int(value) for name, value in changes.items() if name in self._knobs}
        )

    def state(self, touched: float) -> KsmState:
        """Read the kernel's files."""
        sharing = int(self.merged) // PAGE
        looked_at = int(touched) // PAGE if self._scans >= 1 else 0
        return KsmState(
            page_size=PAGE,
            run=self._knobs["run"],
            pages_to_scan=self._knobs["pages_to_scan"],
            sleep_millisecs=self._knobs["sleep_millisecs"],
            pages_shared=sharing // 2,
            pages_sharing=sharing,
            pages_unshared=max(0, looked_at - sharing),
            pages_volatile=0,
            full_scans=int(self._scans),
            general_profit=Bytes(sharing * PAGE - looked_at * ITEM),
        )
