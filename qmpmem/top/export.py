"""The same figures for programs: CSV, one line for each guest in each round. Pure.

Sizes are bytes, times seconds; what is not known is an empty field.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Final

from qmpmem.top.figures import Figures, Shown

GUEST: Final = (
    "id",
    "name",
    "state",
    "verdict",
    "maximum",
    "actual",
    "used",
    "cache",
    "free",
    "balloon",
    "target",
    "pin",
    "cost",
    "swap",
    "minimum",
    "wants",
    "entitled",
    "bound",
    "kind",
    "age",
)
HOST: Final = ("host_state", "host_available", "host_reserve")
HEADERS: Final = ("time", *GUEST, *HOST)


def csv_header() -> str:
    """Return the names of the fields of `csv_rows`."""
    return _line(HEADERS)


def csv_rows(shown: Shown, guests: Iterable[Figures]) -> Iterator[str]:
    """Write a line for each guest.

    Args:
        shown: the round.
        guests: those of it that are wanted, in their order.
    """
    host = (shown.host.state, shown.host.available, shown.host.reserve)
    for each in guests:
        yield _line((f"{shown.time:.3f}", *(getattr(each, name) for name in GUEST), *host))


def _line(values: Iterable[object]) -> str:
    written = io.StringIO()
    # RFC 4180; a name may hold a line break, which the quotes take in.
    csv.writer(written, lineterminator="").writerow("" if each is None else each for each in values)
    return written.getvalue()
