"""The keys of a scenario's tables, and what values each takes. Pure.

Rules of this file:
    How values are written is as in the configuration (qmpmem.configuration.kinds). Speeds are
    sizes, a second.
"""

from collections.abc import Mapping
from typing import Final, TypeGuard, cast, get_args

from qmpmem.config import Class
from qmpmem.configuration import kinds
from qmpmem.configuration.kinds import Kind, UnfitError
from qmpmem.simulate.kinds import KINDS
from qmpmem.simulate.spec import Reports
from qmpmem.units import MIB, Bytes

LONGEST: Final = 86_400.0
"""Seconds: a day; some ten million steps of a guest."""
LEAST_DAY: Final = 240.0
"""Seconds: with fewer, guests would not report in each minute of it."""
MOST: Final = 200
"""Guests."""

SIZE: Final = kinds.size(Bytes(0))
SPEED: Final = kinds.size(MIB)
PART: Final = kinds.size_or_percent(Bytes(0))
TIME: Final = kinds.duration(0.0, LONGEST)


def _ordered(read: Kind, expected: str) -> Kind:
    """Return the kind of lists, in the order of time, whose members `read` reads."""

    def read_all(value: object) -> object:
        if not is_list(value) or not value:
            raise UnfitError
        found = [read.read(each) for each in value]
        if found != sorted(found, key=_time):
            raise UnfitError("not in the order of time")
        return tuple(found)

    return Kind(expected=expected, read=read_all, write=str)


def _time(member: object) -> float:
    return cast("float", member[0] if isinstance(member, tuple) else member)


def _pair(second: Kind) -> Kind:
    """Return the kind of pairs of a time and something else."""

    def read(value: object) -> object:
        if not is_list(value) or len(value) != 2:  # noqa: PLR2004 - a time and something
            raise UnfitError
        return TIME.read(value[0]), second.read(value[1])

    return Kind(expected="", read=read, write=str)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Whether a value is a list, of anything."""
    return isinstance(value, list)


TOP: Final[Mapping[str, Kind]] = {
    "seconds": kinds.duration(1.0, LONGEST),
    "day": kinds.duration(LEAST_DAY, LONGEST),
    "seed": kinds.whole(0, 2**31),
    "grace": TIME,
    "reserve": SIZE,
    "ksm": kinds.flag(),
}
HOST: Final[Mapping[str, Kind]] = {
    "memory": kinds.size(Bytes(64 * MIB)),
    "own": PART,
    "own_demand": _ordered(_pair(SIZE), 'pairs such as [[0, "200M"], [60, "1G"]]'),
    "swap": SIZE,
    "swap_speed": SPEED,
    "budget": kinds.size(Bytes(16 * MIB)),
    "same": kinds.percent(0, 100),
}
REQUEST: Final[Mapping[str, Kind]] = {"size": kinds.size(Bytes(MIB)), "at": TIME}
GUEST: Final[Mapping[str, Kind]] = {
    "name": kinds.word(),
    "kind": kinds.choice(KINDS),
    "memory": kinds.size(Bytes(16 * MIB)),
    "count": kinds.whole(1, MOST),
    "starts": TIME,
    "apart": TIME,
    "low": PART,
    "high": PART,
    "every": kinds.duration(1.0, LONGEST),
    "lasts": kinds.duration(0.25, LONGEST),
    "demand": _ordered(_pair(SIZE), 'pairs such as [[0, "200M"], [60, "1G"]]'),
    "hot": kinds.percent(1, 100),
    "allocates": SPEED,
    "files": PART,
    "hot_files": PART,
    "rereads": SPEED,
    "mapped": kinds.flag(),
    "reads": SPEED,
    "swap": PART,
    "swap_speed": SPEED,
    "zram": kinds.flag(),
    "touches_all": kinds.flag(),
    "has": PART,
    "speed": SPEED,
    "sticks": kinds.duration(0.25, LONGEST),
    "stops_at": PART,
    "grows_to": PART,
    "misses": SIZE,
    "deflate_on_oom": kinds.flag(),
    "free_page_reporting": kinds.flag(),
    "modern": kinds.flag(),
    "reports": kinds.choice(get_args(Reports)),
    "cgroup": kinds.flag(),
    "reboots": _ordered(TIME, 'times such as [60, "2min"]'),
    "pauses": _ordered(_pair(TIME), 'pairs such as [[60, "4s"]]'),
    "contained": _ordered(TIME, 'times such as [60, "2min"]'),
    "plugs": _ordered(_pair(SIZE), 'pairs such as [[60, "1G"]]'),
    "class": kinds.choice(get_args(Class)),
    "minimum": PART,
    "maximum": PART,
    "shares": kinds.whole(1, 1_000_000),
}
