"""Many guests that start at once, as after a power cut.

Theory of operation:
    All of them boot at the same time; each begins its work when it is up. Booting takes more
    memory than the work that follows, so what counts is how soon a policy has it back, and takes
    nothing from a guest that needs it to boot. The host's kernel says how long each guest's
    processes waited for memory (cgroup v2, memory.pressure): what an emulated guest waits for a
    processor is no stall. The agent has a new guest's grace as by default.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from launchers.guest import channel
from launchers.guest.errors import ChannelError
from qmpmem.model.config import Config
from qmpmem.units import MIB
from tests.bench import limits
from tests.bench.host import Guest, Host, Machine, Room, hosted
from tests.bench.load import Load, Played, others, ours
from tests.bench.stacks import Stack
from tests.bench.table import AtMost, AtMostTimes, Figure, losses

LOOK: Final = 0.5
"""Seconds between two looks at what guests wait for."""
MOSTLY: Final = 0.8
"""Of the time between two looks that a stalled guest waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    guests: int = 40
    memory: int = 256
    share: int = 165
    """Of the limit, for each guest: a guest that works has some 150 in use, with QEMU's own."""
    works: int = 40
    late: float = 150.0
    """Seconds after which a guest is not waited for any more."""
    after: float = 15.0
    """Seconds in which they work, when the last has begun."""


FULL: Final = Size()
QUICK: Final = Size(guests=4, after=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the guests under one policy."""

    guests: int
    work: int
    """Guests that were up and had their memory in time."""
    last: float | None
    """Seconds from the start until the last had it; None: one had not."""
    stalled: float
    """Seconds that a guest stood still for want of memory, at the most."""
    waited: float
    """Seconds that all guests waited for memory, in sum."""
    kills: int | None
    """By the guests' kernels; None: a guest does not say."""
    lost: int
    """Guests that the host's kernel killed."""
    swapped: int
    """MiB that the host swapped in."""


def play(stack: Stack, size: Size) -> Row:
    """Measure one row."""
    limit = size.guests * size.share
    with hosted(stack, Room(limit=limit, grace=Config().grace, is_watched=True)) as host:
        host.look_after()
        before = limits.swapped_in()
        began = time.monotonic()
        guests = host.start(
            Machine(name=f"g{number}", memory=size.memory) for number in range(size.guests)
        )
        watching = host.submit(partial(_longest_stall, host))
        took = host.together([partial(_begin, host, guest, size, began) for guest in guests])
        host.sleep(size.after)
        known = [seconds for seconds in took if seconds is not None]
        kills, lost, swapped = host.kills(), host.lost(), limits.swapped_in() - before
        waited = sum(guest.stalled() for guest in guests)
        host.over.set()
        return Row(
            guests=size.guests,
            work=len(known),
            last=max(known) if len(known) == size.guests else None,
            stalled=watching.result(),
            waited=waited,
            kills=kills,
            lost=lost,
            swapped=swapped // MIB,
        )


def _begin(host: Host, guest: Guest, size: Size, began: float) -> float | None:
    """Give a guest its work when it is up; return the seconds that took, None: too long."""
    try:
        channel.wait(guest.running.channel, seconds=size.late, alive=lambda: guest.is_alive)
        host.meet(guest)
    except (ChannelError, OSError, AssertionError):
        return None
    left = size.late - (time.monotonic() - began)
    took = guest.take(f"eat random {size.works}", max(1.0, left))
    return None if took is None else time.monotonic() - began


def _longest_stall(host: Host) -> float:
    """Watch the guests until the row is over; return the longest that one stood still."""
    longest, last = 0.0, time.monotonic()
    total = {guest.name: guest.stalled() for guest in host.guests}
    stands = dict.fromkeys(total, 0.0)
    while not host.over.is_set():
        host.sleep(LOOK)
        now = time.monotonic()
        for guest in host.guests:
            waited = guest.stalled() - total[guest.name]
            is_still = waited >= MOSTLY * (now - last)
            stands[guest.name] = stands[guest.name] + waited if is_still else 0.0
            total[guest.name] += waited
            longest = max(longest, stands[guest.name])
        last = now
    return longest


def figures(played: Sequence[Played[Row]]) -> Iterator[Figure]:
    """Return whether any guest suffered, and how long it took beside the fastest other."""
    mine = ours(played)
    if mine is None:
        return
    kills = None if mine.kills is None else float(mine.kills + mine.lost)
    yield Figure(what="storm: killed", unit="", ours=kills, goal=AtMost(amount=0))
    yield Figure(what="storm: longest stall", unit="s", ours=mine.stalled, goal=AtMost(amount=5))
    in_time = [row.last for row in others(played) if row.last is not None and not row.kills]
    yield Figure(
        what="storm: until all work, beside the fastest other without kills",
        unit="s",
        ours=mine.last,
        reference=min(in_time, default=None),
        goal=AtMostTimes(factor=1.1),
    )


def cells(row: Row) -> Iterator[tuple[str, str]]:
    """Write a row's columns."""
    yield "WORK", f"{row.work} of {row.guests}"
    yield "LAST AFTER", "never" if row.last is None else f"{row.last:.0f} s"
    yield "LONGEST STALL", f"{row.stalled:.1f} s"
    yield "WAITED IN SUM", f"{row.waited:.0f} s"
    yield from losses(row.kills, row.lost, row.swapped)


LOAD: Final = Load(name="storm", full=FULL, quick=QUICK, play=play, cells=cells, figures=figures)
