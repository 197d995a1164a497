"""Files that keep state: written whole, and believed only where no other user could write them.

Rules of this file:
    A file is reached from its directory's descriptor (`qmpmem.files.directories`), opened with
    O_NOFOLLOW and O_NONBLOCK, and looked at by its descriptor: a FIFO or a device is never waited
    for. Everything here blocks, and raises OSError whose `strerror` says in a few words what is
    wrong. Only the standard library, and little of it: commands that take milliseconds use it.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpmem.files.directories import SAFELY, UntrustedError, expect, find_problem, kind_of, opened

PRIVATE: Final = 0o600


def open_file(path: Path, flags: int, mode: int = PRIVATE) -> int:
    """Open a state file that only root or this user could have written.

    Args:
        path: the file.
        flags: as of open(2).
        mode: of a file that O_CREAT makes, whatever the umask is.

    Raises:
        UntrustedError: it is no file, or others could have written it.
        OSError: as open(2).
    """
    with opened(path.parent) as directory:
        return open_below(directory, path, flags, mode)


def open_below(directory: int, path: Path, flags: int, mode: int = PRIVATE) -> int:
    """Open a state file, as `open_file`, in a directory that is open."""
    try:
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        found = None
    if found is not None:  # to open a device may do something
        _expect_file(found, path)
    descriptor = os.open(path.name, flags | SAFELY, mode, dir_fd=directory)
    try:
        _expect_file(os.fstat(descriptor), path)
        if found is None:
            os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _expect_file(status: os.stat_result, path: Path) -> None:
    """Expect what `find_problem` does, and that no group may write the file: it has one writer."""
    problem = find_problem(status)
    if problem is None and status.st_mode & stat.S_IWGRP:
        mode = stat.S_IMODE(status.st_mode)
        problem = f"group {status.st_gid} may write it (mode {mode:04o}); chmod g-w"
    expect(problem, path)


def make(path: Path, mode: int, group: int | None = None) -> None:
    """Make a state file for a library that opens it by its path, empty, where it is missing.

    One that is there already is not opened: to close it again would take away the locks that this
    process has on it (fcntl(2)). It loses what its mode has beyond `mode`.

    Args:
        path: the file.
        mode: its mode, whatever the umask is.
        group: the group of a new one; None: the one that it gets by itself.

    Raises:
        UntrustedError: it is no file, or others could have written it or may change its directory.
        OSError: it cannot be made.
    """
    with opened(path.parent) as directory:
        if narrow(path, mode, directory):
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = open_below(directory, path, flags, mode)
        try:
            if group is not None:
                os.fchown(descriptor, -1, group)
        finally:
            os.close(descriptor)


def narrow(path: Path, mode: int, directory: int) -> bool:
    """Expect a state file, where there is one, to be a file, and clear what its mode has beyond.

    Returns:
        Whether it is there.

    Raises:
        UntrustedError: it is no file, or others could have written it.
        OSError: its mode cannot be changed.
    """
    try:
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    _expect_file(found, path)
    seen = stat.S_IMODE(found.st_mode)
    if seen & ~mode and found.st_uid == os.geteuid():
        os.chmod(path.name, seen & mode, dir_fd=directory)
    return True


def give(path: Path, group: int, directory: int) -> None:
    """Change the group of a state file of this user's, where it has another; it may be missing.

    Raises:
        OSError: it cannot be given to that group.
    """
    with suppress(FileNotFoundError):
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
        if found.st_uid == os.geteuid() and found.st_gid != group:
            os.chown(path.name, -1, group, dir_fd=directory, follow_symlinks=False)


def read(path: Path, limit: int) -> bytes:
    """Read a state file whole.

    Args:
        path: the file.
        limit: bytes. A larger file was not written by this package.

    Raises:
        UntrustedError: it is no file, or others could have written it.
        OSError: it is missing, larger, or cannot be read.
    """
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        return file.read(limit)


def read_below(directory: int, name: str, limit: int) -> bytes:
    """Read at most so many bytes of a file in a directory that is open, of any user's.

    Raises:
        UntrustedError: it is no file.
        OSError: it is missing, or cannot be read.
    """
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise UntrustedError(f"expected a file, got {kind_of(found)}", name)
    with os.fdopen(os.open(name, os.O_RDONLY | SAFELY, dir_fd=directory), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UntrustedError("expected a file", name)
        return file.read(limit)


def write(path: Path, content: bytes, mode: int = PRIVATE, group: int | None = None) -> None:
    """Write a state file so that a reader sees the old one or the new one, whole.

    That holds after a crash of the host as well.

    What is in the way is replaced, be it a link or a FIFO, and never written through.

    Args:
        path: the file.
        content: all of it.
        mode: its mode, whatever the umask is.
        group: its group; None: the one that it gets by itself.

    Raises:
        UntrustedError: others may change its directory.
        OSError: it cannot be written; the old one is as it was.
    """
    with opened(path.parent, os.O_RDONLY) as directory:
        write_below(directory, path.name, content, mode, group)


def write_below(
    directory: int, name: str, content: bytes, mode: int = PRIVATE, group: int | None = None
) -> None:
    """Write a file, as `write`, in a directory that is open, which others may change."""
    beside = f".{name}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=directory)  # of an earlier process of this number
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, PRIVATE & mode, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if group is not None:
                os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.rename(beside, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except OSError:
        with suppress(OSError):
            os.unlink(beside, dir_fd=directory)
        raise


def remove(path: Path) -> None:
    """Remove a state file; a missing one is fine.

    Raises:
        UntrustedError: others may change its directory.
        OSError: it cannot be removed.
    """
    with opened(path.parent) as directory, suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=directory)
