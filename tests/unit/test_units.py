"""Sizes and times: what is read, what is refused, and that text and numbers agree."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import ConfigError
from qmpmem.units import (
    GIB,
    KIB,
    MIB,
    PAGE,
    Absolute,
    Bytes,
    Delta,
    Share,
    format_duration,
    format_size,
    parse_change,
    parse_duration,
    parse_size,
    resolve,
    write_change,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 * MIB),
        ("512MiB", 512 * MIB),
        ("512m", 512 * MIB),
        ("1.5GiB", 3 * GIB // 2),
        ("262144K", 256 * MIB),
        ("0.5K", 512),
        (" 1 G ", GIB),
        ("2T", 2048 * GIB),
    ],
)
def test_a_size_is_read_as_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", "M", "512", "512MB", "512KB", "1e3M", "-1M", "+1M", "0x10M", "1,5G", "٣M", "NaNM"),
        *("infG", "9" * 15 + "T", "1.M", ".5G", "1G2", "50%", "1 000M", "1G\x00", "512X", "--1M"),
    ],
)
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_size(text)
    assert error.value.hint


def test_a_bare_number_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="unit is missing") as error:
        parse_change("262144")
    assert "KiB to virsh" in str(error.value.hint)


def test_megabytes_are_refused_because_libvirt_reads_them_otherwise() -> None:
    with pytest.raises(ConfigError, match="MB"):
        parse_change("512MB")


@pytest.mark.parametrize("text", ["101%", "-5%", "+5%", "%", "1e2%"])
def test_a_share_is_between_nothing_and_all(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_change(text)


def test_changes_are_told_apart() -> None:
    assert parse_change("512M") == Absolute(size=Bytes(512 * MIB))
    assert parse_change("50%") == Share(percent=Decimal(50))
    assert parse_change("max") == parse_change("100%")
    assert parse_change("+128M") == Delta(size=Bytes(128 * MIB))
    assert parse_change("-128M") == Delta(size=Bytes(-128 * MIB))


def test_a_change_means_a_target() -> None:
    actual, maximum = Bytes(300 * MIB), Bytes(512 * MIB)
    wanted = {"256M": 256, "50%": 256, "+100M": 400, "-100M": 200, "100%": 512}
    found = {
        text: resolve(parse_change(text), actual=actual, maximum=maximum) // MIB for text in wanted
    }
    assert found == wanted


@given(st.integers(-(1 << 50), 1 << 50), st.integers(PAGE, 1 << 50), st.integers(PAGE, 1 << 50))
def test_a_target_is_whole_pages_and_never_more_than_asked(
    size: int, actual: int, maximum: int
) -> None:
    target = resolve(Delta(size=Bytes(size)), actual=Bytes(actual), maximum=Bytes(maximum))
    assert target % PAGE == 0
    assert 0 <= actual + size - target < PAGE


@given(st.integers(0, 1 << 50))
def test_what_is_written_reads_back_within_its_last_digit(size: int) -> None:
    text = format_size(Bytes(size))
    if text.endswith(" B"):
        assert text == f"{size} B"
        return
    number, unit = text.split()
    digit = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB}[unit] / 10
    assert abs(parse_size(number + unit) - size) <= digit / 2 + 1


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_never_anything_else(text: str) -> None:
    try:
        parse_change(text)
    except ConfigError as error:
        said = error.message
    else:
        return
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("5min", 300),
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("1h30m15s", 5415),
        ("500ms", 0.5),
        ("1s500ms", 1.5),
        ("1m1ms", 60.001),
        ("2d", 172800),
        ("1d12h", 129600),
        ("0.1s", 0.1),
        ("1.5 h", 5400),
        (" 10s ", 10),
        ("0s", 0),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_time_is_read_as_seconds(text: str, seconds: float, *, bare: bool) -> None:
    assert parse_duration(text, bare=bare) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "s", "m", "soon", "1x", "5minutes", "5M", "-1s", "+1s", "1,5s", "٣s", "1s\x00"),
        *("30m1h", "1m1m", "1ms1s", "1h30", "nan", "inf", "nans", "1_0s", ".5s", "1.s", "1e3s"),
        *("11000d", "9" * 300 + "s", "9" * 5000 + "s", "1e999999999", "--1s", "1s;2s"),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_what_is_not_a_time_is_refused_in_one_line(text: str, *, bare: bool) -> None:
    with pytest.raises(ConfigError) as error:
        parse_duration(text, bare=bare)
    assert "\n" not in error.value.message
    assert len(error.value.message) < 400 + 100


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), ("0.25", 0.25), (".5", 0.5), ("1e2", 100)]
)
def test_a_bare_number_is_seconds_only_where_that_is_said(text: str, seconds: float) -> None:
    assert parse_duration(text, bare=True) == seconds
    with pytest.raises(ConfigError, match=r"write 500ms, 90s, 5min, 1h30m or 2d\Z"):
        parse_duration(text)


@given(st.floats(0, 3e8))
def test_a_time_that_is_written_reads_back_as_the_same(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_the_parts_of_a_time_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    whole = 86400 * days + 3600 * hours + 60 * minutes + seconds
    for minute in ("m", "min"):
        assert parse_duration(f"{days}d{hours}h{minutes}{minute}{seconds}s") == whole


@given(st.text(max_size=12))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with suppress(ConfigError):
        assert parse_duration(text, bare=True) >= 0


CHANGES = st.one_of(
    st.builds(Absolute, size=st.integers(0, 1 << 50).map(Bytes)),
    st.builds(Share, percent=st.decimals(0, 100, places=9)),
    st.builds(Delta, size=st.integers(-(1 << 50), 1 << 50).map(Bytes)),
)


@given(CHANGES, st.integers(0, 1 << 30), st.integers(0, 1 << 30))
def test_a_change_that_is_written_and_read_means_the_same(
    change: Absolute | Share | Delta, actual: int, maximum: int
) -> None:
    sizes = {"actual": Bytes(actual * PAGE), "maximum": Bytes(maximum * PAGE)}
    read = parse_change(write_change(change))
    assert resolve(read, **sizes) == resolve(change, **sizes)
