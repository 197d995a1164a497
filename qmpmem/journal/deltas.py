"""A round as what changed since the one before. Pure.

Theory of operation:
    With ten idle guests, some hundred of two thousand numbers change in a round. Now and then a
    round is kept whole, so that reading begins near what is asked for, and a lost round costs a
    minute. The others are compressed with that whole round as their dictionary (zlib's zdict): the
    names of fields and most digits of the numbers are in it.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from qmpmem.journal import values
from qmpmem.journal.compression import DICTIONARY, LARGEST, pack, unpack
from qmpmem.model.round import Tick

PART: Final = 32
"""Bytes that each value takes at least, beside its text."""
Plain = dict[str, Any]
_LISTS: Final = (("snapshot", "id"), ("plan", "guest"))
"""Where guests are in a list, and the field that names each."""
_FORMERLY_FLAT: Final = (
    "available",
    "free",
    "total",
    "disk_caches",
    "swap_in",
    "swap_out",
    "major_faults",
    "oom_kills",
    "alloc_stalls",
)
"""Fields of `GuestReading.stats` that stood beside it in journals of versions before 0.2."""


class Encoder:
    """Turns rounds into bytes, one after the other."""

    def __init__(self) -> None:
        self._before: Plain | None = None
        self._dictionary = b""

    def whole(self, tick: Tick) -> bytes:
        """Return a round as bytes that need no other round."""
        self._before = _plain(tick)
        content = msgspec.json.encode(self._before)
        self._dictionary = content[-DICTIONARY:]
        return pack(content)

    def change(self, tick: Tick) -> bytes:
        """Return as bytes what differs from the round before.

        Raises:
            ValueError: there is no round before.
        """
        if self._before is None:
            raise ValueError("no round before")
        after = _plain(tick)
        content = msgspec.json.encode(difference(self._before, after))
        self._before = after
        return pack(content, self._dictionary)


class Decoder:
    """Turns bytes back into rounds, in the same order."""

    def __init__(self) -> None:
        self._before: Plain = {}
        self._dictionary = b""
        self._added = 0
        """Bytes that changes may have added since the round was known to be small."""

    def whole(self, content: bytes) -> Tick:
        """Read a round that needs no other.

        Raises:
            ValueError: it is damaged.
        """
        self.take(content, whole=True)
        return self.tick()

    def change(self, content: bytes) -> Tick:
        """Read the round after the last that was read.

        Raises:
            ValueError: it is damaged.
        """
        self.take(content, whole=False)
        return self.tick()

    def take(self, content: bytes, *, whole: bool) -> None:
        """Take in a round without reading it, on the way to a later one.

        Raises:
            ValueError: it is damaged.
        """
        with values.damage():
            if whole:
                text = unpack(content)
                self._before = values.decode(text)
                self._dictionary = text[-DICTIONARY:]
                self._added = 0
            else:
                text = unpack(content, self._dictionary)
                self._before = patched(self._before, values.decode(text))
                self._expect_small(len(text) + PART * values.parts(text))

    def _expect_small(self, added: int) -> None:
        """Expect a round to be no larger than one row, however many changes made it.

        It is looked through when the changes could have brought as much, which is seldom.
        """
        self._added += added
        if self._added > LARGEST:
            values.expect_small(self._before)
            self._added = 0

    def tick(self) -> Tick:
        """Read the round that was taken in last.

        Raises:
            ValueError: it is damaged.
        """
        with values.damage():
            return _tick(self._before)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Plain:
    """Return what turns one object into another: ``+`` set, ``-`` gone, ``~`` changed inside."""
    put: Plain = {}
    inside: Plain = {}
    for key, value in after.items():
        old = before.get(key)
        if key in before and value == old:
            continue
        if isinstance(value, dict) and isinstance(old, dict):
            inside[key] = difference(cast("Plain", old), cast("Plain", value))
        else:
            put[key] = value
    gone = [key for key in before if key not in after]
    parts = (("+", put), ("-", gone), ("~", inside))
    return {name: part for name, part in parts if part}


def patched(before: Mapping[str, Any], patch: Mapping[str, Any]) -> Plain:
    """Return an object with the changes that `difference` found."""
    after = dict(before)
    for key in patch.get("-", ()):
        after.pop(key, None)
    after |= patch.get("+", {})
    for key, part in patch.get("~", {}).items():
        after[key] = patched(after[key], part)
    return after


def _plain(tick: Tick) -> Plain:
    found: Plain = msgspec.to_builtins(tick)
    for part, name in _LISTS:
        guests = {each[name]: each for each in found[part].get("guests", ())}
        found[part] |= {"guests": guests, "order": list(guests)}
    return found


def _tick(plain: Plain) -> Tick:
    found = dict(plain)
    for part, _ in _LISTS:
        inner = dict(found[part])
        guests, order = inner.pop("guests"), inner.pop("order")
        if len(order) != len(guests):
            raise ValueError("it names a guest twice, or not at all")
        found[part] = inner | {"guests": [guests[name] for name in order]}
    found["snapshot"]["guests"] = [_nested(each) for each in found["snapshot"]["guests"]]
    tick = msgspec.convert(found, Tick)
    if not 0 <= (tick.snapshot.wall or 0.0) <= values.LATEST:
        raise ValueError("no clock shows its time")
    return tick


def _nested(guest: Plain) -> Plain:
    """Return a guest of a round, in the form of today where it is of an older journal."""
    stats = {name: guest[name] for name in _FORMERLY_FLAT if name in guest}
    return guest | {"stats": stats} if stats else guest
