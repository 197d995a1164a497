"""What was there before us, and what we made of it: so that it can be put back, to the value.

Theory of operation:
    DIR/ledger.json   a Ledger, written beside and renamed; noted down before anything is written,
                      so that a crash in between is one write that did not happen
    DIR/lock          held while anything is changed: there is one KSM, and two of us would undo
                      each other's work

    KSM's files begin anew with each boot, and so does the ledger: it names the boot that it is of.

Rules of this file:
    A ledger that cannot be read is not guessed at: what it knew would be lost with the next write.
"""

import fcntl
import os
from collections.abc import Generator, Mapping
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
        ledger = msgspec.json.decode(path.read_bytes(), type=Ledger)
    except FileNotFoundError:
        ledger = Ledger()
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}", hint="run as root") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
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
        beside.write_bytes(msgspec.json.encode(ledger))
        beside.chmod(0o664)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise KernelError(
            f"{path}: {error.strerror}",
            hint="without it nothing could be put back; nothing changed",
        ) from error


@contextmanager
def locked(where: Path) -> Generator[None]:
    """Be the only one of us to change KSM.

    Raises:
        KernelError: another is at it, or the directory is not ours to write in.
    """
    try:
        _make_directory(where)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(where / "lock", flags, 0o664)
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
    before = dict(ledger.before)
    changing = {write.name for write in writes}
    if rules.MODE in changing:
        changing.add(rules.PAGES)  # gets a value of the kernel's own then
    for name in changing & now.keys():
        if name not in before or name in foreign(ledger, now):
            before[name] = now[name]
    ours = {**ledger.ours, **{write.name: write.after for write in writes}}
    return replace(
        ledger, before=before, ours=ours, since=moment if ledger.since is None else ledger.since
    )


def foreign(ledger: Ledger, now: Mapping[str, str]) -> dict[str, str]:
    """Find what somebody else changed after us: names, and what is there now. Pure."""
    return {
        name: now[name] for name, value in ledger.ours.items() if name in now and now[name] != value
    }


def own(ledger: Ledger, now: Mapping[str, str]) -> frozenset[str]:
    """Find what is still as we left it. Pure."""
    return frozenset(name for name, value in ledger.ours.items() if now.get(name) == value)


def _make_directory(where: Path) -> None:
    if where.is_dir():
        return
    where.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        import grp  # noqa: PLC0415 - once a boot

        with suppress(KeyError):  # a host without the group: root's alone
            os.chown(where, -1, grp.getgrnam(GROUP).gr_gid)
        where.chmod(MODE)
