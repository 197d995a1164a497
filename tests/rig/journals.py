"""Journals that no agent wrote: damaged, or forged by another user, by statements of SQL."""

import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from qmpmem.journal import coarse_series
from qmpmem.journal.aggregate import Aggregate
from qmpmem.journal.deltas import Decoder, Encoder
from qmpmem.journal.store import Store
from qmpmem.model.config import Config
from qmpmem.policy.habits import Use
from qmpmem.units import MIB, Bytes
from tests.rig.rounds import busy

Forge = Callable[[Path], None]

SIZE: Final = Bytes(8 * MIB)
GUEST: Final = "g0"
DEEP: Final = b"[" * 5000 + b"]" * 5000
HUGE: Final = b"1" + b"0" * 400

_PAGE: Final = 4096
"""Bytes of a page of the journal."""

ENDLESS: Final = """
create view {name} as with recursive endless(x) as (select 1 union all select x + 1 from endless)
select {columns} from endless
"""


def make(path: Path, begin: float, rounds: int = 90) -> None:
    """Write a journal, with all of its tables filled: a round each two seconds.

    Args:
        path: the file.
        begin: when the first round was, in seconds since 1970.
        rounds: how many.
    """
    minutes = Aggregate(coarse_series.MINUTE)
    with closing(Store(path, SIZE)) as store:
        for number in range(rounds):
            tick = busy(number, wall=begin + 2 * number)
            written = store.add(tick, Config())
            if (row := minutes.add(tick)) is not None:
                store.keep(row, written, 31.0)
        size = Bytes(MIB)
        store.learn(
            [
                Use(
                    guest=GUEST,
                    day=1,
                    hour=1,
                    usual=size,
                    peak=size,
                    start=None,
                    maximum=size,
                    minutes=60,
                )
            ]
        )


def run(path: Path, script: str, *values: object) -> None:
    """Change a journal by a statement, or by a script without values."""
    with closing(sqlite3.connect(path, isolation_level=None)) as line:
        if values:
            line.execute(script, values)
        else:
            line.executescript(script)


def by(script: str, *values: object) -> Forge:
    """Return what changes a journal so."""
    return lambda path: run(path, script, *values)


def in_schema(before: str, after: str) -> Forge:
    """Return what changes the text of the tables in the file itself, past SQLite's own checks."""

    def forge(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as line:
            line.execute("pragma writable_schema = on")
            line.execute("update sqlite_master set sql = replace(sql, ?, ?)", (before, after))

    return forge


def in_rounds(change: Callable[[dict[str, object]], object]) -> Forge:
    """Return what changes what each round says, and packs it again as a round of its own."""

    def forge(path: Path) -> None:
        encoder, decoder = Encoder(), Decoder()
        with closing(sqlite3.connect(path, isolation_level=None)) as line:
            found = line.execute("select id, whole, body from rounds order by id").fetchall()
            for number, whole, body in found:
                tick = decoder.whole(body) if number == whole else decoder.change(body)
                plain = msgspec.json.decode(zlib.decompress(encoder.whole(tick)))
                change(plain)
                line.execute(
                    "update rounds set whole = id, body = ? where id = ?",
                    (zlib.compress(msgspec.json.encode(plain)), number),
                )

    return forge


def as_view(name: str, columns: str) -> Forge:
    """Return what puts an endless view in the place of a table."""
    script = f"alter table {name} rename to old; {ENDLESS.format(name=name, columns=columns)}"
    return by(script)


def in_a_circle(path: Path) -> None:
    """Have all of a table's inner page lead to its first page (SQLite: File Format, 1.6)."""
    with closing(sqlite3.connect(path)) as line:
        [root] = line.execute("select rootpage from sqlite_master where name='rounds'").fetchone()
        [size] = line.execute("pragma page_size").fetchone()
    content = bytearray(path.read_bytes())
    page = memoryview(content)[(root - 1) * size : root * size]
    assert page[0] == 5, "not an inner page"
    count = int.from_bytes(page[3:5], "big")
    cells = [int.from_bytes(page[12 + 2 * each : 14 + 2 * each], "big") for each in range(count)]
    for cell in cells[1:]:
        page[cell : cell + 4] = bytes(page[cells[0] : cells[0] + 4])
    del page
    path.write_bytes(content)


def again_and_again(index: str, levels: int = 6) -> Forge:
    """Return what has an index lead by many ways to its first page: 40 to the power of `levels`."""

    def forge(path: Path) -> None:
        with closing(sqlite3.connect(path)) as line:
            question = "select rootpage from sqlite_master where name = ?"
            [root] = line.execute(question, (index,)).fetchone()
        content = bytearray(path.read_bytes())
        leaf = _page(content, root)
        while leaf[0] == _INNER:
            [cell] = struct.unpack(">H", leaf[12:14])
            leaf = _page(content, int.from_bytes(leaf[cell : cell + 4], "big"))
        [cell] = struct.unpack(">H", leaf[8:10])
        entry = leaf[cell : cell + 1 + leaf[cell]]
        content += leaf
        for _ in range(levels):
            above = _leading_to(len(content) // _PAGE, entry)
            content += above
        content[(root - 1) * _PAGE : root * _PAGE] = content[-_PAGE:]
        content[28:32] = struct.pack(">I", len(content) // _PAGE)
        path.write_bytes(content)

    return forge


_INNER: Final = 2
"""The kind of a page of an index that leads to others (SQLite: File Format, 1.6)."""


def _page(content: bytearray, number: int) -> bytes:
    return bytes(content[(number - 1) * _PAGE : number * _PAGE])


def _leading_to(page: int, entry: bytes, times: int = 40) -> bytes:
    cell = struct.pack(">I", page) + entry
    places = [_PAGE - len(cell) * (each + 1) for each in range(times)]
    head = struct.pack(">BHHHBI", _INNER, 0, times, places[-1], 0, page)
    pointers = struct.pack(f">{times}H", *places)
    free = bytes(places[-1] - len(head) - len(pointers))
    return head + pointers + free + cell * times


def in_head(place: int, value: int) -> Forge:
    """Return what changes a byte of the file's first hundred (SQLite: File Format, 1.3)."""

    def forge(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place] = value
        path.write_bytes(content)

    return forge


def in_wal(place: int, value: int) -> Forge:
    """Return what leaves a -wal as of a kill, with a byte of it changed, and its sums made right.

    Args:
        place: the byte's place: in the -wal's head, or after that in each copy of the first page.
        value: the byte.
    """

    def forge(path: Path) -> None:
        wal = path.with_name(path.name + "-wal")
        with closing(sqlite3.connect(path, isolation_level=None)) as line:
            line.execute("create table later (x)")
            before, content = path.read_bytes(), bytearray(wal.read_bytes())
        path.write_bytes(before)
        wal.write_bytes(_with(content, place, value))

    return forge


_HEAD: Final = 32
_FRAME: Final = 24


def _with(wal: bytearray, place: int, value: int) -> bytes:
    order = ">" if wal[3] & 1 else "<"
    if place < _HEAD:
        wal[place] = value
    sums = _summed(order, (0, 0), wal[: _HEAD - 8])
    wal[_HEAD - 8 : _HEAD] = struct.pack(">II", *sums)
    for frame in range(_HEAD, len(wal), _FRAME + _PAGE):
        page = frame + _FRAME
        if place >= _HEAD and int.from_bytes(wal[frame : frame + 4], "big") == 1:
            wal[page + place - _HEAD] = value
        sums = _summed(order, sums, wal[frame : frame + 8] + wal[page : page + _PAGE])
        wal[frame + 16 : page] = struct.pack(">II", *sums)
    return bytes(wal)


def _summed(order: str, sums: tuple[int, int], content: bytearray) -> tuple[int, int]:
    """Add words up as SQLite does (File Format, 4.2)."""
    one, other = sums
    for first, second in struct.iter_unpack(f"{order}II", content):
        one = (one + first + other) & 0xFFFFFFFF
        other = (other + second + one) & 0xFFFFFFFF
    return one, other


def packed(text: bytes) -> bytes:
    """Return a row as the journal packs one that needs no other."""
    return zlib.compress(text)


_COLUMNS: Final = "x as id, 1e9 + x as wall, x as whole, 1 as config, x'00' as body"
_OF_SERIES: Final = (
    "x as id, 60 as span, x as begin, x as base, x as upto, 1 as format, x'' as body"
)

SCHEMAS: Final[dict[str, Forge]] = {
    "rounds-is-a-view": as_view("rounds", _COLUMNS),
    "configs-is-a-view": as_view("configs", "x as id, x'7b7d' as body"),
    "series-is-a-view": as_view("series", _OF_SERIES),
    "uses-is-a-view": as_view("uses", "'g0' as guest, x as day, 1, 1, 1, 1, 1, 1"),
    "a-trigger-refuses": by(
        "create trigger no before insert on rounds begin select raise(abort, 'no'); end"
    ),
    "a-trigger-removes": by(
        "create trigger all_gone after insert on configs begin delete from rounds; end"
    ),
    "a-trigger-of-series": by(
        "create trigger no before insert on series begin select raise(abort, 'no'); end"
    ),
    "a-column-is-computed": by(
        "alter table rounds add column more as (printf('%.*c', 100000000, 'x'))"
    ),
    "a-check": in_schema("config integer", "config integer check (config < 0)"),
    "a-column-is-missing": by("drop index by_group; alter table rounds drop column whole"),
    "an-index-computes": by("create index more on rounds (length(printf('%.*c', 999999, body)))"),
    "an-index-is-missing": by("drop index by_time"),
    "no-configs": by("drop table configs"),
    "a-virtual-table": by("drop table rounds; create virtual table rounds using fts5(id, wall)"),
    "another-collation": in_schema("wall real", "wall real collate nocase"),
}
"""What is not the schema of ours."""

ROWS: Final[dict[str, Forge]] = {
    "wall-is-text": by("update rounds set wall = 'abc' where id = 3"),
    "wall-is-no-text": by("update rounds set wall = cast(x'ff' as text) where id = 3"),
    "wall-is-bytes": by("update rounds set wall = x'00' where id = 3"),
    "wall-is-infinite": by("update rounds set wall = 9e999 where id = 3"),
    "wall-is-of-no-calendar": by("update rounds set wall = 1e300 where id = 3"),
    "wall-is-before-1970": by("update rounds set wall = -1e9 where id = 3"),
    "whole-is-text": by("update rounds set whole = 'x' where id > 3"),
    "whole-is-to-come": by("update rounds set whole = 99999 where id = 3"),
    "config-is-text": by("update rounds set config = 'x'"),
    "body-is-text": by("update rounds set body = 'x' where id = 3"),
    "body-is-a-number": by("update rounds set body = 7"),
    "the-last-id": by("update rounds set id = 9223372036854775807 where id = 90"),
    "the-last-id-of-configs": by("update configs set id = 9223372036854775807"),
    "the-last-id-of-series": by("update sqlite_sequence set seq = 9223372036854775807"),
    "the-sequence-is-text": by("update sqlite_sequence set seq = 'x'"),
    "begin-is-text": by("update series set begin = 'x'"),
    "begin-is-of-no-calendar": by("update series set begin = 9223372036854775807"),
    "span-is-text": by("update series set begin = cast(x'ff' as text) where id = 1"),
    "upto-is-bytes": by("update series set upto = x'00'"),
    "base-is-text": by("update series set base = 'x'"),
}
"""Rows with which no statement of ours can work."""


def _huge(plain: dict[str, object]) -> None:
    for guest in plain["snapshot"]["guests"].values():  # type: ignore[index]
        guest["maximum"] = guest["actual"] = 10**400


def _far(plain: dict[str, object]) -> None:
    plain["snapshot"]["wall"] = 5e17  # type: ignore[index]


BODIES: Final[dict[str, Forge]] = {
    "rounds-are-deep": by("update rounds set whole = id, body = ?", packed(b'{"a":' + DEEP + b"}")),
    "a-change-is-deep": by(
        "update rounds set body = ? where id = 5",
        packed(b'{"~":' * 900 + b"{}" + b"}" * 900),
    ),
    "rounds-are-a-list": by("update rounds set whole = id, body = ?", packed(b"[]")),
    "rounds-are-no-text": by("update rounds set whole = id, body = ?", packed(b'{"a":"\xff"}')),
    "sizes-are-huge": in_rounds(_huge),
    "times-are-far": in_rounds(_far),
    "settings-are-deep": by("update configs set body = ?", b'{"zzz":' + DEEP + b"}"),
    "settings-are-text": by("update configs set body = ?", '{"zzz":' + DEEP.decode() + "}"),
    "settings-are-no-text": by("update configs set body = ?", b'{"zzz":"\xff"}'),
    "settings-are-huge": by("update configs set body = ?", b'{"budget":' + HUGE + b"}"),
    "settings-are-a-number": by("update configs set body = 7"),
    "series-are-deep": by("update series set base = id, body = ?", packed(DEEP)),
    "series-are-huge": by(
        "update series set base = id, body = ?",
        packed(b'[[0,1],["g0",null,1,' + HUGE + b",1," + HUGE + b"]]"),
    ),
    "uses-are-text": by("update uses set usual = 'x', day = 'x', minutes = x'ff'"),
    "uses-are-of-no-day": by("update uses set day = 9223372036854775807"),
}
"""Rows that only a reader looks into."""

HEADS: Final[dict[str, Forge]] = {
    "another-version-may-write": in_head(18, 3),
    "another-version-may-read": in_head(19, 3),
    "another-version-may-write-by-the-wal": in_wal(_HEAD + 18, 200),
    "the-wal-is-of-another-version": in_wal(7, 0x19),
}
"""Files that SQLite calls read-only, or does not open."""

PAGES: Final[dict[str, Forge]] = {
    each: again_and_again(each) for each in ("by_time", "by_span", "by_base", "by_group", "uses")
}
"""Indexes that never end."""

_MEGABYTES: Final = """
with recursive c(i) as (select 1 union all select i + 1 from c where i < {})
select zeroblob(1000000) from c
"""
CROWDED: Final[dict[str, Forge]] = {
    "a-table-of-others-fills-it": by(
        f"create table zz (x); insert into zz {_MEGABYTES.format(12)}"
    ),
    "settings-fill-it": by(f"insert into configs (body) {_MEGABYTES.format(12)}"),
    "settings-fill-most-of-it": by(f"insert into configs (body) {_MEGABYTES.format(5)}"),
    "one-group-fills-it": by("update rounds set whole = 1, body = zeroblob(64000)"),
}
"""Files of which there is no room left for rounds, in a journal of `SIZE`."""

EVERY: Final = {**SCHEMAS, **ROWS, **BODIES, **HEADS, **PAGES}
