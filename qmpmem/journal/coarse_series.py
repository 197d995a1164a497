"""Minutes and hours of the past: a table of the journal, beside the rounds.

Theory of operation:
    The rounds are kept for a day. A row of this table sums up the rounds of one minute, for the
    host and all guests (`qmpmem.journal.aggregate`); another row sums up the minutes of one hour.
    A row has some hundred bytes for twenty guests, so that a month of them has room.

    Rows are only ever added. Each tells up to which round, or minute, it goes, in the order in
    which those were written, which no clock changes. So what is in no row yet is known, and nothing
    counts twice. After the agent was killed, the rounds after the last minute are added up again.
    Where the clock was set back there are two rows of the same minute, and a reader adds them up.

    Rows are in groups, as rounds are: the first is compressed by itself, the others with its text
    as their dictionary. Whole groups are removed, in the order in which they were written: those
    for which a kind has no room in its part of the file, and those that are too old, one each time
    that another begins. So a wall clock that is a year ahead costs an hour of minutes each hour.

Rules of this file:
    Another form of a row gets another `FORMAT`, and rows of the old one are read as before.
    A field that is added at the end of a record does not change the form: old rows lack it, and old
    versions of this program do not read it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from qmpmem.journal import values
from qmpmem.journal.aggregate import regroup, span
from qmpmem.journal.compression import DICTIONARY, pack, unpack
from qmpmem.journal.database import Database, rising
from qmpmem.journal.points import Choice, GuestPoint, HostPoint, Row, every_guest
from qmpmem.journal.values import LATEST
from qmpmem.records import Record
from qmpmem.units import KIB, Bytes

Kind = TypeVar("Kind", GuestPoint, HostPoint)

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 24 * HOUR
SPANS: Final = (MINUTE, HOUR)
"""Seconds of a row."""
FORMAT: Final = 1
UNIT: Final = 64 * KIB
"""Bytes to which sizes are rounded: less than any screen shows, and it saves a fifth of the
file."""
PARTS: Final = {MINUTE: 8, HOUR: 10}
"""Divisors of the journal's size that give the most that each kind of row takes."""
GROUPS: Final = {MINUTE: HOUR, HOUR: DAY}
"""Seconds after which a group ends."""
BESIDE: Final = 40
"""Bytes of a row beside its body, with its part of the index."""

NAMED: Final = 2
"""Number of a guest's values that name it, which come first: its id and its name."""

TABLE: Final = "series"
SCHEMA: Final = """
create table series (
    id integer primary key autoincrement, span integer not null, begin integer not null,
    base integer not null, upto integer not null, format integer not null, body blob not null
);
create index by_span on series (span, begin);
create index by_base on series (span, base);
"""
_SIZES: Final = frozenset(
    (
        *("maximum", "actual", "lowest", "highest", "used", "peak", "cache", "free", "cost"),
        *("target", "total", "reserve", "available", "least", "swap", "maxima"),
    )
)
"""Fields that are sizes."""

STRANGE: Final = f"""
select id from series where not (
    typeof(span) = 'integer' and typeof(begin) = 'integer' and begin between 0 and {LATEST:.0f}
    and typeof(base) = 'integer' and typeof(upto) = 'integer' and id < {values.COUNTED}
) limit 1
"""  # noqa: S608 - numbers
"""Finds a row with which the statements of `CoarseSeries` cannot work."""


class CoarseSeries:
    """Writes rows. The caller opens the transactions.

    Args:
        journal: the journal.
        size: bytes that the journal takes at most.
        is_there: whether it has the table; one of another version is made anew.

    Raises:
        sqlite3.Error: the table cannot be made.
    """

    def __init__(self, journal: Database, size: Bytes, *, is_there: bool) -> None:
        self._journal = journal
        self._line = journal.line
        self._most = {each: size // PARTS[each] for each in SPANS}
        if not is_there:
            self._line.executescript(f"begin; drop table if exists series; {SCHEMA} commit;")
        self._hour: float | None = None
        self._groups: dict[int, _Group] = {}
        self._taken: dict[int, int] = {}
        self.begin_anew()
        for each in SPANS:
            self._trim(each)

    def begin_anew(self) -> None:
        """Read from the file what is in it, as after a transaction that was undone."""
        self._groups = {}
        for kind in SPANS:
            question = "select length(body) from series where span = ?"
            found = self._journal.rows(tuple[int], question, kind)
            self._taken[kind] = sum(cost(length) for (length,) in found)
        question = "select begin from series where span = ? order by id desc limit 1"
        last = self._journal.first(tuple[int], question, MINUTE)
        self._hour = None if last is None else span(last[0], HOUR)

    def add(self, row: Row, upto: int, days: float) -> None:
        """Write a minute, and before it the hour that is over.

        Args:
            row: the minute.
            upto: the last round that is in it.
            days: how long rows are kept.

        Raises:
            sqlite3.Error: as when there is no room.
        """
        begin = row.host.begin
        if not 0 <= begin < LATEST:
            return
        hour = span(begin, HOUR)
        if self._hour not in (None, hour):
            self._end_hours(days)
        self._hour = hour
        self._write(MINUTE, row, upto, days)

    def _end_hours(self, days: float) -> None:
        """Write hours of the minutes that are in none yet."""
        after = upto(self._journal, HOUR) or 0
        number = self._one("select max(id) from series where span = ?", MINUTE) or 0
        for row in regroup(rows(self._journal, MINUTE, Range(after=after)), HOUR):
            self._write(HOUR, row, number, days)

    def _write(self, kind: int, row: Row, last: int, days: float) -> None:
        begin, text = int(row.host.begin), encoded(row)
        group = self._groups.get(kind)
        is_first = group is None or span(begin, GROUPS[kind]) != group.begin
        body = pack(text, b"" if group is None or is_first else group.dictionary)
        number = self._line.execute(
            "insert into series (span, begin, base, upto, format, body) values (?, ?, ?, ?, ?, ?)",
            (kind, begin, 0 if group is None else group.base, last, FORMAT, body),
        ).lastrowid
        self._taken[kind] += cost(len(body))
        if is_first:
            self._line.execute("update series set base = id where id = ?", (number,))
            dictionary, start = text[-DICTIONARY:], span(begin, GROUPS[kind])
            self._groups[kind] = _Group(base=number or 0, begin=start, dictionary=dictionary)
            self._forget(kind, begin - days * DAY)
            self._trim(kind)

    def _forget(self, kind: int, before: float) -> None:
        """Remove the oldest group, where it is too old."""
        oldest = self._oldest(kind)
        question = "select max(begin) from series where span = ? and base = ?"
        if oldest is not None:
            ended = self._one(question, kind, oldest)
            if ended is not None and ended < before:
                self._remove(kind, oldest)

    def _trim(self, kind: int) -> None:
        """Remove groups until the others fit."""
        while self._taken[kind] > self._most[kind]:
            oldest = self._oldest(kind)
            if oldest is None:
                return
            self._remove(kind, oldest)

    def _oldest(self, kind: int) -> int | None:
        """Return the oldest group; None: there is none but the one that is being written."""
        group = self._groups.get(kind)
        found = self._one("select min(base) from series where span = ?", kind)
        return None if group is not None and found == group.base else found

    def _remove(self, kind: int, base: int) -> None:
        which = "from series where span = ? and base = ?"
        question = f"select length(body) {which}"
        lengths = list(self._journal.rows(tuple[int], question, kind, base))
        self._line.execute(f"delete {which}", (kind, base))
        self._taken[kind] -= sum(cost(length) for (length,) in lengths)

    def _one(self, question: str, *which: int) -> int | None:
        """Return the number that answers a question; None: there is no row to answer it."""
        found = self._journal.first(tuple[int | None], question, *which)
        return None if found is None else found[0]


class _Group(Record, frozen=True):
    """Rows that begin with one that needs no other."""

    base: int
    """The number of its first row."""
    begin: float
    dictionary: bytes


class Range(Record, frozen=True):
    """Which rows are wanted."""

    begin: float = 0.0
    """Seconds since 1970; both ends belong to it."""
    end: float = LATEST
    after: int = 0
    """The number of a row that is older than all that are wanted."""


def cost(length: int) -> int:
    """Return about how many bytes of the file a body of so many bytes takes.

    What does not fit a page fills pages of its own, and the rest stays with the others (SQLite's
    file format, 1.6).
    """
    return length + BESIDE


def upto(journal: Database, kind: int) -> int | None:
    """Return the last round that is in a minute, or the last minute in an hour; None: no row.

    Raises:
        sqlite3.Error: the table cannot be read, or is missing.
    """
    question = "select upto from series where span = ? order by id desc limit 1"
    found = journal.first(tuple[int], question, kind)
    return None if found is None else found[0]


def rows(
    journal: Database, kind: int, wanted: Range, choice: Choice = every_guest
) -> Iterator[Row]:
    """Read rows, oldest first; one that is damaged, or of a later form, is left out.

    Args:
        journal: the journal.
        kind: seconds of a row.
        wanted: the rows that are wanted.
        choice: which guests are wanted.

    Raises:
        sqlite3.Error: the table cannot be read, or is missing, or its index has no order.
    """
    found = journal.rows(
        tuple[int, Any, Any, Any, Any],  # a damaged one is left out, and the others are not
        "select id, begin, base, format, body from series"
        " where span = ? and begin >= ? and begin <= ? and id > ? order by begin, id",
        kind,
        *(max(0.0, wanted.begin), min(LATEST, wanted.end), wanted.after),
    )
    dictionaries: dict[int, bytes] = {}
    for number, begin, base, form, body in rising(found, lambda row: (row[1], row[0])):
        if form != FORMAT:
            continue
        try:
            with values.damage():
                if number != base and base not in dictionaries:
                    dictionaries[base] = _base(journal, base)[-DICTIONARY:]
                text = unpack(body, b"" if number == base else dictionaries[base])
                row = decoded(text, float(begin), choice)
        except ValueError:
            continue
        yield row


def encoded(row: Row) -> bytes:
    """Return a row as text: values only, in the order of the fields of its records."""
    return msgspec.json.encode(
        [_values(row.host), *(_values(each) for each in row.guests.values())]
    )


def decoded(text: bytes, begin: float, choice: Choice = every_guest) -> Row:
    """Read what `encoded` wrote.

    Args:
        text: the row's text.
        begin: seconds since 1970.
        choice: which guests are wanted.

    Raises:
        ValueError: it is damaged.
    """
    with values.damage():
        host, *guests = msgspec.convert(values.decode(text), list[list[Any]])
        points = [_record(each, GuestPoint) for each in guests if choice(*each[:NAMED])]
        return Row(
            host=msgspec.structs.replace(_record(host, HostPoint), begin=begin),
            guests={point.guest: point for point in points},
        )


def _values(record: GuestPoint | HostPoint) -> list[Any]:
    return [
        (value + UNIT // 2) // UNIT if name in _SIZES and value is not None else value
        for name, value in zip(
            record.__struct_fields__, msgspec.structs.astuple(record), strict=True
        )
    ]


def _record(found: Sequence[Any], kind: type[Kind]) -> Kind:
    named = {
        name: value * UNIT if name in _SIZES and isinstance(value, int) else value
        for name, value in zip(kind.__struct_fields__, found, strict=False)
    }
    values.expect_bounded(named)
    return msgspec.convert(named, kind)


def _base(journal: Database, base: int) -> bytes:
    found = journal.first(tuple[bytes], "select body from series where id = ?", base)
    if found is None:
        raise ValueError("the first of its group is gone")
    return unpack(found[0])
