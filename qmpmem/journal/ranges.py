"""A time of the past as a series of points, from those rows of the journal that are fine enough.

Theory of operation:
    A short time is read from the rounds, a day from minutes, a month from hours. Where the finer
    rows do not reach back so far, coarser ones are read. What is in no hour yet is read from the
    minutes, and what is in no minute yet from the rounds, so that the last point is of now. Nothing
    counts twice: rows tell up to where they go.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from qmpmem.errors import ConfigError, KernelError
from qmpmem.journal.aggregate import fold, regroup, span
from qmpmem.journal.coarse_series import DAY, HOUR, MINUTE, Range
from qmpmem.journal.points import Choice, Row, Series, every_guest, no_guest, of_guest, of_host
from qmpmem.journal.reader import Entry, Reader
from qmpmem.model.names import label, pick
from qmpmem.records import replace

POINTS: Final = 400
"""Most points: a screen does not show more."""
STEPS: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(MINUTE * each for each in (1, 2, 5, 10, 15, 30)),
    *(HOUR * each for each in (1, 2, 3, 6, 12, 24)),
)
"""Lengths that a point may have, in seconds."""
OF_ROUNDS: Final = 2 * HOUR
"""Most seconds that are read from rounds."""
DEAR: Final = 100_000
"""Most seconds times guests that are read from rounds: to read more takes more than two seconds."""
OF_MINUTES: Final = 3 * DAY
"""Most seconds that are read from minutes."""
KINDS: Final = (None, MINUTE, HOUR)
"""Seconds of a row of each kind, the finest first; None: a round."""
MOMENT: Final = 1e-3
"""Seconds that are less than the time between two rounds."""
MEANT: Final = 100
"""Most guests of one name."""
ROWS: Final = 50_000
"""Most rows that a plot is made of, each with those guests that are meant: some 700 bytes each. The
most that are shown of one guest are the minutes of three days, 4320, or the hours of a month."""
NAMED: Final = 20
"""Most guests that are named where one is not found."""
KNOWN: Final = 1000
"""Guests of which these are."""


def read(
    reader: Reader, word: str | None, begin: float, end: float, points: int = POINTS
) -> Series:
    """Read what is known of a guest, or of the host, over some time.

    Args:
        reader: the journal.
        word: the guest's id or name; None: the host.
        begin: seconds since 1970.
        end: seconds since 1970.
        points: how many points there may be.

    Returns:
        The series. A guest that was there only at another time has no points.

    Raises:
        ConfigError: there is no such guest in this time, or the word is the name of several.
        KernelError: the journal cannot be read, or is damaged.
    """
    with reader.at_once():
        return _read(reader, word, (begin, end), points)


def reach(reader: Reader) -> tuple[float, float] | None:
    """Return the first and last time of which anything is known; None: nothing is known."""
    begins = [reader.begin(kind, 0.0, float("inf")) for kind in KINDS]
    known = [begin for begin in begins if begin is not None]
    rounds = reader.span()
    if not known:
        return None
    return min(known), max(known) if rounds is None else rounds[1]


def pace(length: float, points: int, kind: int | None) -> float:
    """Return the seconds of a point.

    Args:
        length: seconds that are shown.
        points: how many points there may be.
        kind: seconds of the rows of which they are made; None: they are made of rounds.
    """
    least = max(length / max(1, points), kind or 1)
    # A point is a whole number of rows.
    whole = (each for each in STEPS if each >= least and each % (kind or 1) == 0)
    return float(next(whole, -(-least // DAY) * DAY))


def _read(reader: Reader, word: str | None, stretch: tuple[float, float], points: int) -> Series:
    choice = no_guest if word is None else _Meant(word)
    source = _source(reader, *stretch)
    step = pace(stretch[1] - stretch[0], points, source)
    wanted = Range(begin=span(stretch[0], step), end=stretch[1])
    if source is None:
        found = _of_rounds(reader.entries(wanted.begin, wanted.end), step, choice)
    else:
        found = _rows(reader, source, wanted, choice)
    rows = regroup(_bounded(found), step)
    if word is None:
        return of_host(rows, *stretch, step)
    names = {guest: each.name for row in rows for guest, each in row.guests.items()}
    guest = pick(word, names)
    if guest is None:
        raise ConfigError(
            f"guest {word}: nothing of it in the journal in this time",
            hint=_known(reader, *stretch),
        )
    return of_guest(rows, guest, *stretch, step)


class _Meant:
    """Tells whether a guest is one that a word means, by its id or its name.

    Raises:
        KernelError: `MEANT` others were.
    """

    def __init__(self, word: str) -> None:
        self._word = word
        self._found: set[str] = set()

    def __call__(self, guest: str, name: str | None) -> bool:
        if self._word not in (guest, name):
            return False
        self._found.add(guest)
        if len(self._found) > MEANT:
            raise KernelError(f"guest {self._word}: the journal has more than {MEANT} of that name")
        return True


def _bounded(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows that are put together.

    Raises:
        KernelError: they are more than a journal of an agent has.
    """
    count = 0
    for row in rows:
        count += 1 + len(row.guests)
        if count > ROWS:
            raise KernelError(f"the journal has more than {ROWS} rows of this time")
        yield row


def _source(reader: Reader, begin: float, end: float) -> int | None:
    """Return of which rows points are made, by their seconds; None: of rounds.

    Where fine rows do not reach back as far as coarser ones, these are taken.
    """
    firsts = {kind: reader.begin(kind, begin, end) for kind in KINDS}
    known = [first for first in firsts.values() if first is not None]
    length = end - max(begin, min(known, default=begin))
    mosts = (min(OF_ROUNDS, DEAR / max(1, _guests(reader, end))), OF_MINUTES)
    for number, (kind, most) in enumerate(zip(KINDS, mosts, strict=False)):
        first = firsts[kind]
        # A row begins before the first of its rounds.
        others = [
            begun + (each or 0)
            for each in KINDS[number + 1 :]
            if (begun := firsts[each]) is not None
        ]
        if length <= most and first is not None and all(first <= other for other in others):
            return kind
    return HOUR if firsts[HOUR] is not None else MINUTE


def _guests(reader: Reader, end: float) -> int:
    """Return how many guests there were last, as far as minutes tell without reading rounds."""
    last = reader.rows(MINUTE, Range(begin=end - HOUR, end=end), no_guest)
    return max((row.host.guests for row in last), default=0)


def _rows(reader: Reader, kind: int, wanted: Range, choice: Choice) -> Iterator[Row]:
    """Read minutes or hours, and what is in none of them yet."""
    before = reader.begin(kind, 0.0, float("inf"))
    if before is not None and before > wanted.begin:  # an older version wrote rounds alone
        older = reader.entries(wanted.begin, min(wanted.end, before - MOMENT))
        yield from _of_rounds(older, kind, choice)
    if kind == HOUR:
        yield from reader.rows(HOUR, wanted, choice)
        wanted = replace(wanted, after=reader.upto(HOUR))
    yield from reader.rows(MINUTE, wanted, choice)
    rest = reader.entries(wanted.begin, wanted.end, after=reader.upto(MINUTE))
    yield from _of_rounds(rest, MINUTE, choice)


def _of_rounds(entries: Iterable[Entry], step: float, choice: Choice) -> Iterator[Row]:
    return fold((entry.tick for entry in entries), step, choice)


def _known(reader: Reader, begin: float, end: float) -> str | None:
    """Return a hint that names the guests that were there last."""
    last = Range(begin=max(begin, end - HOUR), end=end)
    named: set[str] = set()
    for row in _rows(reader, MINUTE, last, every_guest):
        if len(named) < KNOWN:
            named |= {label(each.guest, each.name) for each in row.guests.values()}
    return f"guests in it: {', '.join(sorted(named)[:NAMED])}" if named else None
