"""Which guests are shown: ``state:distress class:db >4G web*``. Pure.

Theory of operation:
    A filter is words that must all hold. ``state:`` has a verdict or a run state, ``class:`` a
    class of the configuration, ``name:`` a pattern. A size with ``>`` or ``<`` compares a figure,
    the maximum where none is named (``used>2G``, ``press>90%``). Any other word is a part, or a
    pattern, of an id or a name. ``!`` before a word negates it.
"""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.records import Record
from qmpmem.top.figures import Figures
from qmpmem.units import parse_size

Figure = Callable[[Figures], float | None]

SIZES: Final[Mapping[str, Figure]] = {
    "max": lambda each: each.maximum,
    "actual": lambda each: each.actual,
    "used": lambda each: each.used,
    "cache": lambda each: each.cache,
    "free": lambda each: each.free,
    "balloon": lambda each: each.balloon,
    "told": lambda each: each.target,
    "cost": lambda each: each.cost,
    "swap": lambda each: each.swap,
}
"""Figures that are compared with a size."""
NUMBERS: Final[Mapping[str, Figure]] = {
    "press": lambda each: None if each.pressure is None else each.pressure * 100,
    "age": lambda each: each.age,
}
"""Figures that are compared with a number: percent, seconds."""
CLASSES: Final[Mapping[str, str]] = {"db": "database"}
"""Short for a class of the configuration."""

EXPECTED: Final = "write a part of a name, state:distress, class:db, >4G, used<512M or press>90"
_COMPARED: Final = re.compile(r"(?P<figure>[a-z]*)(?P<sign>[<>])=?(?P<value>.+)", re.ASCII)

Test = Callable[[Figures], bool]


class Filter(Record, frozen=True):
    """What a guest must be to be shown."""

    text: str = ""
    tests: tuple[Test, ...] = ()

    def takes(self, guest: Figures) -> bool:
        """Tell whether a guest is shown."""
        return all(test(guest) for test in self.tests)


def parse(text: str) -> Filter:
    """Read a filter.

    Raises:
        ConfigError: a word of it means nothing; the error names it.
    """
    return Filter(text=text.strip(), tests=tuple(_test(word) for word in text.split()))


def _test(word: str) -> Test:
    if word.startswith("!") and len(word) > 1:
        inner = _test(word[1:])
        return lambda guest: not inner(guest)
    kind, colon, value = word.partition(":")
    if colon:
        return _keyed(word, kind, value.lower())
    if match := _COMPARED.fullmatch(word):
        return _compared(word, match["figure"] or "max", match["sign"], match["value"])
    return lambda guest: _named(guest, word.lower())


def _keyed(word: str, kind: str, value: str) -> Test:
    if kind not in ("state", "class", "name") or not value:
        raise ConfigError(f"filter {word!r}: it begins with state:, class: or name:", hint=EXPECTED)
    if kind == "state":
        return lambda guest: any(
            _matches(each.lower(), value) for each in (guest.state, guest.verdict or "") if each
        )
    if kind == "class":
        wanted = CLASSES.get(value, value)
        return lambda guest: guest.kind is not None and _matches(guest.kind, wanted)
    return lambda guest: _named(guest, value)


def _compared(word: str, name: str, sign: str, text: str) -> Test:
    figure = SIZES.get(name) or NUMBERS.get(name)
    if figure is None:
        known = ", ".join((*SIZES, *NUMBERS))
        raise ConfigError(f"filter {word!r}: {name} is none of {known}", hint=EXPECTED)
    if name in SIZES:
        value: float = parse_size(text)
    else:
        try:
            value = float(text.rstrip("%s"))
        except ValueError:
            raise ConfigError(f"filter {word!r}: {text!r} is no number", hint=EXPECTED) from None

    def test(guest: Figures) -> bool:
        found = figure(guest)
        return found is not None and (found > value if sign == ">" else found < value)

    return test


def _named(guest: Figures, value: str) -> bool:
    return any(_matches(each.lower(), value) for each in (guest.id, guest.name or "") if each)


def _matches(text: str, value: str) -> bool:
    return fnmatchcase(text, value) if set(value) & set("*?[") else value in text
