"""Real guests under a real limit: one policy after the other, the same course of events for each.

Theory of operation:
    The guests run in a memory cgroup whose limit is a little more than what they hold when they
    have booted and some of them have filled their page cache. Beyond it the kernel swaps them out,
    to a file that is the bench's own. First one guest needs much at once (a burst), then all of
    them in turn (anti-phase). What is measured is what the guests themselves say: how long it took
    to touch what was asked for, and whether their kernels killed.

    Cgroup, swap file and guests are gone at the end; what a bench that was killed left, the next
    one removes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launchers.guest.errors import ChannelError
from qmpmem.units import MIB
from tests.bench.table import AtMost, AtMostTimes, Figure, Goal
from tests.rig.command import plain_environment
from tests.rig.guests import ROOT, RunningGuest, boot
from tests.rig.qemu import short_directory

GROUPS: Final = Path("/sys/fs/cgroup/memory")
MARK: Final = "qmpmem-bench-"
POLICIES: Final = ("none", "reporting", "proxmox", "mom", "ours")
"""No balloon at all; free page reporting alone; an agent that decides by a policy."""

LATE: Final = 45.0
"""Seconds after which a guest that waits for memory is not waited for any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    guests: int = 8
    memory: int = 256
    cache: int = 110
    """Of three guests: read once, and idle since."""
    room: int = 64
    """Of the limit, beyond what is held before the burst."""
    burst: int = 154
    """60 % of a guest's maximum."""
    turn: int = 110
    turns: int = 16
    settle: float = 30.0
    """Seconds in which a policy may get ready."""


FULL: Final = Size()
QUICK: Final = Size(guests=4, turns=2, settle=15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the guests under one policy."""

    policy: str
    burst: float | None
    """Seconds until the guest had what it needs; None: not in time."""
    work: int
    """MiB that were touched in all turns."""
    waited: float
    """Seconds that guests waited for that."""
    kills: int
    """By the guests' kernels."""
    swapped: int
    """MiB that the host swapped in."""
    hits: int
    """How often the limit was met (memory.failcnt)."""


def why_not() -> str | None:
    """Say why it cannot be measured here; None: it can."""
    if os.geteuid() != 0:
        return "only root may limit and swap"
    if not (GROUPS / "memory.limit_in_bytes").exists():
        return "no memory controller of cgroup v1 here"
    return None if shutil.which("mkswap") else "missing: mkswap"


def measure(
    size: Size, say: Callable[[str], None], policies: Sequence[str] = POLICIES
) -> Iterator[Row]:
    """Measure one policy after the other."""
    remove_left()
    for policy in policies:
        say(f"squeeze: {policy}")
        yield _play(policy, size)


def figures(rows: Sequence[Row]) -> Iterator[Figure]:
    """Say how ours did beside the best of the others."""
    by_name = {row.policy: row for row in rows}
    ours, others = by_name.get("ours"), [row for row in rows if row.policy != "ours"]
    if ours is None or not others:
        return
    in_time = [row.burst for row in others if row.burst is not None]
    yield Figure(what="burst: until it has it", unit="s", ours=ours.burst, goal=AtMost(amount=10))
    yield _beside(
        "burst: beside the fastest other",
        "s",
        ours.burst,
        min(in_time, default=None),
        AtMostTimes(factor=0.25),
    )
    waits = [row.waited / max(1, row.work) for row in others]
    yield _beside(
        "anti-phase: waiting for a GiB",
        "s",
        1024 * ours.waited / max(1, ours.work),
        1024 * min(waits),
        AtMostTimes(factor=1),
    )
    yield Figure(
        what="killed by guests' kernels", unit="", ours=float(ours.kills), goal=AtMost(amount=0)
    )


def lines(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """The rows of the table under `HEADERS`."""
    for row in rows:
        burst = "not in time" if row.burst is None else f"{row.burst:.1f} s"
        yield (
            row.policy,
            burst,
            f"{row.work} MiB",
            f"{row.waited:.1f} s",
            str(row.kills),
            f"{row.swapped} MiB",
        )


HEADERS: Final = ("POLICY", "BURST", "TURNS: TOUCHED", "WAITED", "GUEST KILLS", "HOST SWAP-IN")


def _beside(what: str, unit: str, ours: float | None, best: float | None, goal: Goal) -> Figure:
    return Figure(what=what, unit=unit, ours=ours, reference=best, goal=goal)


def _play(policy: str, size: Size) -> Row:
    with short_directory() as run, ExitStack() as stack:
        group = stack.enter_context(limited())
        stack.enter_context(swapped())
        guests = [
            stack.enter_context(_guest(run, group, number, policy, size))
            for number in range(size.guests)
        ]
        for guest in guests[1:4]:
            guest.check(f"eat cache {size.cache}")
        held = int((group / "memory.usage_in_bytes").read_text())
        (group / "memory.limit_in_bytes").write_text(str(held + size.room * MIB))
        if policy in ("proxmox", "mom", "ours"):
            stack.enter_context(_agent(run, group, policy))
        time.sleep(size.settle)  # part of what is measured: a policy gets ready, or does not
        before, hits = _swapped_in(), int((group / "memory.failcnt").read_text())
        burst = _eat(guests[0], size.burst)
        guests[0].check("eat stop", timeout=LATE)
        took = [
            _eat(guests[turn % size.guests], size.turn, stop=guests[(turn - 2) % size.guests])
            for turn in range(size.turns)
        ]
        return Row(
            policy=policy,
            burst=burst,
            work=size.turn * sum(each is not None for each in took),
            waited=sum(LATE if each is None else each for each in took),
            kills=sum(_kills(guest) for guest in guests),
            swapped=(_swapped_in() - before) // MIB,
            hits=int((group / "memory.failcnt").read_text()) - hits,
        )


def _eat(guest: RunningGuest, amount: int, *, stop: RunningGuest | None = None) -> float | None:
    """Have a guest touch so many MiB; gives the seconds that took, None where it took too long."""
    if stop is not None:
        with suppress(ChannelError):
            stop.execute("eat stop", timeout=LATE)
    began = time.monotonic()
    try:
        code, _ = guest.execute(f"eat random {amount}", timeout=LATE)
    except ChannelError:
        return None
    return time.monotonic() - began if code == 0 else None


def _kills(guest: RunningGuest) -> int:
    try:
        return int(guest.check("grep '^oom_kill ' /proc/vmstat", timeout=LATE).split()[1])
    except ChannelError:
        return 1


def _swapped_in() -> int:
    lines = Path("/proc/vmstat").read_text().splitlines()
    pages = next(int(line.split()[1]) for line in lines if line.startswith("pswpin "))
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _guest(run: Path, group: Path, number: int, policy: str, size: Size) -> Generator[RunningGuest]:
    # Into the group first: what a process holds already stays with the group that it got it in.
    enter = f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"'
    emulator = ("sh", "-c", enter, str(ROOT / "launchers" / "kvm"))
    environ = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_KSM": "off"}
    if policy == "none":
        environ["QMPMEM_BALLOON"] = "off"
    with boot(
        emulator, memory=f"{size.memory}M", extra=("-name", f"g{number}"), environ=environ
    ) as guest:
        yield guest


@contextmanager
def _agent(run: Path, group: Path, policy: str) -> Generator[None]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.policed", policy, str(group)],
        cwd=ROOT,
        env=plain_environment() | {"QMPMEM_RUN_DIR": str(run)},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield
        assert child.poll() is None, f"the agent of {policy} ended"
    finally:
        child.terminate()
        child.wait(15)


@contextmanager
def limited() -> Generator[Path]:
    """Make a memory cgroup, and remove it."""
    group = GROUPS / f"{MARK}{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        group.rmdir()


@contextmanager
def swapped(size: int = 2048) -> Generator[None]:
    """Have the host swap, to a file of its own of so many MiB."""
    path = Path(tempfile.gettempdir()) / f"{MARK}{os.getpid()}.swap"
    try:
        with path.open("xb") as file:
            path.chmod(0o600)
            os.posix_fallocate(file.fileno(), 0, size * MIB)
        subprocess.run(["mkswap", path], check=True, capture_output=True)
        subprocess.run(["swapon", path], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["swapoff", path], check=False, capture_output=True)
        path.unlink(missing_ok=True)


def remove_left() -> None:
    """Remove what benches left that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{MARK}*.swap"):
        if not Path("/proc", path.stem.removeprefix(MARK)).exists():
            subprocess.run(["swapoff", path], check=False, capture_output=True)
            path.unlink(missing_ok=True)
    for group in GROUPS.glob(f"{MARK}*"):
        if not Path("/proc", group.name.removeprefix(MARK)).exists():
            with suppress(OSError):
                group.rmdir()
