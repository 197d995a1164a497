"""What a guest usually uses at this hour of the day, learned from the days before. Pure.

Theory of operation:
    Every round tells what each guest uses. An hour of that is one `Use`, which the journal keeps
    for two weeks. The uses of one guest at one hour are its `Habit`. Days are those of local time,
    as people and their jobs keep them: where the clock is put forward or back, an hour has what the
    same hour had on other days.

    A guest is known by its id, which is the same at its next start.

    What was learned under another maximum is dropped, and not scaled: a guest of another size
    mostly has other work, and one that filled a smaller size would have used more.

Rules of this file:
    Uses come from a file: any of them may be wrong, and is then ignored.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from qmpmem.model.observation import GuestReading, Habit
from qmpmem.model.round import Explanation, Tick, Verdict
from qmpmem.records import Record
from qmpmem.units import Bytes

HOUR: Final = 3600.0
"""Seconds of an hour."""
HOURS: Final = 24
"""Hours of a day."""
MINUTES: Final = 60
"""Minutes of an hour."""
DAYS: Final = 14
"""Days for which it is kept what guests used: two of each weekday, one of which may be a
holiday."""
LEAST_MINUTES: Final = 10
"""Least minutes of an hour in which a guest must run: with less, nothing is learned of that
hour."""
LEAD_PART: Final = 12
"""Divisor of an hour that gives 5 minutes: the next hour counts as well for so long before it, and
for so long a guest counts as one that has just started."""
USUAL_PERCENT: Final = 90
"""Percent of the minutes of an hour in which a guest used its `usual` size or less."""
STARTS: Final = 5
"""Last starts of a guest that count for what it uses at a start."""
CHANGED_PART: Final = 8
"""Divisor of a guest's maximum: where two maxima differ by more, what was learned does not hold."""
LARGEST: Final = 2**60
"""Bytes: a size in the file that is larger is wrong."""
LATEST: Final = 2.0**40
"""Seconds since 1970: a clock that shows more is wrong."""

NOTHING: Final = (None, None, 0)
"""`usual`, `peak` and `days` of the `Habit` at an hour of which nothing is known."""
VOID: Final[frozenset[Verdict]] = frozenset({"implausible", "frozen"})
"""Verdicts of guests whose use is not learned."""


class Use(Record, frozen=True):
    """What a guest used in one hour of one day."""

    guest: str
    """Its id."""
    day: int
    """Days since 1970, of local time."""
    hour: int
    """Hour of the day, 0 to 23, of local time."""
    usual: Bytes
    """The most that it used in nine minutes of ten."""
    peak: Bytes
    """The most that it used."""
    start: Bytes | None
    """The most that it used right after its QEMU started; None: it did not start in this hour."""
    maximum: Bytes
    """The most that it could have."""
    minutes: int
    """Minutes of the hour of which its use is known."""


class Hours:
    """Adds up what guests use, round by round, until an hour is over.

    Args:
        hour: seconds of an hour; the simulator's days may be shorter.
    """

    def __init__(self, hour: float = HOUR) -> None:
        self._hour = hour
        self._running: dict[str, _Running] = {}

    def add(self, tick: Tick, local: float) -> list[Use]:
        """Add a round, and return the hours that ended.

        Args:
            tick: the round.
            local: seconds of local time since 1970.
        """
        if not 0 <= local < LATEST:
            return []
        minute = int(local // (self._hour / MINUTES))
        ended = self._end(minute // MINUTES)
        readings = {reading.id: reading for reading in tick.snapshot.guests}
        for said in tick.plan.guests:
            reading = readings.get(said.guest)
            if reading is None or reading.maximum is None or not _is_said(said):
                continue
            running = self._running.get(said.guest)
            if running is None:
                running = self._running[said.guest] = _Running(minute // MINUTES)
            running.add(minute, said.used or 0, reading, self._hour / LEAD_PART)
        return ended

    def end(self) -> list[Use]:
        """Return what is known of the hours that have not ended yet."""
        return self._end(None)

    def _end(self, hour: int | None) -> list[Use]:
        over = [guest for guest, running in self._running.items() if running.hour != hour]
        return [self._running.pop(guest).use(guest) for guest in over]


class _Running:
    """An hour of a guest that has not ended."""

    def __init__(self, hour: int) -> None:
        self.hour = hour
        self._minutes: dict[int, int] = {}
        self._start: Bytes | None = None
        self._maximum = 0

    def add(self, minute: int, used: int, reading: GuestReading, start: float) -> None:
        self._minutes[minute] = max(self._minutes.get(minute, 0), used)
        self._maximum = max(self._maximum, reading.maximum or 0)
        if reading.began == "seen" and reading.up is not None and reading.up < start:
            self._start = Bytes(max(self._start or 0, used))

    def use(self, guest: str) -> Use:
        used = sorted(self._minutes.values())
        return Use(
            guest=guest,
            day=self.hour // HOURS,
            hour=self.hour % HOURS,
            usual=Bytes(used[(len(used) - 1) * USUAL_PERCENT // 100]),
            peak=Bytes(used[-1]),
            start=self._start,
            maximum=Bytes(self._maximum),
            minutes=len(used),
        )


def hours(local: float, hour: float = HOUR) -> tuple[int, ...]:
    """Return the hours since 1970 that count now: this one and, shortly before it, the next one."""
    first, last = int(local // hour), int((local + hour / LEAD_PART) // hour)
    return (first,) if first == last else (first, last)


def habit(uses: Iterable[Use], local: float, hour: float = HOUR) -> Habit | None:
    """Return what a guest usually uses now, or None where nothing is known that still holds.

    Args:
        uses: what it used, in any order.
        local: seconds of local time since 1970.
        hour: seconds of an hour.
    """
    now = hours(local, hour)
    known = sorted(
        (use for use in uses if _is_sound(use) and 0 < now[0] - _number(use) <= DAYS * HOURS),
        key=_number,
    )
    if not known:
        return None
    maximum = known[-1].maximum
    known = [use for use in known if is_same(use.maximum, maximum)]
    found = [each for each in (_at(known, number % HOURS) for number in now) if each]
    usual, peak, days = (max(each) for each in zip(*found, strict=True)) if found else NOTHING
    starts = [use.start for use in known if use.start is not None][-STARTS:]
    start = _middle(starts) if starts else None
    if usual is None and start is None:
        return None
    return Habit(usual=usual, peak=peak, start=start, maximum=maximum, days=days)


def is_same(maximum: int, other: int) -> bool:
    """Tell whether two maxima are so alike that what was learned under one holds for the other."""
    return abs(maximum - other) * CHANGED_PART <= other


def _at(uses: Sequence[Use], hour: int) -> tuple[Bytes, Bytes, int] | None:
    """Return the usual use and the most at an hour of the day, and the number of days known."""
    found = [use for use in uses if use.hour == hour and use.minutes >= LEAST_MINUTES]
    if not found:
        return None
    usual = _middle([use.usual for use in found])
    return usual, max(use.peak for use in found), len(found)


def _middle(sizes: Sequence[Bytes]) -> Bytes:
    return sorted(sizes)[len(sizes) // 2]


def _number(use: Use) -> int:
    return use.day * HOURS + use.hour


def _is_said(said: Explanation) -> bool:
    return said.used is not None and said.verdict not in VOID


def _is_sound(use: Use) -> bool:
    sized = 0 <= use.usual <= use.peak <= use.maximum < LARGEST
    starts = use.start is None or 0 <= use.start <= use.peak
    return sized and starts and 0 <= use.hour < HOURS and 0 < use.minutes <= MINUTES
