"""Where the journal is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

STATE: Final = Path("/var/lib/qmpmem")
NAME: Final = "journal.db"


def journal_path(given: str | None, environ: Mapping[str, str], uid: int) -> Path:
    """Say where the journal is.

    Args:
        given: what the configuration says.
        environ: systemd names a directory in STATE_DIRECTORY (systemd.exec(5)), a user one in
            XDG_STATE_HOME.
        uid: of the user who asks.
    """
    if given is not None:
        return Path(given)
    # One directory each, where a unit names several.
    directory = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if directory:
        return Path(directory) / NAME
    if uid == 0:
        return STATE / NAME
    home = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "/") / ".local/state")
    return Path(home) / "qmpmem" / NAME


def readable_journal(
    given: str | None, environ: Mapping[str, str], uid: int, roots: Path = STATE
) -> Path:
    """Find the journal that a user reads: the user's own, else root's.

    Root's where the user has none, nothing names another, and this process may read it: the same
    order in which `qmpmem.access.view` finds whose guests a user sees.

    Args:
        given: what the configuration says.
        environ: as for `journal_path`.
        uid: of the user.
        roots: the directory of root's journal.
    """
    own = journal_path(given, environ, uid)
    others = roots / NAME
    is_named = given is not None or "STATE_DIRECTORY" in environ
    if is_named or os.access(own, os.F_OK) or not os.access(others, os.R_OK):
        return own
    return others
