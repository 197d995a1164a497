"""A guest's reading with other values, those of its statistics by their own names."""

from typing import Final

import msgspec

from qmpmem.model.guest import GuestStats
from qmpmem.model.observation import GuestReading
from qmpmem.records import replace

_STATS: Final = frozenset(each.name for each in msgspec.structs.fields(GuestStats)) - {
    each.name for each in msgspec.structs.fields(GuestReading)
}


def changed(reading: GuestReading, **more: object) -> GuestReading:
    """Return a reading with other values, as in ``changed(reading, actual=…, free=…)``."""
    stats = {name: value for name, value in more.items() if name in _STATS}
    others = {name: value for name, value in more.items() if name not in _STATS}
    return replace(reading, stats=replace(reading.stats, **stats), **others)
