"""The run directory: what the launcher leaves behind for the agent and the commands.

Theory of operation:
    RUN/ID/                one directory per guest process, claimed by mkdir, so that two guests
                           never share a socket path (a second QEMU silently steals it otherwise)
    RUN/ID/qmp.sock        our own QMP socket, bound by the launcher before QEMU starts
    RUN/ID/record.json     a GuestRecord, written beside and renamed, so never seen half-written

    launchers/kvm writes this layout without importing this module (it must start in milliseconds).
    tests/unit/guests/test_rundir.py compares both.

Rules of this file:
    A guest's monitor may do all that its QEMU may do, so all of this belongs to the guest's user
    alone: directories have mode 0700, files and sockets 0600. No group gets at them; members of
    `GROUP` ask root's agent.
    A record is a claim, not a fact. It counts only if it and its directory belong to root, or to
    the user whose process it names, and no other user could have written it.
    `qmpmem.guests.inventory` finds out whether that process lives.
"""

import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from qmpmem.errors import ConfigError, KernelError, QmpmemError
from qmpmem.files import defaults, directories, state_files
from qmpmem.model.names import SAFE_ID
from qmpmem.records import Record
from qmpmem.units import Bytes

RECORD: Final = "record.json"
"""The file of the record in each guest's directory."""
SOCKET: Final = "qmp.sock"
RECORD_MODE: Final = 0o600
RECORD_VERSION: Final = 1
RECORD_LIMIT: Final = 64 * 1024
"""Most bytes of a record: ours have about 500, so a larger one is not ours."""

ROOTS: Final = Path("/run/qmpmem/guests")
"""Root's run directory."""
BROKER: Final = Path("/run/qmpmem/broker")
"""The run directory that root's broker shows an agent which is not root."""

GROUP: Final = "qmpmem"
ASK_AGENT: Final = (
    f"members of the group {GROUP} see root's guests by way of root's agent: as root, "
    f"`qmpmem agent service install`, and `usermod -aG {GROUP} USER`, then log in again"
)
PRIVATE: Final = 0o700
OTHERS: Final = 0o077
OTHERS_WRITE: Final = 0o022
SHARED: Final = 0o2770
"""The mode of root's directories before 0.2.0, when they were for a group, too."""
STARTING: Final = 10.0
"""Seconds within which a launcher has written its record; as in launchers/kvm_claim.py."""
HIDDEN: Final = (".lock", ".python", ".emulator-", ".agent")
FILES: Final = frozenset((SOCKET, "monitor.conf", "monitor.conf.new", RECORD, f"{RECORD}.new"))
"""`HIDDEN`: how the names begin of what is in a run directory beside guests' directories. `FILES`:
the files in a guest's directory. Both as in launchers/kvm_run.py."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_WORD_AND_NUMBER: Final = re.compile(r"([^0-9]*)([0-9]*)")

Origin = Literal["launcher", "adopted"]
Mode = Literal["static", "balloon"]


class GuestRecord(Record, frozen=True):
    """What was true when the guest was started or adopted."""

    version: int
    id: str
    name: str
    pid: int
    """The launcher's pid, which exec keeps. With -daemonize the guest is its child."""
    start_time: int
    """When that process started, in clock ticks after boot (proc(5): /proc/PID/stat field 22)."""
    socket: str
    uid: int
    created: float
    """Seconds since 1970."""
    origin: Origin = "launcher"
    mode: Mode = "balloon"
    managed: bool = True
    daemonize: bool = False
    human: bool = False
    """Whether the socket is a human monitor's, and not QMP."""
    listener: int | None = None
    """The pid that SO_PEERCRED shows on the socket, where that is not ``pid``."""
    emulator: str | None = None
    balloon: str | None = None
    """The id of the balloon device that we added; None where we added none."""
    no_balloon: str | None = None
    """Why the launcher added none, where its user could expect one."""
    unmovable: str | None = None
    """Why any balloon frees nothing of this guest's memory."""
    note: str | None = None
    """What its user should know of its balloon."""
    ksm: bool | None = None
    """Whether equal pages may be merged; None leaves it to QEMU's default."""
    domain: str | None = None
    """The guest's domain: guests of different domains do not trust each other."""
    current: Bytes | None = None
    """The size that its user asked to start the guest with; None: the user asked for none."""
    cgroup: str | None = None
    """The directories of cgroups, one a line, in which the launcher was to make one of this id."""
    arriving: bool = False
    """Whether its state was loaded or came from another host (-loadvm, -incoming)."""
    shared: bool = False
    """Whether a broker listens on the socket, for any number of clients."""


class Unreadable(Record, frozen=True):
    """A guest directory whose record cannot be used, and why, in one line."""

    path: str
    problem: str
    missing: bool = False
    """Whether there is no record: its launcher has not written it yet, or never will."""


def run_directory(environ: Mapping[str, str], uid: int) -> Path:
    """Return the directory that holds the guests of this user.

    As for the launcher, that is QMPMEM_RUN_DIR of the environment, else of the host's defaults.

    Raises:
        ConfigError: QMPMEM_RUN_DIR is not an absolute path.
    """
    chosen = chosen_directory(environ)
    if chosen is not None:
        return chosen
    if uid == 0:
        return ROOTS
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return Path(runtime) / "qmpmem"


def chosen_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the run directory that the environment or the host's defaults name.

    Raises:
        ConfigError: QMPMEM_RUN_DIR is not an absolute path.
    """
    chosen, source = environ.get("QMPMEM_RUN_DIR"), ""
    if not chosen:
        found = defaults.load(environ)
        chosen, source = found.values.get("QMPMEM_RUN_DIR"), f"{found.path}: "
    if not chosen:
        return None
    if not chosen.startswith("/"):
        raise ConfigError(f"{source}QMPMEM_RUN_DIR={chosen!r}: expected an absolute path")
    return Path(chosen)


def make_run_directory(run: Path) -> bool:
    """Make the run directory where it is missing, and private where it is this user's.

    As the launcher does (launchers/kvm_run.py), the mode of one that is there is changed only where
    an earlier version made it so, or it holds nothing but what guests have left.

    Returns:
        Whether it was missing.

    Raises:
        OSError: it cannot be made.
    """
    if run.is_dir():
        make_private(run, used=True)
        return False
    # Others can reach the agent through the directories above.
    descriptor, is_new = directories.open_or_make(run, PRIVATE)
    os.close(descriptor)
    return is_new


def make_directory(path: Path) -> None:
    """Make a directory for this user alone, whatever the umask is.

    Raises:
        UntrustedError: other users could lead this process to another directory.
        OSError: as mkdir(2).
    """
    os.close(_made(path))


def _made(path: Path) -> int:
    with _opened(path.parent) as within:
        return directories.make_below(within, path.name, PRIVATE)


@contextmanager
def _opened(run: Path) -> Generator[int]:
    """Open a run directory to change what is in it; one that every user may write is none.

    Raises:
        UntrustedError: other users may write there, or lead this process to another directory.
        OSError: as open(2).
    """
    with directories.opened(run) as within:
        # In a sticky one others may not exchange what is there. They may put guests there.
        directories.expect(directories.problem_of(within, stat.S_IFDIR), run)
        yield within


def claim(run: Path, guest: str) -> int | None:
    """Claim a guest's directory, also one that a launcher has left empty.

    Args:
        run: the run directory.
        guest: the id.

    Returns:
        A descriptor of it, by which alone it is filled (`fill`) or given up (`give_up`): until it
        has a record, another process may claim the id after `STARTING` seconds. None: it is taken.

    Raises:
        OSError: it cannot be made.
    """
    try:
        return _made(run / guest)
    except FileExistsError:
        return take_over(run, guest)


def take_over(run: Path, guest: str) -> int | None:
    """Make an empty directory that a launcher has left anew, whatever mode an earlier version gave.

    That launcher, if it was only stopped, finds its own directory gone.

    Args:
        run: the run directory.
        guest: the id that it occupies.

    Returns:
        A descriptor of the new one; None if the old one is another user's, holds anything, or is so
        new that a launcher may be at work in it.
    """
    with removing(run) as alone, suppress(OSError), _opened(run) as within:
        descriptor = os.open(guest, _DIRECTORY, dir_fd=within)
        try:
            seen = os.fstat(descriptor)
            is_new = time.time() - seen.st_mtime < STARTING
            is_left = seen.st_uid == os.geteuid() and not (is_new or _names(descriptor))
        finally:
            os.close(descriptor)
        if alone and is_left:
            os.rmdir(guest, dir_fd=within)
            return _made(run / guest)
    return None


def fill(directory: int, record: GuestRecord) -> None:
    """Write the record of a guest whose directory was claimed.

    Raises:
        FileNotFoundError: another process has claimed the id since.
        OSError: the record cannot be written.
    """
    state_files.write_below(directory, RECORD, msgspec.json.encode(record), RECORD_MODE)


def give_up(run: Path, guest: str, directory: int) -> None:
    """Remove a directory that was claimed, and nothing of a process that has the id by now."""
    with suppress(OSError), _opened(run) as within:
        for name in _names(directory):
            os.unlink(name, dir_fd=directory)
        named = os.stat(guest, dir_fd=within, follow_symlinks=False)
        if os.path.samestat(named, os.fstat(directory)):
            os.rmdir(guest, dir_fd=within)


def make_private(run: Path, *, used: bool = False) -> None:
    """Make a run directory of this user's private that a version before 0.2.0 made for a group.

    Nothing is changed where other users could have led this process to the directory.

    Args:
        run: the run directory.
        used: whether guests are about to be put there. Then a directory that a group may write, and
            that holds nothing but guests, is made private as well.
    """
    try:
        with directories.opened(run.parent) as above:
            descriptor = os.open(run.name, _DIRECTORY, dir_fd=above)
    except OSError:
        return
    try:
        seen = os.fstat(descriptor)
        if seen.st_uid != os.geteuid():
            return
        is_open = used and seen.st_mode & stat.S_IWGRP and not seen.st_mode & stat.S_IWOTH
        if _was_shared(run, seen) or (is_open and holds_guests_only(descriptor)):
            os.fchmod(descriptor, PRIVATE)
    finally:
        os.close(descriptor)


def holds_guests_only(run: int) -> bool:
    """Tell whether a directory is empty but for what launchers and agents put there.

    Args:
        run: the directory, which is open.
    """
    for name in _names(run):
        if name.startswith(HIDDEN):
            continue
        try:
            guest = os.open(name, _DIRECTORY, dir_fd=run)
        except OSError:
            return False
        try:
            if not _names(guest) <= FILES:
                return False
        finally:
            os.close(guest)
    return True


def _names(directory: int) -> set[str]:
    with os.scandir(directory) as entries:
        return {entry.name for entry in entries}


def _was_shared(run: Path, seen: os.stat_result) -> bool:
    if run == ROOTS:
        return bool(seen.st_mode & OTHERS)
    if stat.S_IMODE(seen.st_mode) != SHARED:
        return False
    import grp  # noqa: PLC0415 - most directories are private

    try:
        return seen.st_gid == grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return False


def read_record(directory: Path) -> GuestRecord | Unreadable:
    """Read one guest's record, or return in one line what is wrong with it."""
    path = directory / RECORD
    try:
        folder = os.open(directory, _DIRECTORY)
    except OSError as error:
        return _unreadable(path, error)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(RECORD, flags, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode):
                return Unreadable(path=str(path), problem="not a regular file")
            record = _decode(path, file.read(RECORD_LIMIT + 1), directory.name)
        if isinstance(record, GuestRecord):
            _take_back(folder, seen)
            problem = _find_problem(directory, os.fstat(folder), seen, record)
            return record if problem is None else Unreadable(path=str(path), problem=problem)
    except OSError as error:
        return _unreadable(path, error)
    else:
        return record
    finally:
        os.close(folder)


def _unreadable(path: Path, error: OSError) -> Unreadable:
    missing = isinstance(error, FileNotFoundError)
    return Unreadable(path=str(path), problem=error.strerror or str(error), missing=missing)


def _find_problem(
    directory: Path, folder: os.stat_result, file: os.stat_result, record: GuestRecord
) -> str | None:
    """Return why a record does not count; None: it does."""
    for owner in (folder.st_uid, file.st_uid):
        if owner not in (0, record.uid):
            return f"belongs to uid {owner}, and names a process of uid {record.uid}"
    if folder.st_mode & OTHERS_WRITE:
        mode = stat.S_IMODE(folder.st_mode)
        return f"others may write in its directory, mode {mode:04o}; `chmod 700 {directory}`"
    if folder.st_mode & OTHERS and file.st_mode & OTHERS_WRITE:
        return f"others may write it, mode {stat.S_IMODE(file.st_mode):04o}"
    if record.origin == "launcher" and not _is_inside(record.socket, directory, folder):
        return f"its socket is {record.socket}, expected {directory / SOCKET}"
    return None


def _is_inside(path: str, directory: Path, folder: os.stat_result) -> bool:
    """Tell whether a path names the socket in a guest's own directory, however that is spelled."""
    above, _, name = path.rpartition("/")
    if name != SOCKET or above == str(directory):
        return name == SOCKET
    try:
        return os.path.samestat(os.stat(above), folder)  # noqa: PTH116 - speed
    except (OSError, ValueError):
        return False


def _take_back(folder: int, file: os.stat_result) -> None:
    """Make a guest's directory private that a version before 0.2.0 made for a group.

    That is done only to a directory of this user's, whose record no other user can have written.
    Its mode was that of the run directory, and `SHARED` at most.
    """
    seen, user = os.fstat(folder), os.geteuid()
    mode = stat.S_IMODE(seen.st_mode)
    if mode & ~SHARED or not mode & stat.S_IWGRP or not seen.st_uid == file.st_uid == user:
        return
    if file.st_mode & OTHERS_WRITE:
        return
    os.fchmod(folder, PRIVATE)
    with suppress(OSError):  # a process of the group may have it open already (open(2): O_PATH)
        socket = os.open(SOCKET, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if stat.S_ISSOCK(os.fstat(socket).st_mode):
                os.chmod(f"/proc/self/fd/{socket}", 0o600)  # noqa: PTH101 - by descriptor
        finally:
            os.close(socket)


def read_records(run: Path) -> list[GuestRecord | Unreadable]:
    """Read every guest's record, ordered by id as people count: web2 before web10.

    No run directory means no guests.

    Raises:
        ConfigError: the run directory is not a directory.
        KernelError: it exists and cannot be listed.
    """
    make_private(run)
    try:
        found = (entry.name for entry in os.scandir(run) if SAFE_ID.fullmatch(entry.name))
        names = sorted(found, key=_as_counted)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise refused(run, error) from error
    return [read_record(run / name) for name in names]


def refused(run: Path, error: OSError) -> QmpmemError:
    """Return the error that tells why a run directory cannot be used, and what to do about it."""
    text = f"run directory {run}: {error.strerror or error}"
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return ConfigError(text, hint="set QMPMEM_RUN_DIR to a directory")
    if not isinstance(error, PermissionError):
        return KernelError(text, hint="see `qmpmem doctor`")
    hint = ASK_AGENT if run == ROOTS else "run it as the owner of that directory, or as root"
    return KernelError(f"{text}: its guests are its owner's alone", hint=hint)


def write_record(run: Path, record: GuestRecord) -> None:
    """Write a record so that a reader sees the old one or the new one, whole.

    Raises:
        OSError: the guest's directory is missing, full or not ours.
    """
    with _opened(run) as within:
        directory = os.open(record.id, _DIRECTORY, dir_fd=within)
    try:
        fill(directory, record)
    finally:
        os.close(directory)


def rewrite_record(run: Path, old: GuestRecord, new: GuestRecord) -> bool:
    """Write a record in the place of an older one.

    Returns:
        Whether the older one was there still; another guest may have its id by now.

    Raises:
        OSError: it cannot be written.
    """
    with removing(run):  # no launcher takes the place of a guest meanwhile
        if read_record(run / old.id) != old:
            return False
        write_record(run, new)
        return True


@contextmanager
def removing(run: Path) -> Generator[bool]:
    """Take the lock under which directories of guests that are gone are removed.

    Yields:
        Whether this process has it. If not, a launcher is just clearing one away, or this user may
        not.
    """
    try:
        descriptor = _open_lock(run)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _open_lock(run: Path) -> int:
    """Open the lock; replace one that others may have open, as launchers/kvm_claim.py does."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with _opened(run) as within:
        lock = os.open(".lock", flags, RECORD_MODE, dir_fd=within)
        seen = os.fstat(lock)
        if seen.st_uid == os.geteuid() and not stat.S_IMODE(seen.st_mode) & ~RECORD_MODE:
            return lock
        os.close(lock)
        os.unlink(".lock", dir_fd=within)
        return os.open(".lock", flags | os.O_EXCL, RECORD_MODE, dir_fd=within)


def remove_guest(run: Path, guest: str) -> None:
    """Remove a guest's directory and what is in it; already gone is fine.

    Nothing is removed where other users could have led this process to another directory.

    Raises:
        ConfigError: the id could name anything but a guest's directory.
    """
    if not SAFE_ID.fullmatch(guest):
        raise ConfigError(f"guest id {guest!r}: not a safe id")
    with suppress(OSError), _opened(run) as within:
        shutil.rmtree(guest, ignore_errors=True, dir_fd=within)


def _as_counted(guest: str) -> list[tuple[str, int]]:
    return [(word, int(number or -1)) for word, number in _WORD_AND_NUMBER.findall(guest)]


def _decode(path: Path, content: bytes, expected: str) -> GuestRecord | Unreadable:
    if len(content) > RECORD_LIMIT:
        return Unreadable(path=str(path), problem=f"larger than {RECORD_LIMIT} bytes")
    try:
        record = msgspec.json.decode(content, type=GuestRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Unreadable(path=str(path), problem=f"not a guest record: {error}")
    if record.version != RECORD_VERSION:
        problem = f"version {record.version}, expected {RECORD_VERSION}"
        return Unreadable(path=str(path), problem=problem)
    if record.id != expected:
        return Unreadable(path=str(path), problem=f"says id {record.id!r}, expected {expected!r}")
    return record
