"""The lines that come over one session, and what is done with each.

Rules of this file:
    No I/O: lines and the time are arguments. A task waits here only for news of lines.

Theory of operation:
    A line may answer a command that a task waits for, and then goes back to the caller. Or it is a
    late answer, an event, the greeting, or nothing we asked for, which is counted. The session ends
    with the first line that QEMU would not send, or with more unasked lines than any QEMU sends.
"""

import asyncio
from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

import msgspec

from qmpmem.errors import GuestUnreachable
from qmpmem.records import Record
from qmpmem.wire import limits
from qmpmem.wire.errors import Reason, one_line, unreachable
from qmpmem.wire.events import EventQueue
from qmpmem.wire.limits import FloodError, MalformedError
from qmpmem.wire.messages import expect_no_refusal


class Statistics(Record, frozen=True):
    """What went wrong in a session and did not end it."""

    late: int
    """Answers that came after their deadline."""
    stray: int
    """Answers to nothing we asked, second answers, and other lines without meaning."""
    dropped_events: int
    """Events that came too fast, or waited too long for a reader."""
    malformed_events: int


class End(NamedTuple):
    """Why a session is over."""

    reason: Reason
    text: str


class Receiver:
    """The receiving end of one session.

    Attributes:
        events: those that wait for their reader.
        lost: the commands for which no task waits any more, by id; their answers may still come.
        greeting: what QEMU sent first; empty until then.
        ended: why the session is over; None while it is not.
        hear: called when there is news, the end included; None: no function is to be called.
    """

    def __init__(self, guest: str, now: float) -> None:
        self._guest = guest
        self.events = EventQueue(now)
        self.lost: dict[str, str] = {}
        self.greeting: Mapping[str, object] = {}
        self.ended: End | None = None
        self._flood = limits.TokenBucket(now, burst=limits.FLOOD_BURST, rate=limits.FLOOD_RATE)
        self.hear: Callable[[], None] | None = None
        self._news: asyncio.Event | None = None  # there is one only while a task waits
        self._late = 0
        self._stray = 0

    @property
    def statistics(self) -> Statistics:
        """Return what went wrong so far and did not end the session."""
        return Statistics(
            late=self._late,
            stray=self._stray,
            dropped_events=self.events.dropped,
            malformed_events=self.events.malformed,
        )

    def take(
        self, line: bytes, now: float, waiting: Container[str]
    ) -> tuple[str, dict[str, object]] | None:
        """Check one line, and take in what it is.

        Args:
            line: as it came, with its line end.
            now: seconds of a monotonic clock.
            waiting: the ids of the commands that are in flight.

        Returns:
            The id and the answer, where the line is an answer that a task waits for.

        Raises:
            MalformedError: QEMU sends no such line.
            FloodError: it is one line too many.
        """
        message = limits.parse_line(line)
        identity = message.get("id")
        if isinstance(identity, str) and "event" not in message:
            if identity in waiting:
                return identity, message
            if identity in self.lost:
                del self.lost[identity]
                self._late += 1
                self._tell()
                return None
        if not self._flood.take(len(line) + limits.FLOOD_LINE, now):
            raise FloodError("more unasked lines than any QEMU sends")
        self._take_unasked(message, len(line), now)
        return None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            GuestUnreachable: the session ended first.
        """
        while not condition():
            if self.ended is not None:
                raise self.over()
            self._news = self._news or asyncio.Event()
            await self._news.wait()

    def end(self, reason: Reason, text: str) -> None:
        """Note that the session is over, and why; the first reason counts."""
        self.ended = self.ended or End(reason, text)
        self._tell()

    def over(self) -> GuestUnreachable:
        """Return the error that tells why the session is over."""
        end = self.ended or End("closed", "the session is over")
        return unreachable(self._guest, end.reason, end.text)

    def _take_unasked(self, message: dict[str, object], size: int, now: float) -> None:
        if "event" in message:
            self.events.offer(message, size, now)
        elif "QMP" in message:
            self.greeting = message
        elif "error" in message and "id" not in message:
            if not self.greeting:
                expect_no_refusal(message)
            # qmp-spec, "Error": without an id, it means that QEMU did not understand a request. An
            # agent tells so why it ends a session.
            raise MalformedError(f"an error that answers no request: {_described(message)}")
        else:
            self._stray += 1
            return
        self._tell()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()  # wakes all who wait now
            self._news = None
        if self.hear is not None:
            self.hear()


class _Described(Record, frozen=True):
    desc: str


def _described(message: Mapping[str, object]) -> str:
    """Return what an error says of itself."""
    try:
        return one_line(msgspec.convert(message["error"], _Described).desc)
    except msgspec.ValidationError:
        return "it does not say more"
