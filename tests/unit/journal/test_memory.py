"""What a forged row may take of memory, whatever it unpacks to; and that large hosts have room."""

import sqlite3
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from qmpmem.errors import KernelError
from qmpmem.journal import compression, ranges, values
from qmpmem.journal.aggregate import fold
from qmpmem.journal.coarse_series import HOUR, MINUTE, Range, decoded, encoded
from qmpmem.journal.compression import DICTIONARY, pack
from qmpmem.journal.deltas import Decoder, Encoder
from qmpmem.journal.points import HostPoint, Row
from qmpmem.journal.reader import Reader
from qmpmem.units import MIB
from tests.rig import journals
from tests.rig.rounds import busy

BEGIN: Final = 1_790_000_000.0
MOST: Final = 64 * MIB
PLENTY: Final = 60 * MIB


def many(unit: bytes, before: bytes, after: bytes) -> bytes:
    return before + b",".join([unit] * (PLENTY // (len(unit) + 1))) + after


def whole(unit: bytes) -> journals.Forge:
    def forge(path: Path) -> None:
        body = journals.packed(many(unit, b'{"snapshot":[', b"]}"))
        journals.run(path, "update rounds set whole = id, body = ? where id = 80", body)

    return forge


def of_settings(path: Path) -> None:
    body = many(b'{"a":1}', b'{"zzz":[', b"]}")
    journals.run(path, "update configs set body = ?", body)


def of_minutes(path: Path) -> None:
    body = journals.packed(many(b'["x","g0"]', b"[[0,1],", b"]"))
    journals.run(path, "update series set base = id, body = ?", body)


def of_changes(path: Path) -> None:
    """Each change is small, and adds to what those before it made."""
    with closing(sqlite3.connect(path, isolation_level=None)) as line:
        question = "select id, body from rounds where id = whole order by id limit 1"
        first, body = line.execute(question).fetchone()
        before = zlib.decompress(body)[-DICTIONARY:]
        for number in range(first + 1, 91):
            added = msgspec.json.encode({"+": {f"k{number}": [{"a": 1}] * 10_000}})
            row = (first, pack(added, before), number)
            line.execute("update rounds set whole = ?, body = ? where id = ?", row)


def peak(path: Path) -> int:
    """Read all of a journal, and return the most bytes that this took."""
    tracemalloc.start()
    try:
        with closing(Reader(path)) as reader:
            for ask in (
                lambda: reader.config(1),
                lambda: [None for _ in reader.entries(0.0)],
                lambda: [None for kind in (MINUTE, HOUR) for _ in reader.rows(kind, Range())],
            ):
                with suppress(KernelError):
                    ask()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "forge", [whole(b"{}"), whole(b'{"a":1}'), whole(b"1.5"), of_settings, of_minutes, of_changes]
)
def test_no_row_takes_much_memory(tmp_path: Path, forge: journals.Forge) -> None:
    """Row F112."""
    path = tmp_path / "j"
    journals.make(path, BEGIN)
    forge(path)
    assert peak(path) < MOST


def test_a_guest_that_a_round_names_again_and_again_is_damage() -> None:
    """Row F112."""
    plain = msgspec.json.decode(zlib.decompress(Encoder().whole(busy(1, wall=BEGIN))))
    plain["snapshot"]["order"] *= 1000
    with pytest.raises(ValueError, match="twice"):
        Decoder().whole(journals.packed(msgspec.json.encode(plain)))


def _rows(count: int) -> Any:  # noqa: ANN401 - a generator
    return (Row(host=HostPoint(begin=60.0 * each), guests={}) for each in range(count))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: list(ranges._bounded(_rows(ranges.ROWS + 1))),
        lambda: list(map(ranges._Meant("g"), map(str, range(ranges.MEANT + 1)), ["g"] * 1000)),
    ],
    ids=["rows", "guests-of-one-name"],
)
def test_what_is_collected_for_a_plot_has_a_bound(ask: Callable[[], object]) -> None:
    """Row F112."""
    with pytest.raises(KernelError, match="more than"):
        ask()


def test_a_round_of_a_thousand_guests_of_which_all_is_known_has_room() -> None:
    """It has 93,000 parts and 2.6 MB."""
    text = msgspec.json.encode({"a": ["x" * 26] * 93_000})
    assert len(values.decode(compression.unpack(pack(text)))["a"]) == 93_000


def test_changes_of_a_thousand_guests_are_read() -> None:
    """Each number changes in each round, for a whole group of rounds."""
    encoder, decoder = Encoder(), Decoder()
    ticks = [busy(number, wall=BEGIN + number, guests=1000) for number in range(20)]
    assert decoder.whole(encoder.whole(ticks[0])) == ticks[0]
    for each in ticks[1:]:
        assert decoder.change(encoder.change(each)) == each


def test_a_minute_of_a_thousand_guests_is_read() -> None:
    [row] = fold([busy(1, wall=BEGIN, guests=1000)], MINUTE)
    assert len(decoded(encoded(row), row.host.begin).guests) > 800
