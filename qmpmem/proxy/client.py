"""One client of a session that is shared: what it sent, and what waits for it. Pure."""

from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, Literal

from qmpmem.proxy.allowed_commands import Permit, everything, longest_message
from qmpmem.proxy.framing import Framer
from qmpmem.proxy.kept_bytes import KeptBytes

if TYPE_CHECKING:
    from qmpmem.proxy.requests import Command

QUEUE: Final = 1 << 20
"""Bytes of events that wait for one client; some 5000 events."""
UNREAD: Final = 64 * 1024
"""Bytes of answers that a client may leave unread before its next command is looked at."""


class Client:
    """One client's session.

    Args:
        permit: what it may have QEMU do.
        user: whose client it is.
        kept: counts what all clients have sent that is not answered.

    Attributes:
        ending: whether it is over: ``flush`` when what waits is written, ``abort`` at once.
        framer: what it sent and what was not looked at yet.
        output: what waits to be written to it.
        waiting: the bytes of that.
        is_greeted: whether it was greeted; until then nothing is read from it.
        negotiated: whether it has negotiated.
        pending: its command that is not answered yet.
        is_behind: whether it has sent more than was looked at in its turn.
    """

    def __init__(
        self,
        permit: Permit = everything,
        user: Hashable = None,
        kept: KeptBytes | None = None,
    ) -> None:
        self.permit = permit
        self.user = user
        self.longest = longest_message(permit)
        self.ending: Literal["flush", "abort"] | None = None
        self.framer = Framer(self.longest)
        self.output: deque[bytes] = deque()
        self.waiting = 0
        self.is_greeted = False
        self.negotiated = False
        self.pending: Command | None = None
        self.is_behind = False
        self._kept = kept or KeptBytes()
        self._counted = 0

    @property
    def is_busy(self) -> bool:
        """Tell whether a command of it is not answered yet."""
        return self.pending is not None

    @property
    def room(self) -> int:
        """Count the bytes that may be read from it for now: up to the end of one message.

        None of a client that is behind: to read costs time, too, and its user may have had enough.
        """
        if self.is_behind or not self.is_greeted:
            return 0
        is_held = self.is_busy or self.ending is not None
        if is_held and self._kept.is_much:
            return 0
        most = min(UNREAD, self.longest) if is_held else self.longest + 1
        return max(0, most - len(self.framer))

    @property
    def is_full(self) -> bool:
        """Tell whether no more should be read from it for now."""
        return self.room == 0

    def count(self) -> None:
        """Count what is kept of what it sent."""
        pending = 0 if self.pending is None else self.pending.size
        self._count(len(self.framer) + pending)

    def forget(self) -> None:
        """Count nothing of it any more."""
        self._count(0)

    def _count(self, size: int) -> None:
        self._kept.change(size - self._counted)
        self._counted = size

    def put(self, line: bytes) -> None:
        """Have an answer written."""
        self.output.append(line)
        self.waiting += len(line)

    def put_event(self, line: bytes) -> None:
        """Have an event written; too many at once are the client's end."""
        if not self.negotiated or self.ending is not None:
            return
        if self.waiting + len(line) > QUEUE:
            self.ending = "abort"
            self.output.clear()
            self.waiting = 0
            return
        self.put(line)
