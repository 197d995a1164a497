"""What keeps a file from being put in place, as an error that names it."""

import errno
import os
from pathlib import Path
from typing import Final

from qmpmem.errors import LaunchError
from qmpmem.files.directories import UntrustedError

IN_THE_WAY: Final = frozenset(
    (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP)
)
"""Errors of which something else of that name is the reason."""
NOT_PERMITTED: Final = frozenset((errno.EACCES, errno.EPERM))


def explain(error: OSError, path: Path) -> LaunchError:
    """Return an error of ours that names what the kernel refused to change.

    Args:
        error: what the kernel said. Of two names, as of symlink(2) and rename(2), the second is the
            one that was to be made. A name in a directory that was open is the last part of a path.
        path: what was to be put in place.
    """
    hint = None
    if error.errno in IN_THE_WAY or isinstance(error, UntrustedError):
        hint = "move it out of the way"
    elif error.errno in NOT_PERMITTED and os.geteuid() != 0:
        hint = "run as root"
    return LaunchError(f"{_named(error, path)}: {error.strerror or error}", hint=hint)


def _named(error: OSError, path: Path) -> str:
    name = error.filename2 or error.filename
    if not isinstance(name, str):
        return str(path)
    if name.startswith("/"):
        return name
    return str(next((each for each in (path, *path.parents) if each.name == name), path))
