"""The path of the journal."""

import os
import pwd
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

STATE: Final = Path("/var/lib/qmpmem")
NAME: Final = "journal.db"


def journal_path(given: str | None, environ: Mapping[str, str], uid: int) -> Path:
    """Return the path of the journal that a user's agent keeps.

    Args:
        given: the path that the configuration sets, if any.
        environ: systemd names a directory in STATE_DIRECTORY (systemd.exec(5)), a user one in
            XDG_STATE_HOME.
        uid: the user that asks.
    """
    if given is not None:
        return Path(given)
    # The first directory, where a unit names several.
    directory = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if directory:
        return Path(directory) / NAME
    if uid == 0:
        return STATE / NAME
    home = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "/") / ".local/state")
    return Path(home) / "qmpmem" / NAME


def unit_journal(user: str, roots: Path = STATE) -> Path:
    """Return the path of the journal of the agent that systemd runs as one user.

    The unit has StateDirectory=qmpmem-USER (launchers/qmpmem-agent-user.service).

    Args:
        user: the user's name.
        roots: the directory of root's journal.
    """
    return roots.with_name(f"{roots.name}-{user}") / NAME


def readable_journal(
    given: str | None, environ: Mapping[str, str], uid: int, roots: Path = STATE
) -> Path:
    """Find the journal that a user reads.

    Where nothing names one, it is the user's own: of the agent that systemd runs as this user, or
    of the one that the user starts, whichever wrote last. Without either it is root's, if this
    process may read that. `qmpmem.guests.access.view` finds the guests that a user sees in the same
    order.

    Args:
        given: the path that the configuration sets, if any.
        environ: as for `journal_path`.
        uid: the user.
        roots: the directory of root's journal.
    """
    path = journal_path(given, environ, uid)
    if given is not None or "STATE_DIRECTORY" in environ:
        return path
    own = [path]
    with suppress(KeyError):
        own.append(unit_journal(pwd.getpwuid(uid).pw_name, roots))
    latest = max(own, key=_written)
    if _written(latest) or not os.access(roots / NAME, os.R_OK):
        return latest
    return roots / NAME


def _written(path: Path) -> float:
    """Return when a journal was last written, in seconds since 1970; 0.0: this user has none.

    Rounds go to the file with -wal first (SQLite: Write-Ahead Logging).
    """
    times = [0.0]
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(OSError):
            times.append(each.stat().st_mtime)
    return max(times)
