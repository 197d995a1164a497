"""The run directory that a broker shows the agent: a record and a socket for each guest.

Theory of operation:
    The layout is that of `qmpmem.guests.rundir`, so an agent works on it as on any other run
    directory. All of it belongs to the broker's user; one group may look and connect, and change
    nothing: directories 0750, records 0640, sockets 0660. The kernel turns all other users away.

    A lock in it is held as long as the broker lives, so a broker that gets the lock may replace and
    remove what one that was killed left behind.

Rules of this file:
    All is done below a descriptor of the directory, which no other user can write.
    Everything here blocks for microseconds.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from qmpmem.errors import ConfigError, KernelError
from qmpmem.files import directories, sockets, state_files
from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model.names import SAFE_ID
from qmpmem.records import replace

LOOK: Final = 0o750
READ: Final = 0o640
CONNECT: Final = 0o660
LOCK: Final = ".lock"
BACKLOG: Final = 64

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directory:
    """A broker's run directory, which is its alone.

    Args:
        path: where it is.
        descriptor: of it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def show(self, record: GuestRecord, pid: int, start_time: int) -> socket.socket:
        """Show a guest: its record, and a socket that listens for its clients.

        What a broker before this one showed of it is replaced in place, so an agent takes it for
        the same guest.

        Args:
            record: as its launcher wrote it.
            pid: its process.
            start_time: of that process, in clock ticks after boot.

        Returns:
            The socket, which is the caller's to close.

        Raises:
            OSError: there is no room for it.
        """
        with suppress(FileExistsError):
            os.mkdir(record.id, LOOK, dir_fd=self._descriptor)
        listener: socket.socket | None = None
        folder = os.open(record.id, _DIRECTORY, dir_fd=self._descriptor)
        try:
            os.fchmod(folder, LOOK)
            listener = _listening(folder)
            shown = replace(
                record,
                socket=str(self.path / record.id / rundir.SOCKET),
                pid=pid,
                start_time=start_time,
                uid=os.geteuid(),
                listener=os.getpid(),
                daemonize=False,
                cgroup=None,
                shared=True,
            )
            state_files.write_below(folder, rundir.RECORD, msgspec.json.encode(shown), READ)
        except BaseException:
            if listener is not None:
                listener.close()
            self.hide(record.id)
            raise
        finally:
            os.close(folder)
        return listener

    def hide(self, guest: str) -> None:
        """Remove what is shown of a guest; nothing is fine."""
        shutil.rmtree(guest, ignore_errors=True, dir_fd=self._descriptor)

    def hide_others(self, guests: Collection[str]) -> None:
        """Remove all that a broker before this one showed, but for these guests."""
        with os.scandir(self._descriptor) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            if SAFE_ID.fullmatch(name) and name not in guests:
                self.hide(name)


@contextmanager
def opened(path: Path, group: int) -> Generator[Directory]:
    """Make the directory, and have it alone; what is shown is removed at the end.

    Args:
        path: where it is to be.
        group: the group of users that may look and connect. All that this process makes from now on
            has that group.

    Raises:
        ConfigError: a broker runs already.
        KernelError: it cannot be made, or not safely.
    """
    try:
        if os.getegid() != group:
            os.setegid(group)
        descriptor = _open(path, group)
    except OSError as error:
        hint = "run it as root, or as a member of that group"
        raise KernelError(f"{error.filename or path}: {error.strerror}", hint=hint) from error
    try:
        lock = _lock(descriptor, path / LOCK)
        try:
            made = Directory(path, descriptor)
            yield made
            made.hide_others(())
        finally:
            os.close(lock)
    finally:
        os.close(descriptor)


def _open(path: Path, group: int) -> int:
    descriptor, _ = directories.open_or_make(path, directories.PRIVATE)
    try:
        _expect_own(path, os.fstat(descriptor))
        if os.fstat(descriptor).st_gid != group:
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, LOOK)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _expect_own(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        problem = f"belongs to uid {found.st_uid}, expected uid {os.geteuid()}"
        raise directories.UntrustedError(problem, str(path))


def _lock(directory: int, path: Path) -> int:
    lock = state_files.open_below(directory, path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConfigError(f"a broker runs already: it holds {path}") from None
    return lock


def _listening(folder: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with suppress(FileNotFoundError):
            os.unlink(rundir.SOCKET, dir_fd=folder)
        sockets.bind(listener, rundir.SOCKET, folder, mode=CONNECT)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
