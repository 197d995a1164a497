"""What the journal has of the last minutes, for a page that is not to begin empty."""

from contextlib import closing
from pathlib import Path
from typing import Final

from qmpmem.feed import round_of
from qmpmem.journal.reader import Reader
from qmpmem.serve.host_page import overview
from qmpmem.serve.recent_past import MINUTES, RecentPast

DEAR: Final = 60_000
"""Seconds times guests that are read of the journal: to read more takes longer than a second or
two."""


def read(journal: Path, until: float) -> RecentPast:
    """Follow the rounds of the last minutes. Blocks.

    Args:
        journal: its file.
        until: the end of those minutes, in seconds since 1970.

    Raises:
        QmpmemError: there is no journal, or it cannot be read.
    """
    recent = RecentPast()
    with closing(Reader(journal)) as reader:
        place = reader.place(until)
        last = None if place is None else reader.entry(place)
        count = 0 if last is None else len(last.tick.snapshot.guests)
        for entry in reader.entries(until - min(60.0 * MINUTES, DEAR / max(1, count)), until):
            seen = round_of(entry.tick, "journal", until)
            if recent.needs(seen):
                recent.follow(seen, overview(seen))
    return recent
