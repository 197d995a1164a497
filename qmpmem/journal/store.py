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

import sqlite3
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from qmpmem.errors import ConfigError, KernelError
from qmpmem.journal import coarse_series, hourly_use
from qmpmem.journal.coarse_series import CoarseSeries, Range
from qmpmem.journal.deltas import Decoder, Encoder
from qmpmem.journal.points import Choice, Row, every_guest
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from qmpmem.policy.habits import Use
from qmpmem.records import Record
from qmpmem.units import MIB, Bytes

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

_ROUNDS: Final = "select id, wall, whole, config, body from rounds where id >= ? and id <= ?"
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
        self._line = sqlite3.connect(path, timeout=OPENING, isolation_level=None)
        try:
            with _decoded():
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
            with _decoded():
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
        newest = self._line.execute("select max(id) from rounds").fetchone()[0]
        if newest is None:
            return
        after = max(coarse_series.upto(self._line, coarse_series.MINUTE) or 0, newest - UNKEPT)
        first = self._line.execute("select whole from rounds where id = ?", (after + 1,)).fetchone()
        if first is None:
            return
        decoder = Decoder()
        found = self._line.execute("select id, whole, body from rounds where id >= ?", first)
        for number, whole, body in found.fetchall():
            try:
                tick = decoder.whole(body) if number == whole else decoder.change(body)
            except (ValueError, TypeError, msgspec.MsgspecError):
                return
            if number > after:
                yield number, tick

    def learn(self, found: Sequence[Use]) -> None:
        """Write what guests used in some hours, and remove what is too old, or too much.

        Raises:
            sqlite3.Error: it was not written.
        """
        try:
            with _decoded():
                hourly_use.write(self._line, found, self._most_uses)
        except sqlite3.Error as error:
            if not is_full(error) or not self._make_room():
                raise
            hourly_use.write(self._line, found, self._most_uses)

    def oldest(self) -> float | None:
        """Return when the oldest group ended, in seconds since 1970; None: there is none.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        question = "select max(wall) from rounds where whole = (select min(whole) from rounds)"
        with _decoded():
            ended = self._line.execute(question).fetchone()[0]
        return None if ended is None else float(ended)

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
        with _decoded():
            last = self._first_kept(before, now)
            if self._line.execute("delete from rounds where whole < ?", (last,)).rowcount:
                self._tidy()
                if self._pages("freelist_count") * MOST_FREE > self._pages("page_count"):
                    self._give_back()

    def _first_kept(self, before: float, now: float) -> int:
        kept: int | None = None
        groups = self._line.execute(
            "select whole, max(wall) from rounds group by whole order by whole"
        )
        with closing(groups):
            for whole, end in groups:
                if end < before:
                    kept = None
                    continue
                kept = whole if kept is None else kept
                if end <= now:
                    break
        return self._whole if kept is None else kept

    def _keep(self, minute: Row, upto: int, days: float) -> None:
        with _decoded(), self._line:
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
        wholes = [
            row[0] for row in self._line.execute("select distinct whole from rounds order by 1")
        ]
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

    def _checkpoint(self) -> None:
        self._line.execute("pragma wal_checkpoint(passive)").fetchall()

    def _give_back(self) -> None:
        """Return free pages to the file system, in parts that have room beside the file.

        `execute` would return one: the pragma has a row for each page, of no columns, and Python
        takes the first for the last. `executescript` goes on (sqlite3_step).
        """
        part = max(1, self._beside // PAGE // 4)
        before = None
        while (free := self._pages("freelist_count")) and free != before:
            self._line.executescript(f"pragma incremental_vacuum({part})")
            self._checkpoint()
            before = free

    def _pages(self, what: str) -> int:
        return int(self._line.execute(f"pragma {what}").fetchone()[0])

    def _prepare(self, size: int, whole: Bytes) -> None:
        run = self._line.execute
        run("pragma auto_vacuum = incremental")
        run(f"pragma page_size = {PAGE}")
        run("pragma journal_mode = wal").fetchall()
        run("pragma synchronous = normal")
        run(f"pragma wal_autocheckpoint = {self._beside // PAGE}")
        run(f"pragma journal_size_limit = {self._beside}")
        version = run("pragma user_version").fetchone()[0]
        tables = {row[0] for row in run("select name from sqlite_master where type = 'table'")}
        if not tables:
            self._line.executescript(f"begin; {SCHEMA} pragma user_version = {VERSION}; commit;")
        elif version != VERSION or not {"rounds", "configs"} <= tables:
            raise sqlite3.DatabaseError(f"version {version} of it, expected {VERSION}")
        [sound] = run("pragma quick_check(1)").fetchone()
        if sound != "ok":
            raise sqlite3.DatabaseError(f"damaged: {sound}")
        hourly_use.prepare(self._line, self._most_uses)
        self._coarse = CoarseSeries(self._line, whole)
        most = size // self._pages("page_size")
        while self._used() > most and self._drop_oldest():
            pass
        if self._pages("page_count") > most:
            self._give_back()
        run(f"pragma max_page_count = {most}").fetchall()  # never below what it has now
        run("pragma busy_timeout = 0").fetchall()

    def _used(self) -> int:
        return self._pages("page_count") - self._pages("freelist_count")

    def _drop_oldest(self) -> bool:
        """Remove the oldest groups of a file that is too large; tell whether there were any."""
        wholes = [
            row[0] for row in self._line.execute("select distinct whole from rounds order by 1")
        ]
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
            self._line, version = _open(path)
        except sqlite3.Error as error:
            raise KernelError(f"journal {path}: {error}") from None
        if version != VERSION:
            self._line.close()
            raise KernelError(f"journal {path}: version {version} of it, expected {VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._line.close()

    @contextmanager
    def at_once(self) -> Generator[None]:
        """Have all questions inside answered for one moment, whatever is written meanwhile.

        Raises:
            KernelError: the file cannot be read.
        """
        self._first("begin")
        try:
            yield
        finally:
            self._line.rollback()

    def config(self, number: int) -> Config:
        """Return the settings of an entry."""
        row = self._first("select body from configs where id = ?", number)
        if row is None:
            return Config()
        try:
            return msgspec.json.decode(bytes(row[0]), type=Config)
        except msgspec.MsgspecError:
            raise self._damaged("settings", number) from None

    def span(self) -> tuple[float, float] | None:
        """Return the times of the first and the last round; None: there are none."""
        row = self._first("select min(wall), max(wall) from rounds where wall is not null")
        return None if row is None or row[0] is None else (float(row[0]), float(row[1]))

    def near(self, moment: float) -> float | None:
        """Return when the round nearest to a time was, in seconds since 1970."""
        row = self._first("select wall from rounds order by abs(wall - ?) limit 1", moment)
        return None if row is None else row[0]

    def place(self, moment: float) -> int | None:
        """Return the place of the last round at or before a time, else of the first; None: none.

        Args:
            moment: seconds since 1970.
        """
        question = "select id from rounds where wall <= ? order by wall desc, id desc limit 1"
        row = self._first(question, moment)
        row = row or self._first("select id from rounds order by wall, id limit 1")
        return None if row is None else int(row[0])

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
        row = self._first(question, place, offset)
        return None if row is None else int(row[0])

    def entry(self, place: int) -> Entry | None:
        """Read the round that is at a place; None: it is not there any more.

        Raises:
            KernelError: it is damaged.
        """
        found = self._first("select whole, config from rounds where id = ?", place)
        if found is None:
            return None
        whole, config = found
        question = "select id, body from rounds where id >= ? and id <= ?"
        decoder = Decoder()
        with closing(self._all(question, whole, place)) as rows:
            try:
                for number, body in rows:
                    decoder.take(body, whole=number == whole)
                return Entry(tick=decoder.tick(), config=config)
            except (ValueError, TypeError, msgspec.MsgspecError) as error:
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
        question = "select min(id), max(id) from rounds where wall >= ? and wall <= ? and id > ?"
        first, last = self._first(question, since, until, after) or (None, None)
        row = None if first is None else self._first(_WHOLE, first)
        if row is None:
            return
        decoder = Decoder()
        rows = self._all(_ROUNDS, row[0], last)
        with closing(rows):
            for number, wall, whole, config, body in rows:
                try:
                    tick = decoder.whole(body) if number == whole else decoder.change(body)
                    seen = float(wall)
                except (ValueError, TypeError, msgspec.MsgspecError) as error:
                    raise self._damaged("round", number, error) from None
                if since <= seen <= until and number > after:
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
            with _decoded():
                yield from coarse_series.rows(self._line, kind, wanted, choice)
        except sqlite3.Error as error:
            raise KernelError(f"journal {self._path}: {error}") from None

    def upto(self, kind: int) -> int:
        """Return the last round that is in a minute, or the last minute in an hour; 0: none is."""
        question = "select upto from series where span = ? order by id desc limit 1"
        row = self._first(question, kind) if self._has_series() else None
        return 0 if row is None else int(row[0])

    def begin(self, kind: int | None, since: float, until: float) -> float | None:
        """Return when the first row of a time begins; None: there is none.

        Args:
            kind: `coarse_series.MINUTE` or `coarse_series.HOUR`; None: the first round.
            since: seconds since 1970; both ends belong to the time.
            until: seconds since 1970.
        """
        if kind is None:
            question = "select min(wall) from rounds where wall >= ? and wall <= ?"
            row = self._first(question, since, until)
        elif self._has_series():
            question = "select min(begin) from series where span = ? and begin >= ? and begin <= ?"
            row = self._first(question, kind, since, until)
        else:
            row = None
        return None if row is None or row[0] is None else float(row[0])

    def _has_series(self) -> bool:
        """Tell whether there are minutes and hours: a journal of an older version has none."""
        return self._first("select 1 from sqlite_master where name = 'series'") is not None

    def uses(self, guest: str, hours: Sequence[int]) -> list[Use]:
        """Return what a guest used at some hours of the last days, and whenever it started.

        Args:
            guest: its id.
            hours: one or two hours of the day.

        Raises:
            KernelError: it cannot be read, as of a journal that an older version wrote.
        """
        rows = self._all(hourly_use.QUESTION, guest, hours[0], hours[-1])
        return [use for row in rows if (use := hourly_use.use(row))]

    def _first(self, question: str, *values: object) -> tuple[Any, ...] | None:
        with closing(self._all(question, *values)) as rows:
            return next(rows, None)

    def _all(self, question: str, *values: object) -> Generator[tuple[Any, ...]]:
        try:
            with _decoded(), closing(self._line.execute(question, values)) as rows:
                yield from rows
        except sqlite3.Error as error:
            raise KernelError(f"journal {self._path}: {error}") from None

    def _damaged(self, what: str, number: object, error: object = "") -> KernelError:
        return KernelError(f"journal {self._path}: {what} {number} is damaged {error}".rstrip())


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


def is_full(error: sqlite3.Error) -> bool:
    """Tell whether there was no room within the file's own limit or on the disk."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def is_locked(error: sqlite3.Error) -> bool:
    """Tell whether another process had a lock on the file, or on one beside it."""
    kinds = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in kinds


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether the file is no database, or no longer one: trying again does not help."""
    kinds = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    code = getattr(error, "sqlite_errorcode", None)
    return type(error) is sqlite3.DatabaseError if code is None else code & 0xFF in kinds


@contextmanager
def _decoded() -> Generator[None]:
    """Raise a message that Python cannot decode as damage: SQLite quotes the file in it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(f"damaged: {error}") from error


def _open(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open a file for reading, even where we may not write beside it and no process writes it.

    Returns:
        The connection, and the version that the file claims.
    """
    name = path.absolute().as_uri()
    try:
        return _connect(f"{name}?mode=ro")
    except sqlite3.OperationalError:
        if path.with_name(path.name + "-wal").exists():
            raise
        return _connect(f"{name}?immutable=1")


def _connect(uri: str) -> tuple[sqlite3.Connection, int]:
    line = sqlite3.connect(uri, uri=True, timeout=PATIENCE)
    try:
        with _decoded():
            line.execute("select count(*) from sqlite_master")
            return line, line.execute("pragma user_version").fetchone()[0]
    except BaseException:
        line.close()
        raise


def _id(cursor: sqlite3.Cursor) -> int:
    return cursor.lastrowid or 0
