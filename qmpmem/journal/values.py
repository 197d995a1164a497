"""JSON of the journal, read so that whatever it holds is either usable or damage. Pure.

Rules of this file:
    A number that no round has is damage: sizes and times are far below `MOST`, and what is
    calculated with them stays within a float. ValueError is all that is raised.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec

MOST: Final = 1 << 63
"""No number of a round is as large: bytes of all memory that a processor can address have fewer
bits."""
LATEST: Final = 2.0**40
"""Seconds since 1970: a clock that shows more is wrong."""
COUNTED: Final = 1 << 53
"""No row has a number as large: a round each millisecond reaches it after 280,000 years. SQLite
gives no more numbers in their order after 2**63 - 1."""


_DIGITS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_LONG: Final = b"0" * len(str(MOST))
_HIGH: Final = b"0e0"
"""One of them is in each number that is not below `MOST`, written as JSON, with `_DIGITS`."""


@contextmanager
def damage() -> Generator[None]:
    """Raise whatever a decoder stumbles over as ValueError.

    Raises:
        ValueError: what is read inside is damaged.
    """
    try:
        yield
    except (
        *(AttributeError, LookupError, TypeError, ValueError),
        *(ArithmeticError, RecursionError, msgspec.MsgspecError),
    ) as error:
        raise ValueError(str(error)) from None


def decode(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON.

    Raises:
        ValueError: it is none, or holds a number that no round has.
    """
    with damage():
        found = msgspec.json.decode(text)
        # Nearly all rounds have no number of so many digits, and need not be looked through.
        digits = text.translate(_DIGITS, b"+")
        if _LONG in digits or _HIGH in digits:
            expect_bounded(found)
        return found


def expect_bounded(value: object) -> None:
    """Expect all numbers in a value to be such that they can be calculated with.

    Raises:
        ValueError: one is not.
    """
    waiting: list[Any] = [value]
    while waiting:
        each = waiting.pop()
        kind = cast("type[object]", type(each))
        if kind is dict:
            waiting.extend(each.values())
        elif kind is list:
            waiting.extend(each)
        elif (kind is int or kind is float) and not -MOST < each < MOST:
            raise ValueError("a number is too large")
