"""The agent's two sockets, made safely, and the lock that says whose they are.

Theory of operation:
    A lock beside the sockets is held by the agent as long as it lives; the kernel lets go of it
    when the process ends, however it ends. So an agent that gets the lock may remove what one that
    is dead left behind, and an agent that does not get it leaves all as it is. The holder's pid
    stands in the lock's file, for people. No other user can open that: it could hold the lock.

    A socket is for one group: mode 0660, or 0600 where there is no such group. The kernel refuses
    all others when they connect, so they cost the agent nothing, and fill no place in the queue of
    connections that wait. Members of the group that may look can fill the queue of their socket,
    never that of the other.

Rules of this file:
    All is done in the directory that was opened and checked, by its descriptor: it belongs to us or
    to root, and no other user can put anything in our place there: not writable for group or
    others, but for a sticky one. A socket is made for its owner alone, and opened to its group by a
    descriptor of that very file. No symbolic link is followed.
"""

import fcntl
import os
import socket
import stat
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from qmpmem.api.addresses import admin_path, lock_path
from qmpmem.api.permissions import Permissions
from qmpmem.api.socket_activation import Given
from qmpmem.errors import ConfigError, KernelError
from qmpmem.files import directories, sockets, state_files
from qmpmem.files.directories import UntrustedError
from qmpmem.records import Record

BACKLOG: Final = 64
SHARED: Final = 0o660
OWN: Final = 0o600
PASSABLE: Final = 0o711
"""The directory's mode where there are groups: their members pass through it to the sockets."""
PRIVATE: Final = 0o700


class Listeners(Record, frozen=True):
    """The two sockets of an agent, which listen. They are the maker's to close."""

    look: socket.socket
    change: socket.socket
    path: Path
    """Where the socket to look is."""


def _ignore(_: str) -> None:
    """Drop a line."""


@contextmanager
def listening(
    path: Path,
    permissions: Permissions,
    *,
    given: Given | None = None,
    warn: Callable[[str], None] = _ignore,
) -> Generator[Listeners]:
    """Listen on both sockets as the only agent here; what was made here is removed at the end.

    Args:
        path: of the socket to look.
        permissions: the groups.
        given: sockets that systemd made.
        warn: told, in a line, of a group that cannot be given its socket.

    Raises:
        ConfigError: an agent runs already.
        KernelError: a socket cannot be made, or not safely.
    """
    has_groups = permissions.readers is not None or permissions.writers is not None
    with ExitStack() as stack:
        try:
            directory = _opened(path.parent, PASSABLE if has_groups else PRIVATE)
            stack.callback(os.close, directory)
            stack.callback(os.close, _lock(directory, lock_path(path)))
        except PermissionError as error:
            raise KernelError(
                f"{error.filename or path}: {error.strerror}",
                hint="run it as root, or set QMPMEM_RUN_DIR to a directory of your own",
            ) from error
        except OSError as error:
            raise KernelError(f"{error.filename or path}: {error.strerror}") from error
        known = given or Given()
        made: list[socket.socket] = []
        for number, place, group in (
            (known.look, path, permissions.readers),
            (known.change, admin_path(path), permissions.writers),
        ):
            one = _handed_over(number) if number is not None else _bound(directory, place)
            made.append(stack.enter_context(one))
            if number is None and group is not None and not _share(directory, place.name, group):
                warn(f"{place}: not for the group {group}, in which this user is not")
        yield Listeners(look=made[0], change=made[1], path=path)


def _opened(directory: Path, mode: int) -> int:
    """Open the directory, which is made where there is none, and see that it is safe."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    with directories.opened(directory.parent) as above:
        try:
            os.mkdir(directory.name, PRIVATE, dir_fd=above)
            is_new = True
        except FileExistsError:
            is_new = False
        descriptor = os.open(directory.name, flags, dir_fd=above)
    try:
        if is_new:
            os.fchmod(descriptor, mode)
        _expect_safe(directory, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _expect_safe(directory: Path, found: os.stat_result) -> None:
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.geteuid()) or others:
        raise KernelError(
            f"{directory}: others may put files there (uid {found.st_uid}, "
            f"mode {stat.S_IMODE(found.st_mode):o})",
            hint=f"`chmod go-w {directory}`, or set QMPMEM_AGENT_SOCKET to a place of your own",
        )


def _lock(directory: int, path: Path) -> int:
    try:
        descriptor = state_files.open_below(directory, path, os.O_RDWR | os.O_CREAT, OWN)
    except UntrustedError:  # which names the path
        raise
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        pid = _pid(descriptor)
        os.close(descriptor)
        raise ConfigError(
            f"an agent runs already: pid {pid or 'unknown'} holds {path}",
            hint="`qmpmem agent status` asks it",
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _bound(directory: int, path: Path) -> Generator[socket.socket]:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with connection:
        try:
            _make_way(directory, path)
            sockets.bind(connection, path.name, directory)
            connection.listen(BACKLOG)
            mine = _inode(directory, path.name)
        except OSError as error:
            raise KernelError(f"{path}: {error.strerror}") from error
        try:
            yield connection
        finally:
            with suppress(OSError):
                if _inode(directory, path.name) == mine:
                    os.unlink(path.name, dir_fd=directory)


@contextmanager
def _handed_over(number: int) -> Generator[socket.socket]:
    with socket.socket(fileno=number) as connection:
        connection.setblocking(False)  # noqa: FBT003 - its only argument
        # Clients then see this process at the other end, and no longer systemd (unix(7)).
        connection.listen(BACKLOG)
        yield connection


def _share(directory: int, name: str, group: int) -> bool:
    """Open a socket to a group; whether that may be.

    A descriptor of the file itself, not its path: chmod(2) would follow what is put in its place.
    """
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            return False
        place = f"/proc/self/fd/{descriptor}"
        os.chown(place, -1, group)
        os.chmod(place, SHARED)  # noqa: PTH101 - a link of the kernel's, to that very file
    except PermissionError:
        return False
    finally:
        os.close(descriptor)
    return True


def _make_way(directory: int, path: Path) -> None:
    """Remove the socket of an agent that is dead: we hold the lock. Anything else stays."""
    try:
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise KernelError(f"{path}: not a socket; it was not made by an agent", hint="remove it")
    os.unlink(path.name, dir_fd=directory)


def _inode(directory: int, name: str) -> int:
    return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino


def _pid(descriptor: int) -> int | None:
    with suppress(OSError, ValueError):
        return int(os.pread(descriptor, 20, 0))
    return None
