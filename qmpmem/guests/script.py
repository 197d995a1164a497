"""Many changes in one process: the language of `qmpmem script`.

Grammar, one statement a line, ``#`` starts a comment:
    set PATTERN SIZE             every guest that matches goes to SIZE
    wait PATTERN SIZE DURATION   until every guest that matches is there, at most DURATION
    sleep DURATION
    get PATTERN                  one snapshot each

    PATTERN is a guest's id or name, or a shell pattern of those (``web*``); with a space in it, it
    is quoted, as in a shell. DURATION is ``500ms``, ``10s``, ``1h30m``
    (`qmpmem.units.parse_duration`).

Theory of operation:
    The whole script is read and checked before the first change: a mistake in line 90 must not
    leave 89 lines done. A guest's connection is opened when the guest is first named, and kept to
    the end, which makes a script faster than as many commands. Guests of one line run in parallel;
    lines run in order.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any, Final, Self

from qmpmem.errors import ConfigError, GuestUnreachable, QmpmemError
from qmpmem.guests.guest import DirectGuest, ResizableGuest
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model import names
from qmpmem.model.bounds import is_near
from qmpmem.model.guest import GuestView
from qmpmem.model.halts import Standing
from qmpmem.records import Record, replace
from qmpmem.units import Bytes, Change, Delta, parse_change, parse_duration

LAST_LOOK: Final = 1.0
"""Seconds that a guest has to tell how far it is, when a script is interrupted."""
_USAGE: Final = {
    "set": "set PATTERN SIZE",
    "wait": "wait PATTERN SIZE DURATION",
    "sleep": "sleep DURATION",
    "get": "get PATTERN",
}


class Set(Record, frozen=True):
    """``set PATTERN SIZE``."""

    pattern: str
    change: Change


class Wait(Record, frozen=True):
    """``wait PATTERN SIZE DURATION``."""

    pattern: str
    change: Change
    seconds: float


class Get(Record, frozen=True):
    """``get PATTERN``."""

    pattern: str


class Sleep(Record, frozen=True):
    """``sleep DURATION``."""

    seconds: float


Statement = Set | Wait | Get | Sleep

Connect = Callable[[LiveGuest], AbstractAsyncContextManager[ResizableGuest]]
"""How a guest is reached: by itself, or by an agent."""


class Line(Record, frozen=True):
    """A statement, and its line in the script."""

    number: int
    """The number of the line, from 1."""
    text: str
    statement: Statement


class Result(Record, frozen=True, omit_defaults=True):
    """What one line did to one guest: one line of JSON."""

    line: int = 0
    command: str = ""
    id: str | None = None
    name: str | None = None
    ok: bool = True
    target: Bytes | None = None
    actual: Bytes | None = None
    guest: GuestView | None = None
    error: str | None = None
    exit_code: int = 0


class Left(Record, frozen=True):
    """A guest that was on its way when a script was interrupted, and goes on by itself."""

    id: str
    name: str
    before: Bytes
    """What it had before the script's first change."""
    target: Bytes
    actual: Bytes
    standing: Standing


class Interrupted(Exception):  # noqa: N818 - reads as what has happened
    """A script was cancelled.

    Attributes:
        left: the guests that are on their way, in the order in which they were first set.
    """

    def __init__(self, left: Sequence[Left]) -> None:
        super().__init__()
        self.left = left


def parse(text: str) -> list[Line]:
    """Read a script.

    Raises:
        ConfigError: it names every line that makes no sense.
    """
    lines: list[Line] = []
    mistakes: list[str] = []
    for number, written in enumerate(text.splitlines(), start=1):
        try:
            words = _split(written)
            if not words:
                continue
            statement = _statement(words)
        except ConfigError as error:
            mistakes.append(f"line {number}: {error.message}")
        else:
            lines.append(Line(number=number, text=written.strip(), statement=statement))
    if mistakes:
        raise ConfigError("; ".join(mistakes), hint="nothing was changed")
    return lines


def match_guests(
    lines: Sequence[Line], guests: Sequence[LiveGuest]
) -> dict[str, tuple[LiveGuest, ...]]:
    """Return the guests that each pattern of a script means.

    Raises:
        ConfigError: a pattern means none, or a name means several.
    """
    meant: dict[str, tuple[LiveGuest, ...]] = {}
    for line in lines:
        if isinstance(line.statement, Sleep):
            continue
        pattern = line.statement.pattern
        try:
            meant[pattern] = _meant(pattern, guests)
        except ConfigError as error:
            raise ConfigError(f"line {line.number}: {error.message}", hint=error.hint) from error
        if not meant[pattern]:
            raise ConfigError(
                f"line {line.number}: {pattern}: no guest has such an id or name",
                hint="`qmpmem list` shows all; nothing was changed",
            )
    return meant


def _meant(pattern: str, guests: Sequence[LiveGuest]) -> tuple[LiveGuest, ...]:
    """Find the guests of a pattern; a word that is no pattern means one guest at most.

    A guest whose name looks like a pattern, such as ``web[1]``, is also found by that name itself.
    """
    if names.WILD.search(pattern):
        return tuple(
            found
            for found in guests
            if names.matches(pattern, found.record.id, found.record.name)
            or found.record.name == pattern
        )
    meant = names.pick(pattern, {found.record.id: found.record.name for found in guests})
    return tuple(found for found in guests if found.record.id == meant)


def _split(written: str) -> list[str]:
    """Split a line into words as a shell does: a name with a space in it is quoted."""
    splitter = shlex.shlex(written, posix=True)
    splitter.whitespace_split = True
    try:
        return list(splitter)
    except ValueError:
        raise ConfigError(f"{written.strip()[:40]!r}: a quote that is not closed") from None


async def run(
    lines: Sequence[Line],
    meant: dict[str, tuple[LiveGuest, ...]],
    *,
    keep_going: bool = False,
    force: bool = False,
    connect: Connect = DirectGuest,
) -> AsyncIterator[Result]:
    """Run a script, and yield each line's results when the line is done.

    It stops after the first line with a failure, unless told to keep going.

    Raises:
        Interrupted: the task was cancelled.
    """
    async with _Pool(connect) as pool:
        for line in lines:
            try:
                results = await _run_line(line, meant, pool, force=force)
            except asyncio.CancelledError:
                raise Interrupted(await pool.left()) from None
            for result in results:
                yield result
            if not keep_going and any(not result.ok for result in results):
                return


class _Pool:
    """The guests of a script, each connected when first named and until the script ends."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._open: dict[str, tuple[ResizableGuest, AsyncExitStack]] = {}
        self._moves: dict[str, tuple[Bytes, Bytes]] = {}
        """The size of each guest before the first change, and its last target."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        async with AsyncExitStack() as last:
            for _guest, stack in self._open.values():
                last.push_async_callback(stack.aclose)
            self._open.clear()

    async def get(self, found: LiveGuest) -> ResizableGuest:
        known = self._open.get(found.record.id)
        if known is not None:
            return known[0]
        stack = AsyncExitStack()
        guest = await stack.enter_async_context(self._connect(found))
        self._open[found.record.id] = (guest, stack)
        return guest

    async def note(self, guest: ResizableGuest, target: Bytes) -> None:
        """Remember that a guest is about to be told to go to a size."""
        known = self._moves.get(guest.id)
        before = await guest.actual() if known is None else known[0]
        self._moves[guest.id] = (before, target)

    async def left(self) -> list[Left]:
        """Find the guests that are not at their targets yet, without those that do not answer."""
        asked = (self._left(guest) for guest in self._moves)
        return [found for found in await asyncio.gather(*asked) if found is not None]

    async def _left(self, guest: str) -> Left | None:
        before, target = self._moves[guest]
        with suppress(QmpmemError, TimeoutError):
            async with asyncio.timeout(LAST_LOOK):
                known = self._open[guest][0] if guest in self._open else None
                actual = None if known is None else await known.actual()
                if known is not None and actual is not None and not is_near(actual, target):
                    standing = await known.standing()
                    return Left(
                        id=guest,
                        name=known.name,
                        before=before,
                        target=target,
                        actual=actual,
                        standing=standing,
                    )
        return None

    async def drop(self, found: LiveGuest) -> None:
        """Close a guest whose session broke, so that a later line connects anew."""
        known = self._open.pop(found.record.id, None)
        if known is not None:
            await known[1].aclose()


async def _run_line(
    line: Line, meant: dict[str, tuple[LiveGuest, ...]], pool: _Pool, *, force: bool
) -> list[Result]:
    match line.statement:
        case Sleep(seconds=seconds):
            await asyncio.sleep(seconds)
            return [Result(line=line.number, command="sleep")]
        case Set(pattern=pattern, change=change):
            return await _each(
                line,
                "set",
                meant[pattern],
                pool,
                lambda guest: _set(guest, change, pool, force=force),
            )
        case Wait(pattern=pattern, change=change, seconds=seconds):
            return await _each(
                line, "wait", meant[pattern], pool, lambda guest: _wait(guest, change, seconds)
            )
        case Get(pattern=pattern):
            return await _each(line, "get", meant[pattern], pool, _get)


async def _each(
    line: Line,
    command: str,
    guests: Sequence[LiveGuest],
    pool: _Pool,
    action: Callable[[ResizableGuest], Coroutine[Any, Any, Result]],
) -> list[Result]:
    """Do one thing to many guests at once; each outcome, also a failure, is a result."""

    async def one(found: LiveGuest) -> Result:
        try:
            result = await action(await pool.get(found))
        except GuestUnreachable as error:
            await pool.drop(found)
            result = _failure(error)
        except QmpmemError as error:
            result = _failure(error)
        record = found.record
        return replace(result, line=line.number, command=command, id=record.id, name=record.name)

    return list(await asyncio.gather(*(one(found) for found in guests)))


async def _set(guest: ResizableGuest, change: Change, pool: _Pool, *, force: bool) -> Result:
    target = await guest.target_of(change)
    await pool.note(guest, target)
    await guest.set(target, force=force)
    return Result(target=target)


async def _wait(guest: ResizableGuest, change: Change, seconds: float) -> Result:
    target = await guest.target_of(change)
    return Result(target=target, actual=await guest.wait(target, timeout=seconds))


async def _get(guest: ResizableGuest) -> Result:
    return Result(guest=await guest.snapshot())


def _failure(error: QmpmemError) -> Result:
    return Result(ok=False, error=error.message, exit_code=error.exit_code)


def _statement(words: Sequence[str]) -> Statement:
    match words:
        case ["set", pattern, size]:
            return Set(pattern=pattern, change=parse_change(size))
        case ["wait", pattern, size, duration]:
            change = parse_change(size)
            if isinstance(change, Delta):
                raise ConfigError(f"wait for {size!r}: a change has no end to wait for")
            return Wait(pattern=pattern, change=change, seconds=parse_duration(duration))
        case ["get", pattern]:
            return Get(pattern=pattern)
        case ["sleep", duration]:
            return Sleep(seconds=parse_duration(duration))
        case [word, *_]:
            usage = _USAGE.get(word)
            if usage is None:
                raise ConfigError(f"{word!r}: expected one of {', '.join(_USAGE)}")
            raise ConfigError(f"expected `{usage}`")
        case _:
            raise ConfigError("expected a statement")
