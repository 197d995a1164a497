"""Unmerges all pages, where there is room for it.

Theory of operation:
    Writing 2 to run makes a copy of a merged page for each of its users, and all that was saved is
    needed at once: the debt. If memory runs out, the kernel kills the *writer* first (mm/ksm.c:
    set_current_oom_origin), so the writer is a child that does nothing else. A signal ends it in
    the middle. The kernel then sets run to 0, and what is unmerged stays so.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qmpmem.errors import KernelError
from qmpmem.ksm import rules, verdict
from qmpmem.model import bounds
from qmpmem.model.host import HostMemory
from qmpmem.model.ksm import KsmState
from qmpmem.records import Record
from qmpmem.units import Bytes, format_size
from qmpmem.wire.kernel import host, ksm

MARGIN: Final = 110
"""Percent of the debt that must be available: guests use more memory meanwhile."""

LOOK: Final = 0.1
"""Seconds between two readings of how far it came."""

# Without O_TRUNC: the parent reads the file meanwhile, and an ordinary file would be empty then.
_CHILD: Final = """
import os, sys
try:
    with open("/proc/self/oom_score_adj", "w") as adjust:
        adjust.write("1000")
    file = os.open(sys.argv[1], os.O_WRONLY)
    if os.getppid() == int(sys.argv[2]):
        os.write(file, b"2")
except OSError as error:
    sys.exit(error.errno)
"""
_PR_SET_PDEATHSIG: Final = 1


Writer = Callable[[str, str], None]
"""Writes a value to one of KSM's files by its name; raises KernelError."""

Progress = Callable[[KsmState], None]
"""Called with what is left to unmerge."""


class UnmergeRoom(Record, frozen=True):
    """Whether there is memory for what would be needed."""

    debt: Bytes
    spare: Bytes
    """Available memory less the host's reserve."""

    @property
    def missing(self) -> Bytes:
        """Return how much is missing; 0 where there is room."""
        return Bytes(max(0, self.debt * MARGIN // 100 - self.spare))


def room(state: KsmState, host: HostMemory) -> UnmergeRoom:
    """Return what would be needed, and what is there. Swap does not count: guests would be slow.

    Raises:
        KernelError: the host does not tell what is available.
    """
    if host.available is None or host.total is None:
        raise KernelError(
            "/proc/meminfo: no MemTotal and MemAvailable; cannot tell whether it fits"
        )
    spare = Bytes(max(0, host.available - bounds.reserve(host.total)))
    return UnmergeRoom(debt=verdict.saved(state), spare=spare)


def check(found: UnmergeRoom) -> None:
    """Refuse where there is no room.

    Raises:
        KernelError: there is no room; it tells how much is missing.
    """
    if found.missing:
        raise KernelError(
            f"unmerging needs {format_size(found.debt)} and {MARGIN - 100} % more; "
            f"{format_size(found.spare)} are to spare, {format_size(found.missing)} are missing",
            hint="balloon guests down first (`qmpmem set`), or leave it merged: `qmpmem ksm off`",
        )


def writer(root: Path = Path("/"), progress: Progress = lambda _: None) -> Writer:
    """Return a writer of KSM's files that unmerges only where there is room, and in a child."""

    def one(name: str, value: str) -> None:
        if (name, value) != (rules.RUN, rules.UNMERGE):
            ksm.write(name, value, root)
            return
        state = ksm.state(root)
        if state is not None:
            check(room(state, host.memory(root)))
        write(progress, root)

    return one


def write(progress: Progress, root: Path = Path("/")) -> None:
    """Unmerge everything, and wait until that is done.

    Args:
        progress: called with what is left, ten times a second.
        root: the host's file system.

    Raises:
        KernelError: it was not done, or not wholly.
    """
    path = root / ksm.DIRECTORY / rules.RUN
    command = [sys.executable, "-I", "-S", "-c", _CHILD, str(path), str(os.getpid())]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_us())  # noqa: PLW1509 - there is one thread
    try:
        while child.poll() is None:
            seen = ksm.state(root)
            if seen is not None:
                progress(seen)
            time.sleep(LOOK)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    _judge(child.returncode)


def _judge(code: int) -> None:
    if code == 0:
        return
    if code == -signal.SIGKILL:
        raise KernelError("unmerging ran out of memory and was stopped by the kernel half way")
    if code < 0:
        raise KernelError(f"unmerging was stopped half way by signal {-code}")
    raise ksm.refused(rules.RUN, rules.UNMERGE, OSError(code, os.strerror(code)))


def _end_with_us() -> Callable[[], None]:
    """Return what has the child end with us, and ignore Ctrl-C (prctl(2): PR_SET_PDEATHSIG)."""
    prctl = ctypes.CDLL(None).prctl

    def first() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    return first
