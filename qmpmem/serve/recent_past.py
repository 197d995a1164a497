"""What the page remembers of the last minutes: what each guest used, and what was decided. Pure."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from qmpmem.feed.records import Round
from qmpmem.records import Record
from qmpmem.serve.host_page import HostPage
from qmpmem.units import Bytes

MINUTES: Final = 10
STEP: Final = 15.0
"""Seconds from one point to the next."""
POINTS: Final = int(MINUTES * 60 / STEP)
DECISIONS: Final = 200


class Decision(Record, frozen=True):
    """A decision: a guest was told to go to a size."""

    wall: float
    guest: str
    name: str
    state: str
    """The host's state."""
    before: Bytes | None
    target: Bytes
    reason: str


class RecentPast:
    """Follows rounds. Everything here is bounded: by `POINTS` a guest, and by `DECISIONS`."""

    def __init__(self) -> None:
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS)
        self.used: dict[str, deque[float | None]] = {}
        """By guest: which part of its maximum the guest used."""
        self._next = float("-inf")

    def needs(self, seen: Round) -> bool:
        """Tell whether a round adds anything."""
        decides = seen.plan is not None and bool(seen.plan.balloons)
        return decides or not self._next - STEP <= seen.wall < self._next

    def come_after(self, older: "RecentPast") -> None:
        """Put what another trail remembers of the time before this one's to the front."""
        first = self.decisions[0].wall if self.decisions else float("inf")
        before = (each for each in older.decisions if each.wall < first)
        self.decisions = deque((*before, *self.decisions), maxlen=DECISIONS)
        for guest, points in older.used.items():
            known = self.used.get(guest, ())
            self.used[guest] = deque((*points, *known), maxlen=POINTS)

    def follow(self, seen: Round, shown: HostPage) -> None:
        """Take in one round."""
        if seen.plan is not None and not seen.dry_run:
            told = {each.guest: each for each in seen.plan.guests}
            for change in seen.plan.balloons:
                known, row = told.get(change.guest), shown.rows.get(change.guest)
                self.decisions.append(
                    Decision(
                        wall=seen.wall,
                        guest=change.guest,
                        name=change.guest if row is None else row.name,
                        state=seen.plan.state,
                        before=None if known is None else known.actual,
                        target=change.target,
                        reason=change.reason,
                    )
                )
        if not self._next - STEP <= seen.wall < self._next:  # also where the clock was set back
            self._next = seen.wall + STEP
            self._add(shown)

    def points(self, guest: str) -> Sequence[float | None]:
        """Return which part of its maximum a guest used, oldest first; None: not known then."""
        return tuple(self.used.get(guest, ()))

    def _add(self, shown: HostPage) -> None:
        for gone in self.used.keys() - shown.rows.keys():
            del self.used[gone]
        for guest, row in shown.rows.items():
            points = self.used.setdefault(guest, deque(maxlen=POINTS))
            known = None if row.used is None or not row.maximum else row.used / row.maximum
            points.append(known)
