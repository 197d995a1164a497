"""How many guests fit under a limit before one of them suffers, by each policy.

Theory of operation:
    One guest after the other is started. Each works with some memory all the time, has read some
    files once, and now and then does a little more (a beat). The first beat that takes a second
    longer than with two guests, or that a kernel kills for, ends it: a guest that waits so long
    for so little spends more than 1 % of its time in distress. What QEMU waited for a processor is
    no such time: no policy changes it. Limit, swap and balloons are those of `squeeze`.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.host import Guest, Host, Machine, Room, hosted
from tests.bench.load import Load, Played, others, ours
from tests.bench.stacks import Stack
from tests.bench.table import AtLeastTimes, Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    limit: int = 2000
    most: int = 16
    works: int = 60
    cache: int = 200
    """Half of what is left to it: a guest that reads files fills all of it sooner or later."""
    beat: int = 30
    rest: float = 10.0
    """Seconds between two guests: in each of them a beat for every guest."""
    late: float = 1.0
    """Seconds more than usual that a beat may take."""


FULL: Final = Size()
QUICK: Final = Size(limit=1000, most=3, cache=100, rest=3.0)

PATIENCE: Final = 60.0
ALONE: Final = 2
"""Guests whose beats are as they are with no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How far one policy came."""

    guests: int
    """That were there and well."""
    why: str
    """What ended it."""


def play(stack: Stack, size: Size) -> Row:
    """Measure one row."""
    with hosted(stack, Room(limit=size.limit)) as host:
        host.look_after()
        usual = 0.0
        for number in range(size.most):
            why = _add(host, size, number) or _beats(host, size, usual)
            if number < ALONE:
                usual = max(usual, _slowest(host.guests, size))
            elif why is not None:
                return Row(guests=number, why=why)
        return Row(guests=size.most, why="no more were started")


def _add(host: Host, size: Size, number: int) -> str | None:
    """Start a guest and give it its work; return what went wrong."""
    try:
        [guest] = host.boot([Machine(name=f"g{number}")])
    except AssertionError:
        return "the new guest did not boot"
    began = time.monotonic()
    if guest.take(f"eat random {size.works} && eat cache {size.cache}", PATIENCE) is not None:
        return None
    if not guest.is_alive:
        return "the host's kernel killed the new guest"
    if time.monotonic() - began < PATIENCE:
        return "the new guest's kernel killed"
    return f"the new guest had not started its work after {PATIENCE:.0f} s"


def _beats(host: Host, size: Size, usual: float) -> str | None:
    """Have all guests beat, after a rest; return what went wrong."""
    host.sleep(size.rest)
    took = _slowest(host.guests, size)
    if host.lost():
        return "the host's kernel killed a guest"
    if took - usual > size.late:
        return f"a beat took {took:.1f} s instead of {usual:.1f}"
    kills = host.kills()
    if kills is None:
        return "a guest did not answer any more"
    return f"{kills} killed by guests' kernels" if kills else None


def _slowest(guests: Sequence[Guest], size: Size) -> float:
    """Have all guests beat; return the seconds that the slowest took, `PATIENCE` at the most.

    Without those in which its QEMU waited for a processor.
    """
    return max(_beat(guest, size) for guest in guests)


def _beat(guest: Guest, size: Size) -> float:
    queued = guest.queued()
    took = guest.take(f"head -c {size.beat}M /dev/zero >/tmp/beat; rm /tmp/beat", PATIENCE)
    return PATIENCE if took is None else took - max(0.0, guest.queued() - queued)


def figures(played: Sequence[Played[Row]]) -> Iterator[Figure]:
    """Return how ours did beside the best of the others."""
    mine, rest = ours(played), others(played)
    if mine is not None and rest:
        yield Figure(
            what="packing: guests that are well",
            unit="",
            ours=float(mine.guests),
            reference=float(max(row.guests for row in rest)),
            goal=AtLeastTimes(factor=1),
        )


def cells(row: Row) -> Iterator[tuple[str, str]]:
    """Write a row's columns."""
    yield "GUESTS", str(row.guests)
    yield "THEN", row.why


LOAD: Final = Load(name="packing", full=FULL, quick=QUICK, play=play, cells=cells, figures=figures)
