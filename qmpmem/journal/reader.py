"""Rounds that are read from the journal's file, also while they are written.

Theory of operation:
    The file may be another user's, and damaged or forged. `database` lets no statement go through
    what is no table of ours; every value is judged where a row is read. What is wrong ends in a
    KernelError that names the file.

Rules of this file:
    Everything here blocks.
"""

import sqlite3
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from qmpmem.errors import ConfigError, KernelError
from qmpmem.journal import coarse_series, hourly_use, schema, values
from qmpmem.journal.coarse_series import Range
from qmpmem.journal.database import Database, rising
from qmpmem.journal.deltas import Decoder
from qmpmem.journal.points import Choice, Row, every_guest
from qmpmem.journal.store import OTHERS, SCHEMA, VERSION, WHOLE, Moment, Number
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from qmpmem.policy.habits import Use
from qmpmem.records import Record

Kind = TypeVar("Kind")

PATIENCE: Final = 2.0
"""Most seconds that a reader waits until the file is free."""

_ROUNDS: Final = "select id, wall, whole, config, body from rounds where id >= ? and id <= ?"
_ENDS: Final = """
select min(id), max(id) from rounds where wall >= ? and wall <= ? and id > ?
"""


class _Round(NamedTuple):
    """A row of `_ROUNDS`. To look up a class takes a tenth of what a tuple of types takes."""

    number: Number
    wall: Moment
    whole: Number
    config: Number
    body: bytes


class Entry(Record, frozen=True):
    """A round, and the settings that held."""

    tick: Tick
    config: int
    """The number of the settings: `Reader.config`."""


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
        row = None if first is None else self._first(tuple[Number], WHOLE, first)
        if row is None:
            return
        decoder = Decoder()
        before = -1
        rows = self._all(_Round, _ROUNDS, row[0], last)
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
        found = self._journal.rows(tuple[Any, ...], question, guest, hours[0], hours[-1])
        try:
            rows = list(rising(found, hourly_use.place))
        except sqlite3.Error as error:
            raise KernelError(f"journal {self._path}: {error}") from None
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
