"""The files and the dpkg database under a root: seen as a Layout, changed by Steps.

Rules of this file:
    A step is one rename, link or unlink of the name that matters. Killed anywhere in between, it
    leaves at most a file that ends in .qmpmem-new, which the next run removes.
"""

import fcntl
import filecmp
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, assert_never

from qmpmem.errors import LaunchError
from qmpmem.launching.layout import ASIDE, KVM, LIBRARY, PACKAGE, Layout, Program, Step
from qmpmem.launching.wrapper import make_wrapper, recognise
from qmpmem.records import Record

SCRIPT_LIMIT: Final = 256 * 1024
"""Larger than any launcher; the rest of a larger file is not read."""
LINKS: Final = 40
"""As many links as the kernel follows (path_resolution(7))."""
LEFT_OUT: Final = ("tinyguest",)
"""Launchers that only a checkout needs."""
PROGRAM: Final = 0o755
DATA: Final = 0o644


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

    def path(self, name: str) -> Path:
        """Say where an absolute name is under the root."""
        return self.root / name.lstrip("/")


def observe(site: Site) -> Layout:
    """See what is there.

    Raises:
        LaunchError: dpkg-divert fails, or a file cannot be read.
    """
    with explained(site):
        diversion, diverted_by = _diversion(site.root) if has_dpkg(site) else (None, None)
        return Layout(
            root="" if site.root == Path("/") else str(site.root),
            kvm=_program(site),
            latest=_is_latest(site),
            aside=os.path.lexists(site.aside),
            twins=_are_twins(site.kvm, site.aside),
            diversion=diversion,
            diverted_by=diverted_by,
            dpkg=has_dpkg(site),
            library=_library(site),
        )


def carry_out(site: Site, step: Step) -> None:
    """Do one step.

    Raises:
        LaunchError: it could not be done; nothing is half done.
    """
    with explained(site):
        match step.action:
            case "copy-launchers":
                _copy_launchers(site)
            case "divert":
                _divert(site.root, "--add")
            case "set-aside":
                os.link(site.kvm, site.aside, follow_symlinks=False)
            case "place-wrapper":
                _write(site.kvm, _wrapper(site), PROGRAM)
            case "put-back":
                os.link(site.aside, _beside(site.kvm), follow_symlinks=False)
                _beside(site.kvm).replace(site.kvm)
            case "undivert":
                _divert(site.root, "--remove")
            case "drop-aside":
                time.sleep(site.patience)
                site.aside.unlink()
            case "remove-wrapper":
                site.kvm.unlink()
            case "remove-launchers":
                _remove_launchers(site)
            case _:
                assert_never(step.action)


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
            _beside(site.kvm).unlink(missing_ok=True)
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


def has_dpkg(site: Site) -> bool:
    """Whether a dpkg database is there, and the tool to change it."""
    return site.path("/var/lib/dpkg/status").is_file() and bool(shutil.which("dpkg-divert"))


def _program(site: Site) -> Program:
    if not os.path.lexists(site.kvm):
        return "missing"
    program = _follow(site, site.kvm)
    if not program.is_file() or not os.access(program, os.X_OK):
        return "broken"
    kind = recognise(_read(program))
    if site.kvm.is_symlink() and kind in ("wrapper", "changed"):
        return "linked"
    return kind


def _follow(site: Site, path: Path) -> Path:
    for _ in range(LINKS):
        if not path.is_symlink():
            break
        target = path.readlink()
        path = site.path(str(target)) if target.is_absolute() else path.parent / target
    return path


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SCRIPT_LIMIT)


def _is_latest(site: Site) -> bool:
    if site.kvm.is_symlink() or not site.kvm.is_file():
        return False
    mode = stat.S_IMODE(site.kvm.stat().st_mode)
    return mode == PROGRAM and _read(site.kvm) == _wrapper(site)


def _are_twins(one: Path, other: Path) -> bool:
    if not (os.path.lexists(one) and os.path.lexists(other)):
        return False
    first, second = one.lstat(), other.lstat()
    if (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino):
        return True
    if first.st_mode != second.st_mode:
        return False
    if one.is_symlink():
        return one.readlink() == other.readlink()
    return filecmp.cmp(one, other, shallow=False)


def _launchers(site: Site) -> dict[str, Path]:
    files = site.launchers.iterdir()
    return {file.name: file for file in files if file.is_file() and file.name not in LEFT_OUT}


def _wrapper(site: Site) -> bytes:
    return make_wrapper((site.launchers / "kvm").read_bytes(), LIBRARY)


def _library(site: Site) -> Literal["missing", "outdated", "latest"]:
    if not site.library.is_dir():
        # An empty directory above it is what a remove that was cut off left.
        return "outdated" if _is_empty(site.library.parent) else "missing"
    wanted = _launchers(site)
    if {file.name for file in site.library.iterdir() if file.is_file()} != wanted.keys():
        return "outdated"
    copies = ((wanted[name], site.library / name) for name in wanted)
    same = all(filecmp.cmp(one, other, shallow=False) for one, other in copies)
    return "latest" if same else "outdated"


def _copy_launchers(site: Site) -> None:
    for directory in (site.library.parent, site.library):
        directory.mkdir(exist_ok=True)
        directory.chmod(PROGRAM)  # whatever the umask: every user's kvm reads it
    wanted = _launchers(site)
    for name, source in wanted.items():
        _write(site.library / name, source.read_bytes(), PROGRAM if name == "kvm" else DATA)
    for path in site.library.iterdir():
        if path.is_file() and path.name not in wanted:
            path.unlink()
    _compile(site)


def _compile(site: Site) -> None:
    """Compile once what only root could keep compiled. Without it, launching takes longer."""
    shutil.rmtree(site.library / "__pycache__", ignore_errors=True)
    sources = [str(path) for path in site.library.glob("*.py")]
    if site.python is not None and sources:
        _run(str(site.python), "-I", "-S", "-m", "py_compile", *sources)


def _remove_launchers(site: Site) -> None:
    if site.library.is_dir():
        shutil.rmtree(site.library)
    if _is_empty(site.library.parent):
        site.library.parent.rmdir()


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that every moment sees the old one or the new one, whole."""
    beside = _beside(path)
    beside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(beside, flags, mode), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.qmpmem-new")


def _is_empty(directory: Path) -> bool:
    return directory.is_dir() and not any(directory.iterdir())


def _diversion(root: Path) -> tuple[str | None, str | None]:
    by = _dpkg_divert(root, "--listpackage", KVM)
    return (_dpkg_divert(root, "--truename", KVM), by) if by else (None, None)


def _divert(root: Path, command: Literal["--add", "--remove"]) -> None:
    names = ("--package", PACKAGE, "--divert", ASIDE)
    _dpkg_divert(root, "--quiet", *names, "--no-rename", command, KVM)


def _dpkg_divert(root: Path, *arguments: str) -> str:
    done = _run("dpkg-divert", "--root", str(root), *arguments)
    if done.returncode != 0:
        raise LaunchError(
            " ".join(done.stderr.split()) or f"dpkg-divert: exit {done.returncode}",
            hint=None if os.geteuid() == 0 else "run as root",
        )
    return done.stdout.strip()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
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
