"""What a client's QMP session is used for, as lines of the log.

Rules of this file:
    Each command that is no query is logged by its name before QEMU has it. The same name again
    within `QUIET` seconds is counted, and the count is told at the end: a script that asks a
    hundred times a second writes no hundred lines.
"""

import time
from collections.abc import Callable
from typing import Final

from qmpmem.proxy.allowed_commands import QUERIES
from qmpmem.wire.errors import one_line

QUIET: Final = 60.0
NAMES: Final = 512
"""Names that are remembered; QEMU 10 has some 400 commands."""
_SHOWN: Final = 64
"""Characters of a name. The longest of QEMU's has 40."""


class QmpLog:
    """Writes down what one session is used for.

    Args:
        log: told of it, in a few words.
        left: called once when the session has ended.
        clock: seconds of a steady clock.
    """

    def __init__(
        self,
        log: Callable[[str], None],
        left: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._left = left
        self._clock = clock
        self._told: dict[str, float] = {}
        self._commands = 0

    def begin(self, *, read_only: bool) -> None:
        """Tell that the session begins."""
        self._log("a session begins" + (" that only reads" if read_only else ""))

    def hear(self, command: str | None) -> None:
        """Tell of a command; None: of the end."""
        if command is None:
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
