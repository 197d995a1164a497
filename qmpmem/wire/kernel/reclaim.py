"""Reclaim of a cgroup's memory by the host's kernel: which way there is, and one step of it.

Theory of operation:
    reclaim   memory.reclaim (Linux 5.19): a number of bytes is written, and is reclaimed within the
              write. Nothing is set, so there is nothing to undo.
    high      memory.high, where that is "max": it is lowered for a moment, which reclaims as much
              within the write (mm/memcontrol.c: memory_high_write), and then set back. While it is
              low, tasks of the group that allocate are slowed down, and none is killed. The limit
              is noted on the group first (an extended attribute, which goes with the group), so
              that `restore` can undo a step that was interrupted.
    empty     memory.force_empty of version 1: it reclaims all that it can. So a process of its own
              writes it, and ends when there is enough or it has taken too long: a write by a thread
              that is killed ends (mm/memcontrol-v1.c: mem_cgroup_force_empty). Nothing is set.

    The limit of version 1, memory.limit_in_bytes, is not used: where a group allocates and cannot
    get below it, the kernel kills a process of the group, which would be the guest.

Rules of this file:
    Everything here blocks, `step` for as long as the swap takes.
"""

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpmem.errors import KernelError
from qmpmem.model.observation import Way
from qmpmem.units import MIB, Bytes
from qmpmem.wire.kernel import cgroup
from qmpmem.wire.kernel.files import is_count, read

FILES: Final[dict[Way, str]] = {
    "reclaim": "memory.reclaim",
    "high": "memory.high",
    "empty": "memory.force_empty",
}
UNSET: Final = "max"
NOTE: Final = "user.qmpmem.high"
"""The extended attribute that notes our limit on a group. Cgroups have attributes that are called
``user.`` since Linux 5.7."""
PIECE: Final = Bytes(4 * MIB)
"""Most that is reclaimed by one write: Linux 6.1 reclaims up to twice as much as it is asked for
(54 MiB for 30)."""
ANONYMOUS: Final = "swappiness=200"
"""The word that reclaims by swap before file cache, which counts as available already (Linux
6.9)."""
LONGEST: Final = 2.0
"""Seconds after which a step of `empty` is stopped."""
_EMPTY: Final = """
import os, sys, threading, time
group, least, end = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
def write():
    try:
        with open(group + "/memory.force_empty", "w") as file:
            file.write("0")
    except OSError:
        pass
thread = threading.Thread(target=write, daemon=True)
thread.start()
while thread.is_alive() and time.monotonic() < end:
    with open(group + "/memory.usage_in_bytes") as file:
        if int(file.read()) <= least:
            break
    time.sleep(0.001)
os._exit(0)
"""


def way(group: Path, version: int, *, made: bool) -> Way | None:
    """Find out how memory of a group can be reclaimed.

    Args:
        group: its directory.
        version: the version of cgroups.
        made: whether the launcher made it; the limits of any other are set by its manager.

    Returns:
        The way; None where there is none, or it may not be written.
    """
    if version == cgroup.V1.number:
        return "empty" if _is_writable(group / FILES["empty"]) else None
    if (group / FILES["reclaim"]).exists():
        return "reclaim" if _is_writable(group / FILES["reclaim"]) else None
    high = group / FILES["high"]
    if not made or (read(high) or "").strip() != UNSET or not _is_writable(high):
        return None
    return "high"


def is_forbidden(group: Path, version: int) -> bool:
    """Tell whether a group has a file to reclaim by that may not be written."""
    names: tuple[Way, ...] = ("empty",) if version == cgroup.V1.number else ("reclaim", "high")
    found = next((path for name in names if (path := group / FILES[name]).exists()), None)
    return found is not None and not _is_writable(found)


def step(group: Path, by: Way, size: Bytes) -> Bytes:
    """Reclaim memory of a group.

    Args:
        group: its directory.
        by: the way.
        size: the most that is to be reclaimed.

    Returns:
        How much less the group uses.

    Raises:
        KernelError: a file of the group could not be written.
    """
    before = usage(group)
    try:
        match by:
            case "reclaim":
                _reclaim(group, before, size)
            case "high":
                _lower(group, Bytes(max(0, before - size)))
            case "empty":
                _empty(group, Bytes(max(0, before - size)))
    except OSError as error:
        raise KernelError(
            f"{group / FILES[by]}: {error.strerror}",
            hint="may the agent write cgroups? `reclaim = false` leaves them alone",
        ) from error
    return Bytes(max(0, before - usage(group)))


def restore(group: Path) -> bool:
    """Undo a step by memory.high that was interrupted; tell whether there was one.

    Raises:
        KernelError: it cannot be undone.
    """
    try:
        noted = os.getxattr(group, NOTE).decode()
    except (OSError, UnicodeDecodeError):
        return False
    high = group / FILES["high"]
    try:
        # Another value is no longer ours.
        if (read(high) or "").strip() == noted:
            _write(high, UNSET)
        os.removexattr(group, NOTE)
    except OSError as error:
        raise KernelError(
            f"{high}: {error.strerror}; it is {noted}, and was {UNSET}",
            hint=f"echo {UNSET} >{high}",
        ) from error
    return True


def usage(group: Path) -> Bytes:
    """Read how much a group uses.

    Raises:
        KernelError: it is gone, or no memory cgroup.
    """
    name = cgroup.version_of(group).usage
    word = (read(group / name) or "").strip()
    if not is_count(word):
        raise KernelError(f"{group / name}: expected bytes, got {word[:40]!r}")
    return Bytes(int(word))


def _reclaim(group: Path, before: Bytes, size: Bytes) -> None:
    """Reclaim piece by piece, until there is enough or nothing more comes free."""
    left, used = int(size), before
    while left > 0 and _reclaim_piece(group / FILES["reclaim"], min(left, PIECE)):
        now = usage(group)
        if now >= used:
            return
        used, left = now, size - (before - now)


def _reclaim_piece(path: Path, size: int) -> bool:
    """Reclaim one piece, and tell whether all of it was reclaimed."""
    for words in (f"{size} {ANONYMOUS}", str(size)):
        try:
            _write(path, words)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return False
            if error.errno != errno.EINVAL or words == str(size):
                raise
        else:
            return True
    return False


def _lower(group: Path, limit: Bytes) -> None:
    high = group / FILES["high"]
    if (found := (read(high) or "").strip()) != UNSET:
        raise KernelError(f"{high}: expected {UNSET}, found {found[:40]!r}; it is left as it is")
    lowered = str(limit - limit % os.sysconf("SC_PAGE_SIZE"))
    os.setxattr(group, NOTE, lowered.encode())
    try:
        _write(high, lowered)
    finally:
        _write(high, UNSET)
        os.removexattr(group, NOTE)


def _empty(group: Path, least: Bytes) -> None:
    words = [sys.executable, "-IS", "-c", _EMPTY, str(group), str(least), str(LONGEST)]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=5 * LONGEST,
        )


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK)


def _write(path: Path, words: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(descriptor, words.encode())
    finally:
        os.close(descriptor)
