"""Follows the agent, and keeps what all visitors are shown.

Theory of operation:
    The page is made of parts, each an element with an id. While any page is open, a round makes
    those parts anew whose content changed, and notes in which version. A visitor that has an older
    version is sent the parts that are newer; one that is slow misses versions, and costs nothing.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Final, get_args

import msgspec

from qmpmem.feed import Lost, Round
from qmpmem.records import Record, replace
from qmpmem.serve import pages
from qmpmem.serve.host_page import HostPage, Row, Sort, overview
from qmpmem.serve.html import Markup
from qmpmem.serve.recent_past import RecentPast

BEAT: Final = 15.0
"""Seconds without a change after which a visitor gets an empty line, which shows that the server is
still there."""
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)


class Part(Record, frozen=True):
    """An element of the page."""

    version: int
    text: Markup


class Event(Record, frozen=True):
    """What a visitor is sent: JSON, with HTML in it."""

    parts: Mapping[str, str]
    """The parts of the page that changed, by the id of the element that each takes the place of."""
    order: list[str]
    """The ids of all rows of guests."""
    count: str
    age: float | None
    """Seconds since the last round."""


class AgentFollower:
    """Keeps the page as it is now.

    Args:
        clock: seconds of a steady clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.shown: HostPage | None = None
        self.seen: Round | None = None
        self.recent = RecentPast()
        self.version = 0
        self.instance = secrets.token_hex(4)
        """A word that is another one after each start: versions count from 0 then."""
        self._clock = clock
        self._at: float | None = None
        self._drawn = 0
        self._parts: dict[str, Part] = {}
        self._rows: dict[str, tuple[Row, object]] = {}
        self._next = asyncio.Event()

    async def run(self, rounds: AsyncGenerator[Round | Lost]) -> None:
        """Follow rounds until they end."""
        async with aclosing(rounds):
            async for each in rounds:
                self.take(each)

    def take(self, seen: Round | Lost) -> None:
        """Take in a round, or that there are none."""
        if isinstance(seen, Lost):
            if self.shown is not None:
                self.shown = replace(self.shown, problem=seen.problem, state=None)
        else:
            self._at = self._clock()
            self.seen, self.shown = seen, overview(seen)
            self.recent.follow(seen, self.shown)
        self._change()

    def _change(self) -> None:
        self.version += 1
        over, self._next = self._next, asyncio.Event()
        over.set()

    def remember(self, older: RecentPast) -> None:
        """Take in what was before the first round."""
        self.recent.come_after(older)
        self._change()

    @property
    def age(self) -> float | None:
        """Return the seconds since the last round; None: there was none yet."""
        return None if self._at is None else self._clock() - self._at

    @property
    def mark(self) -> str:
        """Return what a page carries so that it is sent what is newer."""
        return f"{self.instance}-{self.version}"

    def row(self, guest: str) -> Markup:
        """Return a guest's row."""
        self._draw()
        return self._parts[f"guest-{guest}"].text

    async def follow(self, by: Sort, mark: str | None) -> AsyncIterator[bytes]:
        """Yield events from now on, as the EventSource of a page reads them.

        Args:
            by: how the page sorts guests.
            mark: what the page carries; None: nothing.
        """
        version, is_new = self._since(mark), True
        while True:
            if is_new or version < self.version:  # at first at once: how old the last round is
                is_new = False
                event, version = self._event(by, version), self.version
                yield event  # takes as long as the visitor does, and rounds go on
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._next.wait()
            if version == self.version:
                yield b": \n\n"

    def _since(self, mark: str | None) -> int:
        instance, _, version = (mark or "").rpartition("-")
        is_ours = instance == self.instance and version.isascii() and version.isdecimal()
        return min(int(version[:9]), self.version) if is_ours else -1

    def _event(self, by: Sort, since: int) -> bytes:
        self._draw()
        shown = self.shown
        newer = {name: str(part.text) for name, part in self._parts.items() if part.version > since}
        event = Event(
            parts=newer,
            order=[] if shown is None else [f"guest-{each}" for each in pages.ordered(shown, by)],
            count="" if shown is None else pages.count(shown),
            age=self.age,
        )
        content = msgspec.json.encode(event)  # one line: JSON has no line ends outside of text
        return b"id: %s\nevent: round\ndata: %s\n\n" % (self.mark.encode(), content)

    def _draw(self) -> None:
        """Write the parts as they are now, where that was not done: only while a page is open."""
        if self._drawn == self.version:
            return
        self._drawn = self.version
        self._put("top", pages.top(self.shown))
        if self.shown is not None:
            self._draw_rows(self.shown)
            self._put("tiles", pages.tiles(self.shown))

    def _put(self, name: str, text: Markup) -> None:
        known = self._parts.get(name)
        if known is None or known.text != text:
            self._parts[name] = Part(version=self.version, text=text)

    def _draw_rows(self, shown: HostPage) -> None:
        for gone in self._rows.keys() - shown.rows.keys():
            del self._rows[gone], self._parts[f"guest-{gone}"]
        for guest, row in shown.rows.items():
            points = self.recent.points(guest)
            if self._rows.get(guest) != (row, points):
                self._rows[guest] = row, points
                self._put(f"guest-{guest}", pages.guest_row(row, points))
