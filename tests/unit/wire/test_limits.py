"""The strict line parser: what passes as it is, and what is never let in (rows F10, F12, F13)."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.wire.errors import one_line
from qmpmem.wire.limits import DEPTH, LINE, MalformedError, TokenBucket, parse_line
from qmpmem.wire.messages import check_request

NUMBERS = {
    "zero": ("0", 0),
    "minus-zero": ("-0", 0),
    "minus-one": ("-1", -1),
    "2^63": ("9223372036854775808", 2**63),
    "2^64-1": ("18446744073709551615", 2**64 - 1),
    "2^64": ("18446744073709551616", 2**64),
    "-2^63-1": ("-9223372036854775809", -(2**63) - 1),
    "20-digits": ("9" * 20, 10**20 - 1),
    "fraction": ("1.5", 1.5),
    "exponent": ("1e300", 1e300),
    "long-fraction": ("0." + "1" * 40, 0.1111111111111111),
    "true": ("true", True),
    "null": ("null", None),
    "text": ('"12"', "12"),
    "long-text": ('"' + "1" * 5000 + '"', "1" * 5000),
}

NOT_NUMBERS = {
    "nan": "NaN",
    "infinity": "Infinity",
    "minus-infinity": "-Infinity",
    "past-a-double": "1e999",
    "minus-past-a-double": "-1e999",
    "huge-exponent": "1e" + "9" * 400,
    "21-digits": "1" + "0" * 20,
    "minus-21-digits": "-1" + "0" * 20,
    "5000-digits": "7" * 5000,
    "250000-digits": "7" * 250_000,
    "leading-zero": "012",
    "hexadecimal": "0x10",
    "plus": "+1",
    "bare-point": ".5",
    "underscore": "1_000",
    "arabic-digits": "\u0661\u0662",
}

NOT_LINES = {
    "bad-utf8": b'{"a": "\xff"}',
    "bad-utf8-key": b'{"\xc3": 1}',
    "overlong-utf8": b'{"a": "\xc0\x80"}',
    "cut-utf8": b'{"a": "\xe2\x82"}',
    "utf8-surrogate": b'{"a": "\xed\xa0\x80"}',
    "utf16-le": '{"a": 1}'.encode("utf-16-le"),
    "utf16-be": '{"a": 1}'.encode("utf-16-be"),
    "utf16-bom": '{"a": 1}'.encode("utf-16"),
    "utf32": '{"a": 1}'.encode("utf-32"),
    "utf8-bom": b'\xef\xbb\xbf{"a": 1}',
    "nul": b'{"a": "\x00"}',
    "nul-before": b'\x00{"a": 1}',
    "nul-after": b'{"a": 1}\x00',
    "control-character": b'{"a": "\x1b[2J"}',
    "lone-high-surrogate": b'{"a": "\\ud800"}',
    "lone-high-surrogate-then-text": b'{"a": "\\ud800abcdefgh"}',
    "lone-low-surrogate": b'{"a": "\\udc00abcdefgh"}',
    "surrogates-swapped": b'{"a": "\\udc00\\ud800"}',
    "bad-escape": b'{"a": "\\x41"}',
    "empty": b"",
    "blank": b"\r\n",
    "list": b"[1, 2]",
    "number": b"5",
    "text": b'"QMP"',
    "null": b"null",
    "two-objects": b"{}{}",
    "cut": b'{"a": [1, 2',
    "single-quotes": b"{'a': 1}",
    "number-key": b"{1: 2}",
    "trailing-comma": b'{"a": [1,]}',
    "comment": b'{"a": 1} // yes',
    "one-too-deep": b'{"a":' * (DEPTH + 1) + b"1" + b"}" * (DEPTH + 1),
    "one-list-too-deep": b'{"a":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "1000-deep": b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}",
    "100000-deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100000-open": b'{"a":' * 50_000,
}


@pytest.mark.parametrize(("text", "value"), NUMBERS.values(), ids=NUMBERS)
def test_a_scalar_passes_as_it_is(text: str, value: object) -> None:
    parsed = parse_line(f'{{"return": {{"actual": {text}}}}}\r\n'.encode())
    assert parsed == {"return": {"actual": value}}
    inner = parsed["return"]
    assert isinstance(inner, dict)
    assert type(inner["actual"]) is type(value)


@pytest.mark.parametrize("text", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_what_is_no_number_is_not_let_in(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_line(f'{{"return": {{"actual": {text}}}}}\r\n'.encode())


@pytest.mark.parametrize("line", NOT_LINES.values(), ids=NOT_LINES)
def test_what_is_no_line_is_not_let_in(line: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_line(line)


def test_depth_is_counted_not_brackets() -> None:
    deep = b'{"a":' * DEPTH + b"1" + b"}" * DEPTH
    assert parse_line(deep)
    wide = b'{"a":[' + b"{}," * 1000 + b"{}]}"
    assert parse_line(wide) == {"a": [{}] * 1001}


@pytest.mark.parametrize(("extra", "passes"), [(-1, True), (0, True), (1, False)])
def test_a_line_may_be_so_long(extra: int, passes: bool) -> None:  # noqa: FBT001 - a table's column
    frame = b'{"a": ""}'
    line = frame.replace(b'""', b'"' + b"x" * (LINE + extra - len(frame)) + b'"')
    assert len(line) == LINE + extra
    if passes:
        assert parse_line(line + b"\r\n")
    else:
        with pytest.raises(MalformedError, match="262144 bytes"):
            parse_line(line + b"\r\n")


def test_of_two_values_for_a_key_one_counts() -> None:
    assert parse_line(b'{"a": 1, "a": 2}') == {"a": 2}


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_our_error(line: bytes) -> None:
    with suppress(MalformedError):
        assert isinstance(parse_line(line), dict)


@given(
    st.dictionaries(
        st.text(max_size=5).filter(lambda text: text.isprintable()),
        st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.none() | st.text(max_size=10),
    )
)
def test_what_json_writes_is_read_back(value: dict[str, object]) -> None:
    assert parse_line(json.dumps(value).encode()) == value


def test_the_flood_gauge_fills_again_with_time_and_no_further() -> None:
    gauge = TokenBucket(0.0, burst=10, rate=2)
    assert gauge.take(10, 0.0)
    assert not gauge.take(1, 0.4)
    assert gauge.take(1, 0.5)
    assert gauge.take(10, 1000.0)
    assert not gauge.take(1, 1000.0)


@pytest.mark.parametrize(
    "arguments",
    [{"path": "x" * 5000}, {"x" * 5000: 1}, {"path": "\udcff"}, {"path": "ab\ud800"}],
    ids=["long-value", "long-name", "undecodable-byte", "surrogate"],
)
def test_a_request_that_qemu_could_not_read_is_not_sent(arguments: dict[str, str | int]) -> None:
    with pytest.raises(MalformedError):
        check_request("qom-get", arguments)


@pytest.mark.parametrize("value", [float("nan"), 1.5, None, [1], {}, b"x"], ids=repr)
def test_an_argument_is_a_scalar(value: object) -> None:
    with pytest.raises(MalformedError):
        check_request("balloon", {"value": value})  # type: ignore[dict-item]


def test_a_request_may_hold_any_text() -> None:
    check_request("qom-get", {"path": "/machine/\u5e73/\U0001f600", "value": 2**63, "on": True})


def test_foreign_text_is_shown_in_one_line() -> None:
    assert one_line("a\nb\x1b[2J\u202e") == "a\\nb\\x1b[2J\\u202e"
    assert one_line("x" * 1000) == "x" * 200 + "…"


def test_a_human_monitor_is_called_one() -> None:
    greeting = b"QEMU 7.2.22 monitor - type 'help' for more information\r\n"
    with pytest.raises(MalformedError, match=r"human monitor .*QMP is needed"):
        parse_line(greeting)
