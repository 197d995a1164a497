"""Rounds of the past, as the journal has them.

Rules of this file:
    Everything here blocks: inside an event loop, call it in a thread, any thread. Nothing stays
    open between two calls, so that a journal that was begun anew is read from then on.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from qmpmem.feed.records import Round, round_of
from qmpmem.journal.reader import Entry, Reader


class Past:
    """Reads rounds.

    Args:
        path: the journal's file (`qmpmem.journal.paths.readable_journal` finds it).

    Raises:
        ConfigError: in any call: there is no journal.
        KernelError: in any call: it cannot be read, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def span(self) -> tuple[float, float] | None:
        """Return when the first and the last round were, in seconds since 1970; None: no rounds."""
        with closing(Reader(self.path)) as reader:
            return reader.span()

    def at(self, moment: float) -> Round | None:
        """Return the last round at or before a time, else the first; None: there are none.

        Args:
            moment: seconds since 1970.
        """
        with closing(Reader(self.path)) as reader:
            return _read(reader, reader.place(moment))

    def step(self, place: int, rounds: int) -> Round | None:
        """Return a round so many after another one; None: the journal has none there.

        Args:
            place: `Round.place` of the other.
            rounds: how many later; earlier where it is negative.
        """
        with closing(Reader(self.path)) as reader:
            return _read(reader, reader.beside(place, rounds))

    def between(self, since: float, until: float = float("inf")) -> Iterator[Round]:
        """Yield the rounds of a time, oldest first; both ends belong to it.

        Args:
            since: seconds since 1970.
            until: seconds since 1970.
        """
        with closing(Reader(self.path)) as reader:
            for entry in reader.entries(since, until):
                yield _round(entry, None)


def _read(reader: Reader, place: int | None) -> Round | None:
    entry = None if place is None else reader.entry(place)
    return None if entry is None else _round(entry, place)


def _round(entry: Entry, place: int | None) -> Round:
    return round_of(entry.tick, "journal", 0.0, place)
