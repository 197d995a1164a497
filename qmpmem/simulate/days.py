"""What a simulated agent remembers of the days before. A world sets how long its days are."""

from qmpmem.model.observation import Habit, Snapshot
from qmpmem.model.round import Tick
from qmpmem.policy import habits
from qmpmem.policy.habits import HOURS, Hours, Use
from qmpmem.records import replace


class Days:
    """Learns what guests usually use, as the agent does with its journal.

    Args:
        day: seconds of a day. The run begins at a midnight.
    """

    def __init__(self, day: float) -> None:
        self._hour = day / HOURS
        self._running = Hours(self._hour)
        self._uses: dict[str, list[Use]] = {}
        self._known: dict[str, Habit | None] = {}
        self._hours: tuple[int, ...] = ()

    def add(self, tick: Tick) -> None:
        """Learn from a round."""
        for use in self._running.add(tick, tick.snapshot.time):
            self._uses.setdefault(use.guest, []).append(use)

    def remind(self, seen: Snapshot) -> Snapshot:
        """Return what is seen, with what is known of guests' habits."""
        hours = habits.hours(seen.time, self._hour)
        if hours != self._hours:
            self._hours, self._known = hours, {}
        guests = tuple(
            replace(reading, habit=self._habit(reading.id, seen.time)) for reading in seen.guests
        )
        return replace(seen, guests=guests)

    def _habit(self, guest: str, now: float) -> Habit | None:
        if guest not in self._known:
            self._known[guest] = habits.habit(self._uses.get(guest, ()), now, self._hour)
        return self._known[guest]
