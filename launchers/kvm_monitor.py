"""The guest's monitor: a socket that listens already, and what tells QEMU of it.

Theory of operation:
    QEMU gets both as descriptors. The socket's is named in a text for -readconfig, and that text is
    a file in memory (memfd_create(2)), sealed, which QEMU opens by /proc/self/fd: there is no name
    at which another text could be put. exec keeps both, as do -daemonize, and the scripts that a
    distribution puts in the place of the emulator.

Rules of this file:
    Where there are no files in memory, None says so: the text then goes where only we can write.
"""

import os
import stat

from launchers.kvm_run import SOCKET, give_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STANDARD_STREAMS = 3
FIRST_DESCRIPTOR = 500
"""Above what people and shells number, and below the usual limit of 1024."""
TRIES = 1000
BACKLOG = 8
"""QEMU itself asks for 1, which two waiting clients fill."""
SOCKET_MODE = 0o600
SEALS = 0xF
"""F_SEAL_SEAL, _SHRINK, _GROW and _WRITE (linux/fcntl.h)."""
FLAGS = 3
"""MFD_CLOEXEC and MFD_ALLOW_SEALING (linux/memfd.h)."""
NOT_EXECUTABLE = 8
"""MFD_NOEXEC_SEAL, without which Linux 6.3 and later write a line into the kernel's log."""
DESCRIPTORS = "/proc/self/fd"


def listen(directory: int, path: "str | None") -> int:
    """Bind a guest's socket, and return it as a descriptor that exec keeps.

    Before listen(2) no process can connect.

    Args:
        directory: a descriptor of the guest's directory.
        path: what the socket is to be known as; None where others may exchange that path. QEMU
            removes the file of that name at its end, so it has to be no other's then.

    Raises:
        OSError: it cannot be bound there.
    """
    import _socket

    place = f"{DESCRIPTORS}/{directory}" if path is None else path
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        # What bind(2) makes has the socket's own mode, less the umask (Linux: unix_bind_bsd).
        os.fchmod(server.fileno(), SOCKET_MODE)
        server.bind(f"{place}/{SOCKET}")
        seen = os.lstat(SOCKET, dir_fd=directory)
        if not stat.S_ISSOCK(seen.st_mode):
            raise OSError(f"{place}: not the directory that was made")
        if stat.S_IMODE(seen.st_mode) != SOCKET_MODE:
            give_back(SOCKET, SOCKET_MODE, directory)
        server.listen(BACKLOG)
        return out_of_the_way(server.detach())
    finally:
        server.close()  # does nothing once detached


def out_of_the_way(descriptor: int) -> int:
    """Move a descriptor to a number that no arguments name; exec keeps it.

    Arguments may name one that is not open, as in -add-fd fd=3, and must not find ours there; nor
    may it stand in the place of a standard stream that was closed.
    """
    for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + TRIES):
        try:
            os.fstat(number)
        except OSError:
            return move(descriptor, number)
    return move(descriptor, descriptor)


def move(descriptor: int, number: int) -> int:
    """Move a descriptor to another number; where the limit forbids it, to the next free one."""
    low: list[int] = []
    try:
        moved = os.dup2(descriptor, number)
    except OSError:
        moved = descriptor
    if moved != descriptor:
        os.close(descriptor)
    while moved < STANDARD_STREAMS:
        low.append(moved)
        moved = os.dup(moved)
    for other in low:
        os.close(other)
    os.set_inheritable(moved, True)  # noqa: FBT003 - takes no keyword
    return moved


def pass_config(text: str, undo: "list[Callable[[], None]]") -> "str | None":
    """Put a text into a sealed file in memory that exec keeps.

    Args:
        text: what tells QEMU of its monitor.
        undo: gets what takes that back.

    Returns:
        The path at which this process reads it; None where that does not work here.
    """
    try:
        descriptor = out_of_the_way(seal(text))
    except (AttributeError, ImportError, OSError):  # an old kernel or libc, or one that forbids it
        return None
    undo.append(lambda: os.close(descriptor))
    path = f"{DESCRIPTORS}/{descriptor}"
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return None
    return path


def seal(text: str) -> int:
    """Write a text into a file in memory that cannot be changed any more.

    Raises:
        AttributeError: Python has no such call.
        OSError: the kernel has none.
    """
    import fcntl

    try:
        descriptor = os.memfd_create("qmpmem", FLAGS | NOT_EXECUTABLE)
    except OSError:  # Linux before 6.3 does not know the flag; later ones may insist on it
        descriptor = os.memfd_create("qmpmem", FLAGS)
    try:
        os.write(descriptor, text.encode())
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def monitor_config(name: str, descriptor: int) -> str:
    """Write what tells QEMU of its monitor."""
    return f"""# written by qmpmem
[chardev "{name}"]
  backend = "socket"
  fd = "{descriptor}"
  server = "on"
  wait = "off"

[mon "{name}"]
  chardev = "{name}"
  mode = "control"
"""
