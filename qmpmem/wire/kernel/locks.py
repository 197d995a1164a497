"""Which processes hold a lock on a file: /proc/locks (proc_locks(5))."""

import os
from pathlib import Path

from qmpmem.wire.kernel.files import is_count, read


def parse_locks(content: str, device: int, inode: int) -> frozenset[int]:
    """Return the processes that hold a POSIX lock on a file.

    Args:
        content: what /proc/locks says.
        device: the file's device, as stat(2) gives it.
        inode: the file's inode.

    Returns:
        Process ids. A lock of an open file description has none (F_OFD_SETLK), and is left out.
    """
    name = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    lines = (line.split() for line in content.splitlines())
    # "1: POSIX ADVISORY READ 4711 fe:00:17 0 EOF"; a process that waits has "->" as second word.
    held = (each for each in lines if len(each) > 5 and each[1] == "POSIX" and each[5] == name)  # noqa: PLR2004
    return frozenset(int(each[4]) for each in held if is_count(each[4]))


def lock_holders(path: Path, proc: Path = Path("/proc")) -> frozenset[int]:
    """Return the processes that hold a POSIX lock on a file; none where that cannot be seen.

    The file is not opened: closing it would give up all locks that this process has on it
    (fcntl(2)).
    """
    try:
        found = path.stat()
    except OSError:
        return frozenset()
    return parse_locks(read(proc / "locks") or "", found.st_dev, found.st_ino)
