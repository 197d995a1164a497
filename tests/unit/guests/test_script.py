"""The script language: read whole, refused whole."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import ConfigError
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.rundir import GuestRecord
from qmpmem.guests.script import Get, Line, Set, Sleep, Wait, match_guests, parse
from qmpmem.units import MIB, Absolute, Bytes, Delta, Share


def found(guest: str) -> LiveGuest:
    record = GuestRecord(
        version=1, id=guest, name=guest, pid=1, start_time=1, socket="/x", uid=0, created=0.0
    )
    return LiveGuest(record=record, pid=1)


def test_every_statement_is_read_with_its_line() -> None:
    text = (
        "# make room\n\nset web* 256M  # all of them\nset db1 -128M\n"
        "wait web* 50% 10s\nsleep 500ms\nget db1\n"
    )
    assert parse(text) == [
        Line(
            number=3,
            text="set web* 256M  # all of them",
            statement=Set(pattern="web*", change=Absolute(size=Bytes(256 * MIB))),
        ),
        Line(
            number=4,
            text="set db1 -128M",
            statement=Set(pattern="db1", change=Delta(size=Bytes(-128 * MIB))),
        ),
        Line(
            number=5,
            text="wait web* 50% 10s",
            statement=Wait(pattern="web*", change=Share(percent=Decimal(50)), seconds=10.0),
        ),
        Line(number=6, text="sleep 500ms", statement=Sleep(seconds=0.5)),
        Line(number=7, text="get db1", statement=Get(pattern="db1")),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("set web1", "expected `set PATTERN SIZE`"),
        ("set web1 256M now", "expected `set PATTERN SIZE`"),
        ("set web1 256", "unit is missing"),
        ("wait web1 256M", "expected `wait PATTERN SIZE DURATION`"),
        ("wait web1 +1M 10s", "no end to wait for"),
        ("wait web1 256M 10", "write 500ms, 90s, 5min, 1h30m or 2d"),
        ("sleep", "expected `sleep DURATION`"),
        ("sleep -1s", "write 500ms"),
        ("get", "expected `get PATTERN`"),
        ("balloon web1 5M", "expected one of set, wait, sleep, get"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(f"sleep 1s\n{text}\n")
    assert error.value.message.startswith("line 2: ")
    assert said in error.value.message


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"line 1: .*; line 3: "):
        parse("sett a 1M\nsleep 1s\nget\n")


def test_patterns_mean_guests() -> None:
    guests = [found("web1"), found("web2"), found("db1")]
    meant = match_guests(parse("set web* 1G\nget db1\nsleep 1s"), guests)
    assert {key: [guest.record.id for guest in value] for key, value in meant.items()} == {
        "web*": ["web1", "web2"],
        "db1": ["db1"],
    }


def test_a_pattern_that_means_no_guest_is_an_error_before_anything_happens() -> None:
    with pytest.raises(ConfigError, match=r"line 2: x\*: no guest has such an id"):
        match_guests(parse("get a\nget x*"), [found("a")])


@given(st.text(alphabet="set wait\n#get*1.5Mms%+-\x00é", max_size=60))
def test_any_text_is_a_script_or_a_mistake(text: str) -> None:
    try:
        lines = parse(text)
    except ConfigError as error:
        said = error.message
    else:
        said = "line"
        assert [line.number for line in lines] == sorted(line.number for line in lines)
    assert said.startswith("line")
