"""The journal's file: an SQLite database of rounds that stays within a size and an age.

Theory of operation:
    Rounds are in groups: one that is whole, and those that hold only what changed. Groups are
    removed oldest first. The pages that become free are used again. Where many stay free, or the
    file is larger than it may be, they are returned to the file system. SQLite itself refuses to
    grow beyond `max_page_count`. What it keeps beside the file while it is written (-wal) is
    counted as well. Readers do not block the writer, and the writer does not block them (WAL).

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
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from qmpmem.errors import ConfigError, KernelError
from qmpmem.journal import coarse_series, hourly_use, schema, values
from qmpmem.journal.coarse_series import CoarseSeries, Range
from qmpmem.journal.database import Database, decoded, is_full
from qmpmem.journal.deltas import Decoder, Encoder
from qmpmem.journal.points import Choice, Row, every_guest
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from qmpmem.policy.habits import Use
from qmpmem.records import Record
from qmpmem.units import MIB, Bytes

Kind = TypeVar("Kind")
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
PATIENCE: Final = 2.0
"""Most seconds that a reader waits until the file is free."""
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

_ROUNDS: Final = "select id, wall, whole, config, body from rounds where id >= ? and id <= ?"
_ENDS: Final = """
select min(id), max(id) from rounds where wall >= ? and wall <= ? and id > ?
"""
_WHOLE: Final = "select whole from rounds where id = ?"


class Entry(Record, frozen=True):
    """A round, and the settings that held."""

    tick: Tick
    config: int
    """The number of the settings: `Reader.config`."""


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
        self._config = 0

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
        first = self._one(_WHOLE, after + 1)
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
            for whole, end in groups:
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
        """Remove the oldest groups; tell whether there were any."""
        wholes = self._wholes()
        if len(wholes) < 2:  # noqa: PLR2004 - the last one is being written
            return False
        last = wholes[max(1, len(wholes) // PART)]
        self._line.execute("delete from rounds where whole < ?", (last,))
        self._tidy()
        return True

    def _tidy(self) -> None:
        self._line.execute(
            "delete from configs where id not in (select config from rounds) and id < ?",
            (self._config,),
        )
        self._checkpoint()

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
        return [whole for (whole,) in self._journal.rows(tuple[Number], question)]

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
        while self._used() > most and self._drop_oldest():
            pass
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

    def _drop_oldest(self) -> bool:
        """Remove the oldest groups of a file that is too large; tell whether there were any."""
        wholes = self._wholes()
        if not wholes:
            return False
        last = wholes[len(wholes) // PART]
        self._line.execute("delete from rounds where whole <= ?", (last,))
        return True


class Reader:
    """Reads rounds, also while they are written.

    Args:
        path: the file.

    Raises:
        ConfigError: there is none.
        KernelError: it cannot be read, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not _is_there(path):
            raise ConfigError(
                f"{path}: no journal",
                hint="`qmpmem agent` writes one; journal.path in its configuration names it",
            )
        try:
            self._journal = _open(path)
        except sqlite3.Error as error:
            raise KernelError(f"journal {path}: {error}") from None
        try:
            self._tables = self._expect_ours()
        except BaseException:
            self._journal.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    @contextmanager
    def at_once(self) -> Generator[None]:
        """Have all questions inside answered for one moment, whatever is written meanwhile.

        Raises:
            KernelError: the file cannot be read.
        """
        self._first(tuple[()], "begin")
        try:
            yield
        finally:
            self._journal.line.rollback()

    def config(self, number: int) -> Config:
        """Return the settings of an entry.

        Raises:
            KernelError: they are damaged.
        """
        row = self._first(tuple[bytes], "select body from configs where id = ?", number)
        if row is None:
            return Config()
        try:
            with values.damage():
                values.decode(row[0])
                return msgspec.json.decode(row[0], type=Config)
        except ValueError:
            raise self._damaged("settings", number) from None

    def span(self) -> tuple[float, float] | None:
        """Return the times of the first and the last round; None: there are none."""
        question = "select min(wall), max(wall) from rounds"
        first, last = self._first(tuple[Moment | None, Moment | None], question) or (None, None)
        return None if first is None or last is None else (first, last)

    def near(self, moment: float) -> float | None:
        """Return when the round nearest to a time was, in seconds since 1970."""
        question = "select wall from rounds order by abs(wall - ?) limit 1"
        row = self._first(tuple[Moment], question, moment)
        return None if row is None else row[0]

    def place(self, moment: float) -> int | None:
        """Return the place of the last round at or before a time, else of the first; None: none.

        Args:
            moment: seconds since 1970.
        """
        question = "select id from rounds where wall <= ? order by wall desc, id desc limit 1"
        row = self._first(tuple[Number], question, moment)
        row = row or self._first(tuple[Number], "select id from rounds order by wall, id limit 1")
        return None if row is None else row[0]

    def beside(self, place: int, rounds: int) -> int | None:
        """Return the place of the round that is so many after another; None: there is none.

        Args:
            place: the place of the other.
            rounds: how many rounds later; earlier where it is negative.
        """
        later, offset = rounds > 0, max(0, abs(rounds) - 1)
        if not rounds:
            return place
        question = (
            "select id from rounds where id > ? order by id limit 1 offset ?"
            if later
            else "select id from rounds where id < ? order by id desc limit 1 offset ?"
        )
        row = self._first(tuple[Number], question, place, offset)
        return None if row is None else row[0]

    def entry(self, place: int) -> Entry | None:
        """Read the round that is at a place; None: it is not there any more.

        Raises:
            KernelError: it is damaged.
        """
        question = "select whole, config from rounds where id = ?"
        found = self._first(tuple[Number, Number], question, place)
        if found is None:
            return None
        whole, config = found
        question = "select id, body from rounds where id >= ? and id <= ?"
        decoder = Decoder()
        with closing(self._all(tuple[Number, bytes], question, whole, place)) as rows:
            try:
                before = -1
                for number, body in rows:
                    _expect_order(before, number)
                    decoder.take(body, whole=number == whole)
                    before = number
                return Entry(tick=decoder.tick(), config=config)
            except ValueError as error:
                raise self._damaged("round", place, error) from None

    def entries(
        self, since: float, until: float = float("inf"), *, after: int = 0
    ) -> Iterator[Entry]:
        """Read the rounds of a time, in seconds since 1970; both ends belong to it.

        Args:
            since: the first time.
            until: the last time.
            after: the number of a round that is older than all that are wanted.

        Raises:
            KernelError: one is damaged; those before it were yielded.
        """
        # Not up to the first later round: the clock may have been ahead for a while.
        ends = self._first(tuple[Number | None, Number | None], _ENDS, since, until, after)
        first, last = ends or (None, None)
        row = None if first is None else self._first(tuple[Number], _WHOLE, first)
        if row is None:
            return
        decoder = Decoder()
        before = -1
        rows = self._all(tuple[Number, Moment, Number, Number, bytes], _ROUNDS, row[0], last)
        with closing(rows):
            for number, wall, whole, config, body in rows:
                try:
                    _expect_order(before, number)
                    tick = decoder.whole(body) if number == whole else decoder.change(body)
                except ValueError as error:
                    raise self._damaged("round", number, error) from None
                before = number
                if since <= wall <= until and number > after:
                    yield Entry(tick=tick, config=config)

    def rows(self, kind: int, wanted: Range, choice: Choice = every_guest) -> Iterator[Row]:
        """Read minutes or hours, oldest first.

        Args:
            kind: `coarse_series.MINUTE` or `coarse_series.HOUR`.
            wanted: the rows that are wanted.
            choice: which guests are wanted.

        Raises:
            KernelError: they cannot be read.
        """
        if not self._has_series():
            return
        try:
            yield from coarse_series.rows(self._journal, kind, wanted, choice)
        except sqlite3.Error as error:
            raise KernelError(f"journal {self._path}: {error}") from None

    def upto(self, kind: int) -> int:
        """Return the last round that is in a minute, or the last minute in an hour; 0: none is."""
        question = "select upto from series where span = ? order by id desc limit 1"
        row = self._first(tuple[int], question, kind) if self._has_series() else None
        return 0 if row is None else row[0]

    def begin(self, kind: int | None, since: float, until: float) -> float | None:
        """Return when the first row of a time begins; None: there is none.

        Args:
            kind: `coarse_series.MINUTE` or `coarse_series.HOUR`; None: the first round.
            since: seconds since 1970; both ends belong to the time.
            until: seconds since 1970.
        """
        if kind is None:
            question = "select min(wall) from rounds where wall >= ? and wall <= ?"
            row = self._first(tuple[Moment | None], question, since, until)
        elif self._has_series():
            question = "select min(begin) from series where span = ? and begin >= ? and begin <= ?"
            row = self._first(tuple[Moment | None], question, kind, since, until)
        else:
            row = None
        return None if row is None else row[0]

    def _has_series(self) -> bool:
        """Tell whether there are minutes and hours: a journal of an older version has none."""
        return coarse_series.TABLE in self._tables

    def uses(self, guest: str, hours: Sequence[int]) -> list[Use]:
        """Return what a guest used at some hours of the last days, and whenever it started.

        Args:
            guest: its id.
            hours: one or two hours of the day.

        Raises:
            KernelError: it cannot be read, as of a journal that an older version wrote.
        """
        question = hourly_use.QUESTION
        rows = self._all(tuple[Any, ...], question, guest, hours[0], hours[-1])
        return [use for row in rows if (use := hourly_use.use(row))]

    def _expect_ours(self) -> frozenset[str]:
        """Expect the tables to be ours, and return which there are.

        Raises:
            KernelError: they are not.
        """
        try:
            version = self._journal.pragma("user_version")
            if version == VERSION:
                return schema.expect_ours(self._journal, SCHEMA, OTHERS)
        except sqlite3.Error as error:
            raise KernelError(f"journal {self._path}: {error}") from None
        raise KernelError(f"journal {self._path}: version {version} of it, expected {VERSION}")

    def _first(self, kind: type[Kind], question: str, *which: object) -> Kind | None:
        with closing(self._all(kind, question, *which)) as rows:
            return next(rows, None)

    def _all(self, kind: type[Kind], question: str, *which: object) -> Generator[Kind]:
        try:
            yield from self._journal.rows(kind, question, *which)
        except sqlite3.Error as error:
            raise KernelError(f"journal {self._path}: {error}") from None

    def _damaged(self, what: str, number: object, error: object = "") -> KernelError:
        return KernelError(f"journal {self._path}: {what} {number} is damaged {error}".rstrip())


def _expect_order(before: int, number: int) -> None:
    """Expect rows in the order of their numbers: a damaged file may lead to a page for ever.

    Raises:
        ValueError: they are not.
    """
    if number <= before:
        raise ValueError(f"it comes after {before}")


def _is_there(path: Path) -> bool:
    """Tell whether there is a file, because SQLite would wait for the other end of a FIFO.

    Raises:
        KernelError: it is no file, or its directory may not be read.
    """
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        try:
            found = each.stat()
        except FileNotFoundError:
            if each == path:
                return False
            continue
        except OSError as error:
            hint = "run as the user that the agent runs as"
            raise KernelError(f"journal {each}: {error.strerror}", hint=hint) from None
        if not stat.S_ISREG(found.st_mode):
            raise KernelError(f"journal {each}: expected a file", hint="look at it, and remove it")
    return True


def _open(path: Path) -> Database:
    """Open a file for reading, even where we may not write beside it and no process writes it."""
    name = path.absolute().as_uri()
    try:
        return _connect(f"{name}?mode=ro")
    except sqlite3.OperationalError:
        if path.with_name(path.name + "-wal").exists():
            raise
        return _connect(f"{name}?immutable=1")


def _connect(uri: str) -> Database:
    journal = Database(uri, PATIENCE, is_bounded=True)
    try:
        schema.is_empty(journal)
    except BaseException:
        journal.close()
        raise
    return journal


def _id(cursor: sqlite3.Cursor) -> int:
    return cursor.lastrowid or 0
