"""Real guests under a real limit: one policy after the other, the same course of events for each.

Theory of operation:
    The guests may hold together about half of what they were started with: the same for each
    policy. Beyond that the host swaps, slowly, and has room for a quarter as much. Three of them
    have read much once, and are idle since. Then one needs much at once (a burst), and after it all
    of them in turn (anti-phase): one after the other has a job, for which it touches so much and
    reads so much within its time. What it touched it frees in the end; what it read stays cached.
    What is measured is what the guests themselves say: how long it took to touch what was asked
    for, and whether their kernels killed for it.

    Each policy has the balloon that its own stack gives a guest: Proxmox VE's reports free pages,
    oVirt's is libvirt's default, and neither deflates when the guest runs out of memory.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from launchers.guest.errors import ChannelError
from qmpmem.units import MIB
from tests.bench import limits
from tests.bench.table import AtLeastTimes, AtMost, AtMostTimes, Figure, Goal
from tests.rig.command import plain_environment
from tests.rig.guests import ROOT, RunningGuest, boot
from tests.rig.qemu import short_directory

BALLOONS: Final = {
    "none": None,
    "reporting": (),
    "proxmox": ("-device", "virtio-balloon-pci,free-page-reporting=on"),
    "mom": ("-device", "virtio-balloon-pci"),
    "ours": (),
}
"""What each policy's guests get beside what the launcher adds; None: that nothing is added."""
POLICIES: Final = tuple(BALLOONS)
WITH_AGENT: Final = ("proxmox", "mom", "ours")

FREE: Final = 'eat status | awk \'$2 == "random" && $5 == "held" { print $1 }\' | xargs -r kill -9'
"""Frees what was touched, and leaves what was read where it is."""

PATIENCE: Final = 120.0
"""Seconds for what is no part of the measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    guests: int = 8
    memory: int = 512
    minimum: int = 96
    """Below which no policy takes a guest."""
    share: int = 250
    """Of the limit, for each guest: what it has in use when idle is some 100, with QEMU's own."""
    cache: int = 380
    """Of three guests: read once, and idle since. With it the limit is nearly met."""
    settle: float = 60.0
    """Seconds in which a policy gets ready: some take minutes."""
    burst: int = 307
    """60 % of a guest's maximum."""
    late: float = 45.0
    """Seconds after which the burst is not waited for any more."""
    job: int = 250
    """Which all guests touch in turn: with what they have in use anyway, 1.6 times of what there is
    for them in sum."""
    reads: int = 100
    """And read."""
    jobs: int = 16
    every: float = 10.0
    """Seconds from the start of one job to that of the next."""
    lasts: float = 20.0
    """Seconds from its start until a job ends, whether it had its memory or not."""


FULL: Final = Size()
QUICK: Final = Size(
    guests=3,
    cache=100,
    settle=8.0,
    burst=200,
    job=150,
    reads=50,
    jobs=2,
    every=4.0,
    lasts=8.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the guests under one policy."""

    policy: str
    burst: float | None
    """Seconds until the guest had what it needs; None: not in time."""
    by_then: int | None
    """Programs and guests that were killed until then; None: a guest does not say."""
    work: int
    """MiB that jobs had while they lasted."""
    unmet: int
    """MiB·s that they were short of: what was touched came evenly, so half of it was waited for."""
    turns: int | None
    """How often a guest was sent the other way; None: nobody sends any."""
    kills: int | None
    """By the guests' kernels; None: a guest does not say."""
    lost: int
    """Guests that the host's kernel killed."""
    swapped: int
    """MiB that the host swapped in."""
    hits: int
    """How often the limit was met (memory.failcnt)."""


def measure(
    size: Size, say: Callable[[str], None], policies: Sequence[str] = POLICIES
) -> Iterator[Row]:
    """Measure one policy after the other, and say at once how it went."""
    limits.remove_left()
    for policy in policies:
        say(f"squeeze: {policy}")
        row = _play(policy, size)
        say("squeeze: " + ", ".join(f"{name} {word}" for name, word in _words(row)))
        yield row


def figures(rows: Sequence[Row]) -> Iterator[Figure]:
    """Say how ours did beside the best of the others."""
    by_name = {row.policy: row for row in rows}
    ours, others = by_name.get("ours"), [row for row in rows if row.policy != "ours"]
    if ours is None or not others:
        return
    # Memory that others were killed for is no help.
    in_time = [row.burst for row in others if row.burst is not None and row.by_then == 0]
    yield Figure(what="burst: until it has it", unit="s", ours=ours.burst, goal=AtMost(amount=10))
    yield _beside(
        "burst: beside the fastest other that nobody was killed for",
        "s",
        ours.burst,
        min(in_time, default=FULL.late),  # as if the best had it when it was given up
        AtMostTimes(factor=0.25),
    )
    yield _beside(
        "anti-phase: work done",
        "MiB",
        float(ours.work),
        float(max(row.work for row in others)),
        AtLeastTimes(factor=1),
    )
    yield Figure(
        what="killed by guests' kernels",
        unit="",
        ours=None if ours.kills is None else float(ours.kills),
        goal=AtMost(amount=0),
    )


def lines(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """The rows of the table under `HEADERS`."""
    for row in rows:
        yield tuple(word for _, word in _words(row))


def _words(row: Row) -> Iterator[tuple[str, str]]:
    yield "policy", row.policy
    yield "burst", "not in time" if row.burst is None else f"{row.burst:.1f} s"
    yield "killed by then", "?" if row.by_then is None else str(row.by_then)
    yield "work done", f"{row.work} MiB"
    yield "unmet", f"{row.unmet} MiB·s"
    yield "turns", "-" if row.turns is None else str(row.turns)
    yield "guest kills", "?" if row.kills is None else str(row.kills)
    yield "guests lost", str(row.lost)
    yield "host swap-in", f"{row.swapped} MiB"


HEADERS: Final = (
    "POLICY",
    "BURST",
    "KILLED BY THEN",
    "WORK DONE",
    "UNMET",
    "TURNS",
    "GUEST KILLS",
    "GUESTS LOST",
    "HOST SWAP-IN",
)


def _beside(what: str, unit: str, ours: float | None, best: float | None, goal: Goal) -> Figure:
    return Figure(what=what, unit=unit, ours=ours, reference=best, goal=goal)


def _play(policy: str, size: Size) -> Row:
    with short_directory() as run, ExitStack() as stack:
        limit = size.guests * size.share * MIB
        group = stack.enter_context(limits.limited(limit))
        stack.enter_context(limits.swapped(limit // 4, limits.SLOW))
        guests = [
            stack.enter_context(guest_in(run, group, number, policy, size))
            for number in range(size.guests)
        ]
        agent = stack.enter_context(agent_of(run, group, policy, size))
        for guest in guests[1:4]:
            _wait_for(guest, f"eat cache {size.cache}")
        time.sleep(size.settle)  # part of what is measured: a policy gets ready, or does not
        before, hits = limits.swapped_in(), _hits(group)
        burst = _eat(guests[0], f"eat random {size.burst}", size.late)
        by_then = _killed(guests)
        _wait_for(guests[0], FREE)
        done = _jobs(guests, size)
        row = Row(
            policy=policy,
            burst=burst,
            by_then=by_then,
            work=size.job * sum(took is not None for took in done),
            unmet=int(sum(size.lasts if took is None else took / 2 for took in done) * size.job),
            turns=None,
            kills=all_kills(_alive(guests)),
            lost=lost(guests),
            swapped=(limits.swapped_in() - before) // MIB,
            hits=_hits(group) - hits,
        )
        return _with_turns(row, agent)


def _alive(guests: Sequence[RunningGuest]) -> list[RunningGuest]:
    return [guest for guest in guests if guest.process.poll() is None]


def lost(guests: Sequence[RunningGuest]) -> int:
    """Count the guests that are gone: here only the host's kernel ends any."""
    return len(guests) - len(_alive(guests))


def _killed(guests: Sequence[RunningGuest]) -> int | None:
    """Count what was killed by now: programs in guests, and guests themselves."""
    alive = _alive(guests)
    kills = all_kills(alive)
    return None if kills is None else kills + lost(guests)


def _jobs(guests: Sequence[RunningGuest], size: Size) -> list[float | None]:
    """Have the guests work in turn; gives the seconds each took to have its memory."""
    start = time.monotonic()

    def work(number: int) -> float | None:
        guest, begin = guests[number % len(guests)], start + number * size.every
        _sleep_until(begin)
        took = _eat(guest, f"eat random {size.job} && eat cache {size.reads}", size.lasts)
        _sleep_until(begin + size.lasts)
        _wait_for(guest, FREE)
        return took

    with ThreadPoolExecutor(size.jobs) as pool:
        return list(pool.map(work, range(size.jobs)))


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _eat(guest: RunningGuest, command: str, seconds: float) -> float | None:
    """Have a guest use memory; gives the seconds that took, None where it does not in time."""
    began = time.monotonic()
    try:
        code, _ = guest.execute(command, timeout=seconds)
    except ChannelError:
        return None
    return time.monotonic() - began if code == 0 else None


def _wait_for(guest: RunningGuest, command: str) -> None:
    """Have a guest do what is no part of the measurement; one that cannot is seen by its work."""
    try:
        guest.execute(command, timeout=PATIENCE)
    except ChannelError:
        return


def all_kills(guests: Sequence[RunningGuest]) -> int | None:
    try:
        return sum(
            int(guest.check("grep '^oom_kill ' /proc/vmstat", timeout=PATIENCE).split()[1])
            for guest in guests
        )
    except ChannelError:
        return None


def _hits(group: Path) -> int:
    return int((group / "memory.failcnt").read_text())


@contextmanager
def guest_in(
    run: Path, group: Path, number: int, policy: str, size: Size
) -> Generator[RunningGuest]:
    # Into the group first: what a process holds already stays with the group that it got it in.
    enter = f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"'
    emulator = ("sh", "-c", enter, str(ROOT / "launchers" / "kvm"))
    environ = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_KSM": "off"}
    balloon = BALLOONS[policy]
    if balloon is None:
        environ["QMPMEM_BALLOON"] = "off"
    extra = ("-name", f"g{number}", *(balloon or ()))
    with boot(emulator, memory=f"{size.memory}M", extra=extra, environ=environ) as guest:
        yield guest


@contextmanager
def agent_of(
    run: Path, group: Path, policy: str, size: Size
) -> Generator[subprocess.Popen[str] | None]:
    if policy not in WITH_AGENT:
        yield None
        return
    words = [sys.executable, "-m", "tests.bench.policed", policy, group, size.minimum * MIB]
    child = subprocess.Popen(
        [str(word) for word in words],
        cwd=ROOT,
        env=plain_environment() | {"QMPMEM_RUN_DIR": str(run)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=15)


def _with_turns(row: Row, agent: subprocess.Popen[str] | None) -> Row:
    if agent is None:
        return row
    assert agent.poll() is None, f"the agent of {row.policy} ended"
    agent.terminate()
    said, _ = agent.communicate(timeout=15)
    return replace(row, turns=int(said))
