"""Whether the process that listens on a socket is the agent.

Theory of operation:
    A client believes what the agent says, and tells it what to change. So the process that listens
    there must be root's, or the client's own user's, or that of the one user to whom root gave the
    place: the owner of the socket's directory, or of the socket in a directory of root's. Every
    directory above, and every link on the way, must be root's, and no other user may be able to
    write there, not even in a sticky one: so root alone can have put that directory there. Where a
    user makes a directory or a link in /tmp or at home, or binds a socket where others may write,
    no client of another user believes what listens there.
"""

import os
import stat
from pathlib import Path
from typing import Final

from qmpmem.files.directories import LINKS

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
        directory = _placed_by_root(path.parent)
        if directory is None:
            return False
        if _is_of(uid, directory):
            return True
        return _is_of(0, directory) and (directory / path.name).lstat().st_uid == uid
    except OSError:
        return False


def _placed_by_root(path: Path) -> Path | None:
    """Return a path without its links; None: other users can have put something on the way."""
    absolute = path if path.is_absolute() else Path.cwd() / path
    waiting = list(reversed(absolute.parts[1:]))
    here, links = Path("/"), 0
    while waiting:
        part = waiting.pop()
        if not _is_of(0, here):
            return None
        if part == "..":
            here = here.parent
            continue
        found = (here / part).lstat()
        if not stat.S_ISLNK(found.st_mode):
            here /= part
            continue
        links += 1
        if found.st_uid != 0 or links > LINKS:
            return None
        target = (here / part).readlink()
        waiting += reversed([each for each in target.parts if each != "/"])
        here = Path("/") if target.is_absolute() else here
    return here


def _is_of(uid: int, directory: Path) -> bool:
    """Tell whether only this user and root can write to a directory."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & _OTHERS
