"""Where the launcher is installed: a root, what stands at which path, and how it is reached."""

import fcntl
import os
import re
import stat
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qmpmem.errors import LaunchError
from qmpmem.files import obstacles
from qmpmem.launcher_install.layout import BIN, KVM, LIBRARY, NAMES, aside_of
from qmpmem.launcher_install.wrapper import SETS, make_wrapper, name_set
from qmpmem.records import Record

PROGRAM: Final = 0o755
"""The mode of a program that everyone may run."""
DATA: Final = 0o644
"""The mode of a file that everyone may read."""
PRIVATE: Final = 0o600
LOCK: Final = ".lock.qmpmem-new"
"""The lock's name, beside what is installed. It has the ending of all files that a run which was
killed leaves."""
SCRIPT_LIMIT: Final = 256 * 1024
"""Bytes of a file that are read, more than any launcher has; the rest of a larger file is not read.
"""
LINKS: Final = 40
"""Links in a path that are followed, as many as the kernel follows (path_resolution(7))."""

_HOST: Final = Path("/")

_LAUNCHER: Final = re.compile(r"kvm(_[a-z]+)?\.py|kvm")
"""The names of launchers. Other files in a checkout's directory are for the checkout itself, or an
editor left them."""


class Site(Record, frozen=True):
    """Where to install, and what."""

    root: Path
    launchers: Path
    """The directory that the launchers are copied from."""
    python: Path | None
    """The Python with which launchers/kvm will run the launchers, so the one they are compiled
    for."""
    command: str = KVM
    """The command whose place the launcher takes, as seen inside the root."""
    patience: float = 1.0
    """Seconds from replacing kvm to removing what the one before needs: distrib-kvm, or its
    launchers. A launch takes about 30 ms, and needs them to its end."""

    @property
    def kvm(self) -> Path:
        """Return the path of the command whose place the launcher takes."""
        return self.path(self.command)

    @property
    def aside(self) -> Path:
        """Return the path of the real emulator's second name."""
        return self.path(aside_of(self.command))

    @property
    def sets(self) -> Path:
        """Return the directory of the launchers' copies."""
        return self.directory(LIBRARY)

    @property
    def library(self) -> Path:
        """Return the directory of the launchers' copy that belongs to `launchers`."""
        return self.directory(f"{LIBRARY}/{name_set(read_launchers(self))}")

    @property
    def bin(self) -> Path:
        """Return the directory with a script for each emulator."""
        return self.directory(BIN)

    @property
    def half_written(self) -> Path:
        """Return the path of the new kvm, until it is renamed."""
        return beside(self.kvm)

    @property
    def lock(self) -> Path:
        """Return the path of the lock that an install or uninstall holds."""
        return self.kvm.with_name(LOCK)

    def path(self, name: str) -> Path:
        """Return where an absolute name is under the root.

        No link on the way there leads out of the root.

        What is at the name may be a link itself.
        """
        above, _, last = name.rpartition("/")
        return self.directory(above) / last

    def directory(self, name: str) -> Path:
        """Return where a directory is under the root, behind all links, as `resolve` does."""
        return self.root / name.lstrip("/") if self.root == _HOST else resolve(self.root, name)


def follow(site: Site, path: Path) -> Path:
    """Follow links as the root's own system does; what is part of a circle stays a link."""
    return resolve(site.root, str(path.relative_to(site.root)))


def resolve(root: Path, name: str) -> Path:
    """Follow all links of a name, as a system whose root this is would: none leads out of it.

    An absolute link begins at that root, and above it is nothing (path_resolution(7)). The kernel
    would take both for ones of this host, on which an image must have no influence.

    Args:
        root: the root.
        name: a path below it; what is missing of it is taken for no link.
    """
    waiting, here, links = list(reversed(name.split("/"))), list[str](), 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del here[-1:]
        if part in ("", ".", ".."):
            continue
        here.append(part)
        try:
            target = os.readlink(root.joinpath(*here))  # noqa: PTH115 - as text, and most are none
        except OSError:
            continue
        links += 1
        if links > LINKS:
            break
        here = [] if target.startswith("/") else here[:-1]
        waiting += reversed(target.split("/"))
    return root.joinpath(*here)


def read_start(path: Path) -> bytes:
    """Read as much of a program as tells whether it is a launcher."""
    with path.open("rb") as file:
        return file.read(SCRIPT_LIMIT)


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that every moment sees the old one or the new one, whole."""
    new = beside(path)
    new.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, mode), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def beside(path: Path) -> Path:
    """Name the file that becomes `path` when it is whole."""
    return path.with_name(f".{path.name}.qmpmem-new")


def name_link(site: Site, name: str) -> Path:
    """Return where the link is by which an emulator's process keeps the name of its command."""
    return site.directory(NAMES) / name


def target_of(emulator: str) -> str:
    """Write what such a link says; relative, so that it holds in an image as well.

    Args:
        emulator: an absolute path, as seen inside the root.
    """
    return os.path.relpath(emulator, NAMES)


def has_name(site: Site) -> bool:
    """Tell whether the link for the site's command is there and leads to the real one."""
    link = name_link(site, site.kvm.name)
    return link.is_symlink() and os.fspath(link.readlink()) == target_of(find_real(site))


def find_real(site: Site) -> str:
    """Return what the launcher starts in the end, as seen inside the root.

    That is what was set aside, or where that is a link to another command whose place the launcher
    has, what was set aside of that.
    """
    aside = aside_of(site.command)
    if site.aside.is_symlink():
        behind = os.path.normpath(Path(aside).parent / site.aside.readlink())
        if os.path.lexists(site.path(aside_of(behind))):
            return aside_of(behind)
    return aside


def read_launchers(site: Site) -> dict[str, bytes]:
    """Read the launchers that belong on a host, by name."""
    files = (file for file in site.launchers.iterdir() if _LAUNCHER.fullmatch(file.name))
    return {file.name: file.read_bytes() for file in files}


def read_wrapper(site: Site) -> bytes:
    """Make what belongs at /usr/bin/kvm."""
    shim = (site.launchers / "kvm").read_bytes()
    return make_wrapper(shim, f"{LIBRARY}/{site.library.name}")


def find_sets(site: Site) -> list[Path]:
    """Find the launchers' copies, of any version."""
    return [path for path in site.sets.glob(f"{SETS}*") if path.is_dir()]


@contextmanager
def alone(site: Site) -> Generator[None]:
    """Keep a second install or uninstall out, and remove what a killed one left.

    Raises:
        LaunchError: another one is under way, or there is no /usr/bin.
    """
    # The other may have to be patient, too.
    with explained(site.root), locked(site.kvm.parent, 5 * site.patience) as descriptor:
        site.half_written.unlink(missing_ok=True)
        yield
        os.fsync(descriptor)


@contextmanager
def locked(directory: Path, patience: float) -> Generator[int]:
    """Hold the lock of a directory; yields a descriptor of the directory.

    The lock is a file that no other user can open, and is gone afterwards: of a directory or a file
    that it may read, any user may hold the lock for ever (flock(2)).

    Args:
        directory: a directory that is there.
        patience: seconds to wait for another process that holds it.

    Raises:
        LaunchError: another install or uninstall is under way.
        OSError: the directory cannot be opened, or nothing can be written there.
    """
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + patience
        try:
            while (lock := _lock(folder)) is None:
                if time.monotonic() >= deadline:
                    raise LaunchError(f"{directory}: another install or uninstall is under way")
                time.sleep(0.02)
        except OSError as error:
            error.filename = str(directory)
            raise
        try:
            yield folder
        finally:
            os.unlink(LOCK, dir_fd=folder)
            os.close(lock)
    finally:
        os.close(folder)


def _lock(folder: int) -> int | None:
    """Take the lock in a directory; None: another process holds it, or has just let go of it."""
    lock = _open_lock(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(LOCK, dir_fd=folder, follow_symlinks=False)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _open_lock(folder: int) -> int:
    """Open the lock, which is made anew where another user may have it open.

    What else is of that name is not opened: to open a device may do something.
    """
    try:
        found = os.stat(LOCK, dir_fd=folder, follow_symlinks=False)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not is_ours or stat.S_IMODE(found.st_mode) & ~PRIVATE:
            os.unlink(LOCK, dir_fd=folder)
    except FileNotFoundError:
        pass
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(LOCK, flags, PRIVATE, dir_fd=folder)


@contextmanager
def explained(where: Path) -> Generator[None]:
    """Turn what the system says into a LaunchError, which names a place where the system does not.

    Raises:
        LaunchError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        raise obstacles.explain(error, where) from error


def dpkg_divert(root: Path, *arguments: str) -> str:
    """Ask or tell dpkg's list of diversions; give what was answered.

    Raises:
        LaunchError: it refused.
    """
    done = run("dpkg-divert", "--root", str(root), *arguments)
    if done.returncode != 0:
        raise LaunchError(
            " ".join(done.stderr.split()) or f"dpkg-divert: exit {done.returncode}",
            hint=None if os.geteuid() == 0 else "run as root",
        )
    return done.stdout.strip()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end, speaking English."""
    return subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        umask=0o022,
        check=False,
    )
