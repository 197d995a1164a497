"""JSON of the journal, read so that whatever it holds is either usable or damage. Pure.

Rules of this file:
    A number that no round has is damage: sizes and times are far below `MOST`, and what is
    calculated with them stays within a float. ValueError is all that is raised.
"""

from typing import Any, Final, cast

import msgspec

from qmpmem.journal.compression import LARGEST

MOST: Final = 1 << 63
"""No number of a round is as large: bytes of all memory that a processor can address have fewer
bits."""
LATEST: Final = 2.0**40
"""Seconds since 1970: a clock that shows more is wrong."""
PARTS: Final = 1 << 17
"""Most values, lists and objects of a row, which take some hundred bytes each. A round of 1000
guests of which all is known has 93,000; all else has far fewer."""
COUNTED: Final = 1 << 53
"""No row has a number as large: a round each millisecond reaches it after 280,000 years. SQLite
gives no more numbers in their order after 2**63 - 1."""


_DIGITS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_LONG: Final = b"0" * len(str(MOST))
_HIGH: Final = b"0e0"
"""One of them is in each number that is not below `MOST`, written as JSON, with `_DIGITS`."""


_STUMBLES: Final = (
    *(AttributeError, LookupError, TypeError, ValueError),
    *(ArithmeticError, RecursionError, msgspec.MsgspecError),
)


class damage:  # noqa: N801 - a context manager, which as a generator takes longer for each row
    """Raise whatever a decoder stumbles over as ValueError.

    Raises:
        ValueError: what is read inside is damaged.
    """

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, _STUMBLES):
            raise ValueError(str(error)) from None  # noqa: TRY004 - damage is one kind


def decode(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON.

    Raises:
        ValueError: it is none, or holds a number that no round has, or too much.
    """
    with damage():
        if len(text) > PARTS and parts(text) > PARTS:
            raise ValueError("it has too many parts")
        found = msgspec.json.decode(text)
        # Nearly all rounds have no number of so many digits, and need not be looked through.
        digits = text.translate(_DIGITS, b"+")
        if _LONG in digits or _HIGH in digits:
            expect_bounded(found)
        return found


def parts(text: bytes) -> int:
    """Return about how many values, lists and objects a JSON text has, and never less."""
    return sum(map(text.count, (b",", b"[", b"{"))) + 1


def expect_small(value: object) -> None:
    """Expect what was put together of several rows to be no more than one row may have.

    Raises:
        ValueError: it is more.
    """
    waiting: list[Any] = [value]
    count = size = 0
    while waiting:
        each = waiting.pop()
        count += 1
        kind = cast("type[object]", type(each))
        if kind is dict:
            waiting.extend(each.values())
            size += sum(map(len, each))
        elif kind is list:
            waiting.extend(each)
        elif kind is str:
            size += len(each)
        if count > PARTS or size > LARGEST:
            raise ValueError("it has too many parts")


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
