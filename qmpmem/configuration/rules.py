"""Rules for guests, beside each other: which are never reached, and which contradict themselves.

Theory of operation:
    The first rule that matches counts, so what stands below a rule that matches as much or more
    does nothing. In one file that is a mistake. Where a later file's rule stands above an earlier
    file's, it may be meant: it is done, and said.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from qmpmem.configuration.errors import Mistake
from qmpmem.configuration.file_values import FileRule
from qmpmem.configuration.keys import ADOPT, ADOPTIONS, GUEST, GUESTS
from qmpmem.configuration.patterns import covers
from qmpmem.units import Bytes, format_size

MOST: Final = 250
"""Each is tried for each guest in each round, and fnmatch remembers 256 patterns (CPython 3.11)."""

ORDERED: Final = (("minimum", "maximum"), ("minimum", "current"), ("current", "maximum"))
"""Keys of a rule of which the first cannot be more than the second."""


def mistakes(rules: Sequence[FileRule]) -> Iterator[Mistake]:
    """Find what contradicts itself, or does nothing."""
    for rule in rules:
        yield from _bounds(rule)
    if len(rules) > MOST:
        problem = f"{len(rules)} rules, expected at most {MOST}"
        yield Mistake(place=rules[MOST].place, key=GUESTS, problem=problem)
        return
    for rule, above in _hidden(rules):
        if rule.place.file == above.place.file:
            yield _never_reached(rule, above)


def adoption_mistakes(adoptions: Sequence[FileRule]) -> Iterator[Mistake]:
    """Find adoptions that would take one socket twice, or call two guests the same."""
    known: dict[tuple[str, object], FileRule] = {}
    for rule in adoptions[:MOST]:
        for key, given in rule.keys.items():
            value = given.values[key]
            first = known.setdefault((key, value), rule)
            if first is not rule:
                problem = f"{value!r} is given at {first.keys[key].place} already"
                yield Mistake(place=given.place, key=ADOPT.dotted(key), problem=problem)
        socket = str(rule.fields.get("socket", ""))
        if "name" in rule.keys and set(socket) & set("*?["):
            problem = f"expected none, as {socket!r} may be many sockets"
            yield Mistake(place=rule.keys["name"].place, key="adopt.name", problem=problem)
    if len(adoptions) > MOST:
        problem = f"{len(adoptions)} rules, expected at most {MOST}"
        yield Mistake(place=adoptions[MOST].place, key=ADOPTIONS, problem=problem)


def overridden(rules: Sequence[FileRule]) -> dict[int, Mistake]:
    """Find the rules that a later file leaves nothing to: a warning for each, by its number."""
    numbers = {id(rule): number for number, rule in enumerate(rules)}
    return {
        numbers[id(rule)]: _never_reached(rule, above, ", in a later file; rules are not mixed")
        for rule, above in _hidden(rules[:MOST])
        if rule.place.file != above.place.file
    }


def _bounds(rule: FileRule) -> Iterator[Mistake]:
    """Find sizes of a rule that are in the wrong order.

    One in percent and one in bytes depend on the guest.
    """
    for lower, upper in ORDERED:
        low, high = rule.keys.get(lower), rule.keys.get(upper)
        if low is None or high is None:
            continue
        for suffix in ("", "_percent"):
            least = low.values.get(lower + suffix)
            most = high.values.get(upper + suffix)
            if isinstance(least, int) and isinstance(most, int) and least > most:
                problem = (
                    f"expected at most the {upper}, {_amount(most, suffix)} "
                    f"on line {high.place.line}, got {_amount(least, suffix)}"
                )
                yield Mistake(place=low.place, key=GUEST.dotted(lower), problem=problem)


def _hidden(rules: Sequence[FileRule]) -> Iterator[tuple[FileRule, FileRule]]:
    """Find the rules that are never reached, each with the first that stands in its way."""
    left = [(rule, rule.match) for rule in rules]
    while left:
        (above, wide), *left = left
        if wide is None:
            continue
        reached: list[tuple[FileRule, str | None]] = []
        for rule, match in left:
            if match is not None and covers(wide, match):
                yield rule, above
            else:
                reached.append((rule, match))
        left = reached


def _never_reached(rule: FileRule, above: FileRule, how: str = "") -> Mistake:
    place = rule.keys["match"].place
    problem = f'"{rule.match}" is never reached: "{above.match}" at {above.place} comes first{how}'
    return Mistake(place=place, key=GUEST.dotted("match"), problem=problem)


def _amount(value: int, suffix: str) -> str:
    return f"{value}%" if suffix else format_size(Bytes(value))
