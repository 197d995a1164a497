"""Files that keep state: written whole, and believed only where no other user could write them.

Rules of this file:
    A directory is opened component by component, each of which belongs to root or to this user and
    cannot be changed by others; all else is done below its descriptor. So no other user can put a
    link, or another directory, in the way between a check and its use.
    A file is opened with O_NOFOLLOW and O_NONBLOCK, and looked at by its descriptor: a FIFO or a
    device is never waited for.
    Everything here blocks, and raises OSError whose `strerror` says in a few words what is wrong.
    Only the standard library, and little of it: commands that take milliseconds use it.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
LINKS: Final = 40
"""As many links as the kernel follows (path_resolution(7))."""

_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Nothing is followed, waited for or taken along."""

KINDS: Final = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UntrustedError(OSError):
    """What stands there is not a file, or others could have written it."""

    def __init__(self, problem: str, path: str) -> None:
        super().__init__(errno.EPERM, problem, path)


def find_problem(status: os.stat_result, kind: int = stat.S_IFREG) -> str | None:
    """Return why what was looked at cannot be believed; None: it can. Pure but for the user's ids.

    A group may write where it is root's or this user's own. sudo judges its own files the same way
    (sudoers(5)).
    """
    if stat.S_IFMT(status.st_mode) != kind:
        return f"expected {KINDS[kind]}, got {_kind(status)}"
    if status.st_uid not in (0, os.geteuid()):
        return f"owned by uid {status.st_uid}, expected root or uid {os.geteuid()} (chown)"
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        return f"anybody may write it (mode {mode:04o}); chmod o-w"
    if mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid()):
        return f"group {status.st_gid} may write it (mode {mode:04o}); chmod g-w"
    return None


def open_directory(path: Path, flags: int = os.O_PATH) -> int:
    """Open a directory to which no other user can lead this process astray.

    Args:
        path: the directory.
        flags: of open(2); without O_RDONLY it need not be readable.

    Returns:
        A descriptor, which is the caller's to close.

    Raises:
        UntrustedError: others may change it, or a directory or link on the way to it.
        OSError: as open(2).
    """
    with _walked(path) as (here, name):
        flags |= os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=here)
    try:
        _expect_directory(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_behind(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file that an administrator may have put elsewhere, with a link in its place.

    A group may write it where `find_problem` says so.

    Raises:
        UntrustedError: it is no file, or others could have written it, or may change a directory or
            link on the way to it.
        OSError: as open(2).
        ValueError: the path holds a zero.
    """
    with _walked(path) as (here, name):
        _expect(find_problem(os.stat(name, dir_fd=here, follow_symlinks=False)), path)
        descriptor = os.open(name, flags | _SAFELY, dir_fd=here)
    try:
        _expect(find_problem(os.fstat(descriptor)), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _walked(path: Path) -> Generator[tuple[int, str]]:
    """Follow a path to what is behind all links; yields its directory, open, and its name there."""
    waiting = [part for part in reversed(os.path.abspath(path).split("/")) if part]  # noqa: PTH100 - ".." is the kernel's
    links, part = 0, "."
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while waiting:
            part = waiting.pop()
            _expect_directory(here, path)
            found = os.stat(part, dir_fd=here, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                _expect_link(found, links, path)
                target = os.readlink(part, dir_fd=here)
                waiting += [each for each in reversed(target.split("/")) if each]
                part = "/" if target.startswith("/") else "."
            if waiting or part in ("/", "."):
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                below = os.open(part, flags, dir_fd=here)
                os.close(here)
                here, part = below, "."
        yield here, part
    finally:
        os.close(here)


def _expect_directory(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    # In a sticky directory others may add files, but neither remove nor rename ours (unlink(2)).
    is_sticky = bool(found.st_mode & stat.S_ISVTX) and found.st_uid in (0, os.geteuid())
    problem = None if is_sticky else find_problem(found, stat.S_IFDIR)
    if problem is not None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        _expect(f"{name}: {problem}", path)


def _expect(problem: str | None, path: Path) -> None:
    if problem is not None:
        raise UntrustedError(problem, str(path))


def _expect_link(found: os.stat_result, links: int, path: Path) -> None:
    if links > LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if found.st_uid not in (0, os.geteuid()):
        raise UntrustedError(f"a link of uid {found.st_uid} is on the way", str(path))


@contextmanager
def opened(path: Path, flags: int = os.O_PATH) -> Generator[int]:
    """Open a directory as `open_directory`, and close it at the end."""
    descriptor = open_directory(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_beneath(root: Path, path: str, *, make: bool = False) -> Generator[int]:
    """Open a directory of another root, such as an image, as that root's own system would find it.

    A link there begins at that root and never leads out of it, nor does ``..``: what an image holds
    decides nothing about this host (path_resolution(7); openat2(2): RESOLVE_IN_ROOT).

    Args:
        root: the root.
        path: the directory, as seen inside the root.
        make: make what is missing, with mode 0755.

    Raises:
        OSError: as open(2).
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    way = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        while waiting:
            part = waiting.pop()
            if part == "..":
                if len(way) > 1:
                    os.close(way.pop())
                continue
            if make and not _is_there(way[-1], part):
                os.mkdir(part, dir_fd=way[-1])
            if stat.S_ISLNK(os.stat(part, dir_fd=way[-1], follow_symlinks=False).st_mode):
                links += 1
                if links > LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(root / path))
                target = os.readlink(part, dir_fd=way[-1])
                waiting += [each for each in reversed(target.split("/")) if each not in ("", ".")]
                while target.startswith("/") and len(way) > 1:
                    os.close(way.pop())
                continue
            way.append(os.open(part, flags, dir_fd=way[-1]))
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=way[-1])
    finally:
        for each in way:
            os.close(each)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


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
    descriptor = os.open(path.name, flags | _SAFELY, mode, dir_fd=directory)
    try:
        _expect_file(os.fstat(descriptor), path)
        if found is None:
            os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _expect_file(status: os.stat_result, path: Path) -> None:
    """Expect what `find_problem` does, and that no group may write: state has one writer."""
    problem = find_problem(status)
    if problem is None and status.st_mode & stat.S_IWGRP:
        mode = stat.S_IMODE(status.st_mode)
        problem = f"group {status.st_gid} may write it (mode {mode:04o}); chmod g-w"
    _expect(problem, path)


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
    """Expect a state file to be one, where there is one, and take away what its mode has beyond.

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
        raise UntrustedError(f"expected a file, got {_kind(found)}", name)
    with os.fdopen(os.open(name, os.O_RDONLY | _SAFELY, dir_fd=directory), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UntrustedError("expected a file", name)
        return file.read(limit)


def _kind(status: os.stat_result) -> str:
    return KINDS.get(stat.S_IFMT(status.st_mode), "something else")


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
