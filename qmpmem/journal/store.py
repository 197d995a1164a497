"""The journal's file: an SQLite database of rounds that stays within a size and an age.

Theory of operation:
    Rounds are in groups: one that is whole, and those that hold only what changed. Groups are
    removed oldest first. The pages that become free are used again. Where many stay free, or the
    file is larger than it may be, they are returned to the file system. SQLite itself refuses to
    grow beyond `max_page_count`. What it keeps beside the file while it is written (-wal) is
    counted as well. Readers (`reader`) do not block the writer, nor does it block them (WAL).

    Beside the rounds are two tables that outlive them: what guests used at each hour
    (`hourly_use`), and minutes and hours for plots (`coarse_series`). `VERSION` is that of the
    rounds. Each of these tables has a form of its own, and is made where a file has none yet, so
    that a journal is kept over an upgrade.

    Nothing waits until data is on the disk: a power cut may cost the last seconds
    (synchronous=NORMAL), but never the file.

Rules of this file:
    Everything here blocks.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Final

import msgspec

from qmpmem.journal import coarse_series, hourly_use, schema, values
from qmpmem.journal.coarse_series import CoarseSeries
from qmpmem.journal.database import Database, decoded, is_full, rising
from qmpmem.journal.deltas import Decoder, Encoder
from qmpmem.journal.points import Row
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from qmpmem.policy.habits import Use
from qmpmem.units import MIB, Bytes

Number = Annotated[int, msgspec.Meta(ge=0, lt=values.COUNTED)]
"""The number of a row."""
Moment = Annotated[float, msgspec.Meta(ge=0, le=values.LATEST)]
"""Seconds since 1970."""

VERSION: Final = 1
GROUP: Final = 60
"""Rounds of a group: the most that are read to find one, and that a damaged one costs."""
BESIDE: Final = Bytes(MIB)
"""Most that may be in the -wal before it is moved into the file; or an eighth of the size, if
less."""
PAGE: Final = 4096
OPENING: Final = 1.0
"""Most seconds that the writer waits until the file is free, while it opens it; never
afterwards."""
PART: Final = 20
"""Divisor of the number of groups that gives how many are removed where there is no room."""
USES_PART: Final = 8
"""Divisor of the size that gives the most for what guests used at each hour, which outlives the
rounds."""
UNKEPT: Final = 300
"""Most rounds that are added up again when the file is opened: a minute of the shortest ones."""
MOST_FREE: Final = 4
"""Divisor of the number of pages: where more are free, they are returned, which moves as many
others."""
ALMOST: Final = (3, 4)
"""The part of the most pages from which on it is the file that is full. Beside its rounds a journal
has less than half of them."""
CROWDED: Final = "damaged: what is no round fills it"

SCHEMA: Final = """
create table rounds (
    id integer primary key, wall real not null, whole integer not null, config integer not null,
    body blob not null
);
create index by_time on rounds (wall);
create index by_group on rounds (whole);
create table configs (id integer primary key, body blob not null);
"""

OTHERS: Final = f"{hourly_use.SCHEMA};{coarse_series.SCHEMA}"
"""Tables that an older version did not make, and that another may make otherwise."""
STRANGE: Final = (
    f"""
select id from rounds where not (
    typeof(wall) = 'real' and wall between 0 and {values.LATEST}
    and typeof(whole) = 'integer' and whole between 1 and id and id < {values.COUNTED}
    and typeof(config) = 'integer' and typeof(body) = 'blob'
) limit 1
""",  # noqa: S608 - numbers
    f"select id from configs where id not between 0 and {values.COUNTED} limit 1",  # noqa: S608
    f"select 0 from sqlite_sequence where typeof(seq) <> 'integer' or seq > {values.COUNTED}",  # noqa: S608
    coarse_series.STRANGE,
)
"""Finds rows with which our statements cannot work: none of ours is so."""

WHOLE: Final = "select whole from rounds where id = ?"
"""Finds the round with which another's group begins."""


class Store:
    """Writes rounds.

    Args:
        path: the file; made where there is none.
        size: bytes that it and what is beside it take at most.

    Raises:
        sqlite3.Error: it cannot be opened, or is not one of ours.
    """

    def __init__(self, path: Path, size: Bytes) -> None:
        self._path = path
        self._config = 0
        self._beside = min(BESIDE, size // 8)
        self._most_uses = size // USES_PART // hourly_use.SIZE
        # After a SIGKILL a reader may be the first to open the file, and recovers it meanwhile.
        uri = path.absolute().as_uri()
        self._journal = Database(uri, OPENING, is_bounded=False)
        self._line = self._journal.line
        try:
            with decoded():
                self._prepare(size - 2 * self._beside, size)
        except BaseException:
            self._line.close()
            raise
        self._encoder = Encoder()
        self._whole = 0
        self._since = 0
        self._settings: Config | None = None

    def close(self) -> None:
        """Close the file, and move into it what is beside it."""
        self._line.close()

    def add(self, tick: Tick, config: Config) -> int:
        """Write a round, and return its number.

        Raises:
            sqlite3.Error: it was not written.
        """
        try:
            with decoded():
                return self._add(tick, config)
        except sqlite3.Error as error:
            self._whole, self._settings = 0, None
            if not is_full(error) or not self._make_room():
                raise
            return self._add(tick, config)

    def keep(self, minute: Row, upto: int, days: float) -> None:
        """Write a minute, for plots, and the hour that is over with it.

        Args:
            minute: the host and its guests in that minute.
            upto: the number of the last round that is in it.
            days: how long it is kept.

        Raises:
            sqlite3.Error: it was not written.
        """
        try:
            self._keep(minute, upto, days)
        except sqlite3.Error as error:
            self._coarse.begin_anew()
            if not is_full(error) or not self._make_room():
                raise
            self._keep(minute, upto, days)

    def unkept(self) -> Iterator[tuple[int, Tick]]:
        """Yield rounds that are in no minute yet, as after a kill, with their numbers.

        These are no more than the last `UNKEPT`, and none after one that is damaged.

        Raises:
            sqlite3.Error: they cannot be read.
        """
        newest = self._one("select max(id) from rounds")
        if newest is None:
            return
        after = max(coarse_series.upto(self._journal, coarse_series.MINUTE) or 0, newest - UNKEPT)
        first = self._one(WHOLE, after + 1)
        if first is None:
            return
        decoder = Decoder()
        question = "select id, whole, body from rounds where id >= ?"
        begin = max(first, after - GROUP)
        for number, whole, body in list(
            self._journal.rows(tuple[Number, Number, bytes], question, begin)
        ):
            try:
                tick = decoder.whole(body) if number == whole else decoder.change(body)
            except ValueError:
                return
            if number > after:
                yield number, tick

    def learn(self, found: Sequence[Use]) -> None:
        """Write what guests used in some hours, and remove what is too old, or too much.

        Raises:
            sqlite3.Error: it was not written.
        """
        try:
            with decoded():
                hourly_use.write(self._journal, found, self._most_uses)
        except sqlite3.Error as error:
            if not is_full(error) or not self._make_room():
                raise
            hourly_use.write(self._journal, found, self._most_uses)

    def oldest(self) -> float | None:
        """Return when the oldest group ended, in seconds since 1970; None: there is none.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        question = "select max(wall) from rounds where whole = (select min(whole) from rounds)"
        found = self._journal.first(tuple[Moment | None], question)
        return None if found is None else found[0]

    def forget(self, before: float, now: float = float("inf")) -> None:
        """Remove the groups that ended before a time, oldest first.

        A group of a time that is still to come counts as old as the next one that is not: the clock
        was ahead, and is right again.

        Args:
            before: seconds since 1970.
            now: the present time, in seconds since 1970.

        Raises:
            sqlite3.Error: they were not removed.
        """
        with decoded():
            last = self._first_kept(before, now)
            if self._line.execute("delete from rounds where whole < ?", (last,)).rowcount:
                self._tidy()
                free, pages = map(self._journal.pragma, ("freelist_count", "page_count"))
                if free * MOST_FREE > pages:
                    self._give_back()

    def _first_kept(self, before: float, now: float) -> int:
        kept: int | None = None
        question = "select whole, max(wall) from rounds group by whole order by whole"
        with closing(self._journal.rows(tuple[Number, Moment], question)) as groups:
            for whole, end in rising(groups, itemgetter(0)):
                if end < before:
                    kept = None
                    continue
                kept = whole if kept is None else kept
                if end <= now:
                    break
        return self._whole if kept is None else kept

    def _keep(self, minute: Row, upto: int, days: float) -> None:
        with decoded(), self._line:
            self._line.execute("begin")
            self._coarse.add(minute, upto, days)

    def _add(self, tick: Tick, config: Config) -> int:
        with self._line:
            self._line.execute("begin")
            if config != self._settings:
                body = msgspec.json.encode(config)
                self._config = _id(
                    self._line.execute("insert into configs (body) values (?)", (body,))
                )
                self._settings = config
            is_whole = self._whole == 0 or self._since + 1 >= GROUP
            body = self._encoder.whole(tick) if is_whole else self._encoder.change(tick)
            row = (tick.snapshot.wall or 0.0, self._whole, self._config, body)
            number = _id(
                self._line.execute(
                    "insert into rounds (wall, whole, config, body) values (?, ?, ?, ?)", row
                )
            )
            if is_whole:
                self._line.execute("update rounds set whole = id where id = ?", (number,))
        if is_whole:
            self._whole, self._since = number, 0
        else:
            self._since += 1
        return number

    def _make_room(self) -> bool:
        """Remove the oldest groups; tell whether there were any.

        Raises:
            sqlite3.DatabaseError: what fills the file is not rounds.
        """
        wholes = self._wholes()
        if len(wholes) > 1:
            last = wholes[max(1, len(wholes) // PART)]
            self._line.execute("delete from rounds where whole < ?", (last,))
        elif self._used() * ALMOST[1] < self._journal.pragma("max_page_count") * ALMOST[0]:
            return False  # it is the disk that is full
        elif wholes:
            self._whole = 0
            self._line.execute("delete from rounds")
        else:
            raise sqlite3.DatabaseError(CROWDED)
        self._tidy()
        return True

    def _tidy(self) -> None:
        self._tidy_configs()
        self._checkpoint()

    def _tidy_configs(self) -> None:
        """Remove settings that no round names, but for those that hold now."""
        self._line.execute(
            "delete from configs where id not in (select config from rounds) and id <> ?",
            (self._config,),
        )

    def _checkpoint(self) -> tuple[int, int, int]:
        """Move pages into the file.

        Returns:
            Whether it could not begin, the pages beside the file, and those of them that are moved.
        """
        question = "pragma wal_checkpoint(passive)"
        return self._journal.first(tuple[int, int, int], question) or (1, 0, 0)

    def _give_back(self) -> None:
        """Return free pages to the file system, in parts that have room beside the file.

        `execute` would return one: the pragma has a row for each page, of no columns, and Python
        takes the first for the last. `executescript` goes on (sqlite3_step).
        """
        part = max(1, self._beside // PAGE // 4)
        before = None
        while (free := self._journal.pragma("freelist_count")) and free != before:
            self._line.executescript(f"pragma incremental_vacuum({part})")
            self._checkpoint()
            before = free

    def _wholes(self) -> list[int]:
        """Return the numbers of the groups, oldest first."""
        question = "select distinct whole from rounds order by 1"
        found = rising(self._journal.rows(tuple[Number], question), itemgetter(0))
        return [whole for (whole,) in found]

    def _one(self, question: str, *which: int) -> int | None:
        """Return the number that answers a question; None: no row does."""
        found = self._journal.first(tuple[Number | None], question, *which)
        return None if found is None else found[0]

    def _prepare(self, size: int, whole: Bytes) -> None:
        run = self._line.execute
        run("pragma auto_vacuum = incremental")
        run(f"pragma page_size = {PAGE}")
        run("pragma journal_mode = wal").fetchall()
        run("pragma synchronous = normal")
        run(f"pragma wal_autocheckpoint = {self._beside // PAGE}")
        run(f"pragma journal_size_limit = {self._beside}")
        self._make_tables(whole)
        self._cut_off()
        most = size // self._journal.pragma("page_size")
        while self._used() > most:
            self._drop_oldest()
        if self._journal.pragma("page_count") > most:
            self._give_back()
        run(f"pragma max_page_count = {most}").fetchall()  # never below what it has now
        run("pragma busy_timeout = 0").fetchall()

    def _make_tables(self, size: Bytes) -> None:
        """Make the tables that are missing, and expect the others to be sound and ours."""
        if schema.is_empty(self._journal):
            self._line.executescript(f"begin; {SCHEMA} pragma user_version = {VERSION}; commit;")
        version = self._journal.pragma("user_version")
        if version != VERSION:
            raise sqlite3.DatabaseError(f"version {version} of it, expected {VERSION}")
        ours = schema.expect_ours(self._journal, SCHEMA, OTHERS)
        sound = self._journal.first(tuple[str], "pragma quick_check(1)")
        if sound != ("ok",):
            raise sqlite3.DatabaseError(f"damaged: {sound[0] if sound else 'it cannot be checked'}")
        hourly_use.prepare(self._journal, self._most_uses, is_there=hourly_use.TABLE in ours)
        is_there = coarse_series.TABLE in ours
        self._coarse = CoarseSeries(self._journal, size, is_there=is_there)
        for question in STRANGE:
            strange = self._journal.first(tuple[int], question)
            if strange is not None:
                raise sqlite3.DatabaseError(f"damaged: row {strange[0]} is not one of ours")

    def _cut_off(self) -> None:
        """Cut off what the file has after its last page, where no reader needs that."""
        size = self._journal.pragma("page_count") * self._journal.pragma("page_size")
        if self._path.stat().st_size <= size:
            return
        busy, waiting, moved = self._checkpoint()
        if not busy and waiting == moved:
            os.truncate(self._path, size)

    def _used(self) -> int:
        return self._journal.pragma("page_count") - self._journal.pragma("freelist_count")

    def _drop_oldest(self) -> None:
        """Remove the oldest groups of a file that is too large.

        Raises:
            sqlite3.DatabaseError: there are none, so that others' tables or forged rows fill it.
        """
        before, wholes = self._used(), self._wholes()
        if wholes:
            last = wholes[len(wholes) // PART]
            self._line.execute("delete from rounds where whole <= ?", (last,))
        self._tidy_configs()
        if not wholes and self._used() >= before:
            raise sqlite3.DatabaseError(CROWDED)


def _id(cursor: sqlite3.Cursor) -> int:
    return cursor.lastrowid or 0
