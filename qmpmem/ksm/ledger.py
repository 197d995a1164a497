"""The values of KSM that we found, and those that we wrote, so that each can be put back.

Theory of operation:
    DIR/ledger.json   a Ledger, written beside and renamed; what is about to be written is noted
                      down first and settled when it is done, so that after a crash in between
                      each file still shows a value that is known to be ours
    DIR/lock          held while anything is changed: there is one KSM, and two of us would undo
                      each other's work

    KSM's files begin anew with each boot, and so does the ledger: it names its boot.

Rules of this file:
    A ledger that cannot be read is not guessed at: what it knew would be lost with the next write.
    Only the owner of the directory, which is root, writes it and all in it. A ledger that another
    user could have written is refused: what it holds would be written to the kernel.
    It is judged as a whole when it is read: each value is one that the kernel could have shown.
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
"""The directory of the ledger, beside root's guests, because KSM belongs to the host."""
AGENTS: Final = Path("run/qmpmem/agent/ksm")
"""The directory, below /, of the ledger of an agent that is not root; its unit names it."""
MODE: Final = 0o755
"""The mode of the directory: any user may see what was changed, and only the owner writes."""
READABLE: Final = 0o644
ONCE: Final = 0o2775
"""The mode of the directory up to version 0.1, when a group could write in it."""
REFUSED: Final = ".refused"
"""What is added to the name of a ledger that is not believed."""

LIMIT: Final = 64 * 1024
"""Most bytes of a ledger: ours have some 2000, so a larger one is not ours."""

GIVE_UP: Final = 2
"""Changes by another program after ours, after which a file of KSM is left to it."""


class Ledger(Record, frozen=True):
    """Our changes to KSM since boot."""

    version: int = VERSION
    boot: str = ""
    before: Mapping[str, str] = {}
    """What was found in each file that we changed."""
    ours: Mapping[str, str] = {}
    """What we wrote last."""
    passing: Mapping[str, Sequence[str]] = {}
    """What else these files show during a change; it stays where a change was interrupted."""
    scans: int = 0
    """`full_scans` when merging was switched on."""
    since: float | None = None
    """When we first changed something, in seconds since 1970."""
    taken: Mapping[str, int] = {}
    """How often another program changed each file after us."""
    agent: tuple[int, int] | None = None
    """The agent that wrote some of it, by its pid and start time (proc(5): /proc/PID/stat). The
    next agent puts that back, whatever it is told to manage."""


class RefusedError(KernelError):
    """What is in the place of the ledger is no file, or another user could have written it."""


def directory(environ: Mapping[str, str]) -> Path:
    """Return the directory of the ledger."""
    return Path(environ.get("QMPMEM_KSM_DIR") or DIRECTORY)


def boot_id(root: Path) -> str:
    """Return the id of this boot (kernel: admin-guide/sysctl/kernel, random)."""
    return (read(root / "proc/sys/kernel/random/boot_id") or "").strip()


def load(where: Path, root: Path) -> Ledger:
    """Read the ledger; an empty one where there is none of this boot.

    Raises:
        RefusedError: it is not believed; see `set_aside`.
        KernelError: there is a ledger, and it cannot be read.
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
    ledger = _of_this_boot(ledger, root)
    impossible = _impossible(ledger)
    if impossible is not None:
        raise KernelError(
            f"{path}: not a ledger: {impossible}: no kernel shows that",
            hint=f"look at it, then: rm {path}",
        )
    return ledger


def of_agent(root: Path) -> Ledger:
    """Read the ledger of an agent that is not root; an empty one where there is none of this boot.

    It only tells what steers KSM. Nothing of it is done: another user wrote it.
    """
    try:
        directory = os.open(root / AGENTS, os.O_DIRECTORY | directories.SAFELY)
    except OSError:
        return Ledger()
    try:
        content = state_files.read_below(directory, "ledger.json", LIMIT)
        ledger = msgspec.json.decode(content, type=Ledger)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Ledger()
    finally:
        os.close(directory)
    return _of_this_boot(ledger, root)


def _impossible(ledger: Ledger) -> str | None:
    """Return a value that no file of KSM had, though the ledger says so; None: there is none."""
    values = [
        *(*ledger.before.items(), *ledger.ours.items()),
        *((name, value) for name, values in ledger.passing.items() for value in values),
    ]
    known = ((name, value) for name, value in values if name in (rules.RUN, *rules.KNOBS))
    odd = next((each for each in known if not rules.is_possible(*each)), None)
    return None if odd is None else f"{odd[0]}={odd[1][:40]!r}"


def _of_this_boot(ledger: Ledger, root: Path) -> Ledger:
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
    """Rename a ledger that is not believed, to make room for a new one. Only under the lock.

    Raises:
        KernelError: it cannot be renamed.
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
    """Hold the lock under which only one of our processes changes KSM.

    Raises:
        KernelError: another process holds it, or this user may not write in the directory.
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
    """Return the ledger with what is about to be written. Pure.

    The value that is remembered is the one before our first change, unless another program has
    changed it since: then it is that program's value.
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
    """Return the ledger with what is about to be put back. Pure."""
    back = {write.name: [write.after] for write in writes}
    through = _passing(writes, now)
    names = back.keys() | through.keys()
    return replace(
        ledger, passing={name: (*back.get(name, ()), *through.get(name, ())) for name in names}
    )


def settle(ledger: Ledger) -> Ledger:
    """Return the ledger after what was noted is done. Pure."""
    return replace(ledger, passing={})


def foreign(ledger: Ledger, now: Mapping[str, str]) -> dict[str, str]:
    """Find what another program changed after us: names, and what is there now. Pure."""
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
    """Return the names of what changes; with advisor_mode the kernel changes pages_to_scan."""
    names = {write.name for write in writes}
    return names | {rules.PAGES} if rules.MODE in names else names


def _passing(writes: tuple[rules.Write, ...], now: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return what files show during a change, and during its return, beside what is written."""
    passing: dict[str, tuple[str, ...]] = {
        name: (now[name],) for name in _touched(writes) & now.keys()
    }
    if any(write.name == rules.MODE for write in writes):
        passing[rules.PAGES] = (*passing.get(rules.PAGES, ()), rules.DEFAULT_PAGES)
    if any((write.name, write.after) == (rules.RUN, rules.UNMERGE) for write in writes):
        # Where it is interrupted, merging has stopped (mm/ksm.c: run_store).
        passing[rules.RUN] = (*passing.get(rules.RUN, ()), "0")
    return passing


def _open_lock(directory: int, path: Path) -> int:
    """Open the lock. Only its owner can: a process that can open it can hold it for ever."""
    flags = os.O_RDWR | os.O_CREAT
    try:
        descriptor = state_files.open_below(directory, path, flags)
    except UntrustedError:
        # One that a group can open, as of an old version: to hold that one has no effect.
        os.unlink(path.name, dir_fd=directory)
        descriptor = state_files.open_below(directory, path, flags)
    if os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, state_files.PRIVATE)
    return descriptor


def _make_directory(where: Path) -> None:
    if where.is_dir():
        _close_to_group(where)
        return
    # Any user may see what was changed on the host.
    mode = MODE if os.geteuid() == 0 else directories.PRIVATE
    os.close(directories.open_or_make(where, mode)[0])


def _close_to_group(where: Path) -> None:
    """Close a directory to a group with which an earlier version shared it, in this boot."""
    if where != DIRECTORY:  # a host has other directories of this mode, such as /var/local
        return
    descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        seen = os.fstat(descriptor)
        if seen.st_uid == os.geteuid() and stat.S_IMODE(seen.st_mode) == ONCE:
            os.fchmod(descriptor, MODE)
    finally:
        os.close(descriptor)
