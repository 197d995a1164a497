"""Unmerging: only where there is room, in a child that dies first, and ended with its parent.

Theory of operation:
    The file that the child writes to has a lease (fcntl(2): F_SETLEASE), so that to open it for
    writing takes until the lease is given up, as run=2 takes until all is unmerged; reading it
    does not wait.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import KernelError
from qmpmem.ksm import unmerge
from qmpmem.ksm.apply import KsmWriter
from qmpmem.ksm.unmerge import UnmergeRoom
from qmpmem.model import bounds
from qmpmem.model.host import HostMemory
from qmpmem.model.ksm import KsmState
from qmpmem.units import GIB, PAGE, Bytes
from qmpmem.wire import kernel
from qmpmem.wire.kernel import ksm
from tests.rig.ksmmodel import Kernel
from tests.rig.qemu import until

MERGED: Final = {"run": "1", "pages_sharing": "1000", "pages_shared": "10"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Kernel(tmp_path, MERGED)
    (tmp_path / "proc").mkdir()
    make_memory(tmp_path, 8 << 20)
    return tmp_path


def make_memory(root: Path, available: int) -> None:
    text = f"MemTotal: 16777216 kB\nMemAvailable: {available} kB\n"
    (root / "proc/meminfo").write_text(text)


def run_of(root: Path) -> str:
    return (root / ksm.DIRECTORY / "run").read_text().strip()


@contextlib.contextmanager
def leased(root: Path) -> Generator[Callable[[], None]]:
    """Let a process that opens run for writing wait until the yielded function is called."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when a process waits
    descriptor = os.open(root / ksm.DIRECTORY / "run", os.O_RDONLY)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    try:

        def give_up() -> None:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)

        yield give_up
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)


def children(parent: int) -> list[int]:
    return [pid for pid in kernel.pids() if kernel.parent(pid) == parent]


def child_that_waits(parent: int) -> int | None:
    """Find the child, once it waits for the file."""
    for pid in children(parent):
        with contextlib.suppress(OSError):  # it ended meanwhile
            is_first = Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
            process = kernel.process(pid)
            if is_first and process is not None and process.state == "S":
                return pid
    return None


def ignores(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [mask] = [int(line.split()[1], 16) for line in lines if line.startswith("SigIgn")]
    return bool(mask >> (number - 1) & 1)


def test_the_child_is_the_first_to_be_killed_and_is_waited_for(root: Path) -> None:
    """Row F69."""
    seen: list[int] = []
    with leased(root) as give_up:

        def progress(state: KsmState) -> None:
            assert state.pages_sharing == 1000
            pid = child_that_waits(os.getpid())
            if pid is not None and not seen:
                assert run_of(root) == "1"
                assert ignores(pid, signal.SIGINT)  # Ctrl-C is for us to handle
                assert not ignores(pid, signal.SIGTERM)
                seen.append(pid)
                give_up()

        unmerge.write(progress, root)
    assert len(seen) == 1
    assert run_of(root) == "2"
    assert not Path(f"/proc/{seen[0]}").exists()
    assert Path("/proc/self/oom_score_adj").read_text() != "1000\n"


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGKILL, "ran out of memory"), (signal.SIGTERM, "half way by signal 15")],
)
def test_a_child_that_is_killed_has_not_done_it(root: Path, number: int, message: str) -> None:
    """Row F69."""

    def progress(_: KsmState) -> None:
        pid = child_that_waits(os.getpid())
        if pid is not None:
            os.kill(pid, number)

    with leased(root), pytest.raises(KernelError, match=message):
        unmerge.write(progress, root)
    assert run_of(root) == "1"


def test_the_hand_takes_a_half_done_unmerging_back(root: Path) -> None:
    def progress(_: KsmState) -> None:
        pid = child_that_waits(os.getpid())
        if pid is not None:
            (root / ksm.DIRECTORY / "run").with_name("beside").write_text("0\n")
            (root / ksm.DIRECTORY / "beside").replace(root / ksm.DIRECTORY / "run")
            os.kill(pid, signal.SIGKILL)

    writer = KsmWriter(root / "ledger", root, unmerge.writer(root, progress))
    with leased(root), pytest.raises(KernelError, match="half way; nothing is changed"):
        writer.apply({"run": "2"})
    assert run_of(root) == "1"
    assert not (root / "ledger/ledger.json").exists()


def test_the_child_ends_when_we_are_interrupted(root: Path) -> None:
    pids: list[int] = []

    def progress(_: KsmState) -> None:
        pid = child_that_waits(os.getpid())
        if pid is not None:
            pids.append(pid)
            raise KeyboardInterrupt

    with leased(root), pytest.raises(KeyboardInterrupt):
        unmerge.write(progress, root)
    assert not Path(f"/proc/{pids[0]}").exists()
    assert run_of(root) == "1"


def test_the_child_ends_when_we_are_killed(root: Path) -> None:
    text = "import sys; from pathlib import Path; from qmpmem.ksm import unmerge; "
    text += "unmerge.write(lambda _: None, Path(sys.argv[1]))"
    with leased(root):
        parent = subprocess.Popen([sys.executable, "-c", text, str(root)])
        try:
            until(lambda: child_that_waits(parent.pid), what="the child waits")
            pid = child_that_waits(parent.pid)
        finally:
            parent.kill()
            parent.wait()
        assert pid is not None
        until(lambda: has_ended(pid), what="the child ends")
    assert run_of(root) == "1"


def has_ended(pid: int) -> bool:
    process = kernel.process(pid)
    return process is None or process.state == "Z"


def test_the_childs_error_is_explained(root: Path) -> None:
    (root / ksm.DIRECTORY / "run").unlink()
    with pytest.raises(KernelError, match="/run: writing 2 failed: No such file"):
        unmerge.write(lambda _: None, root)


def test_an_orphan_does_not_begin(root: Path) -> None:
    path = root / ksm.DIRECTORY / "run"
    command = [sys.executable, "-I", "-S", "-c", unmerge._CHILD, str(path), "1"]
    assert subprocess.run(command, check=False).returncode == 0
    assert path.read_text() != "2"


# Room.


def test_the_reserve_follows_the_scale() -> None:
    assert bounds.reserve(Bytes(0)) == 0
    assert bounds.reserve(Bytes(4 * GIB)) == 4 * GIB * 6 // 100
    assert bounds.reserve(Bytes(12 * GIB)) == 4 * GIB * 6 // 100 + 8 * GIB * 4 // 100
    large = bounds.reserve(Bytes(128 * GIB))
    exact = sum((4 * GIB * 6, 8 * GIB * 4, 16 * GIB * 2, 100 * GIB)) / 100
    assert exact - 4 < large <= exact  # each step is rounded down


def host(available: int | None, total: int | None = 16 * GIB) -> HostMemory:
    return HostMemory(
        total=None if total is None else Bytes(total),
        available=None if available is None else Bytes(available),
    )


def state(sharing: int | None, zeros: int | None = None) -> KsmState:
    return KsmState(page_size=PAGE, run=1, pages_sharing=sharing, ksm_zero_pages=zeros)


def test_a_tenth_more_than_the_debt_must_be_to_spare() -> None:
    """Row F69."""
    kept = bounds.reserve(Bytes(16 * GIB))
    debt = 1000 * PAGE
    needed = debt * 110 // 100
    unmerge.check(unmerge.room(state(1000), host(kept + needed)))
    short = unmerge.room(state(1000), host(kept + needed - 1))
    assert short.missing == 1
    with pytest.raises(KernelError, match="1 B are missing"):
        unmerge.check(short)


def test_merged_zero_pages_come_back_too() -> None:
    assert unmerge.room(state(3, 4), host(0)).debt == 7 * PAGE


def test_swap_is_no_room() -> None:
    swapping = HostMemory(
        total=Bytes(GIB), available=Bytes(0), swap_total=Bytes(GIB), swap_free=Bytes(GIB)
    )
    with pytest.raises(KernelError, match="missing"):
        unmerge.check(unmerge.room(state(1000), swapping))


@pytest.mark.parametrize("seen", [host(None), host(1, None)])
def test_what_is_not_known_is_no_room(seen: HostMemory) -> None:
    with pytest.raises(KernelError, match="cannot tell whether it fits"):
        unmerge.room(state(0), seen)


@given(debt=st.integers(0, 1 << 50), spare=st.integers(0, 1 << 50))
def test_what_is_missing_is_what_would_make_it_fit(debt: int, spare: int) -> None:
    short = UnmergeRoom(debt=Bytes(debt), spare=Bytes(spare)).missing
    assert short >= 0
    assert UnmergeRoom(debt=Bytes(debt), spare=Bytes(spare + short)).missing == 0
    assert short == 0 or UnmergeRoom(debt=Bytes(debt), spare=Bytes(spare + short - 1)).missing == 1


def test_every_write_of_2_is_held_to_the_rule(root: Path) -> None:
    # Also to restore a 2 that was there before.
    make_memory(root, 0)
    with pytest.raises(KernelError, match=r"are missing; nothing is changed"):
        KsmWriter(root / "ledger", root).apply({"run": "2", "sleep_millisecs": "50"})
    assert run_of(root) == "1"
    assert (root / ksm.DIRECTORY / "sleep_millisecs").read_text().strip() == "20"


def test_to_restore_a_2_is_to_unmerge(root: Path) -> None:
    (root / ksm.DIRECTORY / "run").write_text("2\n")
    writer = KsmWriter(root / "ledger", root)
    writer.apply({"run": "1"})
    make_memory(root, 0)
    with pytest.raises(KernelError, match="are missing"):
        writer.restore()
    assert run_of(root) == "1"
    make_memory(root, 8 << 20)
    writer.restore()
    assert run_of(root) == "2"


def test_where_nothing_is_merged_there_is_always_room() -> None:
    unmerge.check(unmerge.room(state(0), host(0)))
    unmerge.check(unmerge.room(state(None), host(0)))
