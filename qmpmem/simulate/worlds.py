"""Hosts and guests made by chance, the same for the same seed: what laws are tried on."""

from random import Random
from typing import Final

from qmpmem.config import Class, Config, Rule
from qmpmem.records import Record, replace
from qmpmem.simulate.guest import OVERHEAD, STEP
from qmpmem.simulate.kinds import LOADS, TRAITS, Range
from qmpmem.simulate.loads import Load, Steady, Steps
from qmpmem.simulate.spec import GuestSpec, HostSpec, World
from qmpmem.units import MIB, Bytes

SIZES: Final = (128, 256, 512, 1024, 2048, 4096)
"""MiB that guests have."""
CLASSES: Final[tuple[Class, ...]] = ("default", "database", "desktop", "ci")


class Bounds(Record, frozen=True):
    """How large worlds may be. Most hosts are small: what goes wrong, goes wrong there too."""

    guests: int = 40
    usual: int = 3
    shortest: float = 60.0
    longest: float = 300.0


def chance(random: Random, bounds: Bounds) -> World:
    """Make a world by chance."""
    # Most are short: what takes long to show is looked for in few.
    seconds = bounds.shortest + (bounds.longest - bounds.shortest) * random.random() ** 5
    many = _is(random, 1 / 60)
    count = random.randint(1, bounds.guests if many else bounds.usual)
    guests = tuple(_guest(f"g{number}", random, seconds) for number in range(count))
    return World(
        host=_host(guests, random, seconds),
        guests=guests,
        config=_config(guests, random),
        seconds=seconds,
    )


def _is(random: Random, share: float) -> bool:
    return random.random() < share


def _guest(name: str, random: Random, seconds: float) -> GuestSpec:
    memory = Bytes(random.choice(SIZES) * MIB)
    low = random.uniform(0.05, 0.6)
    high = random.uniform(low, 0.85)
    span = Range(
        low=Bytes(int(low * memory)),
        high=Bytes(int(high * memory)),
        every=random.uniform(10, 80),
        lasts=random.uniform(2, 40),
        seconds=seconds,
    )
    load = LOADS[random.choice(sorted(LOADS))](span, random)
    trait = random.choice(sorted(TRAITS)) if _is(random, 0.5) else "cooperative"
    spec = TRAITS[trait](GuestSpec(id=name, memory=memory, load=load), random)
    return replace(
        spec,
        shows_devices=False,
        refills=True,
        mapped=True,
        rereads=spec.hot_files / STEP,
        hot=random.choice((1.0, 1.0, 0.9, 0.5)),
        swap=Bytes(memory // 2 if _is(random, 0.4) else 0),
        files=spec.files or Bytes(int(random.uniform(0, 0.8) * memory)),
        deflate_on_oom=_is(random, 0.4),
        free_page_reporting=_is(random, 0.3),
        modern=_is(random, 0.3),
        starts=0.0 if _is(random, 0.8) else random.uniform(0, seconds / 2),
    )


def _host(guests: tuple[GuestSpec, ...], random: Random, seconds: float) -> HostSpec:
    """Make a host that holds what its guests use, more or less, and seldom all they may have."""
    most = sum(guest.memory + OVERHEAD for guest in guests)
    used = sum(_used(guest, seconds) for guest in guests)
    least = used * random.choice((0.8, 1.1, 1.2, 1.3))
    memory = Bytes(int(max(512.0 * MIB, least + random.random() * (1.2 * most - least))))
    own = int(memory * random.uniform(0.03, 0.15))
    return HostSpec(
        memory=memory,
        own=_own(own, int(memory), random, seconds),
        swap=Bytes(0 if _is(random, 0.3) else int(memory * random.uniform(0.1, 1))),
        swap_speed=random.choice((50.0, 200.0, 1000.0)) * MIB,
        budget=Bytes(int(memory * random.uniform(0.6, 0.9))) if _is(random, 0.2) else None,
        same=random.choice((0.0, 0.0, 0.3)),
    )


def _used(guest: GuestSpec, seconds: float) -> float:
    """Say what a guest uses, on average."""
    times = range(0, int(seconds), 5)
    load = sum(guest.load.at(time) for time in times) / len(times)
    return guest.kernel + OVERHEAD + (guest.memory if guest.touches_all else load)


def _own(own: int, memory: int, random: Random, seconds: float) -> Load:
    if _is(random, 0.7):
        return Steady(size=Bytes(own))
    start = random.uniform(0, seconds)
    more = own + int(memory * random.uniform(0.05, 0.4))
    end = start + random.uniform(5, 60)
    return Steps(points=((0.0, Bytes(own)), (start, Bytes(more)), (end, Bytes(own))))


def _config(guests: tuple[GuestSpec, ...], random: Random) -> Config:
    rules = tuple(_rule(guest, random) for guest in guests if _is(random, 0.4))
    return Config(
        grace=random.choice((0.0, 0.0, 10.0, 60.0)),
        reserve=Bytes(256 * MIB) if _is(random, 0.1) else None,
        rules=rules,
    )


def _rule(guest: GuestSpec, random: Random) -> Rule:
    lowest = random.uniform(0.1, 0.8)
    return Rule(
        match=guest.id,
        minimum=Bytes(int(lowest * guest.memory)) if _is(random, 0.5) else None,
        maximum=Bytes(int(random.uniform(lowest, 1) * guest.memory)) if _is(random, 0.2) else None,
        shares=random.choice((None, 1, 500, 4000)),
        managed=_is(random, 0.95),
        kind=random.choice(CLASSES),
    )
