"""A limit on what guests hold together, and slow swap behind it, for as long as a bench needs them.

Theory of operation:
    A memory cgroup holds all that QEMU has. Swap is a file of the bench's own behind a loop device,
    whose speed is bounded (cgroup v1: blkio.throttle): on an idle machine with a fast disk a host
    that swaps hardly feels it, and every policy looks the same.

    All of it is gone at the end; what a bench that was killed left, the next one removes.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from qmpmem.units import MIB
from tests.rig.interrupts import uninterrupted

GROUPS: Final = Path("/sys/fs/cgroup/memory")
UNIFIED: Final = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
"""Where the hierarchy of cgroup v2 is, beside that of v1 or alone."""
THROTTLE: Final = Path("/sys/fs/cgroup/blkio")
WAYS: Final = ("read", "write")
MARK: Final = "qmpmem-bench-"
DISK: Final = ".disk"


def why_not() -> str | None:
    """Say why nothing can be limited here; None: it can."""
    if os.geteuid() != 0:
        return "only root may limit and swap"
    if not (GROUPS / "memory.limit_in_bytes").exists():
        return "no memory controller of cgroup v1 here"
    if not (THROTTLE / "blkio.throttle.read_bps_device").exists():
        return "no blkio controller of cgroup v1 here"
    if not Path("/dev/loop-control").exists():
        return "no loop devices here"
    wanted = ("mkswap", "swapon", "losetup")
    return next((f"missing: {tool}" for tool in wanted if shutil.which(tool) is None), None)


@contextmanager
def limited(limit: int) -> Generator[Path]:
    """Make a memory cgroup of so many bytes, and remove it."""
    group = GROUPS / f"{MARK}{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(limit))
    try:
        yield group
    finally:
        _remove_group(group)


@contextmanager
def disk(size: int, *, is_blank: bool = False) -> Generator[Path]:
    """Make an image for a guest's disk, and remove it.

    Args:
        size: bytes.
        is_blank: nothing is in it; otherwise random bytes are.
    """
    with tempfile.NamedTemporaryFile(prefix=f"{MARK}{os.getpid()}.", suffix=DISK) as file:
        for at in range(0, 0 if is_blank else size, MIB):
            file.write(os.urandom(min(MIB, size - at)))
        file.truncate(size)
        file.flush()
        yield Path(file.name)


@contextmanager
def watched(name: str) -> Generator[Path | None]:
    """Make a cgroup v2 that says how long its processes wait for memory, and remove it.

    Yields its directory; None where this host has no such hierarchy.
    """
    root = next((each for each in UNIFIED if (each / "memory.pressure").exists()), None)
    if root is None:
        yield None
        return
    group = root / f"{MARK}{os.getpid()}.{name}"
    group.mkdir()
    try:
        yield group
    finally:
        _remove_group(group)


@contextmanager
def swapped(size: int, speed: int) -> Generator[None]:
    """Have the host swap, with so many bytes of room and so many bytes a second either way."""
    path = Path(tempfile.gettempdir()) / f"{MARK}{os.getpid()}.swap"
    try:
        with uninterrupted():  # a losetup(8) that is not waited for may attach the file later
            with path.open("xb") as file:
                path.chmod(0o600)
                os.posix_fallocate(file.fileno(), 0, size)
            device = _run("losetup", "--find", "--show", path)
            _run("mkswap", device)
            _throttle(device, speed)
            _run("swapon", device)
        yield
    finally:
        with uninterrupted():
            _remove(path)


def loops(mark: str) -> list[str]:
    """Name the files behind loop devices that have a mark in their names: those of one bench."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [name for name in map(_read, files) if mark in name]


def forgotten() -> list[str]:
    """List the throttles of loop devices that have no file any more: no bench uses those."""
    entries = [
        line.split()[0]
        for way in WAYS
        for line in _read(THROTTLE / f"blkio.throttle.{way}_bps_device").splitlines()
    ]
    return [each for each in entries if not _read(Path(f"/sys/dev/block/{each}/loop/backing_file"))]


def _read(path: Path) -> str:
    """Read a file of the kernel; empty where it is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def swapped_in() -> int:
    """Say how many bytes the host has read back from swap since its boot."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    pages = next(int(line.split()[1]) for line in lines if line.startswith("pswpin "))
    return pages * os.sysconf("SC_PAGE_SIZE")


def remove_left() -> None:
    """Remove what benches left that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{MARK}*.swap"):
        if not Path("/proc", path.stem.removeprefix(MARK)).exists():
            _remove(path)
    for path in Path(tempfile.gettempdir()).glob(f"{MARK}*{DISK}"):
        if not Path("/proc", path.name.removeprefix(MARK).partition(".")[0]).exists():
            path.unlink(missing_ok=True)
    for group in (each for place in (GROUPS, *UNIFIED) for each in place.glob(f"{MARK}*")):
        if not Path("/proc", group.name.removeprefix(MARK).partition(".")[0]).exists():
            with suppress(OSError):
                _remove_group(group)


def _remove_group(group: Path) -> None:
    """Remove a group, and before it the groups that were made in it."""
    for child in (each for each in group.iterdir() if each.is_dir()):
        _remove_group(child)
    group.rmdir()


def _remove(path: Path) -> None:
    listed = subprocess.run(
        ["losetup", "--noheadings", "--output", "NAME", "--associated", path],
        capture_output=True,
        text=True,
        check=False,
    )
    for device in listed.stdout.split():
        _throttle(device, 0)  # what is swapped out comes back as fast as it can
        subprocess.run(["swapoff", device], check=False, capture_output=True)
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
    path.unlink(missing_ok=True)


def _throttle(device: str, speed: int) -> None:
    """Bound a device's speed in bytes a second; 0: not at all."""
    number = Path("/sys/block", Path(device).name, "dev").read_text().strip()
    for way in WAYS:
        (THROTTLE / f"blkio.throttle.{way}_bps_device").write_text(f"{number} {speed}")


def _run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


SLOW: Final = 8 * MIB
"""Bytes a second: a hard disk that reads pages here and there is slower, an idle SSD faster."""
