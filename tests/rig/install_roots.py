"""Small file systems to install the launcher in: with a dpkg database and without."""

import atexit
import os
import shutil
import stat
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

NO_PROCESS: Final = 1 << 22
"""A pid that no process can have (include/linux/threads.h: PID_MAX_LIMIT)."""

EMULATOR: Final = '#!/bin/sh\necho "emulator {version} called ${{0##*/}}"\n'
LAUNCHER: Final = """#!/bin/sh
# A stand-in for the qmpmem launcher: finds the emulator beside itself, as the real one does.
launchers=
test -n "$QMPMEM_QUIET" || echo "launched from $launchers"
exec "${0%/*}/distrib-kvm" "$@"
"""


def make_launchers(directory: Path, *, text: str = LAUNCHER) -> Path:
    """Make a directory of launchers, as a checkout has it."""
    directory.mkdir(parents=True)
    for name, content in (("kvm", text), ("kvm.py", "# the rest\n"), ("tinyguest", "#!\n")):
        (directory / name).write_text(content)
    (directory / "kvm").chmod(0o755)
    return directory


def make_root(root: Path, *, dpkg: bool) -> Path:
    """Make a root with an emulator: a package's where there is a dpkg, else a plain file's."""
    if dpkg:
        return Path(shutil.copytree(_debian(), root, symlinks=True))
    (root / "usr/lib").mkdir(parents=True)
    make_emulator(root / "usr/bin", "1")
    return root


@cache
def _debian() -> Path:
    """Install the package once, to be copied from here."""
    root = _workshop() / "root"
    (root / "usr/lib").mkdir(parents=True)
    for name in ("info", "updates"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    install_package(root, make_package("1"))
    return root


@cache
def _workshop() -> Path:
    made = TemporaryDirectory(prefix="qm-roots-")
    atexit.register(made.cleanup)
    return Path(made.name)


def make_emulator(directory: Path, version: str) -> None:
    """Make what Debian's qemu-system-x86 has in /usr/bin."""
    directory.mkdir(parents=True)
    (directory / "qemu-system-x86_64").write_text(EMULATOR.format(version=version))
    (directory / "qemu-system-x86_64").chmod(0o755)
    (directory / "kvm").symlink_to("qemu-system-x86_64")


@cache
def make_package(version: str) -> Path:
    """Build a small qemu-system-x86, once for each version."""
    directory = _workshop() / version
    make_emulator(directory / "usr/bin", version)
    (directory / "DEBIAN").mkdir()
    (directory / "DEBIAN/control").write_text(
        f"Package: qemu-system-x86\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: an emulator\n"
    )
    package = directory.with_suffix(".deb")
    run("dpkg-deb", "--build", "-Znone", str(directory), str(package))
    return package


def install_package(root: Path, package: Path) -> None:
    """Install or upgrade a package, as apt would have dpkg do it."""
    run(*_dpkg(root), "--install", str(package))


def remove_package(root: Path) -> None:
    """Remove the emulator's package."""
    run(*_dpkg(root), "--purge", "qemu-system-x86")


def run_kvm(root: Path) -> str:
    """Run the root's kvm and give its last line; fail if it does not work."""
    return run(str(root / "usr/bin/kvm")).splitlines()[-1]


def run(*command: str) -> str:
    """Run a command that must succeed."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # dpkg wants ldconfig there
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


DPKG_LEFTOVERS: Final = ("diversions-", "status-")

Tree = dict[str, tuple[object, ...]]


def photograph(root: Path) -> Tree:
    """Describe every file under the root: kind, mode, owner, times, content.

    Left out are directories' times, and what dpkg keeps beside its database: the last one (-old),
    one that was cut off (-new, written over the next time), locks.
    """
    tree: Tree = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = Path(directory, name)
            if not (directory.endswith("/dpkg") and name.startswith(("lock", *DPKG_LEFTOVERS))):
                tree[str(path.relative_to(root))] = _describe(path)
    return tree


def _describe(path: Path) -> tuple[object, ...]:
    seen = path.lstat()
    owner = (seen.st_mode, seen.st_uid, seen.st_gid)
    if stat.S_ISLNK(seen.st_mode):
        return (*owner, seen.st_ino, seen.st_nlink, seen.st_mtime_ns, path.readlink())
    if stat.S_ISDIR(seen.st_mode):
        return owner
    if "var/lib/dpkg" in str(path):
        return (*owner, path.read_bytes())
    return (*owner, seen.st_ino, seen.st_nlink, seen.st_mtime_ns, path.read_bytes())


def _dpkg(root: Path) -> tuple[str, ...]:
    # Without root, dpkg would refuse to start; the files are ours anyway.
    # What it writes need not outlive a power failure.
    forced = ("--force-not-root", "--force-unsafe-io")
    return ("dpkg", "--root", str(root), *forced, "--log", "/dev/null")
