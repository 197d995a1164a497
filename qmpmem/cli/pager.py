"""Long text on a terminal, through a pager, as git and systemd show theirs."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Final

from qmpmem.cli.app import put

PAGERS: Final = ("less", "more")
"""The pagers that are tried, in this order, where PAGER names none."""
DEFAULTS: Final = {"LESS": "FRX", "LV": "-c"}
"""Options of pagers as git(1) sets them: quit where one screen is enough, show bold, leave the text
on the screen."""
NOT_FOUND: Final = (126, 127)
"""The exit codes of sh(1) where it cannot run a command."""


def show(text: str, *, uses_pager: bool) -> None:
    """Write a text; on a terminal by a pager, where one is wanted and can be started."""
    command = find_pager() if uses_pager and sys.stdout.isatty() else None
    if command is None or not _page(command, text):
        put(text, end="")


def find_pager() -> str | None:
    """Return the pager's command for sh(1): PAGER, or the first that is installed; None: none."""
    if os.environ.get("TERM") in (None, "", "dumb"):
        return None
    given = os.environ.get("PAGER")
    if given is not None:
        return None if given.strip() in ("", "cat") else given
    return next((name for name in PAGERS if shutil.which(name)), None)


def _page(command: str, text: str) -> bool:
    """Show a text by a pager; return whether there was one."""
    sys.stdout.flush()
    child = subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, env=DEFAULTS | dict(os.environ)
    )
    # Ctrl-C is the pager's: less stops a search by it, and goes on.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with suppress(BrokenPipeError):  # the reader has seen enough
            child.communicate(text.encode(sys.stdout.encoding, "backslashreplace"))
        return child.wait() not in NOT_FOUND
    finally:
        signal.signal(signal.SIGINT, before)
