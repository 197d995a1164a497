"""What is wrong with a configuration, and where.

/etc/qmpmem/qmpmem.toml:3: ksm.max_cpu: expected 1 to 100 percent, got 700
"""

from collections.abc import Sequence
from datetime import date, datetime, time

from qmpmem.model.escapes import LONGEST, printable, shortened
from qmpmem.records import Record


class Place(Record, frozen=True):
    """Where something is written."""

    file: str
    line: int | None = None
    """Counted from 1; None: the file itself."""

    def __str__(self) -> str:
        name = printable(self.file)
        return name if self.line is None else f"{name}:{self.line}"


class Mistake(Record, frozen=True):
    """Something that cannot be so, or, as a warning, hardly can be meant."""

    place: Place
    key: str | None
    """As in ``ksm.max_cpu``; None: it is not about a key."""
    problem: str

    @property
    def said(self) -> str:
        """What it is, without where."""
        return self.problem if self.key is None else f"{self.key}: {self.problem}"

    def __str__(self) -> str:
        return f"{self.place}: {self.said}"


def summary(mistakes: Sequence[Mistake]) -> str:
    """Return the first mistake in words, and how many more there are."""
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return f"{mistakes[0]}{more}"


def shown(value: object) -> str:
    """Write a value for a message, much as it stands in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{shortened(value)}"'
    if isinstance(value, int) and value.bit_length() > 3 * LONGEST:
        return f"a number of {value.bit_length()} bits"  # of which str() may refuse to write all
    kinds: dict[type, str] = {
        dict: "a table",
        list: "a list",
        date: "a date",
        datetime: "a date",
        time: "a time",
    }
    return kinds.get(type(value)) or str(value)
