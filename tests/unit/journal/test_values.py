"""JSON of the journal: usable, or damage."""

import math

import pytest

from qmpmem.journal import values

DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b'"\xed\xa0\x80"',
        DEEP,
        b"9223372036854775808",
        b"-9223372036854775808",
        b'{"a":[{"b":1' + b"0" * 400 + b"}]}",
        b"1" + b"0" * 5000,
        b"1e19",
        b"1E+19",
        b"100000000000000000e9",
        b"12345.5e300",
        b"1e999",
        b"-1e300",
    ],
    ids=range(15),
)
def test_what_no_round_has_is_damage(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's word or ours
        values.decode(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"9223372036854775807", (1 << 63) - 1),
        (b"9.2e18", 9.2e18),
        (b"1e-300", 1e-300),
        (b"0.30000000000000000004", 0.3),
        (b'"1e300"', "1e300"),
        (b'{"10000000000000000000000":[true,null]}', {"1" + "0" * 22: [True, None]}),
    ],
)
def test_what_a_round_may_have_is_read(text: bytes, value: object) -> None:
    assert values.decode(text) == value


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, {"a": [[10**30]]}])
def test_numbers_are_bounded(value: object) -> None:
    with pytest.raises(ValueError, match="too large"):
        values.expect_bounded(value)


@pytest.mark.parametrize(
    "error", [KeyError("a"), RecursionError(), OverflowError(), ZeroDivisionError(), TypeError()]
)
def test_what_a_decoder_stumbles_over_is_damage(error: Exception) -> None:
    with pytest.raises(ValueError), values.damage():  # noqa: PT011 - of any text
        raise error
