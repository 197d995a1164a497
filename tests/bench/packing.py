"""How many guests fit under a limit before one of them suffers, by each policy.

Theory of operation:
    One guest after the other is started. Each works with some memory all the time, has read some
    files once, and now and then does a little more (a beat). The first beat that takes a second
    longer than with two guests, or that a kernel kills for, ends it: who waits so long for so
    little spends more than 1 % of its time in distress. Limit, swap and balloons are those of
    `squeeze`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from launchers.guest.errors import ChannelError
from qmpmem.units import MIB
from tests.bench import limits, squeeze
from tests.bench.table import AtLeastTimes, Figure
from tests.rig.guests import RunningGuest
from tests.rig.qemu import short_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Sizes in MiB."""

    base: squeeze.Size = squeeze.FULL
    most: int = 16
    works: int = 60
    cache: int = 200
    """Half of what is left to it: who reads files fills all of it sooner or later."""
    beat: int = 30
    rest: float = 10.0
    """Seconds between two guests: in each of them a beat for everybody."""


FULL: Final = Size()
QUICK: Final = Size(base=replace(squeeze.QUICK, guests=4), most=3, cache=100, rest=3.0)

LATE: Final = 1.0
"""Seconds."""
PATIENCE: Final = 60.0
ALONE: Final = 2
"""Guests whose beats are as they are with nobody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How far one policy came."""

    policy: str
    guests: int
    """That were there and well."""
    why: str
    """What ended it."""


def measure(
    size: Size, say: Callable[[str], None], policies: Sequence[str] = squeeze.POLICIES
) -> Iterator[Row]:
    """Measure one policy after the other, and say at once how it went."""
    limits.remove_left()
    for policy in policies:
        row = _play(policy, size)
        say(f"packing: {policy}: {row.guests} guests, then {row.why}")
        yield row


def figures(rows: Sequence[Row]) -> Iterator[Figure]:
    """Say how ours did beside the best of the others."""
    ours = next((row for row in rows if row.policy == "ours"), None)
    others = [row.guests for row in rows if row.policy != "ours"]
    if ours is not None and others:
        yield Figure(
            what="packing: guests that are well",
            unit="",
            ours=float(ours.guests),
            reference=float(max(others)),
            goal=AtLeastTimes(factor=1.3),
        )


HEADERS: Final = ("POLICY", "GUESTS", "THEN")


def lines(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """The rows of the table under `HEADERS`."""
    for row in rows:
        yield row.policy, str(row.guests), row.why


def _play(policy: str, size: Size) -> Row:
    base = size.base
    with short_directory() as run, ExitStack() as stack:
        group = stack.enter_context(limits.limited(base.guests * base.share * MIB))
        stack.enter_context(limits.swapped(base.guests * base.share * MIB // 4, limits.SLOW))
        stack.enter_context(squeeze.agent_of(run, group, policy, base))
        guests: list[RunningGuest] = []
        usual = 0.0
        for number in range(size.most):
            guest = stack.enter_context(squeeze.guest_in(run, group, number, policy, base))
            guests.append(guest)
            why = _start(guest, size) or _beats(guests, size, usual)
            if len(guests) <= ALONE:
                usual = max(usual, _slowest(guests, size))
            elif why is not None:
                return Row(policy=policy, guests=number, why=why)
        return Row(policy=policy, guests=size.most, why="no more were started")


def _start(guest: RunningGuest, size: Size) -> str | None:
    """Give a guest its work; says what went wrong."""
    try:
        code, _ = guest.execute(f"eat random {size.works} && eat cache {size.cache}", PATIENCE)
    except ChannelError:
        if squeeze.lost([guest]):
            return "the host's kernel killed the new guest"
        return f"the new guest had not started its work after {PATIENCE:.0f} s"
    return None if code == 0 else "the new guest's kernel killed"


def _beats(guests: Sequence[RunningGuest], size: Size, usual: float) -> str | None:
    """Have all guests beat, after a rest; says what went wrong."""
    time.sleep(size.rest)
    took = _slowest(guests, size)
    if squeeze.lost(guests):
        return "the host's kernel killed a guest"
    if took - usual > LATE:
        return f"a beat took {took:.1f} s instead of {usual:.1f}"
    kills = squeeze.all_kills(guests)
    if kills is None:
        return "a guest did not answer any more"
    return f"{kills} killed by guests' kernels" if kills else None


def _slowest(guests: Sequence[RunningGuest], size: Size) -> float:
    """Have all guests beat; gives the seconds that the slowest took, `PATIENCE` at the most."""
    return max(_beat(guest, size) for guest in guests)


def _beat(guest: RunningGuest, size: Size) -> float:
    began = time.monotonic()
    try:
        guest.execute(f"head -c {size.beat}M /dev/zero >/tmp/beat; rm /tmp/beat", PATIENCE)
    except ChannelError:
        return PATIENCE
    return time.monotonic() - began
