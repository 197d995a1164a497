"""Whether the process that listens on a socket is the agent.

Theory of operation:
    A client believes what the agent says, and tells it what to change. So the process that listens
    there must be root's, or the client's own user's, or that of the one user to whom root gave the
    place: the owner of the socket's directory, or of the socket in a directory of root's. Every
    directory above must be root's, and no other user may be able to write there, not even in a
    sticky one: so root alone can have put that directory there. Where a user makes a directory in
    /tmp or at home, or binds a socket where others may write, no client of another user believes
    what listens there.
"""

import os
import stat
from pathlib import Path
from typing import Final

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def is_trusted(uid: int, path: Path) -> bool:
    """Tell whether a process of this user may listen on a socket for this process.

    Args:
        uid: of the process that listens, as the kernel says (unix(7): SO_PEERCRED).
        path: the socket's.
    """
    return uid in (0, os.geteuid()) or _is_vouched_for(uid, path)


def _is_vouched_for(uid: int, path: Path) -> bool:
    """Tell whether root gave this user the place of the socket."""
    try:
        directory = Path(os.path.realpath(path.parent))
        if not all(_is_of(0, above) for above in directory.parents):
            return False
        if _is_of(uid, directory):
            return True
        return _is_of(0, directory) and (directory / path.name).lstat().st_uid == uid
    except OSError:
        return False


def _is_of(uid: int, directory: Path) -> bool:
    """Tell whether only this user and root can write to a directory."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & _OTHERS
