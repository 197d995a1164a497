"""What a client's QMP session is used for, as lines of the log.

Rules of this file:
    Each command that is no query is logged by its name before QEMU has it. The same name again
    within `QUIET` seconds is counted, and the count is told at the end: a script that asks a
    hundred times a second writes no hundred lines.
    So it is with the sessions of a user without all rights, of which `TOLD` in `QUIET` seconds are
    told: what such a user sends is a query. Where lines come too fast, journald drops those of
    others, too.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from qmpmem.proxy.allowed_commands import QUERIES
from qmpmem.wire.errors import one_line

QUIET: Final = 60.0
NAMES: Final = 512
"""Names that are remembered; QEMU 10 has some 400 commands."""
TOLD: Final = 20
"""Sessions of a user that are told within `QUIET` seconds, with begin and end; and so many that are
ended for other users. A script that asks once a minute or so is seen each time."""
SESSIONS: Final = "sessions"
LOST: Final = "sessions ended for other users"
_SHOWN: Final = 64
"""Characters of a name. The longest of QEMU's has 40."""


class SessionCounts:
    """Counts of each user what is told no more, and tells the number.

    Args:
        log: told of that, in a line.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._counts: dict[tuple[int, str], tuple[int, asyncio.TimerHandle]] = {}

    def may_tell(self, uid: int, what: str) -> bool:
        """Count one more of something of a user; tell whether it may have a line of its own."""
        known = self._counts.get((uid, what))
        if known is None:
            end = asyncio.get_running_loop().call_later(QUIET, self._sum_up, uid, what)
            known = 0, end
        count, end = known
        self._counts[uid, what] = count + 1, end
        return count < TOLD

    def close(self) -> None:
        """Tell what was counted so far, and count no more."""
        for uid, what in list(self._counts):
            self._sum_up(uid, what)

    def _sum_up(self, uid: int, what: str) -> None:
        count, end = self._counts.pop((uid, what))
        end.cancel()
        if count > TOLD:
            self._log(f"uid {uid}: qmp: {count - TOLD} more {what} within {QUIET:g} s")


def always(what: str) -> bool:  # noqa: ARG001 - the signature is that of a user's `may_tell`
    """Tell that each may have a line of its own: of root, and of the agent's user."""
    return True


class QmpLog:
    """Writes down what one session is used for.

    Args:
        log: told of it, in a few words.
        left: called once when the session has ended.
        may_tell: whether there may be a line about the session, by what it is about; always about
            its commands.
        clock: seconds of a steady clock.
    """

    def __init__(
        self,
        log: Callable[[str], None],
        left: Callable[[], None],
        may_tell: Callable[[str], bool] = always,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._left = left
        self._may_tell = may_tell
        self._is_told = False
        self._clock = clock
        self._told: dict[str, float] = {}
        self._commands = 0

    def begin(self, *, read_only: bool) -> None:
        """Tell that the session begins."""
        self._is_told = self._may_tell(SESSIONS)
        if self._is_told:
            self._log("a session begins" + (" that only reads" if read_only else ""))

    def lose(self, words: str) -> None:
        """Tell that the session is ended for one of another user."""
        if self._may_tell(LOST):
            self._log(words)

    def hear(self, command: str | None) -> None:
        """Tell of a command; None: of the end."""
        if command is None:
            if self._is_told:
                self._log(f"the session has ended; commands: {self._commands}")
            self._left()
            return
        self._commands += 1
        if command in QUERIES:
            return
        name, now = one_line(command[:_SHOWN]), self._clock()
        if now - self._told.get(name, -QUIET) < QUIET:
            return
        if len(self._told) >= NAMES:
            self._told.clear()
        self._told[name] = now
        self._log(name)
