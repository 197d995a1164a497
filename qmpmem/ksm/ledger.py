"""What was there before us, and what we made of it: so that it can be put back, to the value.

Theory of operation:
    DIR/ledger.json   a Ledger, written beside and renamed; what is about to be written is noted
                      down first and settled when it is done, so that after a crash in between
                      each file still shows a value that is known to be ours
    DIR/lock          held while anything is changed: there is one KSM, and two of us would undo
                      each other's work

    KSM's files begin anew with each boot, and so does the ledger: it names the boot that it is of.

Rules of this file:
    A ledger that cannot be read is not guessed at: what it knew would be lost with the next write.
    Whoever is in the group can write in the directory, so nothing there is followed or waited for.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from qmpmem.errors import KernelError
from qmpmem.ksm import rules
from qmpmem.records import Record, replace
from qmpmem.rundir import GROUP
from qmpmem.wire.kernel.files import read

VERSION: Final = 1
DIRECTORY: Final = Path("/run/qmpmem/ksm")
"""Beside the guests of root, because KSM is the host's."""
MODE: Final = 0o2775
"""The group may steer KSM where it was given the files in /sys; everybody may see who did."""

LIMIT: Final = 64 * 1024
"""A ledger has some 2000 bytes; whatever is larger was not written by us."""

GIVE_UP: Final = 2
"""A knob that somebody else changed so often after us is theirs."""


class Ledger(Record, frozen=True):
    """Our changes to KSM since boot."""

    version: int = VERSION
    boot: str = ""
    before: Mapping[str, str] = {}
    """What was found, for each file that we changed."""
    ours: Mapping[str, str] = {}
    """What we wrote last."""
    passing: Mapping[str, Sequence[str]] = {}
    """What else these files show while a change is under way; left behind where it was cut off."""
    scans: int = 0
    """full_scans when merging was switched on."""
    since: float | None = None
    """Seconds since 1970."""
    taken: Mapping[str, int] = {}
    """How often somebody else changed a file after us."""


def directory(environ: Mapping[str, str]) -> Path:
    """Name the directory of the ledger."""
    return Path(environ.get("QMPMEM_KSM_DIR") or DIRECTORY)


def boot_id(root: Path) -> str:
    """Name this boot (kernel: admin-guide/sysctl/kernel, random)."""
    return (read(root / "proc/sys/kernel/random/boot_id") or "").strip()


def load(where: Path, root: Path) -> Ledger:
    """Read the ledger; an empty one where there is none of this boot.

    Raises:
        KernelError: there is one, and it cannot be read.
    """
    path = where / "ledger.json"
    try:
        ledger = msgspec.json.decode(_read(path), type=Ledger)
    except FileNotFoundError:
        ledger = Ledger()
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}", hint="run as root") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KernelError(
            f"{path}: not a ledger: {error}", hint=f"look at it, then: rm {path}"
        ) from error
    if ledger.version != VERSION:
        raise KernelError(
            f"{path}: version {ledger.version}, expected {VERSION}",
            hint="it was written by another release of qmpmem; `restore` with that one",
        )
    boot = boot_id(root)
    return ledger if ledger.boot == boot else Ledger(boot=boot)


def save(where: Path, ledger: Ledger) -> None:
    """Write the ledger, whole or not at all; one without entries is removed.

    Raises:
        KernelError: it cannot be written.
    """
    path, beside = where / "ledger.json", where / f".ledger.{os.getpid()}"
    try:
        if not ledger.ours:
            path.unlink(missing_ok=True)
            return
        beside.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(ledger))
            os.fchmod(file.fileno(), 0o664)  # whatever the umask is
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise KernelError(
            f"{path}: {error.strerror}",
            hint="without it nothing could be put back, so nothing is changed",
        ) from error


@contextmanager
def locked(where: Path) -> Generator[None]:
    """Be the only one of us to change KSM.

    Raises:
        KernelError: another is at it, or the directory is not ours to write in.
    """
    try:
        _make_directory(where)
        descriptor = _open_lock(where / "lock")
    except OSError as error:
        raise KernelError(
            f"{where}: {error.strerror}",
            hint=f"run as root, or as a member of the group {GROUP} after root did so once",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise KernelError(
            "KSM is being changed by another qmpmem right now", hint="try again when it is done"
        ) from error
    else:
        yield
    finally:
        os.close(descriptor)


def note(
    ledger: Ledger, writes: tuple[rules.Write, ...], now: Mapping[str, str], moment: float
) -> Ledger:
    """Add what is about to be written. Pure.

    What is remembered as before is what was there before us, unless somebody else changed it since:
    then it is what that somebody made of it.
    """
    theirs, before = foreign(ledger, now), dict(ledger.before)
    for name in _touched(writes) & now.keys():
        if name in theirs or name not in {*before, *ledger.ours}:
            before[name] = now[name]
    written = {write.name: write.after for write in writes}
    if written.get(rules.MODE) == rules.MODES[0]:
        written = {rules.PAGES: rules.DEFAULT_PAGES, **written}
    return replace(
        ledger,
        before=before,
        ours={**ledger.ours, **written},
        passing=_passing(writes, now),
        since=moment if ledger.since is None else ledger.since,
    )


def note_return(ledger: Ledger, writes: tuple[rules.Write, ...], now: Mapping[str, str]) -> Ledger:
    """Note that this is about to be put back. Pure."""
    back = {write.name: [write.after] for write in writes}
    through = _passing(writes, now)
    names = back.keys() | through.keys()
    return replace(
        ledger, passing={name: (*back.get(name, ()), *through.get(name, ())) for name in names}
    )


def settle(ledger: Ledger) -> Ledger:
    """Note that what was noted is done. Pure."""
    return replace(ledger, passing={})


def foreign(ledger: Ledger, now: Mapping[str, str]) -> dict[str, str]:
    """Find what somebody else changed after us: names, and what is there now. Pure."""
    return {name: now[name] for name in (ledger.ours.keys() & now.keys()) - own(ledger, now)}


def own(ledger: Ledger, now: Mapping[str, str]) -> frozenset[str]:
    """Find what is still as we left it. Pure."""
    names = (ledger.ours.keys() | ledger.passing.keys()) & now.keys()
    return frozenset(
        name
        for name in names
        if now[name] in (ledger.ours.get(name), *ledger.passing.get(name, ()))
    )


def _touched(writes: tuple[rules.Write, ...]) -> set[str]:
    """Name what changes; with advisor_mode, the kernel changes pages_to_scan as well."""
    names = {write.name for write in writes}
    return names | {rules.PAGES} if rules.MODE in names else names


def _passing(writes: tuple[rules.Write, ...], now: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Say what is shown on the way, and on the way back, beside what is written."""
    passing: dict[str, tuple[str, ...]] = {
        name: (now[name],) for name in _touched(writes) & now.keys()
    }
    if any(write.name == rules.MODE for write in writes):
        passing[rules.PAGES] = (*passing.get(rules.PAGES, ()), rules.DEFAULT_PAGES)
    if any((write.name, write.after) == (rules.RUN, rules.UNMERGE) for write in writes):
        # Cut off, it has stopped (mm/ksm.c: run_store).
        passing[rules.RUN] = (*passing.get(rules.RUN, ()), "0")
    return passing


def _read(path: Path) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(LIMIT)


def _open_lock(path: Path) -> int:
    """Open the lock so that only the group can: whoever can read it could hold it for ever."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    if os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, 0o660)  # whatever the umask is
    return descriptor


def _make_directory(where: Path) -> None:
    if where.is_dir():
        return
    if not where.parent.is_dir():
        where.parent.mkdir(parents=True, exist_ok=True)
        where.parent.chmod(0o755)  # whatever the umask is: everybody may see
    where.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        import grp  # noqa: PLC0415 - once a boot

        with suppress(KeyError):  # a host without the group: root's alone
            os.chown(where, -1, grp.getgrnam(GROUP).gr_gid)
        where.chmod(MODE)
