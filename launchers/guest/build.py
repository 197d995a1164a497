"""Builds the tiny guest from Debian's packages, once, and keeps it.

Theory of operation:
    DIR/lock                 held by the process that builds; others wait and find the result
    DIR/packages/*.deb       as fetched by apt, which checks their signatures; kept, so that a
                             change of our own files needs no network
    DIR/guest-RECIPE/        kernel and initrd, made beside and renamed, so never seen half-made.
                             RECIPE is a hash of all that we put in
      boot-NMHz.cfg          the kernel's command line for a host whose TSC runs that fast
    The packages are unpacked, never installed: a kernel's postinst would touch this host's /boot.
    The C files are compiled by Debian's tcc, unpacked likewise: 0.3 MB, needs nothing but libc.so,
    and brings its own startup-free linker. gcc would be 150 MB, and a stored binary could not be
    reviewed.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launchers.guest import cpio, kernel, modules, tsc
from launchers.guest.errors import BuildError

SOURCES: Final = Path(__file__).resolve().parent

KERNEL: Final = "linux-image-cloud-amd64"
"""An empty package that depends on the newest kernel for virtual machines: small, few drivers."""

UNUSED: Final = (
    *("tracer_init_tracefs", "trace_eval_init", "ftrace_check_for_weak_functions"),
    "cubictcp_register",
)
"""Functions of the kernel that nothing in the guest uses, and that take a tenth of the boot's CPU
time: they make files for tracing, and read the types of the whole kernel for one TCP algorithm."""

COMMAND_LINE: Final = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # a guest that fell restarts at once, and its agent says hello again
    "cryptomgr.notests",  # half of all instructions until process 1, counted with -icount
    "mitigations=off",
    "nokaslr",  # a kernel that moves itself leaves 24 MiB behind that the host has to keep
    # Patching each lock prefix away where there is one processor flushes QEMU's TLB 20,000 times:
    # a tenth of the boot's CPU time.
    "noreplace-smp",
    "no_timer_check",
    f"initcall_blacklist={','.join(UNUSED)}",
)
"""Linux: Documentation/admin-guide/kernel-parameters.rst. To these comes tsc_early_khz: a microvm
has only the PIT to measure its TSC by, which fails on a busy host, and then hangs for ever."""

KEPT_FOR: Final = 3600.0
"""Seconds for which a guest of another recipe stays: another process may be about to boot it."""

PACKAGES: Final = {
    "kernel": "linux-image-[0-9]*_*.deb",
    "busybox": "busybox-static_*.deb",
    "tcc": "tcc_*.deb",
}
"""The file that apt makes of each package."""

PROGRAMS: Final = ("agent", "eat")
COMPILED: Final = ("hold", "work")
SOURCE: Final = (*(f"{name}.c" for name in COMPILED), "bare.h")
KEPT: Final = ("init", *PROGRAMS, *SOURCE, "build.py", "cpio.py", "kernel.py", "modules.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """What QEMU boots."""

    kernel: Path
    initrd: Path
    config: Path
    """For QEMU's -readconfig: the kernel's command line."""


def default_directory(environ: Mapping[str, str]) -> Path:
    """Name the cache: `build/` of a checkout, the user's cache directory for an installed wheel."""
    above = SOURCES.parent.parent
    if (above / "pyproject.toml").is_file():
        return above / "build" / "tinyguest"
    cache = environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "qmpmem/tinyguest"


def ensure(directory: Path) -> Artifacts:
    """Build the guest, unless it is there already.

    Raises:
        BuildError: a package cannot be had, or the directory cannot be written.
    """
    finished = directory / f"guest-{_recipe()}"
    try:
        if not finished.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            with _lock(directory / "lock"):
                if not finished.is_dir():
                    _build(directory, finished)
        config = _config(finished)
    except OSError as error:
        raise BuildError(f"{directory}: {error.strerror or error}") from error
    return Artifacts(kernel=finished / "kernel", initrd=finished / "initrd", config=config)


def _config(directory: Path) -> Path:
    megahertz = round((tsc.measure() or 0) / 1000, -1)  # the kernel accepts 1 % of error
    path = directory / f"boot-{megahertz:.0f}MHz.cfg"
    if not path.exists():
        words = [*COMMAND_LINE, *([f"tsc_early_khz={megahertz * 1000:.0f}"] if megahertz else [])]
        beside = directory / f".{path.name}.{os.getpid()}"
        beside.write_text(f'[machine]\n  append = "{" ".join(words)}"\n')
        beside.replace(path)
    return path


def _recipe() -> str:
    digest = hashlib.blake2b(digest_size=6)
    for name in KEPT:
        digest.update((SOURCES / name).read_bytes() + b"\0")
    return digest.hexdigest()


@contextmanager
def _lock(path: Path) -> Generator[None, None, None]:
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another build is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(directory: Path, finished: Path) -> None:
    if platform.machine() != "x86_64":
        raise BuildError(
            f"this machine is {platform.machine()}: the guest is built for x86_64 only"
        )
    for aborted in directory.glob("making-*"):  # by a signal: we hold the lock, so none is in use
        shutil.rmtree(aborted, ignore_errors=True)
    packages = _packages(directory / "packages")
    with tempfile.TemporaryDirectory(prefix="making-", dir=directory) as name:
        making = Path(name)
        trees = {word: making / word for word in packages}
        for word, package in packages.items():
            _run(["dpkg-deb", "-x", str(package), str(trees[word])])
        guest = making / "guest"
        guest.mkdir(mode=0o755)
        image = _only(trees["kernel"], "boot/vmlinuz-*").read_bytes()
        (guest / "kernel").write_bytes(kernel.uncompressed(image) or image)
        (guest / "initrd").write_bytes(cpio.archive(_root(trees)))
        guest.rename(finished)
    for old in directory.glob("guest-*"):
        if old.stat().st_mtime < time.time() - KEPT_FOR:
            shutil.rmtree(old, ignore_errors=True)
    _say(f"built {finished}")


def _packages(store: Path) -> dict[str, Path]:
    """Find the packages, fetching those that are missing."""
    store.mkdir(exist_ok=True)
    found = {word: next(store.glob(pattern), None) for word, pattern in PACKAGES.items()}
    if None in found.values():
        _fetch(store, [word for word, path in found.items() if path is None])
    return {word: _only(store, pattern) for word, pattern in PACKAGES.items()}


def _fetch(store: Path, words: Sequence[str]) -> None:
    for aborted in store.glob(".fetching-*"):
        shutil.rmtree(aborted, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=store) as name:
        try:
            _download(Path(name), words)
        except BuildError:  # the package lists are missing or old: a 404, an unknown name
            _say("apt: updating the package lists")
            _run([*(() if os.geteuid() == 0 else ("sudo", "-n")), "apt-get", "update", "-qq"])
            _download(Path(name), words)
        for package in Path(name).glob("*.deb"):
            package.rename(store / package.name)


def _download(into: Path, words: Sequence[str]) -> None:
    names = {"busybox": "busybox-static", "tcc": "tcc"}
    wanted = [names[word] if word in names else _newest_kernel() for word in words]
    _say(f"apt: fetching {' '.join(wanted)} (unpacked only, never installed)")
    _run(["apt-get", "download", "-qq", *wanted], cwd=into)


def _newest_kernel() -> str:
    answer = _run(["apt-cache", "depends", "--important", KERNEL])
    match = re.search(r"^\s*Depends: (linux-image-\S+)$", answer, re.MULTILINE)
    if match is None:
        raise BuildError(f"apt knows no package {KERNEL}")
    return match[1]


def _root(trees: Mapping[str, Path]) -> Iterator[cpio.Entry]:
    """List what is in the guest's root file system."""
    for name in ("bin", "dev", "etc", "lib", "lib/modules", "proc", "root", "run", "sys", "tmp"):
        yield cpio.directory(name)
    # The kernel opens it for process 1 before anything is mounted.
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.symlink("bin/sh", "busybox")
    yield cpio.file(
        "bin/busybox", _only(trees["busybox"], "**/bin/busybox").read_bytes(), executable=True
    )
    yield cpio.file("init", (SOURCES / "init").read_bytes(), executable=True)
    for name in PROGRAMS:
        yield cpio.file(f"bin/{name}", (SOURCES / name).read_bytes(), executable=True)
    for name in COMPILED:
        yield cpio.file(f"bin/{name}", _compile(trees["tcc"], name), executable=True)
    yield from modules.entries(_only(trees["kernel"], "**/lib/modules/*"))


def _compile(tcc: Path, name: str) -> bytes:
    program = tcc / name
    library = _only(tcc, "usr/lib/*/tcc")
    words = [str(tcc / "usr/bin/tcc"), f"-B{library}", "-nostdlib", "-nostdinc", "-static"]
    _run([*words, "-Wall", "-Werror", "-o", str(program), str(SOURCES / f"{name}.c")])
    return program.read_bytes()


def _only(tree: Path, pattern: str) -> Path:
    found = sorted(tree.glob(pattern))
    if not found:
        raise BuildError(f"{tree.name}: there is no {pattern}")
    return found[-1]


def _run(words: Sequence[str], *, cwd: Path | None = None) -> str:
    """Run a tool and give its stdout.

    Raises:
        BuildError: it is missing or fails; with the last line that it said.
    """
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise BuildError(
            f"{words[0]}: not found; the guest is built with Debian's tools"
        ) from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]
        raise BuildError(f"{' '.join(words[:3])} failed: {said}")
    return done.stdout


def _say(text: str) -> None:
    print(f"tinyguest: {text}", file=sys.stderr, flush=True)  # noqa: T201 - progress of a script
