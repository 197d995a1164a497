"""Real QEMUs without an operating system in them: paused, small, and registered as guests."""

import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord
from qmpmem.wire import kernel, sock_diag
from tests.rig.interrupts import uninterrupted
from tests.rig.patience import patient

EMULATOR: Final = "qemu-system-x86_64"
SMALL: Final = ("-nodefaults", "-vga", "none", "-display", "none", "-accel", "tcg,tb-size=32")
WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
"""What a QEMU is started by where no end of ours, not even SIGKILL, may leave it behind."""
BALLOON: Final = (
    "-device",
    (
        '{"driver":"virtio-balloon-pci","id":"qmpmem0","deflate-on-oom":true,'
        '"free-page-reporting":true}'
    ),
)


@cache
def usage() -> str:
    """What this QEMU says of its options."""
    return subprocess.run([EMULATOR, "-help"], capture_output=True, text=True, check=True).stdout


def knows(option: str) -> bool:
    """Whether this QEMU has an option, such as ``-runas``."""
    return re.search(rf"^{option}\b", usage(), re.MULTILINE) is not None


def dropping(*, user: str | None = None, root: str | None = None) -> list[str]:
    """Give the words by which this QEMU changes its user and its root before the guest runs.

    -runas and -chroot became parts of -run-with (QEMU: docs/about/removed-features.rst).
    """
    given = {"user": user, "chroot": root}
    if knows("-runas"):
        old = {"user": "-runas", "chroot": "-chroot"}
        return [word for key, value in given.items() if value for word in (old[key], value)]
    parts = [f"{key}={value}" for key, value in given.items() if value]
    return ["-run-with", ",".join(parts)]


def until(holds: Callable[[], object], *, seconds: float = 10.0, what: str = "") -> None:
    """Wait until something holds, looking often; fail the test when it does not come to hold.

    It waits as long as it looks: a look that starts a program takes no more than half a processor.
    """
    limit = patient(seconds)
    deadline = time.monotonic() + limit
    while True:
        began = time.monotonic()
        if holds():
            return
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not so after {limit} s: {what or holds}")
        time.sleep(min(max(0.005, now - began), 0.5))


@contextmanager
def short_directory() -> Iterator[Path]:
    """Make a directory whose path leaves room for a socket's name (sun_path: 107 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="qm-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def make_qcow2(path: Path, size: int = 64 << 20) -> None:
    """Make an empty image that takes snapshots (QEMU: docs/interop/qcow2.txt, version 2)."""
    cluster = 1 << 16
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, size, 0, 1, 3 * cluster, cluster, 1, 0, 0
    )
    reference_table, reference_counts = (
        struct.pack(">Q", 2 * cluster),
        struct.pack(">4H", 1, 1, 1, 1),
    )
    parts = (header, reference_table, reference_counts, b"")
    path.write_bytes(b"".join(part.ljust(cluster, b"\0") for part in parts))


def listens(path: Path) -> bool:
    """Whether a process listens on this socket, by whatever name, without touching it."""
    try:
        return sock_diag.listener(str(path)) is not None
    except OSError:
        return False


@contextmanager
def paused(
    run: Path,
    *ids: str,
    memory: str = "256M",
    extra: Sequence[str] = BALLOON,
    running: bool = False,
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start one QEMU for each id, paused at its first instruction, and register it in `run`."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for guest in ids:
            with uninterrupted():
                children[guest] = _start(run, guest, memory, extra, running=running)
        for guest, child in children.items():
            _register(run, guest, child)
        yield children
    finally:
        for child in children.values():
            child.kill()
        for child in children.values():
            child.wait()


def _start(
    run: Path, guest: str, memory: str, extra: Sequence[str], *, running: bool
) -> subprocess.Popen[bytes]:
    directory = run / guest
    directory.mkdir(parents=True)
    state = () if running else ("-S",)
    monitor = f"unix:{directory}/qmp.sock,server=on,wait=off"
    words = [*WITH_US, EMULATOR, *state, *SMALL, "-m", memory, "-qmp", monitor, *extra]
    with (directory / "stderr").open("wb") as stderr:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)


def _register(run: Path, guest: str, child: subprocess.Popen[bytes]) -> None:
    directory = run / guest
    until(
        lambda: listens(directory / "qmp.sock") or child.poll() is not None,
        seconds=30,
        what=f"{guest} listens",
    )
    if child.poll() is not None:
        raise AssertionError(f"{guest}: {(directory / 'stderr').read_text()}")
    process = kernel.process(child.pid)
    assert process is not None
    record = GuestRecord(
        version=rundir.RECORD_VERSION,
        id=guest,
        name=guest,
        pid=child.pid,
        start_time=process.start_time,
        socket=str(directory / "qmp.sock"),
        uid=os.getuid(),
        created=time.time(),
        balloon="qmpmem0",
    )
    rundir.write_record(run, record)
