"""Real guests under a real limit: one policy after the other, the same course of events for each.

Theory of operation:
    The guests may hold together about half of what they were started with: the same for each
    policy. Beyond that the host swaps, slowly, and has room for a quarter as much. Three of them
    have read much once, and are idle since. Then one needs much at once (a burst), and after it all
    of them in turn (anti-phase): one after the other has a job, for which it touches so much and
    reads so much within its time. What it touched it frees in the end; what it read stays cached.
    What is measured is what the guests themselves say: how long it took to touch what was asked
    for, and whether their kernels killed for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from qmpmem.units import MIB
from tests.bench import jobs, limits
from tests.bench.host import Host, Machine, Room, hosted
from tests.bench.jobs import Jobs
from tests.bench.load import Load, Played, others, ours
from tests.bench.stacks import Stack
from tests.bench.table import AtLeastTimes, AtMost, AtMostTimes, Figure, losses

JOBS: Final = Jobs(count=16, touches=250, reads=100, every=10.0, lasts=20.0)
"""With what guests have in use anyway, 1.6 times of what there is for them in sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    guests: int = 8
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
    jobs: Jobs = JOBS
    """All guests have them in turn."""


FULL: Final = Size()
QUICK: Final = Size(
    guests=3,
    cache=100,
    settle=8.0,
    burst=200,
    jobs=Jobs(count=2, touches=150, reads=50, every=4.0, lasts=8.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the guests under one policy."""

    burst: float | None
    """Seconds until the guest had what it needs; None: not in time."""
    by_then: int | None
    """Programs and guests that were killed until then; None: a guest does not say."""
    work: int
    """MiB that jobs had while they lasted."""
    unmet: int
    """MiB·s that they were short of."""
    turns: int | None
    """How often a guest was sent the other way; None: no agent runs."""
    kills: int | None
    """By the guests' kernels; None: a guest does not say."""
    lost: int
    """Guests that the host's kernel killed."""
    swapped: int
    """MiB that the host swapped in."""
    hits: int
    """How often the limit was met (memory.failcnt)."""


def play(stack: Stack, size: Size) -> Row:
    """Measure one row."""
    with hosted(stack, Room(limit=size.guests * size.share)) as host:
        guests = host.boot(Machine(name=f"g{number}") for number in range(size.guests))
        host.look_after()
        for guest in guests[1:4]:
            guest.do(f"eat cache {size.cache}")
        host.sleep(size.settle)
        return course(host, size)


def course(host: Host, size: Size) -> Row:
    """Have the guests go through the burst and the jobs."""
    first, kind = host.guests[0], size.jobs.kind
    before, hits = limits.swapped_in(), host.hits()
    burst = first.take(f"eat {kind} {size.burst}", size.late)
    by_then = host.kills()
    lost = host.lost()
    first.do(jobs.FREE)
    done = jobs.run(host, host.guests, size.jobs)
    report = host.report()
    return Row(
        burst=burst,
        by_then=None if by_then is None else by_then + lost,
        work=done.work,
        unmet=done.unmet,
        turns=None if report is None else report.turns,
        kills=host.kills(),
        lost=host.lost(),
        swapped=(limits.swapped_in() - before) // MIB,
        hits=host.hits() - hits,
    )


def figures(played: Sequence[Played[Row]]) -> Iterator[Figure]:
    """Return how ours did beside the best of the others."""
    mine, rest = ours(played), others(played)
    if mine is None or not rest:
        return
    # Memory that others were killed for is no help.
    in_time = [row.burst for row in rest if row.burst is not None and row.by_then == 0]
    yield Figure(what="burst: until it has it", unit="s", ours=mine.burst, goal=AtMost(amount=10))
    yield Figure(
        what="burst: beside the fastest other that no guest was killed for",
        unit="s",
        ours=mine.burst,
        reference=min(in_time, default=None),
        goal=AtMostTimes(factor=1.1),
    )
    yield Figure(
        what="jobs: work done",
        unit="MiB",
        ours=float(mine.work),
        reference=float(max(row.work for row in rest)),
        goal=AtLeastTimes(factor=1),
    )
    yield Figure(
        what="jobs: unmet",
        unit="MiB·s",
        ours=float(mine.unmet),
        reference=float(min(row.unmet for row in rest)),
        goal=AtMostTimes(factor=1.1),
    )
    yield Figure(
        what="killed by guests' kernels",
        unit="",
        ours=None if mine.kills is None else float(mine.kills),
        goal=AtMost(amount=0),
    )


def cells(row: Row) -> Iterator[tuple[str, str]]:
    """Write a row's columns."""
    yield "BURST", "not in time" if row.burst is None else f"{row.burst:.1f} s"
    yield "KILLED BY THEN", "?" if row.by_then is None else str(row.by_then)
    yield "WORK DONE", f"{row.work} MiB"
    yield "UNMET", f"{row.unmet} MiB·s"
    yield "TURNS", "-" if row.turns is None else str(row.turns)
    yield from losses(row.kills, row.lost, row.swapped)


LOAD: Final = Load(name="squeeze", full=FULL, quick=QUICK, play=play, cells=cells, figures=figures)
