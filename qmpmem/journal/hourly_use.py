"""What guests used at each hour of the last days: a table of the journal.

Theory of operation:
    The rounds are kept for a day, but it takes days to see what is usual at an hour. So each hour
    of a guest becomes one row of some hundred bytes, which stays for two weeks.
"""

import sqlite3
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from qmpmem.policy.habits import DAYS, Use

SIZE: Final = 100
"""Bytes that a row takes, with a guest's id of usual length."""

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
"""


def prepare(line: sqlite3.Connection, most: int) -> None:
    """Make the table, anew where it has other columns, as of another version.

    Args:
        line: the journal.
        most: rows that are kept.

    Raises:
        sqlite3.Error: it cannot be made.
    """
    found = tuple(row[1] for row in line.execute("pragma table_info(uses)"))
    if found != _COLUMNS:
        line.execute("drop table if exists uses")
        line.execute(SCHEMA)
    newest = line.execute("select max(day) from uses").fetchone()[0]
    if newest is not None:
        _trim(line, newest, most)


def write(line: sqlite3.Connection, found: Sequence[Use], most: int) -> None:
    """Write some hours, and remove rows that are too old, or too many: those farthest from today.

    Args:
        line: the journal.
        found: what was used.
        most: the most rows that are kept.

    Raises:
        sqlite3.Error: nothing of it was written.
    """
    rows = [msgspec.structs.astuple(use) for use in found]
    today = max((use.day for use in found), default=0)
    with line:
        line.execute("begin")
        line.executemany(_WRITE, rows)
        line.execute(_FORGET, (today - DAYS,))
        _trim(line, today, most)


def local(wall: float) -> float:
    """Return the seconds of local time since 1970 at a time, in seconds since 1970."""
    try:
        return wall + time.localtime(wall).tm_gmtoff
    except (OverflowError, OSError, ValueError):  # of a year that has no calendar
        return wall


def use(row: Sequence[object]) -> Use | None:
    """Read a row; None: it is not one of ours."""
    try:
        return msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), Use)
    except (msgspec.MsgspecError, ValueError):
        return None


def _trim(line: sqlite3.Connection, today: int, most: int) -> None:
    count = line.execute("select count(*) from uses").fetchone()[0]
    if count > most:
        line.execute(_TRIM, (today, count, most))
