"""A directory with the launcher under the name of each emulator, to be first on PATH.

Theory of operation:
    Most programs start ``qemu-system-x86_64`` and not ``kvm``. With this directory first on PATH
    they start the launcher, which then looks for an emulator of the same name further down PATH and
    passes over all copies of itself. ccache does the same for compilers.

    A name has a script only where there is such an emulator, since programs ask by
    ``command -v qemu-system-riscv64`` whether they can emulate a processor at all.

Rules of this file:
    Scripts and no links: some programs resolve a link and start what it leads to.
"""

import os
import pwd
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from qmpmem.errors import LaunchError
from qmpmem.files.directories import PRIVATE, UntrustedError, open_or_make
from qmpmem.launcher_install.root import PROGRAM, Site, explained, follow, locked, read_start, write
from qmpmem.launcher_install.wrapper import make_wrapper, recognise

PLACES: Final = ("/usr/local/bin", "/usr/bin")
"""Where a host has its emulators. A script finds them on PATH, whatever that is."""

PATIENCE: Final = 5.0
"""Seconds to wait for another process that writes the same scripts, which takes 10 ms."""

EMULATOR: Final = re.compile(r"kvm|qemu-kvm|qemu-system-[a-z0-9_.-]+")
"""The names that emulators are started by (QEMU: meson.build, emulator targets)."""


def find_emulators(site: Site, directories: Iterable[str] = PLACES) -> frozenset[str]:
    """Name the emulators that are in some directories and are not launchers of ours already."""
    found: set[str] = set()
    for directory in directories:
        # No program is started from where this user may not look, as from root's own directories.
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            paths = site.directory(directory).iterdir()
            found |= {path.name for path in paths if _is_emulator(site, path)}
    return frozenset(found)


def compare(
    directory: Path, content: bytes, names: frozenset[str]
) -> Literal["missing", "outdated", "latest"]:
    """Compare what a directory holds with what it should hold.

    Args:
        directory: the directory for PATH.
        content: what each script should hold.
        names: the scripts that should be there.
    """
    if not directory.is_dir():
        return "missing"
    present = {path.name: path for path in directory.iterdir()}
    same = present.keys() == names and all(_is(path, content) for path in present.values())
    return "latest" if same else "outdated"


def place(directory: Path, content: bytes, names: frozenset[str]) -> None:
    """Make a directory hold these scripts and nothing else.

    Raises:
        OSError: it cannot be written.
    """
    directory.mkdir(exist_ok=True)
    directory.chmod(PROGRAM)
    for name in sorted(names):
        if not _is(directory / name, content):
            write(directory / name, content, PROGRAM)
    for path in directory.iterdir():
        if path.name not in names:
            path.unlink()


def for_path(site: Site, environ: Mapping[str, str]) -> Path:
    """Find or make the directory that covers all emulators on a PATH.

    The host's own does where the launcher is installed. Else the user gets one, below
    XDG_CACHE_HOME, with scripts that run the launchers of `site`.

    Args:
        site: the host.
        environ: where PATH, XDG_CACHE_HOME and HOME are.

    Raises:
        LaunchError: PATH has no emulator, or the user's directory cannot be made or is not safe.
    """
    with explained(site.root):
        names = find_emulators(site, filter(os.path.isabs, environ.get("PATH", "").split(":")))
        if not names:
            raise LaunchError(
                "PATH has no emulator that is not started through the launcher already",
                hint="install QEMU (Debian: apt install qemu-system-x86)",
            )
        if site.bin.is_dir() and names <= {path.name for path in site.bin.iterdir()}:
            return site.bin
        own = _own(environ)
        content = make_wrapper((site.launchers / "kvm").read_bytes(), str(site.launchers))
        with locked(own.parent, PATIENCE):  # what is no script in `own` goes
            place(own, content, names)
        return own


def _own(environ: Mapping[str, str]) -> Path:
    cache = environ.get("XDG_CACHE_HOME") or f"{_home(environ)}/.cache"
    if not Path(cache).is_absolute() or cache == "/.cache":
        raise LaunchError("no place for scripts", hint="set HOME, or XDG_CACHE_HOME to a directory")
    own = Path(cache, "qmpmem", "bin")
    hint = "set XDG_CACHE_HOME to a directory of your own"
    try:
        # It is written by path later: no other user can exchange anything on the way to it.
        os.close(open_or_make(own, PRIVATE, above=PRIVATE)[0])
    except UntrustedError as error:
        raise LaunchError(f"{own}: {error.strerror}", hint=hint) from error
    for directory in (own, own.parent):
        seen = directory.lstat()
        if seen.st_uid != os.geteuid() or seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise LaunchError(
                f"{directory}: others may write there, or it belongs to user {seen.st_uid}",
                hint=hint,
            )
    return own


def _home(environ: Mapping[str, str]) -> str:
    """Name this user's home, also where HOME is still that of the user that called sudo(8)."""
    home = environ.get("HOME", "")
    with suppress(OSError, KeyError):
        if os.stat(home).st_uid not in (0, os.geteuid()):  # noqa: PTH116 - it may be empty
            return pwd.getpwuid(os.geteuid()).pw_dir
    return home


def _is_emulator(site: Site, path: Path) -> bool:
    if not EMULATOR.fullmatch(path.name):
        return False
    program = follow(site, path)
    if not (program.is_file() and os.access(program, os.X_OK)):
        return False
    return recognise(read_start(program)) not in ("wrapper", "changed")


def _is(path: Path, content: bytes) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    return path.stat().st_mode & 0o777 == PROGRAM and read_start(path) == content
