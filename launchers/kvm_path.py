"""Paths that are followed step by step, so that no other user leads this process elsewhere.

Theory of operation:
    Each directory is opened in the one before it, also "..", and its owner and mode are looked at.
    So what is found out of a directory is true of the one that is used, whatever becomes of the
    path, and it is the one that the kernel takes the path for.

Rules of this file:
    As in qmpmem/files/directories.py, with one difference: a directory that others may change is
    told of, and not refused. A launcher can do without what it would keep there.
"""

import errno
import os
import stat

LINKS = 40
"""Links in a path that are followed, as many as the kernel follows (path_resolution(7))."""
ACL = "system.posix_acl_access"
WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LedError(OSError):
    """A link is on the way that another user may have put there; its path is `filename`."""


class Place:
    """Where a path leads: an open directory, and a name in it, which need not be there."""

    __slots__ = ("directory", "doubt", "name")

    def __init__(self, directory: int, name: str, doubt: "str | None") -> None:
        self.directory = directory
        """A descriptor of it, which is the caller's to close."""
        self.name = name
        self.doubt = doubt
        """The first directory that others may exchange, or what is in it; None: there is none."""


def follow(path: str, *, behind: bool) -> Place:
    """Follow a path.

    Args:
        path: relative to the directory of this process, or absolute.
        behind: follow a link at its end as well.

    Raises:
        LedError: there is a link that another user may have put there.
        OSError: a directory is missing, or may not be passed; with `behind` also what it leads to.
    """
    waiting = parts(path if path.startswith("/") else f"{os.getcwd()}/{path}")
    links, name, doubt = 0, ".", None
    here = os.open("/", WAY)
    try:
        while waiting:
            name = waiting.pop()
            doubt = doubt or find_doubt(here)
            if not waiting and not behind:
                break
            seen = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISLNK(seen.st_mode):
                links += 1
                is_kept = doubt is None and seen.st_uid in (0, os.geteuid())
                target = read_link(here, name, links, is_kept=is_kept)
                waiting += parts(target)
                name = "/" if target.startswith("/") else "."
            elif not waiting:
                break
            below = os.open(name, WAY, dir_fd=here)
            os.close(here)
            here, name = below, "."
    except BaseException:
        os.close(here)
        raise
    return Place(here, name, doubt)


def read_link(directory: int, name: str, links: int, *, is_kept: bool) -> str:
    """Return what a link says.

    Args:
        directory: the descriptor of the directory that it is in.
        name: its name.
        links: how many there were up to this one.
        is_kept: whether only root and this user can have put it there.

    Raises:
        LedError: others can.
        OSError: there are too many, as in a circle.
    """
    if not is_kept:
        path = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), name)
        raise LedError(errno.EPERM, "others may exchange this link", path)
    if links > LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return os.readlink(name, dir_fd=directory)


def parts(path: str) -> "list[str]":
    """Return the names in a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part]


def find_doubt(directory: int) -> "str | None":
    """Return the path of an open directory where others may exchange what is in it; else None.

    In a sticky directory they may add files, and not replace ours (unlink(2)).
    """
    place = f"/proc/self/fd/{directory}"
    if is_ours(os.fstat(directory), place, sticky=True):
        return None
    return os.readlink(place)


def is_ours(seen: os.stat_result, path: str, *, sticky: bool = False) -> bool:
    """Tell whether only root and this user may change what was looked at.

    A group may where it is root's or this user's own, and no list of other users goes with it
    (acl(5): the group's rights are then the most that each of them may have).

    Args:
        seen: what was looked at.
        path: a path that leads there now, and is no link of another user.
        sticky: others may write, if it is sticky.
    """
    if seen.st_uid not in (0, os.geteuid()):
        return False
    if sticky and seen.st_mode & stat.S_ISVTX:
        return True
    if seen.st_mode & stat.S_IWGRP:
        return (
            seen.st_gid in (0, os.getegid())
            and not seen.st_mode & stat.S_IWOTH
            and not has_list(path)
        )
    return not seen.st_mode & stat.S_IWOTH


def has_list(path: str) -> bool:
    """Tell whether a file has an access control list, which is so where it names further users."""
    try:
        os.getxattr(path, ACL)
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
    return True
