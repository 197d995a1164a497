"""The kinds of values: how each is read from a file, and written into one. Pure.

Rules of this file:
    What `read` gives, `write` turns into text that reads as the same again.
    A value is never bent into shape: 1 is no truth, "1" is no number, and a number is no size.
"""

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Final

from qmpmem.configuration.patterns import flaw
from qmpmem.errors import ConfigError
from qmpmem.records import Record
from qmpmem.units import (
    PAGE,
    Bytes,
    exact_size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

DEFAULT: Final = "default"
"""What a later file writes to undo what an earlier one says: TOML has no null."""

_SIZE: Final = "a size such as 512M"
_UNQUOTED: Final = "without quotes"
_PERCENT: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,6})?\s*%")
_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_IDENTITY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_LONGEST_PATH: Final = 4095
"""PATH_MAX without the last zero (linux/limits.h)."""


class UnfitError(ValueError):
    """A value is not of its kind. Says why, where that is not plain to see."""


class Percent(Record, frozen=True):
    """A part of the guest's maximum."""

    percent: int


class Kind(Record, frozen=True):
    """What values a key takes."""

    expected: str
    read: Callable[[object], object]
    """Raises UnfitError."""
    write: Callable[[object], str]


def size(least: Bytes) -> Kind:
    """Sizes, as on the command line; rounded down to what a balloon can count."""
    return Kind(
        expected=f"{_SIZE}, at least {format_size(least)}",
        read=lambda value: _read_size(value, least),
        write=_write_size,
    )


def size_or_percent(least: Bytes) -> Kind:
    """Sizes, or parts of the guest's maximum."""

    def read(value: object) -> object:
        if isinstance(value, str) and _PERCENT.fullmatch(value.strip()):
            return Percent(percent=_read_whole(_unpercent(value), 1, 100))
        return _read_size(value, least)

    def write(value: object) -> str:
        return f'"{value.percent}%"' if isinstance(value, Percent) else _write_size(value)

    return Kind(
        expected=f"{_SIZE}, at least {format_size(least)}, or 1% to 100%", read=read, write=write
    )


def size_or_path(least: Bytes) -> Kind:
    """Sizes, or absolute paths."""
    return Kind(
        expected=f"{_SIZE}, at least {format_size(least)}, or an absolute path",
        read=lambda value: (
            _read_path(value)
            if isinstance(value, str) and value.startswith("/")
            else _read_size(value, least)
        ),
        write=lambda value: _quote(value) if isinstance(value, str) else _write_size(value),
    )


def duration(least: float, most: float, unit: float = 1.0) -> Kind:
    """Times, in seconds or with a unit; given as so many of `unit` seconds."""
    return Kind(
        expected=f"a time from {format_duration(least)} to {format_duration(most)}",
        read=lambda value: _read_time(value, least, most) / unit,
        # To the microsecond where it was divided: 60.035, not 60.035000000000004.
        write=lambda value: _write_time(
            float(str(value)) if unit == 1 else round(float(str(value)) * unit, 6)
        ),
    )


def percent(least: int, most: int) -> Kind:
    """Whole percent, with or without the sign."""
    return Kind(
        expected=f"{least} to {most} percent",
        read=lambda value: _read_whole(_unpercent(value), least, most),
        write=str,
    )


def fraction(most: float) -> Kind:
    """Parts of one, also in percent."""

    def read(value: object) -> object:
        number = _unpercent(value)
        scale = 100 if number is not value else 1
        return _read_number(number, 0, most * scale) / scale

    return Kind(
        expected=f"a number from 0 to {most}, or 0% to {most * 100:g}%", read=read, write=str
    )


def whole(least: int, most: int) -> Kind:
    """Whole numbers."""
    return Kind(
        expected=f"a whole number from {least} to {most}",
        read=lambda value: _read_whole(value, least, most),
        write=str,
    )


def flag() -> Kind:
    """Truths."""

    def read(value: object) -> object:
        if not isinstance(value, bool):
            is_quoted = isinstance(value, str) and value.lower() in ("true", "false")
            raise UnfitError(_UNQUOTED if is_quoted else "")
        return value

    return Kind(expected="true or false", read=read, write=lambda value: str(value).lower())


def choice(options: Sequence[str]) -> Kind:
    """One of some words."""

    def read(value: object) -> object:
        if value not in options or not isinstance(value, str):
            raise UnfitError(did_you_mean(value, options))
        return value

    return Kind(
        expected="one of " + ", ".join(f'"{each}"' for each in options), read=read, write=_quote
    )


def word() -> Kind:
    """Plain words, as the launcher takes them (launchers/kvm_settings.py)."""

    def read(value: object) -> object:
        if not isinstance(value, str) or not _WORD.fullmatch(value) or not value.strip("._-"):
            raise UnfitError
        return value

    return Kind(expected="1 to 64 letters, digits, ._-", read=read, write=_quote)


def path() -> Kind:
    """Absolute paths of files."""

    def read(value: object) -> object:
        if isinstance(value, str) and value.endswith("/"):
            raise UnfitError("a directory")
        return _read_path(value)

    return Kind(expected="the absolute path of a file", read=read, write=_quote)


def pattern() -> Kind:
    """Patterns that some guest's id can match."""

    def read(value: object) -> object:
        if isinstance(value, list):
            raise UnfitError("one pattern for each [[guest]]")
        if not isinstance(value, str):
            raise UnfitError
        problem = flaw(value)
        if problem is not None:
            raise UnfitError(problem)
        return value

    return Kind(expected='a pattern of ids or names such as "db*"', read=read, write=_quote)


def socket_pattern() -> Kind:
    """Absolute paths of sockets, or patterns of such."""

    def read(value: object) -> object:
        found = str(_read_path(value))
        if found.endswith("/"):
            raise UnfitError("a directory")
        if ".." in found.split("/"):
            raise UnfitError("no ..")
        return found

    return Kind(
        expected='the absolute path of a socket, or a pattern such as "/run/vms/*.qmp"',
        read=read,
        write=_quote,
    )


def identity() -> Kind:
    """Names of guests that are ids as well."""

    def read(value: object) -> object:
        if not isinstance(value, str) or not _IDENTITY.fullmatch(value):
            raise UnfitError
        return value

    return Kind(
        expected="1 to 48 letters, digits, ._-, the first of them no sign", read=read, write=_quote
    )


def or_default(kind: Kind) -> Kind:
    """Likewise, or the word that stands for none."""
    return Kind(
        expected=f'{kind.expected}, or "{DEFAULT}"',
        read=lambda value: None if value == DEFAULT else kind.read(value),
        write=lambda value: f'"{DEFAULT}"' if value is None else kind.write(value),
    )


def did_you_mean(value: object, options: Sequence[str]) -> str:
    """Suggest the option that looks like it; nothing where none does."""
    lowered = str(value)[:64].lower().replace("-", "_").strip()
    close = get_close_matches(lowered, options, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _read_size(value: object, least: Bytes) -> Bytes:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise UnfitError(
            "a unit is missing: a bare number is KiB to virsh, MiB to qemu -m and bytes to QMP"
        )
    if not isinstance(value, str):
        raise UnfitError
    try:
        found = parse_size(value)
    except ConfigError as error:
        raise UnfitError(error.message.rpartition(": ")[2]) from error
    if found < least:
        raise UnfitError
    return Bytes(found - found % PAGE)


def _write_size(value: object) -> str:
    return f'"{exact_size(Bytes(int(str(value))))}"'


def _read_time(value: object, least: float, most: float) -> float:
    if not isinstance(value, str):
        return _read_number(value, least, most)
    try:
        seconds = parse_duration(value, bare=True)
    except ConfigError as error:
        raise UnfitError(error.message.rpartition(": ")[2]) from error
    return _read_number(seconds, least, most)


def _write_time(seconds: float) -> str:
    return f'"{format_duration(seconds)}"'


def _read_number(value: object, least: float, most: float) -> float:
    if isinstance(value, str):
        raise UnfitError(_UNQUOTED if _is_number(value) else "")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UnfitError
    if not least <= value <= most:  # nan is neither
        raise UnfitError
    return float(value)


def _read_whole(value: object, least: int, most: int) -> int:
    if isinstance(value, str):
        raise UnfitError(_UNQUOTED if _is_number(value) else "")
    if isinstance(value, float):
        raise UnfitError("a whole number")
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UnfitError
    return value


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d[\d_]*(?:\.\d+)?", text.strip()) is not None


def _unpercent(value: object) -> object:
    """Read ``75%`` as 75; leave anything else as it is."""
    if not isinstance(value, str) or not _PERCENT.fullmatch(value.strip()):
        return value
    number = value.strip().removesuffix("%").strip()
    return float(number) if "." in number else int(number)


def _read_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or len(value) > _LONGEST_PATH:
        raise UnfitError
    if not value.isprintable():
        raise UnfitError("it holds what cannot be seen")
    return value


def _quote(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
