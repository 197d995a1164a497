"""An agent that starts on a host which thrashes already, and shares the limit that is too low.

Theory of operation:
    Three guests write to all of their memory ten times a second, three have read much once. It is
    too much for the limit together, so the host swaps all the time, and whatever shares the limit
    waits for its own pages: also the agent, as on a host whose memory is short as a whole. It
    starts then, and everything is well when the host swaps no more: the caches had to go.
    In the row `outside` the agent does not share the limit.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from qmpmem.units import MIB
from tests.bench import limits
from tests.bench.host import Host, Machine, Room, hosted
from tests.bench.load import Load, Played, ours
from tests.bench.stacks import (
    MINIMUM,
    MOM,
    OURS,
    OUTSIDE,
    PROXMOX,
    REPORTING,
    Stack,
)
from tests.bench.table import AtMost, Figure, losses

CALM: Final = 0.5
"""MiB/s that a host reads back from swap where nothing waits for it."""
CALMS: Final = 5
"""Seconds for which it has to be calm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    limit: int = 1350
    busy: int = 3
    writes: int = 200
    idle: int = 3
    cache: int = 340
    ahead: float = 10.0
    """Seconds that the host thrashes before the agent starts."""
    seconds: int = 75
    """From then on."""


FULL: Final = Size()
QUICK: Final = Size(limit=330, busy=1, writes=120, idle=1, cache=150, ahead=2.0, seconds=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the agent did, and what became of the guests."""

    calm: int | None
    """Seconds until the host was calm; None: not in time."""
    rounds: float | None
    """Of the agent, a second; None: no agent runs."""
    longest: float | None
    """Seconds between two of its rounds, at the most."""
    commands: int | None
    waited: float
    """Seconds that the busy guests waited for memory, in sum."""
    kills: int | None
    """By the guests' kernels; None: a guest does not say."""
    lost: int
    """Guests that the host's kernel killed."""
    swapped: int
    """MiB that the host swapped in."""


def play(stack: Stack, size: Size) -> Row:
    """Measure one row."""
    room = Room(limit=size.limit, swap=size.limit, is_watched=True)
    with hosted(stack, room) as host:
        # No policy has done anything before: also the row at minimum tells it now.
        guests = host.boot(
            (Machine(name=f"g{number}") for number in range(size.busy + size.idle)), is_met=False
        )
        busy, idle = guests[: size.busy], guests[size.busy :]
        for guest in idle:
            guest.do(f"eat cache {size.cache}")
        for guest in busy:
            guest.do(f"eat churn {size.writes}")
        host.sleep(size.ahead)
        before, waited = limits.swapped_in(), sum(guest.stalled() for guest in busy)
        host.look_after(inside=stack is not OUTSIDE)
        for guest in guests:
            host.meet(guest)
        calm = _until_calm(host, size.seconds)
        report = host.report()
        return Row(
            calm=calm,
            rounds=None if report is None else report.rounds / size.seconds,
            longest=None if report is None else report.longest,
            commands=None if report is None else report.commands,
            waited=sum(guest.stalled() for guest in busy) - waited,
            kills=host.kills(),
            lost=host.lost(),
            swapped=(limits.swapped_in() - before) // MIB,
        )


def _until_calm(host: Host, seconds: int) -> int | None:
    """Watch the host for so long; return the seconds until it was calm, None: it was not."""
    began, last, calm = time.monotonic(), limits.swapped_in(), seconds
    for second in range(seconds):
        host.sleep_until(began + second + 1)
        now = limits.swapped_in()
        if now - last > CALM * MIB:
            calm = seconds
        elif calm == seconds:
            calm = second
        last = now
    return calm if calm <= seconds - CALMS else None


def figures(played: Sequence[Played[Row]]) -> Iterator[Figure]:
    """Return whether the agent does its work on such a host."""
    mine = ours(played)
    if mine is None:
        return
    calm = None if mine.calm is None else float(mine.calm)
    yield Figure(what="thrash: until the host is calm", unit="s", ours=calm, goal=AtMost(amount=30))
    yield Figure(
        what="thrash: longest between two rounds",
        unit="s",
        ours=mine.longest,
        goal=AtMost(amount=3),
    )
    kills = None if mine.kills is None else float(mine.kills + mine.lost)
    yield Figure(what="thrash: killed", unit="", ours=kills, goal=AtMost(amount=0))


def cells(row: Row) -> Iterator[tuple[str, str]]:
    """Write a row's columns."""
    yield "CALM AFTER", "not in time" if row.calm is None else f"{row.calm} s"
    yield "ROUNDS", "-" if row.rounds is None else f"{row.rounds:.1f}/s"
    yield "LONGEST ROUND", "-" if row.longest is None else f"{row.longest:.1f} s"
    yield "COMMANDS", "-" if row.commands is None else str(row.commands)
    yield "BUSY WAITED", f"{row.waited:.0f} s"
    yield from losses(row.kills, row.lost, row.swapped)


LOAD: Final = Load(
    name="thrash",
    full=FULL,
    quick=QUICK,
    play=play,
    cells=cells,
    figures=figures,
    stacks=(OURS, OUTSIDE, MINIMUM, PROXMOX, MOM, REPORTING),
)
