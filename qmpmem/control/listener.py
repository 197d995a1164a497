"""The agent's socket, made safely, and the lock that says whose it is.

Theory of operation:
    A lock beside the socket is held by the agent as long as it lives; the kernel lets go of it
    when the process ends, however it ends. So whoever gets the lock may remove what an agent that
    is dead left behind, and whoever does not get it leaves all as it is. The holder's pid stands in
    the lock's file, for people; nobody else can open it, for whoever can may hold the lock.

    The socket's mode is 0666: members of two groups may come in, and a file has but one. Who is
    none of them is turned away when he connects, before a byte is read (`rights`, `connection`).
    A user's own agent is nobody else's: 0600.

Rules of this file:
    The directory must belong to us or to root, and nobody else may be able to put anything in our
    place there: not writable for others, but for a sticky one. No symbolic link is followed.
"""

import fcntl
import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from qmpmem.control.address import lock_path
from qmpmem.errors import ConfigError, KernelError

BACKLOG: Final = 64
OPEN: Final = 0o666
OWN: Final = 0o600


@contextmanager
def listening(path: Path) -> Generator[socket.socket]:
    """Listen on a socket as the only agent here; it is removed at the end.

    Raises:
        ConfigError: an agent runs already.
        KernelError: the socket cannot be made, or not safely.
    """
    try:
        _expect_safe(path.parent)
        lock = _lock(lock_path(path))
    except PermissionError as error:
        raise KernelError(
            f"{error.filename or path}: {error.strerror}",
            hint="run it as root, or set QMPMEM_RUN_DIR to a directory of your own",
        ) from error
    except OSError as error:
        raise KernelError(f"{error.filename or path}: {error.strerror}") from error
    try:
        with _bound(path) as connection:
            yield connection
    finally:
        os.close(lock)


def _expect_safe(directory: Path) -> None:
    found = directory.stat()
    others = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.geteuid()) or others:
        raise KernelError(
            f"{directory}: others may put files there (uid {found.st_uid}, "
            f"mode {stat.S_IMODE(found.st_mode):o})",
            hint="set QMPMEM_AGENT_SOCKET to a place of your own",
        )


def _lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, OWN)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
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
def _bound(path: Path) -> Generator[socket.socket]:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with connection:
        try:
            _make_way(path)
            connection.bind(str(path))  # never through a link: there is nothing, or EADDRINUSE
            path.chmod(OPEN if os.geteuid() == 0 else OWN)
            connection.listen(BACKLOG)
            mine = path.lstat().st_ino
        except OSError as error:
            raise KernelError(f"{path}: {error.strerror}") from error
        try:
            yield connection
        finally:
            with suppress(OSError):
                if path.lstat().st_ino == mine:
                    path.unlink()


def _make_way(path: Path) -> None:
    """Remove the socket of an agent that is dead: we hold the lock. Anything else stays."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise KernelError(f"{path}: not a socket; it was not made by an agent", hint="remove it")
    path.unlink()


def _pid(descriptor: int) -> int | None:
    with suppress(OSError, ValueError):
        return int(os.pread(descriptor, 20, 0))
    return None
