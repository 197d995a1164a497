"""The run directory: what the launcher leaves behind for everybody else.

Theory of operation:
    RUN/ID/                one directory per guest process, claimed by mkdir, so that two guests
                           never share a socket path (a second QEMU silently steals it otherwise)
    RUN/ID/qmp.sock        our own QMP socket, bound by the launcher before QEMU starts
    RUN/ID/record.json     a GuestRecord, written beside and renamed, so never seen half-written

    launchers/kvm writes this layout without importing this module (it must start in milliseconds);
    tests/unit/test_rundir.py holds the two together.

Rules of this file:
    A record is a claim, not a fact: whether its process lives, `qmpmem.inventory` finds out.
"""

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from qmpmem import defaults, statefile
from qmpmem.errors import ConfigError, KernelError, QmpmemError
from qmpmem.names import SAFE_ID
from qmpmem.records import Record
from qmpmem.units import Bytes

RECORD: Final = "record.json"
"""In each guest's directory."""
RECORD_MODE: Final = 0o640
"""As the launcher's: the directory says who may read it."""
RECORD_VERSION: Final = 1
RECORD_LIMIT: Final = 64 * 1024
"""A record is about 500 bytes; whatever is larger was not written by us."""

ROOTS: Final = Path("/run/qmpmem/guests")
"""Root's run directory."""

GROUP: Final = "qmpmem"
SHARED: Final = 0o2770
"""Root's directories are for root and the group, which what is made inside inherits."""
PRIVATE: Final = 0o700
PASSABLE: Final = 0o755

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
    """Clock ticks after boot at which that process started (proc(5): /proc/PID/stat field 22)."""
    socket: str
    uid: int
    created: float
    """Seconds since 1970."""
    origin: Origin = "launcher"
    mode: Mode = "balloon"
    managed: bool = True
    daemonize: bool = False
    human: bool = False
    """The socket is a human monitor's, not QMP."""
    listener: int | None = None
    """The pid that SO_PEERCRED shows on the socket, where that is not ``pid``."""
    emulator: str | None = None
    balloon: str | None = None
    """The id of the balloon device that we added; None where we added none."""
    no_balloon: str | None = None
    """Why the launcher added none, where one could be expected."""
    unmovable: str | None = None
    """Why any balloon frees nothing of this guest's memory."""
    note: str | None = None
    """What its user should know of its balloon."""
    ksm: bool | None = None
    """Whether equal pages may be merged; None leaves it to QEMU's default."""
    domain: str | None = None
    """Guests of different domains do not trust each other."""
    current: Bytes | None = None
    """What the guest was to start with, as its user asked; None: nothing was asked."""
    cgroup: str | None = None
    """The directories of cgroups, one a line, in which the launcher was to make one of this id."""
    arriving: bool = False
    """Its state was loaded or came from another host (-loadvm, -incoming)."""


class Unreadable(Record, frozen=True):
    """A guest directory whose record cannot be used, and why, in one line."""

    path: str
    problem: str
    missing: bool = False
    """There is no record: its launcher has not written it yet, or never will."""


def run_directory(environ: Mapping[str, str], uid: int) -> Path:
    """Name the directory that holds the guests of this user.

    As the launcher does: QMPMEM_RUN_DIR, from the environment, else from the host's defaults.

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


def directory_mode() -> int:
    """Say which mode directories of this user have."""
    return SHARED if os.geteuid() == 0 else PRIVATE


def make_run_directory(run: Path) -> bool:
    """Make the run directory where it is missing.

    Returns:
        Whether it was missing.

    Raises:
        OSError: it cannot be made.
    """
    if run.is_dir():
        return False
    if not run.parent.is_dir():
        run.parent.mkdir(parents=True, exist_ok=True)
        run.parent.chmod(PASSABLE)  # whatever the umask is: the group has to get through
    run.mkdir(mode=PRIVATE, exist_ok=True)
    if os.geteuid() == 0:
        import grp  # noqa: PLC0415 - most commands find the directory made

        with suppress(KeyError):  # a host without the group: root's alone
            os.chown(run, -1, grp.getgrnam(GROUP).gr_gid)
    run.chmod(directory_mode())
    return True


def read_record(directory: Path) -> GuestRecord | Unreadable:
    """Read one guest's record; whatever is wrong with it becomes one line."""
    path = directory / RECORD
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Unreadable(path=str(path), problem="not a regular file")
            content = file.read(RECORD_LIMIT + 1)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        return Unreadable(path=str(path), problem=error.strerror or str(error), missing=missing)
    return _decode(path, content, directory.name)


def read_records(run: Path) -> list[GuestRecord | Unreadable]:
    """Read every guest's record, ordered by id as people count: web2 before web10.

    No run directory means no guests.

    Raises:
        ConfigError: the run directory is none.
        KernelError: it exists and cannot be listed.
    """
    try:
        found = (entry.name for entry in os.scandir(run) if SAFE_ID.fullmatch(entry.name))
        names = sorted(found, key=_as_counted)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise refused(run, error) from error
    return [read_record(run / name) for name in names]


def refused(run: Path, error: OSError) -> QmpmemError:
    """Say why a run directory cannot be used, and what to do about it."""
    text = f"run directory {run}: {error.strerror or error}"
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return ConfigError(text, hint="set QMPMEM_RUN_DIR to a directory")
    hint = f"as root: `usermod -aG {GROUP} USER`, then log in again; or set QMPMEM_RUN_DIR"
    is_denied = isinstance(error, PermissionError)
    return KernelError(text, hint=hint if is_denied else "see `qmpmem doctor`")


def write_record(run: Path, record: GuestRecord) -> None:
    """Write a record so that a reader sees the old one or the new one, whole.

    Raises:
        OSError: the guest's directory is missing, full or not ours.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(run / record.id, flags)
    try:
        statefile.write_below(directory, RECORD, msgspec.json.encode(record), RECORD_MODE)
    finally:
        os.close(directory)


@contextmanager
def removing(run: Path) -> Generator[bool]:
    """Take the lock under which directories of guests that are gone are removed.

    Yields:
        Whether it was to be had. If not, a launcher is just clearing one away, or we may not.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(run / ".lock", flags, 0o660)
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


def remove_guest(run: Path, guest: str) -> None:
    """Remove a guest's directory and what is in it; already gone is fine.

    Raises:
        ConfigError: the id could name anything but a guest's directory.
    """
    if not SAFE_ID.fullmatch(guest):
        raise ConfigError(f"guest id {guest!r}: not a safe id")
    shutil.rmtree(run / guest, ignore_errors=True)


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
