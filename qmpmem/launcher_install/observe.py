"""What stands where the kvm command is looked for: a root seen as a Layout. Changes nothing."""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from qmpmem.errors import LaunchError
from qmpmem.files import launcher_paths
from qmpmem.launcher_install import scripts
from qmpmem.launcher_install.layout import KVM, PACKAGE, Layout, Program
from qmpmem.launcher_install.root import (
    PROGRAM,
    Site,
    dpkg_divert,
    explained,
    find_sets,
    follow,
    has_name,
    read_launchers,
    read_start,
    read_wrapper,
)
from qmpmem.launcher_install.wrapper import recognise
from qmpmem.records import replace

DPKG: Final = "/var/lib/dpkg"
PROGRAM_LIMIT: Final = 256 << 20
"""Bytes of a program that is compared with another: several times a QEMU's."""
LAUNCHER_LIMIT: Final = 1 << 20
"""Bytes of a launcher's file, of which the largest has some 10,000."""
_ADMIN: Final = (
    "status",
    "diversions",
    "diversions-new",
    "diversions-old",
    "lock",
    "lock-frontend",
)
"""What dpkg-divert(1) reads and writes there."""
_OURS: Final = re.compile(rf"(?m)^diversion of (/usr/bin/\S+) to .* by {PACKAGE}$")
"""A line of dpkg-divert(1) --list."""


def observe(site: Site) -> Layout:
    """Look at what is there.

    Raises:
        LaunchError: dpkg-divert fails, or a file cannot be read.
    """
    with explained(site.root):
        emulators = scripts.find_emulators(site)
        dpkg = _has_dpkg(site)
        diversion, diverted_by = _diversion(site) if dpkg else (None, None)
        return Layout(
            root="" if site.root == Path("/") else str(site.root),
            kvm=_program(site),
            command=site.command,
            latest=_is_latest(site),
            aside=os.path.lexists(site.aside),
            twins=_are_twins(site.kvm, site.aside),
            diversion=diversion,
            diverted_by=diverted_by,
            dpkg=dpkg,
            library=_library(site),
            older=any(path != site.library for path in find_sets(site)),
            scripts=scripts.compare(site.bin, read_wrapper(site), emulators),
            named=has_name(site),
            others=bool(emulators) or any(True for _ in _others_aside(site)),
            script=_script(site),
        )


def find_commands(site: Site) -> list[str]:
    """Find the commands beside kvm in whose place the launcher stands, or stood once.

    Raises:
        LaunchError: dpkg-divert fails.
    """
    with explained(site.root):
        ours = {each.command for each in _others_aside(site)}
        if _has_dpkg(site):
            ours |= set(_OURS.findall(dpkg_divert(site.root, "--list", "/usr/bin/qemu-*")))
    return sorted(ours)


def _others_aside(site: Site) -> Iterator[Site]:
    """Find the commands beside kvm that an install set aside."""
    for path in site.path(KVM).parent.glob("distrib-qemu-*"):
        other = replace(site, command=f"/usr/bin/{path.name.removeprefix('distrib-')}")
        if _has_traces(other):
            yield other


def _has_traces(site: Site) -> bool:
    return _program(site) in ("missing", "wrapper", "changed") or _are_twins(site.kvm, site.aside)


def _has_dpkg(site: Site) -> bool:
    if not (site.path(f"{DPKG}/status").is_file() and shutil.which("dpkg-divert")):
        return False
    # dpkg-divert follows the links of an image as if they were this host's.
    place = site.root / DPKG.lstrip("/")
    links = [place / each for each in ("", *_ADMIN) if (place / each).is_symlink()]
    if site.root != Path("/") and (links or place.resolve() != site.directory(DPKG).resolve()):
        raise LaunchError(
            f"{links[0] if links else place}: a link, which may lead out of {site.root}",
            hint="put dpkg's own files in its place",
        )
    return True


def _diversion(site: Site) -> tuple[str | None, str | None]:
    by = dpkg_divert(site.root, "--listpackage", site.command)
    return (dpkg_divert(site.root, "--truename", site.command), by) if by else (None, None)


def _program(site: Site) -> Program:
    if not os.path.lexists(site.kvm):
        return "missing"
    program = follow(site, site.kvm)
    if not program.is_file() or not os.access(program, os.X_OK):
        return "broken"
    kind = recognise(read_start(program))
    if not (site.kvm.is_symlink() and kind in ("wrapper", "changed")):
        return kind
    # kvm is a link to qemu-system-x86_64, whose place the launcher may have.
    return "real" if os.path.lexists(program.with_name(f"distrib-{program.name}")) else "linked"


def _script(site: Site) -> Literal["none", "plain", "opaque"]:
    program = follow(site, site.aside if os.path.lexists(site.aside) else site.kvm)
    if not program.is_file() or recognise(content := read_start(program)) != "real":
        return "none"
    if not content.startswith(b"#!"):
        return "none"
    understood = launcher_paths.load_launcher("kvm_script").read_script(str(program))
    return "opaque" if understood is None else "plain"


def _is_latest(site: Site) -> bool:
    if site.kvm.is_symlink() or not site.kvm.is_file():
        return False
    mode = stat.S_IMODE(site.kvm.stat().st_mode)
    return mode == PROGRAM and read_start(site.kvm) == read_wrapper(site)


def _are_twins(one: Path, other: Path) -> bool:
    if not (os.path.lexists(one) and os.path.lexists(other)):
        return False
    first, second = one.lstat(), other.lstat()
    if (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino):
        return True
    if (first.st_mode, first.st_size) != (second.st_mode, second.st_size):
        return False
    if one.is_symlink():
        return one.readlink() == other.readlink()
    content = _read_small(one, PROGRAM_LIMIT)
    return content is not None and content == _read_small(other, PROGRAM_LIMIT)


def _read_small(path: Path, limit: int) -> bytes | None:
    """Read a file; None for a larger one, and for what is not a file: it is not even opened."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
        return None
    with path.open("rb") as file:
        return file.read(limit)


def _library(site: Site) -> Literal["missing", "outdated", "latest"]:
    library = site.library
    if library.is_dir():
        files = (file for file in library.iterdir() if not file.is_dir())
        present = {file.name: _read_small(file, LAUNCHER_LIMIT) for file in files}
        return "latest" if present == read_launchers(site) else "outdated"
    # An empty directory is what a remove that was cut off left.
    is_empty = site.sets.is_dir() and not any(site.sets.iterdir())
    return "outdated" if is_empty or find_sets(site) else "missing"
