"""Guests that are reset, and stopped and continued, on a host that is nearly full.

Theory of operation:
    All guests are reset at once, again and again. Each then needs what it needed before, at once:
    the policy has it ready, or takes it from others that boot as well. QEMU remembers the target of
    a balloon over a reset, so a guest that was small is squeezed again while it boots. Stopping and
    continuing changes nothing in a guest; what it needs a moment later it needs as at any time.
    Sizes are asked for twice a second meanwhile.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from qmpmem.model.config import Config
from qmpmem.units import MIB
from tests.bench import limits
from tests.bench.host import Guest, Host, Machine, Room, hosted
from tests.bench.load import Load, Played, ours
from tests.bench.policed import Summary
from tests.bench.stacks import OURS, Stack
from tests.bench.table import AtLeastTimes, AtMost, Figure, losses

T = TypeVar("T")

OLD: Final = "/tmp/.old"
"""A file that no boot outlives."""
FREE: Final = """eat status | awk '$2 == "half" { print $1 }' | xargs -r kill -9"""
LONGEST: Final = 30.0
"""Seconds that what is needed at once is waited for."""
BOOTS: Final = 60.0
"""Seconds that a boot is waited for."""
NEAR: Final = 0.95
"""Of its maximum that a guest of full size has."""
LOOK: Final = 0.5
"""Seconds between two looks at the sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    limit: int = 900
    guests: int = 5
    memory: int = 512
    holds: int = 60
    """Each, all the time, also after a reset."""
    needs: int = 40
    """Each, for a moment after it was stopped and continued."""
    at_once: float = 5.0
    """Seconds that are at once, where nothing needs to be waited for: it takes one or two."""
    settle: float = 20.0
    resets: int = 4
    """Of all guests."""
    stops: int = 4


FULL: Final = Size()
QUICK: Final = Size(limit=600, guests=2, settle=2.0, resets=1, stops=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the guests under one policy."""

    resets: int
    served: int
    """Resets after which the guest had what it needs at once."""
    full: int
    """Resets after which it had its full size when it was up."""
    slowest: float | None
    """Seconds from the reset until the last guest had what it needs; None: one never had."""
    stops: int
    continued: int
    """Stops after which the guest had what it needs at once."""
    below: float
    """Seconds that a guest was below its minimum, at the most."""
    critical: float | None
    """Percent of the rounds in which the host was in CRITICAL, by our agent; None: another's."""
    kills: int | None
    lost: int
    swapped: int
    """MiB that the host swapped in."""


def play(stack: Stack, size: Size) -> Row:
    """Measure one row."""
    # Guests boot in what is measured. What one had before a reset is the host's only when the new
    # kernel has reported it free, so for a moment they hold more than they ever will.
    room = Room(limit=size.limit, swap=size.limit, grace=Config().grace)
    with hosted(stack, room) as host:
        guests = host.boot(
            Machine(name=f"g{number}", memory=size.memory) for number in range(size.guests)
        )
        host.look_after()
        for guest in guests:
            guest.do(f"eat random {size.holds}")
        host.sleep(size.settle)
        before = limits.swapped_in()
        looking = host.submit(partial(_below, host, room.minimum))
        booted = _each(host, partial(_reset, size=size), size.resets)
        continued = _each(host, partial(_stop, host, size=size), size.stops)
        report = host.report()
        kills, lost, swapped = host.kills(), host.lost(), limits.swapped_in() - before
        host.over.set()
        took = [boot.seconds for boot in booted]
        known = [seconds for seconds in took if seconds is not None]
        return Row(
            resets=len(booted),
            served=sum(boot.is_served for boot in booted),
            full=sum(boot.is_full for boot in booted),
            slowest=max(known, default=None) if len(known) == len(took) else None,
            stops=len(continued),
            continued=sum(continued),
            below=looking.result(),
            critical=_critical(report) if stack is OURS else None,
            kills=kills,
            lost=lost,
            swapped=swapped // MIB,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boot:
    """What came of a reset."""

    is_served: bool = False
    is_full: bool = False
    seconds: float | None = None
    """From the reset until the guest had what it needs."""


def _critical(report: Summary | None) -> float | None:
    return None if report is None else report.states.get("CRITICAL", 0.0)


def _each(host: Host, action: Callable[[Guest], T], times: int) -> list[T]:
    """Do something with all guests at once, so many times one after the other."""
    return [
        result
        for _ in range(times)
        for result in host.together([partial(action, guest) for guest in host.guests])
    ]


def _reset(guest: Guest, size: Size) -> _Boot:
    guest.say(f"touch {OLD}", LONGEST)
    began = time.monotonic()
    try:
        guest.ask("system_reset")
    except OSError:
        return _Boot()
    while guest.say(f"[ ! -e {OLD} ]", LONGEST) is None:
        if time.monotonic() - began > BOOTS or not guest.is_alive:
            return _Boot()
    is_full = (guest.actual() or 0) >= NEAR * size.memory * MIB
    took = guest.take(f"eat random {size.holds}", LONGEST)
    return _Boot(
        is_served=took is not None and took <= size.at_once,
        is_full=is_full,
        seconds=None if took is None else time.monotonic() - began,
    )


def _stop(host: Host, guest: Guest, size: Size) -> bool:
    """Return whether the guest had what it needs when it went on."""
    try:
        guest.ask("stop")
        host.sleep(1)
        guest.ask("cont")
    except OSError:
        return False
    took = guest.take(f"eat half {size.needs}", LONGEST)
    guest.do(FREE)
    return took is not None and took <= size.at_once


def _below(host: Host, minimum: int) -> float:
    """Look at the sizes until the row is over; return the seconds that one was below so many MiB.

    A size that is a mebibyte less is the minimum: drivers round.
    """
    seconds = dict.fromkeys((guest.name for guest in host.guests), 0.0)
    while not host.over.is_set():
        for guest in host.guests:
            actual = guest.actual()
            if actual is not None and actual < (minimum - 1) * MIB:
                seconds[guest.name] += LOOK
        host.sleep(LOOK)
    return max(seconds.values())


def figures(played: Sequence[Played[Row]]) -> Iterator[Figure]:
    """Return whether guests had what they need when they were up, and when they went on."""
    mine = ours(played)
    if mine is None:
        return
    for what, count, all_of_them in (
        ("reboots: have at once what they need", mine.served, mine.resets),
        ("stop and cont: likewise", mine.continued, mine.stops),
    ):
        yield Figure(
            what=what,
            unit="",
            ours=float(count),
            reference=float(all_of_them),
            goal=AtLeastTimes(factor=1),
        )
    yield Figure(
        what="reboots: below its minimum", unit="s", ours=mine.below, goal=AtMost(amount=1)
    )
    kills = None if mine.kills is None else float(mine.kills + mine.lost)
    yield Figure(what="reboots: killed", unit="", ours=kills, goal=AtMost(amount=0))


def cells(row: Row) -> Iterator[tuple[str, str]]:
    """Write a row's columns."""
    yield "RESETS SERVED", f"{row.served} of {row.resets}"
    yield "AT FULL SIZE", str(row.full)
    yield "SLOWEST", "never" if row.slowest is None else f"{row.slowest:.1f} s"
    yield "STOPS SERVED", f"{row.continued} of {row.stops}"
    yield "BELOW MINIMUM", f"{row.below:.1f} s"
    yield "CRITICAL", "-" if row.critical is None else f"{row.critical:.0f} %"
    yield from losses(row.kills, row.lost, row.swapped)


LOAD: Final = Load(name="reboots", full=FULL, quick=QUICK, play=play, cells=cells, figures=figures)
