"""What Proxmox VE does: guests start at their minimum, then the host is kept at 80 % in use.

Source: Proxmox VE Administration Guide, "Memory"; what its pvestatd, its AutoBalloon and the start
of a guest in its qemu-server do. Written in our own words.
"""

from collections.abc import Sequence
from typing import Final

from qmpmem.model.config import Config
from qmpmem.model.observation import Snapshot
from qmpmem.model.round import Plan
from qmpmem.policy import History
from qmpmem.policy.host import available_of, total_of
from qmpmem.records import replace
from qmpmem.simulate.ksmtuned import Ksmtuned
from qmpmem.simulate.policy_helpers import Movable, Starts, Turns, movable, plan
from qmpmem.units import MIB

PERIOD: Final = 10.0
"""Seconds between two decisions."""
GOAL_PERCENT: Final = 80
"""Percent of the host's memory that shall be in use."""
CHANGE: Final = 100 * MIB
"""Most that one guest changes in one turn."""
LITTLE: Final = 10 * MIB
"""Least distance from the goal that is worth a command."""
FREE_PERCENT: Final = 25
"""Percent of its minimum: a guest with more than that free gives first, one with less gets
first."""


class Proxmox:
    """Start guests at their minimum, then spread what there is by shares; ksmtuned merges."""

    def __init__(self) -> None:
        self._ksm = Ksmtuned()
        self._turns = Turns(PERIOD)
        self._starts = Starts()

    def __call__(
        self, snapshot: Snapshot, history: History, config: Config
    ) -> tuple[Plan, History]:
        """Decide on one round."""
        guests = movable(snapshot, config)
        targets = {guest.id: guest.minimum for guest in self._starts.new(guests)}
        total, available = total_of(snapshot.host), available_of(snapshot.host)
        if self._turns.is_due(snapshot.time) and total is not None and available is not None:
            goal = total * GOAL_PERCENT // 100 - (total - available)
            targets = _towards(goal, guests) | targets
        found = plan(snapshot, targets, "towards 80 % of the host")
        return replace(found, ksm=self._ksm.merging(snapshot)), history


def _towards(goal: int, guests: Sequence[Movable]) -> dict[str, int]:
    """Change the sum of all guests by the goal: first those in need of it, else all of them."""
    if abs(goal) <= LITTLE:
        return {}
    spread = Spread(goal)
    spread.over([guest for guest in guests if _has_free(guest) == (goal < 0)])
    if abs(spread.rest) >= abs(goal):
        spread.over(guests)
    return spread.targets


def _has_free(guest: Movable) -> bool:
    plenty = (guest.free or 0) * 100 > guest.minimum * FREE_PERCENT
    return plenty and guest.actual >= guest.minimum


class Spread:
    """Share a change out: each guest shall have its minimum, and its share of what is beyond.

    Attributes:
        rest: bytes that are still to be found (negative), or to be given.
        targets: what each guest is to have.
    """

    def __init__(self, goal: int) -> None:
        self.rest = goal
        self.targets: dict[str, int] = {}
        self._grows = goal > 0

    def over(self, guests: Sequence[Movable]) -> None:
        """Move guests towards their shares until nothing is left, or no guest can go further."""
        left: Sequence[Movable] = guests
        changed = True
        while self.rest and left and changed:
            beyond = sum(self._now(guest) - guest.minimum for guest in left) + self.rest
            shares = sum(guest.shares for guest in left)
            before = self.rest
            movable: list[Movable] = []
            for guest in left:
                target = self._wanted(guest, beyond / shares)
                if target is not None:
                    movable.append(guest)
                    self.rest -= target - self._now(guest)
                    self.targets[guest.id] = target
            left = movable
            changed = self.rest != before

    def _now(self, guest: Movable) -> int:
        return self.targets.get(guest.id, guest.actual)

    def _wanted(self, guest: Movable, each: float) -> int | None:
        """Return where a guest is to go, at most one step; None: it is where it belongs."""
        share = guest.minimum + int(each * guest.shares)
        share = max(guest.minimum, min(guest.maximum, share))
        if self._grows and share > guest.actual:
            return min(share, guest.actual + CHANGE)
        return max(share, guest.actual - CHANGE) if share < guest.actual else None
