"""Directories that are opened so that no other user can lead this process to another.

Rules of this file:
    A directory is opened component by component, each of which belongs to root or to this user and
    cannot be changed by others; all else is done below its descriptor. So no other user can put a
    link, or another directory, in the way between a check and its use.
    Everything here blocks, and raises OSError whose `strerror` says in a few words what is wrong.
    Only the standard library, and little of it: commands that take milliseconds use it.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LINKS: Final = 40
"""Links in a path that are followed, as many as the kernel follows (path_resolution(7))."""

ACL: Final = "system.posix_acl_access"
"""The attribute that has a file's access control list, if it has one (xattr(7))."""

PRIVATE: Final = 0o700
PASSABLE: Final = 0o755

SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Flags of open(2) with which no link is followed, no FIFO or device is waited for, and no
descriptor is passed on by exec."""

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


def kind_of(status: os.stat_result) -> str:
    """Return what kind of file was looked at, with its article."""
    return KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def find_problem(status: os.stat_result, kind: int = stat.S_IFREG) -> str | None:
    """Return why what was looked at cannot be believed; None: it can. Pure but for the user's ids.

    A group may write where it is root's or this user's own. sudo judges its own files the same way
    (sudoers(5)).
    """
    if stat.S_IFMT(status.st_mode) != kind:
        return f"expected {KINDS[kind]}, got {kind_of(status)}"
    if status.st_uid not in (0, os.geteuid()):
        return f"owned by uid {status.st_uid}, expected root or uid {os.geteuid()} (chown)"
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        return f"every user may write it (mode {mode:04o}); chmod o-w"
    if mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid()):
        return f"group {status.st_gid} may write it (mode {mode:04o}); chmod g-w"
    return None


def problem_of(descriptor: int, kind: int = stat.S_IFREG) -> str | None:
    """Return why an open file cannot be believed, as `find_problem`, or for whom else it lists.

    Where a group may write a file that has an access control list, the group's rights are the most
    that each user or group of the list has (acl(5)).
    """
    status = os.fstat(descriptor)
    problem = find_problem(status, kind)
    if problem is None and status.st_mode & stat.S_IWGRP and _has_list(descriptor):
        return "its access control list may let others write it; setfacl -b, or chmod g-w"
    return problem


def _has_list(descriptor: int) -> bool:
    try:
        os.getxattr(f"/proc/self/fd/{descriptor}", ACL)
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
    return True


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
        return _open_directory(here, name, path, flags)


def _open_directory(here: int, name: str, path: Path, flags: int) -> int:
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
        return open_file(here, name, path, flags)


def open_file(here: int, name: str, path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file in a directory that was judged, as `open_behind`; a link is none.

    Args:
        here: a descriptor of the directory.
        name: the file's name there.
        path: the path that errors name.
        flags: of open(2).

    Raises:
        UntrustedError: it is no file, or others could have written it.
        OSError: as open(2).
    """
    expect(find_problem(os.stat(name, dir_fd=here, follow_symlinks=False)), path)
    descriptor = os.open(name, flags | SAFELY, dir_fd=here)
    try:
        expect(problem_of(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _walked(path: Path) -> Generator[tuple[int, str]]:
    """Follow a path to what is behind all links; yields its directory, open, and its name there."""
    absolute = path if path.is_absolute() else Path.cwd() / path
    waiting = list(reversed(absolute.parts[1:]))
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
    problem = None if is_sticky else problem_of(descriptor, stat.S_IFDIR)
    if problem is not None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        expect(f"{name}: {problem}", path)


def expect(problem: str | None, path: Path) -> None:
    """Raise a problem that `find_problem` has found, if any.

    Raises:
        UntrustedError: there is one.
    """
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


def open_or_make(path: Path, mode: int, *, above: int = PASSABLE) -> tuple[int, bool]:
    """Open a directory as `open_directory`; it, and those above it, are made where missing.

    The mode of a directory that is there is never changed. A link may be on the way to it, and not
    in its place.

    Args:
        path: the directory.
        mode: of a new one, whatever the umask is.
        above: of new ones on the way to it.

    Returns:
        A descriptor of it, which is the caller's to close, and whether it was missing.

    Raises:
        UntrustedError: as `open_directory`; then nothing was made there.
        OSError: as open(2) and mkdir(2).
    """
    try:
        within = open_directory(path.parent)
    except FileNotFoundError:
        if path.parent == path:  # the directory of this process is gone
            raise
        within, _ = open_or_make(path.parent, above, above=above)
    try:
        return make_below(within, path.name, mode), True
    except FileExistsError:
        return _open_directory(within, path.name, path, os.O_RDONLY), False
    finally:
        os.close(within)


def make_below(directory: int, name: str, mode: int) -> int:
    """Make a directory in one that is open, with just this mode, whatever the umask is.

    Args:
        directory: a descriptor of one in which no other user can exchange anything.
        name: its name there.
        mode: its mode.

    Returns:
        A descriptor of it, which is the caller's to close.

    Raises:
        FileExistsError: there is something of that name.
        OSError: as mkdir(2).
    """
    os.mkdir(name, PRIVATE, dir_fd=directory)
    within = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, os.O_PATH | within, dir_fd=directory)
    try:
        # With a umask of 0777 not even its owner may open it to read.
        os.chmod(f"/proc/self/fd/{descriptor}", mode)  # noqa: PTH101 - by descriptor
    finally:
        os.close(descriptor)
    return os.open(name, os.O_RDONLY | within, dir_fd=directory)


def _target_of(name: str, here: int, path: Path, *, judged: bool) -> str | None:
    """Return where a link leads; None: it is none."""
    found = os.stat(name, dir_fd=here, follow_symlinks=False)
    is_link = stat.S_ISLNK(found.st_mode)
    if judged:
        _expect_directory(here, path)
        if is_link:
            _expect_link(found, 0, path)
    return os.readlink(name, dir_fd=here) if is_link else None


@contextmanager
def opened_beneath(
    root: Path, path: str, *, make: bool = False, judged: bool = False
) -> Generator[int]:
    """Open a directory of another root, such as an image, as that root's own system would find it.

    A link there begins at that root and never leads out of it, nor does ``..``: what an image holds
    decides nothing about this host (path_resolution(7); openat2(2): RESOLVE_IN_ROOT).

    Args:
        root: the root.
        path: the directory, as seen inside the root.
        make: make what is missing, with mode 0755.
        judged: as `open_directory` is; what is above the root is not.

    Raises:
        UntrustedError: others may change a directory or link on the way.
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
                os.close(make_below(way[-1], part, PASSABLE))
            target = _target_of(part, way[-1], root / path, judged=judged)
            if target is not None:
                links += 1
                if links > LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(root / path))
                waiting += [each for each in reversed(target.split("/")) if each not in ("", ".")]
                while target.startswith("/") and len(way) > 1:
                    os.close(way.pop())
                continue
            way.append(os.open(part, flags, dir_fd=way[-1]))
        if judged:
            _expect_directory(way[-1], root / path)
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
