"""What guests used at each hour of the last days: a table of the journal.

Theory of operation:
    The rounds are kept for a day, but it takes days to see what is usual at an hour. So each hour
    of a guest becomes one row of some hundred bytes, which stays for two weeks.
"""

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from qmpmem.journal.database import Database
from qmpmem.policy.habits import DAYS, Use

SIZE: Final = 100
"""Bytes that a row takes, with a guest's id of usual length."""

TABLE: Final = "uses"
_COLUMNS: Final = ("guest", "day", "hour", "usual", "peak", "start", "maximum", "minutes")
SCHEMA: Final = """
create table uses (
    guest text not null, day integer not null, hour integer not null, usual integer not null,
    peak integer not null, start integer, maximum integer not null, minutes integer not null,
    primary key (guest, day, hour)
) without rowid
"""
# Adds to what is known of an hour already, as where the agent was started again within it.
_WRITE: Final = """
insert into uses values (?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set
    usual = max(usual, excluded.usual), peak = max(peak, excluded.peak),
    start = coalesce(max(start, excluded.start), start, excluded.start),
    maximum = max(maximum, excluded.maximum), minutes = min(60, minutes + excluded.minutes)
"""
_TRIM: Final = """
delete from uses where (guest, day, hour) in (
    select guest, day, hour from uses order by abs(day - ?) desc limit max(0, ? - ?)
)
"""
# Removes one day each time, which is each hour: a clock that is a month ahead costs no more.
_FORGET: Final = "delete from uses where day = (select min(day) from uses) and day < ?"
QUESTION: Final = """
select * from uses where guest = ? and (hour = ? or hour = ? or start is not null)
order by day, hour
"""


def prepare(journal: Database, most: int, *, is_there: bool) -> None:
    """Make the table where it is missing.

    Args:
        journal: the journal.
        most: rows that are kept.
        is_there: whether it has the table; one of another version is made anew.

    Raises:
        sqlite3.Error: it cannot be made.
    """
    if not is_there:
        journal.line.execute("drop table if exists uses")
        journal.line.execute(SCHEMA)
    newest = journal.first(tuple[int | None], "select max(day) from uses")
    if newest is not None and newest[0] is not None:
        _trim(journal, newest[0], most)


def write(journal: Database, found: Sequence[Use], most: int) -> None:
    """Write some hours, and remove rows that are too old, or too many: those farthest from today.

    Args:
        journal: the journal.
        found: what was used.
        most: the most rows that are kept.

    Raises:
        sqlite3.Error: nothing of it was written.
    """
    rows = [msgspec.structs.astuple(use) for use in found]
    today = max((use.day for use in found), default=0)
    with journal.line as line:
        line.execute("begin")
        line.executemany(_WRITE, rows)
        line.execute(_FORGET, (today - DAYS,))
        _trim(journal, today, most)


def local(wall: float) -> float:
    """Return the seconds of local time since 1970 at a time, in seconds since 1970."""
    try:
        return wall + time.localtime(wall).tm_gmtoff
    except (OverflowError, OSError, ValueError):  # of a year that has no calendar
        return wall


def place(row: Sequence[object]) -> Sequence[object]:
    """Return what the rows that answer `QUESTION` are in the order of."""
    return row[1:3]


def use(row: Sequence[object]) -> Use | None:
    """Read a row; None: it is not one of ours."""
    try:
        return msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), Use)
    except (msgspec.MsgspecError, ValueError):
        return None


def _trim(journal: Database, today: int, most: int) -> None:
    [count] = journal.first(tuple[int], "select count(*) from uses") or (0,)
    if count > most:
        journal.line.execute(_TRIM, (today, count, most))
