"""Rules for guests, beside each other: which are never reached, and which contradict themselves.

Theory of operation:
    The first rule that matches counts, so what stands below a rule that matches as much or more
    does nothing. In one file that is a mistake. Where a later file's rule stands above an earlier
    file's, it may be meant: it is done, and said.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from qmpmem.configuration.errors import Mistake
from qmpmem.configuration.file_values import FileRule, FileValue
from qmpmem.configuration.keys import ADOPT, GUEST, Section
from qmpmem.model.names import WILD, covers
from qmpmem.units import Bytes, Share, format_size

MOST: Final = 250
"""Each is tried for each guest in each round, and fnmatch remembers 256 patterns (CPython 3.11)."""

ORDERED: Final = (("minimum", "maximum"), ("minimum", "current"), ("current", "maximum"))
"""Keys of a rule of which the first cannot be more than the second."""


def mistakes(rules: Sequence[FileRule]) -> Iterator[Mistake]:
    """Find what contradicts itself, or does nothing."""
    for rule in rules:
        yield from _bounds(rule)
    yield from _too_many(rules, GUEST)
    for rule, above in _hidden(rules):
        if rule.place.file == above.place.file:
            yield _never_reached(rule, above)


def overridden(rules: Sequence[FileRule]) -> dict[int, Mistake]:
    """Find the rules that a later file leaves nothing to: a warning for each, by its number."""
    numbers = {id(rule): number for number, rule in enumerate(rules)}
    return {
        numbers[id(rule)]: _never_reached(rule, above, ", in a later file; rules are not mixed")
        for rule, above in _hidden(rules)
        if rule.place.file != above.place.file
    }


def adoption_mistakes(adoptions: Sequence[FileRule]) -> Iterator[Mistake]:
    """Find adoptions that would take one socket twice, or call two guests the same."""
    known: dict[tuple[str, object], FileValue] = {}
    for rule in adoptions[:MOST]:
        for key, given in rule.keys.items():
            first = known.setdefault((key, given.value), given)
            if first is not given:
                problem = f"{given.value!r} is given at {first.place} already"
                yield Mistake(place=given.place, key=given.key, problem=problem)
        socket, name = rule.keys.get("socket"), rule.keys.get("name")
        if socket and name and WILD.search(str(socket.value)):
            problem = f"expected none, as {socket.value!r} may be many sockets"
            yield Mistake(place=name.place, key=name.key, problem=problem)
    yield from _too_many(adoptions, ADOPT)


def _too_many(rules: Sequence[FileRule], section: Section) -> Iterator[Mistake]:
    if len(rules) > MOST:
        problem = f"{len(rules)} rules, expected at most {MOST}"
        yield Mistake(place=rules[MOST].place, key=section.name, problem=problem)


def _bounds(rule: FileRule) -> Iterator[Mistake]:
    """Find sizes of a rule that are in the wrong order.

    One in percent and one in bytes depend on the guest.
    """
    for lower, upper in ORDERED:
        low, high = rule.keys.get(lower), rule.keys.get(upper)
        if low is None or high is None:
            continue
        if type(low.value) is type(high.value) and _amount(low) > _amount(high):
            problem = (
                f"expected at most the {upper}, {_shown(high)} "
                f"on line {high.place.line}, got {_shown(low)}"
            )
            yield Mistake(place=low.place, key=low.key, problem=problem)


def _hidden(rules: Sequence[FileRule]) -> Iterator[tuple[FileRule, FileRule]]:
    """Find the rules that are never reached, each with the first that stands in its way."""
    reached: list[tuple[FileRule, str]] = []
    for rule in rules[:MOST]:
        if rule.match is None:
            continue
        above = next((above for above, wide in reached if covers(wide, rule.match)), None)
        if above is None:
            reached.append((rule, rule.match))
        else:
            yield rule, above


def _never_reached(rule: FileRule, above: FileRule, how: str = "") -> Mistake:
    match = rule.keys["match"]
    problem = f'"{rule.match}" is never reached: "{above.match}" at {above.place} comes first{how}'
    return Mistake(place=match.place, key=match.key, problem=problem)


def _amount(given: FileValue) -> int:
    return int(given.value.percent if isinstance(given.value, Share) else str(given.value))


def _shown(given: FileValue) -> str:
    number = _amount(given)
    return f"{number}%" if isinstance(given.value, Share) else format_size(Bytes(number))
