"""A database that lives off the page cache, beside guests that need memory in turn.

Theory of operation:
    One guest reads a working set again and again from a disk that is as slow as disks are: what
    the kernel's page cache holds takes microseconds, the rest milliseconds. The working set is in
    the cache when it begins. Six other guests have jobs in turn, two at a time, and read files
    for them that no guest reads again. There is just enough for what is of use: the caches of
    those files have to go, and that of the database has to stay.
    The yardstick is the same on a host with twice the memory, where no memory is moved.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from qmpmem.units import MIB
from tests.bench import disks, jobs, limits, working
from tests.bench.disks import Speed
from tests.bench.host import Guest, Host, Machine, Room, hosted
from tests.bench.jobs import Done, Jobs
from tests.bench.load import Load, Played, others, ours
from tests.bench.stacks import DOUBLE, STACKS, Stack
from tests.bench.table import AtLeastTimes, AtMostTimes, Figure, losses
from tests.bench.working import Pace, Span

DISK: Final = Speed(operations=100, rate=20)
"""A hard disk's; a cheap volume in a cloud has some more."""
JOBS: Final = Jobs(count=7, touches=250, reads=100, every=8.0, lasts=16.0)
"""What they read is read once, and stays cached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    limit: int = 1900
    """The database has some 110 in use beside its cache, and so has each of the others, with what
    QEMU needs: with two jobs that is 1780. The rest is for an agent's reserve."""
    others: int = 6
    reads: int = 300
    """The database's working set."""
    disk: Speed = DISK
    think: int = 1000
    """Microseconds between two reads."""
    settle: int = 15
    """Seconds from the first read to the first job."""
    jobs: Jobs = JOBS


FULL: Final = Size()
QUICK: Final = Size(
    limit=700,
    others=2,
    reads=60,
    settle=3,
    jobs=Jobs(count=2, touches=150, reads=20, every=4.0, lasts=8.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the database and of the others."""

    database: Pace | None
    """While the others had their jobs; None: it ended, or its kernel killed it."""
    work: int
    """MiB that jobs had while they lasted."""
    unmet: int
    """MiB·s that they were short of."""
    kills: int | None
    """By the guests' kernels; None: a guest does not say."""
    lost: int
    """Guests that the host's kernel killed."""
    swapped: int
    """MiB that the host swapped in."""


def play(stack: Stack, size: Size) -> Row:
    """Measure one row."""
    with hosted(stack, Room(limit=size.limit)) as host:
        disk = disks.made(host, size.reads)
        rest = [Machine(name=f"g{number}") for number in range(size.others)]
        database, *guests = host.boot([Machine(name="database", extra=disk), *rest])
        host.look_after()
        _warm(database, size)
        before = limits.swapped_in()
        pace, done = _measure(host, database, guests, size)
        return Row(
            database=pace,
            work=done.work,
            unmet=done.unmet,
            kills=host.kills(),
            lost=host.lost(),
            swapped=(limits.swapped_in() - before) // MIB,
        )


def _warm(database: Guest, size: Size) -> None:
    """Read the working set once, fast; the cache stays while a process has the disk open."""
    keep = "setsid sleep 100000 </dev/vda >/dev/null 2>&1 &"
    read = f"dd if=/dev/vda of=/dev/null bs=1M count={size.reads}"
    database.do(f"modprobe virtio_blk; {keep} {read}")
    disks.slow_down(database, size.disk)


def _measure(
    host: Host, database: Guest, guests: Sequence[Guest], size: Size
) -> tuple[Pace | None, Done]:
    counted = int(size.jobs.every * (size.jobs.count - 1) + size.jobs.lasts)
    span = Span(before=size.settle, counted=counted)
    reading = host.submit(
        partial(working.use, database, "reads /dev/vda", size.reads, span, size.think)
    )
    host.sleep(size.settle)
    done = jobs.run(host, guests, size.jobs)
    return reading.result(), done


def figures(played: Sequence[Played[Row]]) -> Iterator[Figure]:
    """Return how the database did beside the yardstick, and both beside the best of the others."""
    mine = ours(played)
    if mine is None:
        return
    yardstick = next((each.row for each in played if each.stack is DOUBLE), None)
    # Memory that guests were lost for is no help.
    rest = [row for row in others(played) if not row.lost]
    yield Figure(
        what="database: beside the same with twice the memory",
        unit="/s",
        ours=_rate(mine),
        reference=None if yardstick is None else _rate(yardstick),
        goal=AtLeastTimes(factor=1 / 1.2),
    )
    yield Figure(
        what="database: beside the fastest other",
        unit="/s",
        ours=_rate(mine),
        reference=max((_rate(row) or 0.0 for row in rest), default=None),
        goal=AtLeastTimes(factor=1),
    )
    yield Figure(
        what="database: unmet of the others, beside the least",
        unit="MiB·s",
        ours=float(mine.unmet),
        reference=min((float(row.unmet) for row in rest), default=None),
        goal=AtMostTimes(factor=1.2),
    )


def _rate(row: Row) -> float | None:
    return None if row.database is None else row.database.rate


def cells(row: Row) -> Iterator[tuple[str, str]]:
    """Write a row's columns."""
    rate, median, p99 = working.written(row.database)
    yield "READS", rate
    yield "MEDIAN", median
    yield "P99", p99
    yield "OTHERS' WORK", f"{row.work} MiB"
    yield "THEIR UNMET", f"{row.unmet} MiB·s"
    yield from losses(row.kills, row.lost, row.swapped)


LOAD: Final = Load(
    name="database",
    full=FULL,
    quick=QUICK,
    play=play,
    cells=cells,
    figures=figures,
    stacks=(DOUBLE, *STACKS),
)
