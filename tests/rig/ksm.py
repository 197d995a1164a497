"""The kernel's one KSM, held by one test at a time, and put back as it was found.

Theory of operation:
    A kernel has one KSM, so a process that changes it locks KSM's own directory meanwhile (flock):
    that holds across chroots and users, and needs no other directory. What was there before is
    also written to a file, which is removed when it was put back: after a SIGKILL the next process
    that takes the lock finds that file, and puts those values back first. The file is in /dev/shm,
    which any user may write and which is empty after a reboot, as the knobs are.

    Where nothing was merged before, nothing is after. Processes that have ended are no exception:
    the kernel counts their pages until it scans or unmerges again (mm/ksm.c: __ksm_exit leaves
    it to ksmd), and while any of it counts as merged, some knobs are EBUSY.
"""

import fcntl
import json
import os
import signal
import stat
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmpmem.wire.kernel import ksm
from qmpmem.wire.kernel.host import ROOT

BEFORE: Final = "dev/shm/qmpmem-ksm.before"
LOOK_SECONDS: Final = 0.1

ONLY_UNMERGED: Final = ("merge_across_nodes", "max_page_sharing")
"""EBUSY while anything is merged (mm/ksm.c: merge_across_nodes_store, max_page_sharing_store)."""
LAST: Final = ("pages_to_scan", "advisor_mode", "run")
"""In this order. advisor_mode resets pages_to_scan, and forbids to write it (set_advisor_defaults,
pages_to_scan_store)."""
NO_ADVISOR: Final = "none"
STOP, MERGE, UNMERGE = "0", "1", "2"
MERGED, NONE_MERGED = "pages_shared", "0"
UNMERGE_SECONDS: Final = 10.0

ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The knobs of a host, as text; of advisor_mode only the mode in force."""

    root: Path
    before: Mapping[str, str]
    """All that can be written, as it was found."""

    def get(self, name: str) -> str:
        """Read any file of KSM."""
        return _get(self.root, name)

    def number(self, name: str) -> int:
        """Read a file of KSM that holds a number."""
        return int(self.get(name))

    def write(self, settings: Mapping[str, str | int]) -> None:
        """Write in the given order.

        Raises:
            KernelError: the kernel refuses.
        """
        for name, value in settings.items():
            ksm.write(name, str(value), self.root)

    def unmerge(self) -> None:
        """Give each process its own pages again, and stop; takes as long as it takes."""
        ksm.write("run", UNMERGE, self.root)
        ksm.write("run", STOP, self.root)

    def reset(self) -> None:
        """Unmerge, and write what the kernel has after boot (mm/ksm.c), run=0."""
        self.unmerge()
        defaults = {name: value for name, value in BOOT.items() if name in self.before}
        _put_back(self.root, {**self.before, **defaults})


BOOT: Final = {
    "advisor_max_cpu": "70",
    "advisor_max_pages_to_scan": "30000",
    "advisor_min_pages_to_scan": "500",
    "advisor_mode": NO_ADVISOR,
    "advisor_target_scan_time": "200",
    "max_page_sharing": "256",
    "merge_across_nodes": "1",
    "pages_to_scan": "100",
    "run": STOP,
    "sleep_millisecs": "20",
    "smart_scan": "1",
    "stable_node_chains_prune_millisecs": "2000",
    "use_zero_pages": "0",
}
"""mm/ksm.c, as initialised there; those that a kernel lacks are left out."""


@contextmanager
def held(*, timeout: float = 900.0, root: Path = ROOT) -> Generator[Machine]:
    """Have KSM for oneself; all of it is as before at the end, whatever happens meanwhile.

    Ends by an exception, in the main thread also on SIGTERM and SIGHUP where no handler is set.

    Args:
        timeout: seconds to wait for others.
        root: a recorded tree in tests of this very file.

    Raises:
        TimeoutError: others do not let it go.
        AssertionError: not everything could be put back; says what.
    """
    with _locked(root / ksm.DIRECTORY, timeout), _ending_by_exception():
        _put_back_of_the_killed(root)
        before, merged = _writable(root), _get(root, MERGED)
        _save(root / BEFORE, before)
        try:
            yield Machine(root=root, before=before)
        finally:
            with _undisturbed():
                if merged == NONE_MERGED:
                    _unmerge_all(root)
                _put_back(root, before)
                (root / BEFORE).unlink()


def _put_back_of_the_killed(root: Path) -> None:
    left = root / BEFORE
    if left.exists():
        before = json.loads(left.read_text())
        if before.get("run") != MERGE:
            _unmerge_all(root)  # its own, as good as surely: a host with KSM off had nothing merged
        _put_back(root, before)
        left.unlink()


def _unmerge_all(root: Path) -> None:
    """Unmerge, again where a process that is just ending still has some of the pages.

    The kernel leaves these out (Linux: mm/ksm.c, ksm_test_exit and remove_stable_node's EBUSY).
    """
    # Also where nothing is merged now: as long as run is 1, ksmd merges more at any moment.
    ksm.write("run", UNMERGE, root)
    deadline = time.monotonic() + UNMERGE_SECONDS
    while _get(root, MERGED) != NONE_MERGED and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        ksm.write("run", UNMERGE, root)


def _writable(root: Path) -> dict[str, str]:
    names = (
        path.name for path in (root / ksm.DIRECTORY).iterdir() if path.stat().st_mode & stat.S_IWUSR
    )
    return {name: _get(root, name) for name in sorted(names)}


def _get(root: Path, name: str) -> str:
    content = (root / ksm.DIRECTORY / name).read_text()
    return ksm.parse_mode(content) if name == ksm.MODE else content.strip()


def _put_back(root: Path, before: Mapping[str, str]) -> None:
    now = _writable(root)
    if ksm.MODE in before and before != now:
        ksm.write(ksm.MODE, NO_ADVISOR, root)
    if any(before[name] != now[name] for name in ONLY_UNMERGED if name in before):
        ksm.write("run", UNMERGE, root)
    names = [name for name in before if name not in LAST]
    for name in (*names, *LAST):
        # Each is read again: writing the mode has changed pages_to_scan.
        if name in before and before[name] != _get(root, name):
            ksm.write(name, before[name], root)
    left = {name: now for name, now in _writable(root).items() if now != before.get(name, now)}
    if before.get(ksm.MODE, NO_ADVISOR) != NO_ADVISOR:
        left.pop("pages_to_scan", None)  # the advisor's own, it changes by itself
    assert not left, f"KSM: could not be put back: {left}; before: {before}"


def _save(path: Path, before: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # a container may lack it
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(before))
    beside.replace(path)


@contextmanager
def _locked(path: Path, timeout: float) -> Generator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + timeout
        while not _takes(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path}: held by others for {timeout:g} s")
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _takes(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _ending_by_exception() -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and gets the exception
        return
    mine = [
        (number, signal.signal(number, signal.default_int_handler))
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    try:
        yield
    finally:
        for number, handler in mine:
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Generator[None]:
    """Let signals wait: a second Ctrl-C must not cut off the putting back."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
