"""A guest's own directory in the run directory: claimed, filled, and taken back if we fail.

Theory of operation:
    RUN/ID/ is claimed by mkdir, which only one of many launchers can do. It then gets qmp.sock,
    bound and listening, monitor.conf, which tells QEMU of the descriptor, and record.json, last.
    A second QEMU bound to a path would silently steal it, so a directory is used again only when
    its guest is gone for sure: no such process, or with another start time, and nobody answers on
    the socket. Of several launchers that find it so, one holds the lock while it looks again and
    clears it away. A directory without a record belongs to somebody who is just starting, until it
    is old. What is no directory of ours, or has anything else in it, or cannot be cleared away, is
    taken.

Rules of this file:
    The layout is read by others: qmpmem/rundir.py. What is undone is only what was done here.
    Root may share the run directory with a group: nothing is removed through a link.
"""

import errno
import os
import stat
import time

from launchers.kvm_records import (
    ID_LIMIT,
    encode_record,
    hashed,
    is_alive,
    read_record,
    readable,
    safe_id,
)
from launchers.kvm_run import RUN_MODE, ClaimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from launchers.kvm_plan import Plan

SOCKET = "qmp.sock"
CONFIG = "monitor.conf"
RECORD = "record.json"
PATH_LIMIT = 107
"""Bytes in sockaddr_un.sun_path, less its final zero (unix(7))."""
SHORTEST = 14
"""Characters of an id that a run directory has to leave room for."""
SOCKET_MODE = 0o660
SOCKETS = "/proc/net/unix"
STANDARD_STREAMS = 3
FIRST_DESCRIPTOR = 500
"""Above what people and shells number, and below the usual limit of 1024."""
FILES = (SOCKET, f"{CONFIG}.new", CONFIG, f"{RECORD}.new", RECORD)
"""All that a launcher puts there; the record goes last, so what half went is still stale."""
LOCK_MODE = 0o660
BACKLOG = 8
"""QEMU itself asks for 1, which two waiting clients fill."""
TRIES = 1000
STARTING = 10.0
"""Seconds in which a launcher has written its record; it takes 0.02."""
LOCK_PATIENCE = 0.2


def claim(run: str, name: "str | None") -> "tuple[str, str]":
    """Claim a directory for a guest.

    Returns:
        The guest's id and its directory.

    Raises:
        ClaimError: every id that would do is taken or too long.
    """
    mode = stat.S_IMODE(os.lstat(run).st_mode) & RUN_MODE
    for guest in candidates(run, name or f"guest-{os.getpid()}"):
        directory = f"{run}/{guest}"
        if make_directory(directory) or (is_stale(directory) and take_over(run, directory)):
            os.chmod(directory, mode)
            return guest, directory
    raise ClaimError(f"{run}: no free id for {name!r}")


def candidates(run: str, name: str) -> "Iterator[str]":
    """Yield the ids that a guest of this name may have: ID, ID-2, ID-3, ..."""
    room = min(ID_LIMIT, PATH_LIMIT - len(os.fsencode(f"{run}//{SOCKET}")))
    base = safe_id(name)
    if len(base) > room:  # a deep run directory: short is better than readable
        base = hashed(name)
    for number in range(1, TRIES):
        suffix = "" if number == 1 else f"-{number}"
        if room < SHORTEST and len(base + suffix) > room:
            raise ClaimError(f"{run}: too long a path for a socket")
        yield fit(base, room - len(suffix)) + suffix


def fit(word: str, room: int) -> str:
    """Cut a word where it is too long."""
    return word if len(word) <= room else word[:room].rstrip("-._")


def make_directory(directory: str) -> bool:
    """Make a directory that was not there; False: it was."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return False
    return True


def is_stale(directory: str) -> bool:
    """Whether the guest of this directory is gone for sure; in doubt it lives."""
    try:
        if not is_own(os.lstat(directory)):
            return False
        record = read_record(f"{directory}/{RECORD}")
        if record is None:
            age = time.time() - os.lstat(directory).st_mtime
            return age > STARTING and not is_answered(f"{directory}/{SOCKET}")
    except (OSError, ValueError):
        return False
    return not is_alive(record.pid, record.start_time) and not is_answered(record.socket)


def is_own(seen: os.stat_result) -> bool:
    """Whether this is a directory, and ours or root's."""
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid in (0, os.geteuid())


def is_answered(path: str) -> bool:
    """Whether somebody may be behind a socket. QEMU sees no connection where we can avoid one."""
    try:
        with open(SOCKETS, "rb") as table:
            wanted = os.fsencode(path)
            if any(line.split(None, 7)[7:] == [wanted] for line in table.read().split(b"\n")):
                return True
    except OSError:
        pass
    import _socket

    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        probe.connect(path)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)
    finally:
        probe.close()
    return True


def take_over(run: str, directory: str) -> bool:
    """Clear a stale directory away and claim it anew; False: it is taken after all."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(f"{run}/.lock", flags, LOCK_MODE)
    except OSError:
        return False
    try:
        seen = os.fstat(lock)
        if stat.S_IMODE(seen.st_mode) != LOCK_MODE and seen.st_uid == os.geteuid():
            os.fchmod(lock, LOCK_MODE)  # whatever the umask
        if not _lock(lock) or not is_stale(directory):
            return False
        remove(directory)
        return make_directory(directory)
    except OSError:
        return False
    finally:
        os.close(lock)


def _lock(descriptor: int) -> bool:
    """Take the lock; False: others hold it for longer than one launcher needs."""
    import fcntl

    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        else:
            return True


def remove(directory: str) -> None:
    """Remove a guest's directory and its files; one with anything else in it stays as it is.

    Raises:
        OSError: it stays, or part of it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(directory, flags)
    try:
        names = os.listdir(descriptor)
        if not is_own(os.fstat(descriptor)) or not set(names) <= set(FILES):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), directory)
        for name in FILES:
            if name in names:
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    os.rmdir(directory)


def undo_claim(directory: str) -> None:
    """Remove a directory that we just claimed."""
    try:
        remove(directory)
    except OSError:
        pass  # what stays is stale, and is cleared away by whoever wants the name


def listen(path: str) -> int:
    """Bind a socket, and return it as a descriptor that exec keeps.

    Its mode does not depend on umask: before listen nobody can connect.
    """
    import _socket

    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        server.bind(path)
        os.chmod(path, SOCKET_MODE)
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
    """Give a descriptor another number; where the limit forbids it, the next free one."""
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


def write_file(path: str, text: str, mode: int = 0o640) -> None:
    """Write a new file, whole or not at all."""
    beside = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(beside, flags, mode)
    try:
        os.fchmod(descriptor, mode)
        content = text.encode()
        if os.write(descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(descriptor)
    os.rename(beside, path)


def register(
    run: str, plan: "Plan", facts: "Mapping[str, object]", undo: "list[Callable[[], None]]"
) -> str:
    """Give a guest its directory, with all that belongs there.

    Args:
        run: the run directory.
        plan: what the guest is started with.
        facts: more fields of the record.
        undo: gets what takes each step back.

    Returns:
        The path of the monitor's configuration file.
    """
    guest, directory = claim(run, plan.name)
    undo.append(lambda: undo_claim(directory))
    path = f"{directory}/{SOCKET}"
    descriptor = listen(path)
    undo.append(lambda: os.close(descriptor))
    if plan.starts_small:
        from launchers.kvm_current import leave_request

        leave_request(plan, path)
    write_file(f"{directory}/{CONFIG}", monitor_config(plan.monitor or "", descriptor))
    known = {"name": readable(plan.name or guest), "socket": path, "current": plan.current}
    record = {"id": guest, **known, **facts}
    write_file(f"{directory}/{RECORD}", encode_record(record))
    return f"{directory}/{CONFIG}"


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
