"""Records as comma-separated values (RFC 4180), for spreadsheets and scripts. Pure.

Rules of this file:
    Fields are called as in ``--json``, sizes are bytes, times are local ones with their offset from
    UTC (RFC 3339). What is not known is empty.
    A row is one line. A text that a spreadsheet would take for a formula has an apostrophe before
    it: a guest's owner chose it.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import tzinfo
from typing import Final

import msgspec

from qmpmem.model.escapes import printable
from qmpmem.records import Record
from qmpmem.view import axes

FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with (OWASP, CSV Injection)."""


def lines(
    kind: type[Record],
    records: Iterable[Record],
    times: Collection[str] = (),
    zone: tzinfo | None = None,
) -> Iterator[str]:
    """Write records of one kind, a line with the names of their fields before them.

    Args:
        kind: of the records; none of their fields is a record.
        records: in this order.
        times: fields that are seconds since 1970.
        zone: what the clock shows; None: this machine's.
    """
    fields = kind.__struct_fields__
    yield _line(fields)
    for record in records:
        values = msgspec.structs.astuple(record)
        yield _line(
            [
                _time(value, zone) if field in times else _cell(value)
                for field, value in zip(fields, values, strict=True)
            ]
        )


def _line(cells: Sequence[str]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow(cells)
    return written.getvalue()


def _time(value: object, zone: tzinfo | None) -> str:
    moment = axes.local(value, zone) if isinstance(value, float) else None
    return _cell(value) if moment is None else moment.isoformat(timespec="milliseconds")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    # Before it is escaped: what is no printable character is a backslash afterwards.
    guard = "'" if value.startswith(FORMULAS) else ""
    return guard + printable(value)
