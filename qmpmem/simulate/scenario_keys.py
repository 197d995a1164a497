"""The keys of a scenario's tables, and what values each takes. Pure.

Rules of this file:
    How values are written is as in the configuration (qmpmem.configuration.value_types). Speeds are
    sizes, a second.
"""

from collections.abc import Mapping
from typing import Final, cast, get_args

from qmpmem.configuration import value_types
from qmpmem.configuration.toml_document import is_list
from qmpmem.configuration.value_types import Kind, UnfitError
from qmpmem.model.config import Class
from qmpmem.simulate.guest_types import KINDS
from qmpmem.simulate.spec import Reports
from qmpmem.units import MIB, Bytes

LONGEST: Final = 86_400.0
"""Most seconds of a run: a day, which is some ten million steps of a guest."""
LEAST_DAY: Final = 240.0
"""Least seconds of a day: with fewer, guests would not report in each minute of it."""
MOST: Final = 200
"""Most guests."""

SIZE: Final = value_types.size(Bytes(0))
SPEED: Final = value_types.size(MIB)
PART: Final = value_types.size_or_percent(Bytes(0))
TIME: Final = value_types.duration(0.0, LONGEST)


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


TOP: Final[Mapping[str, Kind]] = {
    "seconds": value_types.duration(1.0, LONGEST),
    "day": value_types.duration(LEAST_DAY, LONGEST),
    "seed": value_types.whole(0, 2**31),
    "grace": TIME,
    "reserve": SIZE,
    "ksm": value_types.FLAG,
}
HOST: Final[Mapping[str, Kind]] = {
    "memory": value_types.size(Bytes(64 * MIB)),
    "own": PART,
    "own_demand": _ordered(_pair(SIZE), 'pairs such as [[0, "200M"], [60, "1G"]]'),
    "swap": SIZE,
    "swap_speed": SPEED,
    "budget": value_types.size(Bytes(16 * MIB)),
    "same": value_types.percent(0, 100),
}
REQUEST: Final[Mapping[str, Kind]] = {"size": value_types.size(Bytes(MIB)), "at": TIME}
GUEST: Final[Mapping[str, Kind]] = {
    "name": value_types.WORD,
    "kind": value_types.choice(KINDS),
    "memory": value_types.size(Bytes(16 * MIB)),
    "count": value_types.whole(1, MOST),
    "starts": TIME,
    "apart": TIME,
    "low": PART,
    "high": PART,
    "every": value_types.duration(1.0, LONGEST),
    "lasts": value_types.duration(0.25, LONGEST),
    "demand": _ordered(_pair(SIZE), 'pairs such as [[0, "200M"], [60, "1G"]]'),
    "hot": value_types.percent(1, 100),
    "allocates": SPEED,
    "files": PART,
    "hot_files": PART,
    "rereads": SPEED,
    "mapped": value_types.FLAG,
    "reads": SPEED,
    "swap": PART,
    "swap_speed": SPEED,
    "zram": value_types.FLAG,
    "touches_all": value_types.FLAG,
    "has": PART,
    "speed": SPEED,
    "sticks": value_types.duration(0.25, LONGEST),
    "stops_at": PART,
    "grows_to": PART,
    "misses": SIZE,
    "deflate_on_oom": value_types.FLAG,
    "free_page_reporting": value_types.FLAG,
    "modern": value_types.FLAG,
    "reports": value_types.choice(get_args(Reports)),
    "cgroup": value_types.FLAG,
    "reboots": _ordered(TIME, 'times such as [60, "2min"]'),
    "pauses": _ordered(_pair(TIME), 'pairs such as [[60, "4s"]]'),
    "contained": _ordered(TIME, 'times such as [60, "2min"]'),
    "plugs": _ordered(_pair(SIZE), 'pairs such as [[60, "1G"]]'),
    "class": value_types.choice(get_args(Class)),
    "minimum": PART,
    "maximum": PART,
    "shares": value_types.whole(1, 1_000_000),
}
