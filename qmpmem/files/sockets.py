"""Unix sockets that have a name in the file system, with the mode that they are to have.

Rules of this file:
    The umask is never changed: it is one for all threads of a process (umask(2)), and another
    thread would make its files with it.
"""

import os
import socket
import stat
from typing import Final

MODE: Final = 0o600


def bind(
    listener: socket.socket, path: str, within: int | None = None, *, mode: int = MODE
) -> None:
    """Bind a socket, whose mode is never wider than this one from the moment it has a name.

    What bind(2) makes has the mode of the socket's own inode, less the umask (Linux: unix_bind_bsd
    in net/unix/af_unix.c). It follows no link: a name that exists is EADDRINUSE.

    Args:
        listener: a socket that is not bound.
        path: its name.
        within: the descriptor of the directory that the name is in.
        mode: whatever the umask is.

    Raises:
        OSError: as bind(2).
    """
    os.fchmod(listener.fileno(), mode)
    listener.bind(path if within is None else f"/proc/self/fd/{within}/{path}")
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        found = os.fstat(descriptor)
        is_ours = stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()
        made = stat.S_IMODE(found.st_mode)
        # The umask took something away. A file with more than `mode` is not what was just made.
        if is_ours and made != mode and not made & ~mode:
            os.chmod(f"/proc/self/fd/{descriptor}", mode)  # noqa: PTH101 - by descriptor
    finally:
        os.close(descriptor)
