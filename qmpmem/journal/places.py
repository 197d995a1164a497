"""Where the journal is."""

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
