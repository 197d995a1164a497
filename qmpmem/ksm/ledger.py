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
    The directory and all in it are written by its owner alone, which is root, and a ledger that
    another user could have written is none: what it says would be written to the kernel.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from qmpmem.errors import KernelError
from qmpmem.files import directories, state_files
from qmpmem.files.directories import UntrustedError
from qmpmem.ksm import rules
from qmpmem.records import Record, replace
from qmpmem.wire.kernel.files import read

VERSION: Final = 1
DIRECTORY: Final = Path("/run/qmpmem/ksm")
"""Beside the guests of root, because KSM is the host's."""
MODE: Final = 0o755
"""Any user may see what was changed, and only the owner writes."""
READABLE: Final = 0o644
ONCE: Final = 0o2775
"""What the directory had up to version 0.1, when a group could write in it."""
REFUSED: Final = ".refused"
"""Added to the name of a ledger that is not believed."""

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
    agent: tuple[int, int] | None = None
    """The agent that wrote some of it, by its pid and start time (proc(5): /proc/PID/stat). The
    next one puts that back, whatever it is told to manage."""


class RefusedError(KernelError):
    """What stands in a ledger's place is no file, or others could have written it."""


def directory(environ: Mapping[str, str]) -> Path:
    """Name the directory of the ledger."""
    return Path(environ.get("QMPMEM_KSM_DIR") or DIRECTORY)


def boot_id(root: Path) -> str:
    """Name this boot (kernel: admin-guide/sysctl/kernel, random)."""
    return (read(root / "proc/sys/kernel/random/boot_id") or "").strip()


def load(where: Path, root: Path) -> Ledger:
    """Read the ledger; an empty one where there is none of this boot.

    Raises:
        RefusedError: it is not believed; see `set_aside`.
        KernelError: there is one, and it cannot be read.
    """
    path = where / "ledger.json"
    try:
        ledger = msgspec.json.decode(state_files.read(path, LIMIT), type=Ledger)
    except FileNotFoundError:
        ledger = Ledger()
    except UntrustedError as error:
        raise RefusedError(f"{path}: {error.strerror}: what it says is not done") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise RefusedError(f"{path}: {error.strerror}: what it says is not done") from error
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
    path = where / "ledger.json"
    try:
        if ledger.ours:
            state_files.write(path, msgspec.json.encode(ledger), READABLE)
        else:
            state_files.remove(path)
    except OSError as error:
        raise KernelError(
            f"{path}: {error.strerror}",
            hint="without it nothing could be put back, so nothing is changed",
        ) from error


def set_aside(where: Path) -> None:
    """Make way for a ledger where one is not believed. Only under the lock.

    Raises:
        KernelError: it stays.
    """
    path = where / "ledger.json"
    try:
        with directories.opened(where) as directory:
            names = (path.name, path.name + REFUSED)
            os.rename(*names, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        raise KernelError(
            f"{path}: {error.strerror}", hint=f"look at it, then: rm {path}"
        ) from error


@contextmanager
def locked(where: Path) -> Generator[None]:
    """Be the only one of us to change KSM.

    Raises:
        KernelError: another is at it, or the directory is not ours to write in.
    """
    try:
        _make_directory(where)
        with directories.opened(where) as directory:
            descriptor = _open_lock(directory, where / "lock")
    except OSError as error:
        raise KernelError(
            f"{where}: {error.strerror}",
            hint="run as root, or set QMPMEM_KSM_DIR to a directory of your own",
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


def _open_lock(directory: int, path: Path) -> int:
    """Open the lock, which its owner alone can: a process that can open it can hold it for ever."""
    flags = os.O_RDWR | os.O_CREAT
    try:
        descriptor = state_files.open_below(directory, path, flags)
    except UntrustedError:
        # Of a version that let a group in, say: what holds that one holds nothing.
        os.unlink(path.name, dir_fd=directory)
        descriptor = state_files.open_below(directory, path, flags)
    if os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, state_files.PRIVATE)
    return descriptor


def _make_directory(where: Path) -> None:
    if where.is_dir():
        _close_to_group(where)
        return
    if not where.parent.is_dir():
        where.parent.mkdir(parents=True, exist_ok=True)
        where.parent.chmod(MODE)  # whatever the umask is: any user may see
    where.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        where.chmod(MODE)


def _close_to_group(where: Path) -> None:
    """Take a directory back that an earlier version shared with a group, in this boot."""
    if where != DIRECTORY:  # a host has other directories of this mode, such as /var/local
        return
    descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        seen = os.fstat(descriptor)
        if seen.st_uid == os.geteuid() and stat.S_IMODE(seen.st_mode) == ONCE:
            os.fchmod(descriptor, MODE)
    finally:
        os.close(descriptor)
