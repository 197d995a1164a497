"""Numbers that note what they are compared with, so that an answer is kept as long as it is right.

Theory of operation:
    Most rules only ask whether the time, an age or what is spare is more or less than a limit. A
    `Watched` stands in for such a number and notes each comparison. The number may then go anywhere
    in its `Range` without another answer. No rule needs to know of this: one that does more than
    compare, add or subtract gets the plain result, and its answer is not kept.
"""

import builtins
import math
import operator
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

MARGIN: Final = 1e-6
"""Seconds before and after a limit for which no answer is kept: differences of times are
rounded."""


class Range:
    """The range in which a number may go: between `low` and `high`, both excluded."""

    __slots__ = ("clock", "high", "low")

    def __init__(self, clock: "Range | None" = None) -> None:
        """Begin without limits; `clock` is the range of the time, where this is that of an age."""
        self.low, self.high, self.clock = -inf, inf, clock

    def clear(self) -> None:
        """Begin anew, without limits."""
        self.low, self.high = -inf, inf

    def close(self) -> None:
        """Note that no other number gives the same answer."""
        self.low = inf


class Watched:
    """A number that notes in its range what it is compared with.

    Args:
        value: the number.
        range_: where it notes that.
        offset: what was added to the number to which the range belongs.
    """

    __slots__ = ("offset", "range", "value")

    def __init__(self, value: float, range_: Range, offset: float = 0) -> None:
        self.value, self.range, self.offset = value, range_, offset

    def _plain(self, other: "float | Watched") -> float:
        """Note a comparison, and return the plain number of the other side."""
        mine = self.range
        if isinstance(other, Watched):
            mine.close()
            other.range.close()
            return other.value
        limit = other - self.offset
        if self.value < other:
            mine.high = min(mine.high, limit - MARGIN)
        elif self.value > other:
            mine.low = max(mine.low, limit + MARGIN)
        else:
            mine.close()
        return other

    def __lt__(self, other: "float | Watched") -> bool:
        return self.value < self._plain(other)

    def __le__(self, other: "float | Watched") -> bool:
        return self.value <= self._plain(other)

    def __gt__(self, other: "float | Watched") -> bool:
        return self.value > self._plain(other)

    def __ge__(self, other: "float | Watched") -> bool:
        return self.value >= self._plain(other)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int | float | Watched):
            return bool(self.value == self._plain(other))
        return False

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __add__(self, other: "float | Watched") -> "float | Watched":
        if isinstance(other, Watched):
            self.range.close()
            other.range.close()
            return self.value + other.value
        return Watched(self.value + other, self.range, self.offset + other)

    __radd__ = __add__

    def __sub__(self, other: "float | Watched") -> "float | Watched":
        if not isinstance(other, Watched):
            return Watched(self.value - other, self.range, self.offset - other)
        if other.range.clock is not self.range:  # an age grows with the time, and this is fixed
            self.range.close()
            other.range.close()
        return self.value - other.value

    def __hash__(self) -> int:
        self.range.close()
        return hash(self.value)


def _exactly(operation: Callable[..., object]) -> Callable[..., object]:
    """Return a method that does an operation on the plain number, and closes the range."""

    def method(self: Watched, *others: object) -> object:
        self.range.close()
        return operation(self.value, *map(_closed, others))

    return method


def _reflected(operation: Callable[..., object]) -> Callable[..., object]:
    def method(self: Watched, other: object) -> object:
        self.range.close()
        return operation(_closed(other), self.value)

    return method


def _closed(number: object) -> object:
    if not isinstance(number, Watched):
        return number
    number.range.close()
    return number.value


_OPERATIONS: Final[Mapping[str, Callable[..., object]]] = {
    **{name: getattr(operator, name) for name in ("mul", "truediv", "floordiv", "mod", "pow")},
    **{name: getattr(operator, name) for name in ("neg", "index")},
    **{name: getattr(math, name) for name in ("trunc", "floor", "ceil")},
    **{name: getattr(builtins, name) for name in ("divmod", "round", "abs", "int", "float")},
    **{name: getattr(builtins, name) for name in ("format", "str", "repr")},
}
for _name, _operation in _OPERATIONS.items():
    setattr(Watched, f"__{_name}__", _exactly(_operation))
for _name in ("sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Watched, f"__r{_name}__", _reflected(getattr(operator, _name)))
