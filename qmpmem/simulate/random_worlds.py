"""Hosts and guests made by chance, the same for the same seed, on which laws are tried."""

from random import Random
from typing import Final

from qmpmem.model.config import Class, Config, Rule
from qmpmem.model.observation import Habit
from qmpmem.records import Record, replace
from qmpmem.simulate.guest import OVERHEAD, STEP
from qmpmem.simulate.guest_types import LOADS, TRAITS, Range
from qmpmem.simulate.loads import Load, Steady, Steps
from qmpmem.simulate.spec import GuestSpec, HostSpec, World
from qmpmem.units import MIB, PAGE, Bytes

SIZES: Final = (128, 256, 512, 1024, 2048, 4096)
"""Sizes of guests, in MiB."""
CLASSES: Final[tuple[Class, ...]] = ("default", "database", "desktop", "ci")


class Bounds(Record, frozen=True):
    """How large worlds may be. Most hosts are small: a mistake shows there, too."""

    guests: int = 40
    usual: int = 4
    shortest: float = 45.0
    longest: float = 600.0
    overcommit: tuple[float, float] = (1.2, 3.0)
    """Least and most that all guests may have together, for each byte of the host's."""


LARGEST: Final = 0.65
"""The part of a guest's memory that is in its balloon when it starts small."""
MANY: Final = 1 / 100
"""The part of the hosts that have more guests than usual; they run for the shortest time."""
HABITS: Final = 0.4
"""The part of the guests that have a habit, true or not."""
FILLED: Final = (0.4, 0.55, 0.7, 0.8, 0.95)
"""Parts of a host's memory that its guests use on average."""


def chance(random: Random, bounds: Bounds) -> World:
    """Make a world by chance."""
    many = _is(random, MANY)
    # Most runs are short: only few look for what takes long to show.
    spread = bounds.longest - bounds.shortest
    seconds = bounds.shortest + (0.0 if many else spread * random.random() ** 14)
    count = random.randint(bounds.usual, bounds.guests) if many else _few(random, bounds.usual)
    overcommit = random.uniform(*bounds.overcommit)
    used = random.choice(FILLED) / overcommit
    guests = tuple(_guest(f"g{number}", random, seconds, used) for number in range(count))
    host, config = _host(guests, random, seconds, overcommit), _config(guests, random)
    guests = tuple(replace(guest, habit=_habit(guest, random)) for guest in guests)
    return World(host=host, guests=guests, config=config, seconds=seconds)


def _habit(guest: GuestSpec, random: Random) -> Habit | None:
    """Return what is told to be usual for a guest, which need be neither true nor possible."""
    if not _is(random, HABITS):
        return None
    sizes = [Bytes(int(random.uniform(0, 1.5) * guest.memory)) for _ in range(3)]
    usual, peak, start = (size if _is(random, 0.8) else None for size in sizes)
    maximum = guest.memory if _is(random, 0.9) else sizes[0]
    return Habit(maximum=maximum, usual=usual, peak=peak, start=start, days=random.randint(0, 20))


def _is(random: Random, share: float) -> bool:
    return random.random() < share


def _few(random: Random, most: int) -> int:
    return min(random.randint(2, most), random.randint(2, most))


def _guest(name: str, random: Random, seconds: float, used: float) -> GuestSpec:
    """Make a guest.

    Args:
        name: its id.
        random: the chance.
        seconds: how long it runs.
        used: the part of its memory that a guest of this host uses on average.
    """
    memory = Bytes(random.choice(SIZES) * MIB)
    mean = used * random.uniform(0.4, 1.6)
    low = min(0.85, mean * random.uniform(0.4, 1.0))
    high = min(0.9, max(low, mean * random.uniform(1.0, 2.5)))
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
    swap = Bytes(memory // 2 if _is(random, 0.4) else 0)
    return replace(
        _with_files(spec, random),
        shows_devices=_is(random, 0.7),
        hot=random.choice((1.0, 1.0, 0.9, 0.5)),
        swap=swap,
        zram=bool(swap) and _is(random, 0.5),
        deflate_on_oom=_is(random, 0.6),
        free_page_reporting=_is(random, 0.5),
        modern=_is(random, 0.3),
        cgroup=_is(random, 0.3),
        balloon=_balloon(memory, random) if spec.driver is not None else Bytes(0),
        starts=0.0 if _is(random, 0.8) else random.uniform(0, seconds / 2),
    )


def _with_files(spec: GuestSpec, random: Random) -> GuestSpec:
    """Have a guest read files: once, or some of them again and again."""
    hot = spec.hot_files
    if not hot and _is(random, 0.3):
        hot = Bytes(int(random.uniform(0.05, 0.4) * spec.memory))
    return replace(
        spec,
        refills=True,
        mapped=_is(random, 0.5),
        hot_files=hot,
        rereads=hot / random.choice((STEP, 2.0, 10.0)),
        files=spec.files or Bytes(int(random.uniform(0, 0.8) * spec.memory)),
    )


def _balloon(memory: Bytes, random: Random) -> Bytes:
    """Return what is in the balloon at the start: some guests start small."""
    most = int(memory * LARGEST) if _is(random, 0.3) else 0
    return Bytes(most - most % PAGE)


def _host(
    guests: tuple[GuestSpec, ...], random: Random, seconds: float, overcommit: float
) -> HostSpec:
    """Make a host on which guests may have more than there is."""
    most = sum(guest.memory + OVERHEAD for guest in guests)
    memory = Bytes(int(max(384.0 * MIB, most / overcommit)))
    own = int(memory * random.uniform(0.03, 0.15))
    return HostSpec(
        memory=memory,
        own=_own(own, int(memory), random, seconds),
        swap=Bytes(0 if _is(random, 0.3) else int(memory * random.uniform(0.1, 1))),
        swap_speed=random.choice((50.0, 200.0, 1000.0)) * MIB,
        budget=Bytes(int(memory * random.uniform(0.7, 0.95))) if _is(random, 0.2) else None,
        same=random.choice((0.0, 0.0, 0.3)),
    )


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
