"""Kinds of guests by name: what they want, and how they deal with a balloon. Seeded, so repeatable.

Rules of this file:
    A kind is one function with a line that tells what is special about it. `LOADS` are kinds that
    differ in what they want, `TRAITS` in how they behave; a trait can be had with any load.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from qmpmem.records import Record, replace
from qmpmem.simulate.loads import Bursty, Leaking, Load, Sine, Steady
from qmpmem.simulate.spec import Driver, GuestSpec, Pause, Plug, Reboot
from qmpmem.units import MIB, Bytes


class Range(Record, frozen=True):
    """Between what and what a load moves, and how often."""

    low: Bytes
    high: Bytes
    every: float = 60.0
    """Seconds from one burst to the next, or half the seconds of a sine's period or
    of a leak's rise."""
    lasts: float = 20.0
    """Seconds that a burst lasts."""
    seconds: float = 3600.0
    """Seconds over which bursts are laid out."""


def steady(span: Range, _: Random) -> Load:
    """Return a load that wants the same all the time."""
    return Steady(size=span.low)


def bursty(span: Range, random: Random) -> Load:
    """Return a load that wants little, and at times of chance much at once."""
    starts: list[float] = []
    time = random.uniform(0.2, 1.0) * span.every
    while time < span.seconds:
        starts.append(time)
        time += span.lasts + random.uniform(0.5, 1.5) * span.every
    return Bursty(low=span.low, high=span.high, starts=tuple(starts), lasts=span.lasts)


def sine(span: Range, random: Random) -> Load:
    """Return a load that wants more and less in turn, as a sine does."""
    return Sine(low=span.low, high=span.high, period=2 * span.every, phase=random.random())


def leaking(span: Range, _: Random) -> Load:
    """Return a load that wants more and more, until it is restarted at the upper end."""
    speed = (span.high - span.low) / (2 * span.every)
    return Leaking(start=span.low, speed=speed, most=span.high)


LOADS: Final[Mapping[str, Callable[[Range, Random], Load]]] = {
    "steady": steady,
    "bursty": bursty,
    "sine": sine,
    "leaking": leaking,
}


def cooperative(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest that does as it is told, and reports the truth."""
    return spec


def cache_heavy(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest that reads more files than fit, and again and again a tenth of its memory."""
    return replace(
        spec, files=Bytes(spec.memory * 2), hot_files=Bytes(spec.memory // 10), reads=400.0 * MIB
    )


def no_driver(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest that has no balloon."""
    return replace(spec, driver=None)


def stuck(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest whose balloon never moves."""
    return replace(spec, driver=Driver(inflate=0.0, deflate=0.0))


def flickering(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest whose balloon works for 1 s in 20 s, which may look like a willing guest."""
    return replace(spec, driver=Driver(period=20.0, works=1.0))


def slow(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest whose balloon moves slowly, both ways."""
    return replace(spec, driver=Driver(inflate=4.0 * MIB, deflate=16.0 * MIB))


def lies_high(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest that reports that it uses all that it has."""
    return replace(spec, reports="high")


def lies_low(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest that reports that all it has is free."""
    return replace(spec, reports="low")


def retaking(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest that takes back what it gave, unasked."""
    return replace(spec, driver=Driver(retakes=8.0 * MIB))


def keeping(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest whose balloon moves, and gives nothing back to the host."""
    return replace(spec, driver=Driver(frees=False), touches_all=True, free_page_reporting=False)


def rebooting(spec: GuestSpec, random: Random) -> GuestSpec:
    """Return a guest that is reset twice, at times of chance."""
    first = random.uniform(20, 100)
    return replace(spec, events=(Reboot(at=first), Reboot(at=first + random.uniform(30, 150))))


def plugging(spec: GuestSpec, random: Random) -> GuestSpec:
    """Return a guest into which half as much memory again is plugged while it runs."""
    return replace(
        spec, events=(Plug(at=random.uniform(20, 100), size=Bytes(_mib(spec.memory / 2))),)
    )


def pausing(spec: GuestSpec, random: Random) -> GuestSpec:
    """Return a guest that is stopped for a while."""
    return replace(spec, events=(Pause(at=random.uniform(20, 100), lasts=random.uniform(10, 60)),))


def windows(spec: GuestSpec, _: Random) -> GuestSpec:
    """Return a guest that touches all memory when it boots, and whose driver reports nothing."""
    return replace(spec, reports="none", touches_all=True, free_page_reporting=False)


TRAITS: Final[Mapping[str, Callable[[GuestSpec, Random], GuestSpec]]] = {
    "cooperative": cooperative,
    "cache-heavy": cache_heavy,
    "no-driver": no_driver,
    "stuck": stuck,
    "flickering": flickering,
    "slow": slow,
    "lies-high": lies_high,
    "lies-low": lies_low,
    "retaking": retaking,
    "keeping": keeping,
    "rebooting": rebooting,
    "plugging": plugging,
    "pausing": pausing,
    "windows": windows,
}

KINDS: Final[tuple[str, ...]] = (*LOADS, *(name for name in TRAITS if name != "cooperative"))
"""The kinds that a guest may have in a scenario."""


def make(name: str, kind: str, memory: Bytes, span: Range, random: Random) -> GuestSpec:
    """Make a guest of a kind, which is one of `KINDS`; a trait alone comes with a steady load."""
    load = LOADS[kind if kind in LOADS else "steady"](span, random)
    return TRAITS[kind if kind in TRAITS else "cooperative"](
        GuestSpec(id=name, memory=memory, load=load), random
    )


def _mib(size: float) -> int:
    return int(size) // MIB * MIB
