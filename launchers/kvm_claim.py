"""A guest's own directory in the run directory: claimed, filled, and taken back if we fail.

Theory of operation:
    RUN/ID/ is claimed by mkdir, which only one of many launchers can do. It then gets qmp.sock,
    bound and listening, and record.json, last. QEMU is told of the socket's descriptor by a file in
    memory (kvm_monitor.py).
    A second QEMU bound to a path would silently steal it, so a directory is used again only when
    its guest is gone for sure: no such process, or with another start time, and no process of its
    user answers on the socket. Of several launchers that find it so, one holds the lock while it
    looks again and clears it away. A directory without a record belongs to a launcher that is just
    starting, until it is old. What is not a directory of ours, or has anything else in it, or
    cannot be cleared away, is taken.

Rules of this file:
    The layout is read by others: qmpmem/guests/rundir.py. What is undone is only what was done
    here. Everything is reached from the descriptor of the run directory, and no link is followed.
"""

import errno
import os
import stat
import time

from launchers.kvm_monitor import DESCRIPTORS, listen, monitor_config, pass_config
from launchers.kvm_records import (
    ID_LIMIT,
    encode_record,
    hashed,
    is_alive,
    read_record,
    readable,
    safe_id,
)
from launchers.kvm_run import (
    CONFIG,
    DIRECTORY,
    FILES,
    RECORD,
    SOCKET,
    ClaimError,
    Run,
    make_directory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from launchers.kvm_plan import Plan

PATH_LIMIT = 107
"""Bytes in sockaddr_un.sun_path, less its final zero (unix(7))."""
SHORTEST = 14
"""Characters of an id that a run directory has to leave room for."""
FILE_MODE = 0o600
LOCK = ".lock"
TRIES = 1000
STARTING = 10.0
"""Seconds in which a launcher has written its record; it takes 0.02."""
LOCK_PATIENCE = 2.0
"""Seconds. Only this user's launchers, agent and commands hold it, each for milliseconds."""
UCRED = 12
"""Bytes of struct ucred: pid, uid and gid (unix(7): SO_PEERCRED)."""


def claim(run: Run, name: "str | None") -> "tuple[str, int]":
    """Claim a directory for a guest.

    Returns:
        The guest's id, and a descriptor of its directory.

    Raises:
        ClaimError: every id that would do is taken or too long.
        OSError: the directory cannot be made.
    """
    for guest in candidates(run.path, name or f"guest-{os.getpid()}"):
        try:
            return guest, make_directory(guest, run.descriptor)
        except FileExistsError:
            if is_stale(run.descriptor, guest):
                taken_over = take_over(run.descriptor, guest)
                if taken_over is not None:
                    return guest, taken_over
    raise ClaimError(f"{run.path}: no free id for {name!r}")


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


def is_stale(run: int, guest: str) -> bool:
    """Tell whether the guest of a directory is gone for sure; in doubt it lives."""
    try:
        directory = os.open(guest, DIRECTORY, dir_fd=run)
    except OSError:
        return False
    try:
        return os.fstat(directory).st_uid == os.geteuid() and is_gone(directory)
    except (OSError, ValueError):
        return False
    finally:
        os.close(directory)


def is_gone(directory: int) -> bool:
    """Tell whether the guest of an open directory is gone.

    Raises:
        OSError: its record cannot be read.
        ValueError: nor be understood.
    """
    record = read_record(RECORD, directory)
    if record is None:
        age = time.time() - os.fstat(directory).st_mtime
        return age > STARTING and not is_answered(SOCKET, directory, os.geteuid())
    if is_alive(record.pid, record.start_time):
        return False
    if record.origin == "launcher":  # it has no other socket, whatever its record says
        return not is_answered(SOCKET, directory, os.geteuid())
    if not record.socket.startswith("/"):  # another kind of address
        return record.start_time != 0  # else it is known by its address alone
    return not is_answered(record.socket, user=record.uid)


def is_answered(path: str, within: "int | None" = None, user: "int | None" = None) -> bool:
    """Tell whether a guest may be behind a socket; what is not a socket, or a link, has none.

    Args:
        path: the socket.
        within: the descriptor of the directory that the path begins in.
        user: the user of a guest's process, beside root and ours: any other listener is no guest.
    """
    try:
        inode = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        if not stat.S_ISSOCK(os.fstat(inode).st_mode):
            return False
        listener = listening_user(f"{DESCRIPTORS}/{inode}")
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    finally:
        os.close(inode)
    return user is None or listener in (0, os.geteuid(), user)


def listening_user(path: str) -> int:
    """Return the user of the process that listens on a socket, as the kernel saw it.

    Raises:
        OSError: there is none, or its backlog is full.
    """
    import _socket
    import sys

    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        probe.connect(path)
        peer = probe.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, UCRED)
        return int.from_bytes(peer[4:8], sys.byteorder)
    finally:
        probe.close()


def take_over(run: int, guest: str) -> "int | None":
    """Clear a stale directory away and claim it anew.

    Returns:
        A descriptor of the new one; None: it is taken after all.
    """
    try:
        lock = open_lock(run)
    except OSError:
        return None
    try:
        if not take_lock(lock) or not is_stale(run, guest):
            return None
        remove(run, guest)
        return make_directory(guest, run)
    except OSError:
        return None
    finally:
        os.close(lock)


def open_lock(run: int) -> int:
    """Open the lock. One that others may have open, as of a version before 0.2.0, is replaced.

    Raises:
        OSError: there is something else of that name.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    lock = os.open(LOCK, flags, FILE_MODE, dir_fd=run)
    seen = os.fstat(lock)
    if seen.st_uid == os.geteuid() and not stat.S_IMODE(seen.st_mode) & ~FILE_MODE:
        return lock
    os.close(lock)
    os.unlink(LOCK, dir_fd=run)
    return os.open(LOCK, flags | os.O_EXCL, FILE_MODE, dir_fd=run)


def take_lock(descriptor: int) -> bool:
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


def remove(run: int, guest: str) -> None:
    """Remove a guest's directory and its files; one with anything else in it stays as it is.

    Raises:
        OSError: it stays, or part of it.
    """
    descriptor = os.open(guest, DIRECTORY, dir_fd=run)
    try:
        empty(descriptor)
    finally:
        os.close(descriptor)
    os.rmdir(guest, dir_fd=run)


def empty(directory: int) -> None:
    """Remove the files of a guest from its open directory, unless there is anything else in it.

    Raises:
        OSError: they stay, or some of them.
    """
    names = os.listdir(directory)
    if os.fstat(directory).st_uid != os.geteuid() or not set(names) <= set(FILES):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    for name in FILES:
        if name in names:
            os.unlink(name, dir_fd=directory)


def undo_claim(run: int, guest: str, directory: int) -> None:
    """Remove a directory that we just claimed.

    Not another's of that name: one without a record is taken over after `STARTING` seconds, and
    this process may have been stopped for as long.
    """
    try:
        empty(directory)
        named = os.stat(guest, dir_fd=run, follow_symlinks=False)
        if os.path.samestat(named, os.fstat(directory)):
            os.rmdir(guest, dir_fd=run)
    except OSError:
        pass  # what stays is stale, and is cleared away by the next launcher that wants the name


def write_file(directory: int, name: str, text: str) -> None:
    """Write a new file for this user alone, whole or not at all."""
    beside = f"{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(beside, flags, FILE_MODE, dir_fd=directory)
    try:
        os.fchmod(descriptor, FILE_MODE)  # whatever the umask
        content = text.encode()
        if os.write(descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    finally:
        os.close(descriptor)
    os.rename(beside, name, src_dir_fd=directory, dst_dir_fd=directory)


def register(
    run: Run, plan: "Plan", facts: "Mapping[str, object]", undo: "list[Callable[[], None]]"
) -> "tuple[str, str]":
    """Make a guest's directory, with all that belongs there.

    Args:
        run: the run directory.
        plan: what the guest is started with.
        facts: more fields of the record.
        undo: gets what takes each step back.

    Returns:
        The guest's id, and the path of the file that tells QEMU of its monitor.

    Raises:
        OSError: something cannot be made there; it names the run directory.
    """
    try:
        return make_guest(run, plan, facts, undo)
    except OSError as error:
        if not (error.filename or "").startswith("/"):
            error.filename = run.path
        raise


def make_guest(
    run: Run, plan: "Plan", facts: "Mapping[str, object]", undo: "list[Callable[[], None]]"
) -> "tuple[str, str]":
    """Do what `register` does; errors name files as they are called in their directories."""
    guest, directory = claim(run, plan.name)
    undo.append(lambda: os.close(directory))
    undo.append(lambda: undo_claim(run.descriptor, guest, directory))
    path = f"{run.path}/{guest}"
    descriptor = listen(directory, path if run.kept else None)
    undo.append(lambda: os.close(descriptor))
    if plan.starts_small:
        from launchers.kvm_current import leave_request

        leave_request(plan, f"{DESCRIPTORS}/{directory}/{SOCKET}")
    text = monitor_config(plan.monitor or "", descriptor)
    config = pass_config(text, undo)
    if config is None:
        if not run.kept:
            raise ClaimError(f"{run.path}: others can exchange a directory on the way to it")
        write_file(directory, CONFIG, text)
        config = f"{path}/{CONFIG}"
    name = readable(plan.name or guest)
    known = {"name": name, "socket": f"{path}/{SOCKET}", "current": plan.current}
    record = {"id": guest, **known, **facts}
    write_file(directory, RECORD, encode_record(record))
    return guest, config
