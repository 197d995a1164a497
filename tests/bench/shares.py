"""Two equal guests with shares 1:4 on a host with half of the memory they would use.

Theory of operation:
    The experiment of Waldspurger, Memory Resource Management in VMware ESX Server (OSDI 2002,
    figure 6): what shares are worth is the work that guests get done. Each guest writes a word
    anywhere in its working set, again and again, and swaps on a disk of its own what does not fit,
    so memory is work. The guest with few shares is there first, and has taken what there is. The
    host has swap enough for both, so that it need not end one of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from qmpmem.model.config import Rule
from qmpmem.units import MIB, Bytes
from tests.bench import disks, limits, working
from tests.bench.disks import Speed
from tests.bench.host import Guest, Host, Machine, Room, hosted
from tests.bench.load import Load, Played, others, ours
from tests.bench.stacks import Stack
from tests.bench.table import AtLeast, AtLeastTimes, Figure, losses
from tests.bench.working import Pace, Span

SHARES: Final = {"few": 1000, "many": 4000}


SPAN: Final = Span(before=40, counted=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    limit: int = 580
    """Half of what both were started with, and what QEMU itself needs."""
    touches: int = 300
    """Each guest's working set."""
    swap: int = 400
    ahead: int = 20
    """Seconds that the guest with few shares works before the other begins."""
    span: Span = SPAN
    think: int = 200
    """Microseconds between two writes."""


DISK: Final = Speed(operations=200, rate=20)
FULL: Final = Size()
QUICK: Final = Size(limit=500, touches=100, ahead=2, span=Span(before=2, counted=4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the two guests got done in the same time."""

    few: Pace | None
    many: Pace | None
    """None: the guest ended, or its kernel killed the work."""
    ratio: float | None
    kills: int | None
    lost: int
    swapped: int
    """MiB that the host swapped in."""


def play(stack: Stack, size: Size) -> Row:
    """Measure one row."""
    rules = tuple(
        Rule(match=name, shares=shares, minimum=Bytes(96 * MIB)) for name, shares in SHARES.items()
    )
    with hosted(stack, Room(limit=size.limit, swap=size.limit, rules=rules)) as host:
        few, many = host.boot(
            Machine(name=name, extra=disks.made(host, size.swap, is_blank=True)) for name in SHARES
        )
        for guest in (few, many):
            disks.swap_on(guest)
            disks.slow_down(guest, DISK)
        host.look_after()
        before = limits.swapped_in()
        first, second = _work(host, few, many, size)
        return Row(
            few=first,
            many=second,
            ratio=second.rate / first.rate if first and second and first.rate else None,
            kills=host.kills(),
            lost=host.lost(),
            swapped=(limits.swapped_in() - before) // MIB,
        )


def _work(host: Host, few: Guest, many: Guest, size: Size) -> tuple[Pace | None, Pace | None]:
    span = size.span
    longer = Span(before=span.before + size.ahead, counted=span.counted)
    first = host.submit(partial(working.use, few, "touches", size.touches, longer, size.think))
    host.sleep(size.ahead)
    second = working.use(many, "touches", size.touches, span, size.think)
    return first.result(), second


def figures(played: Sequence[Played[Row]]) -> Iterator[Figure]:
    """Return what four times the shares are worth, and the work of both beside the best other."""
    mine, rest = ours(played), others(played)
    if mine is None:
        return
    yield Figure(
        what="shares 1:4: work done, times",
        unit="",
        ours=mine.ratio,
        reference=max((row.ratio for row in rest if row.ratio is not None), default=None),
        goal=AtLeast(amount=2),
    )
    yield Figure(
        what="shares 1:4: work of both",
        unit="/s",
        ours=_sum(mine),
        reference=max(map(_sum, rest), default=None),
        goal=AtLeastTimes(factor=0.9),
    )


def _sum(row: Row) -> float:
    return sum(pace.rate for pace in (row.few, row.many) if pace is not None)


def cells(row: Row) -> Iterator[tuple[str, str]]:
    """Write a row's columns."""
    for name, pace in (("FEW SHARES", row.few), ("MANY SHARES", row.many)):
        rate, _, p99 = working.written(pace)
        yield name, f"{rate}, p99 {p99}"
    yield "RATIO", "?" if row.ratio is None else f"{row.ratio:.2f}"
    yield from losses(row.kills, row.lost, row.swapped)


LOAD: Final = Load(name="shares", full=FULL, quick=QUICK, play=play, cells=cells, figures=figures)
