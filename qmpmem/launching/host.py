"""Where the launcher is installed: a root, what stands at which path, and how it is reached."""

import fcntl
import os
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qmpmem.errors import LaunchError
from qmpmem.launching.layout import ASIDE, KVM, LIBRARY
from qmpmem.launching.wrapper import make_wrapper
from qmpmem.records import Record

PROGRAM: Final = 0o755
"""The mode of a program that everyone may run."""
DATA: Final = 0o644
"""The mode of a file that everyone may read."""

LEFT_OUT: Final = ("tinyguest",)
"""Launchers that only a checkout needs."""


class Site(Record, frozen=True):
    """Where to install, and what."""

    root: Path
    launchers: Path
    """The directory that the launchers are copied from."""
    python: Path | None
    """What launchers/kvm will run them with, so what they are compiled for."""
    patience: float = 1.0
    """Seconds from putting kvm back to removing distrib-kvm. A launch takes about 30 ms, and one
    that began with the launcher still needs that name at its end."""

    @property
    def kvm(self) -> Path:
        """The kvm command."""
        return self.path(KVM)

    @property
    def aside(self) -> Path:
        """The real emulator's second name."""
        return self.path(ASIDE)

    @property
    def library(self) -> Path:
        """The launchers' copy."""
        return self.path(LIBRARY)

    @property
    def half_written(self) -> Path:
        """The new kvm, until it is renamed."""
        return beside(self.kvm)

    def path(self, name: str) -> Path:
        """Say where an absolute name is under the root."""
        return self.root / name.lstrip("/")


def beside(path: Path) -> Path:
    """Name the file that becomes `path` when it is whole."""
    return path.with_name(f".{path.name}.qmpmem-new")


def find_launchers(site: Site) -> dict[str, Path]:
    """Find the launchers that belong on a host, by name."""
    files = site.launchers.iterdir()
    return {file.name: file for file in files if file.is_file() and file.name not in LEFT_OUT}


def read_wrapper(site: Site) -> bytes:
    """Make what belongs at /usr/bin/kvm."""
    return make_wrapper((site.launchers / "kvm").read_bytes(), LIBRARY)


@contextmanager
def alone(site: Site) -> Generator[None]:
    """Keep a second install or uninstall out, and remove what a killed one left.

    Raises:
        LaunchError: another one is under way, or there is no /usr/bin.
    """
    with explained(site):
        descriptor = os.open(site.kvm.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(descriptor, site)
            site.half_written.unlink(missing_ok=True)
            yield
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, site: Site) -> None:
    deadline = time.monotonic() + 5 * site.patience  # the other may have to be patient, too
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                where = site.kvm.parent
                raise LaunchError(f"{where}: another install or uninstall is under way") from error
            time.sleep(0.02)
        else:
            return


@contextmanager
def explained(site: Site) -> Generator[None]:
    """Turn what the system says into a LaunchError.

    Raises:
        LaunchError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        refused = isinstance(error, PermissionError) and os.geteuid() != 0
        raise LaunchError(
            f"{error.filename or site.root}: {error.strerror or error}",
            hint="run as root" if refused else None,
        ) from error


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
