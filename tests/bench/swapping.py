"""The course of `squeeze` with guests that swap: on a disk of their own, or into zram.

Theory of operation:
    A guest with swap does not run out of memory when its balloon is too large: it swaps, and no
    balloon deflates for that. So what looks like a fast way out in `squeeze` is none here. What
    the jobs touch compresses to a half, as zram is made for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tests.bench import disks, squeeze
from tests.bench.disks import Speed
from tests.bench.host import Guest, Host, Machine, Room, hosted
from tests.bench.jobs import Jobs
from tests.bench.load import Load, Played
from tests.bench.stacks import Stack
from tests.bench.table import Figure

Medium = Literal["disk", "zram"]

BASE: Final = squeeze.Size(
    guests=6,
    share=240,
    cache=340,
    settle=20.0,
    burst=280,
    late=30.0,
    jobs=Jobs(count=9, kind="half", touches=230, reads=80, every=8.0, lasts=16.0),
)
QUICK: Final = squeeze.Size(
    guests=3,
    cache=100,
    settle=3.0,
    burst=150,
    jobs=Jobs(count=2, kind="half", touches=100, reads=30, every=4.0, lasts=8.0),
)
DISK: Final = Speed(operations=500, rate=20)
"""A cheap volume in a cloud."""
PAGE: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    base: squeeze.Size = BASE
    medium: Medium
    swap: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the guests under one policy."""

    base: squeeze.Row
    guest_swapped: int | None
    """MiB that the guests swapped in; None: one does not say, or is gone."""


def play(stack: Stack, size: Size) -> Row:
    """Measure one row."""
    base = size.base
    with hosted(stack, Room(limit=base.guests * base.share)) as host:
        guests = host.boot(_machine(host, number, size) for number in range(base.guests))
        for guest in guests:
            if size.medium == "disk":
                disks.swap_on(guest)
                disks.slow_down(guest, DISK)
            else:
                disks.swap_compressed(guest, size.swap)
        host.look_after()
        for guest in guests[1:4]:
            guest.do(f"eat cache {base.cache}")
        host.sleep(base.settle)
        row = squeeze.course(host, base)
        return Row(base=row, guest_swapped=_swapped_in(guests))


def _machine(host: Host, number: int, size: Size) -> Machine:
    disk = disks.made(host, size.swap, is_blank=True) if size.medium == "disk" else ()
    return Machine(name=f"g{number}", extra=disk)


def _swapped_in(guests: Sequence[Guest]) -> int | None:
    counts = [guest.say("grep '^pswpin ' /proc/vmstat", 30.0) for guest in guests]
    known = [int(said.split()[1]) for said in counts if said is not None]
    return sum(known) * PAGE >> 20 if len(known) == len(counts) else None


def figures(played: Sequence[Played[Row]]) -> Iterator[Figure]:
    """Return how ours did beside the best of the others, as of `squeeze`."""
    return squeeze.figures([Played(stack=each.stack, row=each.row.base) for each in played])


def cells(row: Row) -> Iterator[tuple[str, str]]:
    """Write a row's columns."""
    yield from squeeze.cells(row.base)
    yield "GUEST SWAP-IN", "?" if row.guest_swapped is None else f"{row.guest_swapped} MiB"


def _load(name: str, medium: Medium) -> Load[Size, Row]:
    return Load(
        name=name,
        full=Size(medium=medium),
        quick=Size(base=QUICK, medium=medium),
        play=play,
        cells=cells,
        figures=figures,
    )


LOADS: Final = (_load("swapping", "disk"), _load("zram", "zram"))
