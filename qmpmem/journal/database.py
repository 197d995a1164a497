"""A journal's database file, opened so that nothing in it decides more than what is read from it.

Theory of operation:
    A journal may belong to another user, and any file may be damaged. So a name of ours counts only
    if it is a table that was made with the very text of ours (`qmpmem.journal.schema`): no view,
    trigger, virtual table or computed column. SQLite prepares no statement that goes through a view
    or a trigger, also where the file changes between two statements (sqlite.org: "Defense Against
    The Dark Arts"). Every value that is read is checked once, in `Database.rows`.

    What our statements fail on is damage, unless the disk, a lock or a permission is what fails.

Rules of this file:
    Everything here blocks.
"""

import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final, TypeVar

import msgspec

from qmpmem.journal.compression import LARGEST as LARGEST_ROW

Kind = TypeVar("Kind")

LONGEST: Final = 64 << 10
"""Most bytes of a statement, and of the text of a table; ours have less than a thousand."""
STEPS: Final = 10_000
"""Instructions of SQLite between two looks at the clock: about a millisecond."""
MOST: Final = 5.0
"""Most seconds of processor time that a reader gives SQLite for a row. About a full journal of
64 MiB no question takes a twentieth of that for all of its rows."""
LOOKS: Final = 5_000
"""Most looks at the clock in a question, with all of its rows: some seconds. A full journal of 64
MiB takes some hundred."""
OUTSIDE: Final = frozenset(
    (
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM),
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
        *(sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_MISUSE),
    )
)
"""What fails outside the file, so that to try again may help (SQLite: Result and Error Codes)."""
_SIZES: Final = (
    (sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_ROW),  # no value has more bytes than a row is unpacked to
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, LONGEST),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
)


class Database:
    """A connection to a journal.

    Args:
        path: the file, or its URI.
        patience: seconds that a lock of another process is waited for.
        is_bounded: whether SQLite may take no more than `MOST` for a question.

    Raises:
        sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: str, patience: float, *, is_bounded: bool) -> None:
        self.line: Final = sqlite3.connect(path, uri=True, timeout=patience, isolation_level=None)
        """For statements that write, and pragmas."""
        self._asked = _Question()
        self._end: float | None = None
        self.line.text_factory = _text
        self.line.set_authorizer(_permit)
        for limit, most in _SIZES:
            self.line.setlimit(limit, most)
        if is_bounded:
            self.line.set_progress_handler(self._is_late, STEPS)
        try:
            with decoded():
                self.line.execute("pragma trusted_schema = off")
                self.line.execute("pragma cell_size_check = on")
        except BaseException:
            self.line.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.line.close()

    def rows(self, kind: type[Kind], question: str, *values: object) -> Generator[Kind]:
        """Yield the rows that answer a question, each of this type.

        Raises:
            sqlite3.Error: it cannot be read; or one is of another type, so the file is damaged.
        """
        asked = _Question()
        self._go_on(asked)
        try:
            with decoded(), _closing(self.line.execute(question, values)) as found:
                for row in found:
                    yield _converted(row, kind)
                    self._go_on(asked)
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_INTERRUPT:
                raise
            why = f"damaged: one question takes more than {MOST:.0f} s"
            raise sqlite3.DatabaseError(why) from error

    def first(self, kind: type[Kind], question: str, *values: object) -> Kind | None:
        """Return the first row that answers a question; None: there is none.

        Raises:
            sqlite3.Error: as `rows`.
        """
        with closing(self.rows(kind, question, *values)) as found:
            return next(found, None)

    def pragma(self, what: str) -> int:
        """Return a number that a pragma tells.

        Raises:
            sqlite3.Error: as `rows`.
        """
        found = self.first(tuple[int], f"pragma {what}")
        return 0 if found is None else found[0]

    def _go_on(self, asked: "_Question") -> None:
        """Have what SQLite does from now on count as the next row of a question.

        The caller may ask another question between two rows. The clock is first looked
        at when a row takes long: each look is a system call.
        """
        self._asked, self._end = asked, None

    def _is_late(self) -> bool:
        now = time.thread_time()
        self._asked.looks += 1
        self._end = now + MOST if self._end is None else self._end
        return now > self._end or self._asked.looks > LOOKS


class _Question:
    """How often the clock was looked at in a question."""

    def __init__(self) -> None:
        self.looks = 0


@contextmanager
def _closing(found: sqlite3.Cursor) -> Generator[sqlite3.Cursor]:
    """Close a cursor in the end, also after its file: an error may hold on to who reads rows."""
    try:
        yield found
    finally:
        with suppress(sqlite3.ProgrammingError):
            found.close()


def rising(rows: Iterable[Kind], place: Callable[[Kind], object]) -> Iterator[Kind]:
    """Yield rows in their order: the pages of a damaged index may lead to the same ones for ever.

    Args:
        rows: what answers a question that has an order.
        place: what that order goes by; no two rows of a sound file have the same.

    Raises:
        sqlite3.DatabaseError: a row does not come after the one before it.
    """
    before: Any = None
    for row in rows:
        after: Any = place(row)
        if before is not None and not _is_before(before, after):
            raise sqlite3.DatabaseError(f"damaged: {after} comes after {before}")
        before = after
        yield row


def _is_before(one: Any, other: Any) -> bool:  # noqa: ANN401 - whatever a file holds
    try:
        return bool(one < other)
    except TypeError:  # as of a text and a number
        return False


def _converted(row: Sequence[object], kind: type[Kind]) -> Kind:
    """Return a row of this type; bool is none of SQLite's, and text is not taken for bytes."""
    try:
        return msgspec.convert(row, kind, builtin_types=(bytes,))
    except (msgspec.ValidationError, RecursionError) as error:
        which = f"row {row[0]}: " if isinstance(row[0], int) else ""
        why = str(error).partition(" - at ")[0].replace("`", "")
        raise sqlite3.DatabaseError(f"damaged: {which}{why[:1].lower()}{why[1:]}") from None


def _text(content: bytes) -> str:
    """Read text, whatever bytes a file claims to be text."""
    return content.decode(errors="replace")


def _permit(*asked: object) -> int:
    """Permit what a statement does by itself, and not by a view or a trigger, which comes last."""
    return sqlite3.SQLITE_OK if asked[-1] is None else sqlite3.SQLITE_DENY


@contextmanager
def decoded() -> Generator[None]:
    """Raise as damage what Python cannot decode: SQLite quotes the file in its messages."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(f"damaged: {error}") from error


def is_full(error: sqlite3.Error) -> bool:
    """Tell whether there was no room within the file's own limit or on the disk."""
    return code_of(error) == sqlite3.SQLITE_FULL


def is_locked(error: sqlite3.Error) -> bool:
    """Tell whether another process had a lock on the file, or on one beside it."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether a code means that the file is none of ours, or no longer one.

    So does whatever a statement of ours fails on, but for what fails outside the file. For two
    of those see `qmpmem.journal.damage`.
    """
    code = code_of(error)
    return type(error) is sqlite3.DatabaseError if code is None else code not in OUTSIDE


def code_of(error: sqlite3.Error) -> int | None:
    """Return SQLite's code, without what extends it; None: SQLite did not raise it."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
