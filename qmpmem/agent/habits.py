"""What guests usually use at this hour, read from the journal beside the rounds.

Theory of operation:
    When a guest is new, and when another hour begins to count, a thread asks the journal for it:
    one question for each guest, answered by an index. No round waits for that: until the answer is
    there, and where there is none, nothing is known.

    From a journal that cannot be read nothing is known. The thread that writes it reports what is
    wrong with it.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from qmpmem.errors import QmpmemError
from qmpmem.journal import hourly_use
from qmpmem.journal.reader import Reader
from qmpmem.model.observation import Habit
from qmpmem.policy import habits

NOTHING: Final[Mapping[str, Habit]] = {}


class Habits:
    """Knows the habits of the guests that are there.

    Args:
        path: the journal; None: there is none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: Mapping[str, Habit] = NOTHING
        self._asked: frozenset[str] = frozenset()
        self._hours: tuple[int, ...] = ()
        self._asking: asyncio.Task[Mapping[str, Habit]] | None = None

    def known(self, guests: Collection[str], wall: float) -> Mapping[str, Habit]:
        """Return what is known of guests, by their ids, and begin to read what is missing.

        Args:
            guests: the ids of those that are there.
            wall: seconds since 1970.
        """
        if self._path is None:
            return NOTHING
        if self._asking is not None and self._asking.done():
            asked, self._asking = self._asking, None
            self._known = {**self._known, **asked.result()}
        local = hourly_use.local(wall)
        if self._asking is None:
            hours = habits.hours(local)
            if hours != self._hours:
                self._known, self._asked, self._hours = NOTHING, frozenset(), hours
            new = frozenset(guests) - self._asked
            self._asked = frozenset(guests)
            if new:
                reading = asyncio.to_thread(read, self._path, new, local)
                self._asking = asyncio.create_task(reading)
        return self._known

    async def stop(self) -> None:
        """Wait for what is being read: at most as long as a reader waits for a locked file."""
        if self._asking is not None:
            await asyncio.wait((self._asking,))


def read(path: Path, guests: Collection[str], local: float) -> dict[str, Habit]:
    """Return what guests usually use; those of which nothing is known are left out.

    Args:
        path: the journal.
        guests: their ids.
        local: seconds of local time since 1970.
    """
    found: dict[str, Habit] = {}
    hours = [each % habits.HOURS for each in habits.hours(local)]
    with suppress(QmpmemError), closing(Reader(path)) as reader:
        for guest in guests:
            habit = habits.habit(reader.uses(guest, hours), local)
            if habit is not None:
                found[guest] = habit
    return found
