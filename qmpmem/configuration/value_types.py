"""The kinds of values: how each is read from a file, and written into one. Pure.

Rules of this file:
    What `read` gives, `write` turns into text that reads as the same again.
    A value is never bent into shape: 1 is not true, "1" is not a number, and a number is not a
    size.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from difflib import get_close_matches
from functools import partial
from typing import Final, TypeVar

from qmpmem.configuration.errors import shown
from qmpmem.errors import ConfigError
from qmpmem.model.names import SAFE_ID, unmatchable
from qmpmem.records import Record, replace
from qmpmem.units import (
    PAGE,
    Bytes,
    Share,
    exact_size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

T = TypeVar("T")

DEFAULT: Final = "default"
"""What a later file writes to undo what an earlier one says: TOML has no null."""

_UNQUOTED: Final = "without quotes"
_PERCENT: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,6})?\s*%")
_NUMBER: Final = re.compile(r"[+-]?\d[\d_]*(?:\.\d+)?")
_WORD: Final = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9._-]{1,64}")
"""As the launcher takes them (launchers/kvm_settings.py)."""
_LONGEST_PATH: Final = 4095
"""PATH_MAX without the last zero (linux/limits.h)."""


class UnfitError(ValueError):
    """A value is not of its kind. Says why, where that is not plain to see."""


class Kind(Record, frozen=True):
    """What values a key takes."""

    expected: str
    read: Callable[[object], object]
    """Raises UnfitError."""
    write: Callable[[object], str]

    def refuse(self, value: object, error: UnfitError) -> str:
        """Return what was expected in place of a value, and why the value is not that."""
        why = f" ({error})" if str(error) else ""
        return f"expected {self.expected}, got {shown(value)}{why}"


def size(least: Bytes) -> Kind:
    """Return the kind of sizes as on the command line, rounded down to what a balloon counts."""
    return Kind(
        expected=f"a size such as 512M, at least {format_size(least)}",
        read=lambda value: _read_size(value, least),
        write=lambda value: f'"{exact_size(Bytes(int(str(value))))}"',
    )


def size_or_percent(least: Bytes) -> Kind:
    """Sizes, or shares of the guest's maximum, in whole percent."""
    sizes = size(least)

    def read(value: object) -> object:
        number = _unpercent(value)
        if number is value:
            return sizes.read(value)
        return Share(percent=Decimal(_read_whole(number, 1, 100)))

    return Kind(
        expected=f"{sizes.expected}, or 1% to 100%",
        read=read,
        write=lambda value: sizes.write(value) if isinstance(value, int) else _quote(value),
    )


def size_or_path(least: Bytes) -> Kind:
    """Sizes, or absolute paths."""
    sizes = size(least)
    expected = f"{sizes.expected}, or an absolute path"
    paths = _text(expected, _path_problem)

    def kind_of(value: object) -> Kind:
        return paths if isinstance(value, str) and value.startswith("/") else sizes

    return Kind(
        expected=expected,
        read=lambda value: kind_of(value).read(value),
        write=lambda value: kind_of(value).write(value),
    )


def duration(least: float, most: float, unit: float = 1.0) -> Kind:
    """Times, in seconds or with a unit; given as so many of `unit` seconds."""

    def write(value: object) -> str:
        seconds = float(str(value))
        # To the microsecond where it was divided: 60.035, not 60.035000000000004.
        return f'"{format_duration(seconds if unit == 1 else round(seconds * unit, 6))}"'

    return Kind(
        expected=f"a time from {format_duration(least)} to {format_duration(most)}",
        read=lambda value: _read_number(_read_time(value), least, most) / unit,
        write=write,
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
        scale = 1 if number is value else 100
        return _read_number(number, 0, most * scale) / scale

    expected = f"a number from 0 to {most}, or 0% to {most * 100:g}%"
    return Kind(expected=expected, read=read, write=str)


def whole(least: int, most: int) -> Kind:
    """Return the kind of whole numbers."""
    return Kind(
        expected=f"a whole number from {least} to {most}",
        read=lambda value: _read_whole(value, least, most),
        write=str,
    )


def choice(options: Sequence[str]) -> Kind:
    """Return the kind that takes one of some words."""
    expected = "one of " + ", ".join(f'"{each}"' for each in options)
    return _text(expected, lambda text: None if text in options else did_you_mean(text, options))


def or_default(kind: Kind) -> Kind:
    """Return the kind that takes the values of another kind, or the word that stands for none."""
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


def _text(expected: str, problem: Callable[[str], str | None]) -> Kind:
    """Texts; `problem` says why one is unfit, "" where that is plain to see."""

    def read(value: object) -> object:
        why = problem(value) if isinstance(value, str) else ""
        if why is not None:
            raise UnfitError(why)
        return value

    return Kind(expected=expected, read=read, write=_quote)


def _parse(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ConfigError as error:
        raise UnfitError(error.message.rpartition(": ")[2]) from error


def _read_size(value: object, least: Bytes) -> Bytes:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise UnfitError(
            "a unit is missing: a bare number is KiB to virsh, MiB to qemu -m and bytes to QMP"
        )
    if not isinstance(value, str):
        raise UnfitError
    found = _parse(parse_size, value)
    if found < least:
        raise UnfitError
    return Bytes(found - found % PAGE)


def _read_time(value: object) -> object:
    return _parse(partial(parse_duration, bare=True), value) if isinstance(value, str) else value


def _read_number(value: object, least: float, most: float) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        raise UnfitError(_UNQUOTED)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UnfitError
    if not least <= value <= most:  # nan is neither
        raise UnfitError
    return float(value)


def _read_whole(value: object, least: int, most: int) -> int:
    if isinstance(value, float):
        raise UnfitError("a whole number")
    return int(_read_number(value, least, most))


def _unpercent(value: object) -> object:
    """Read ``75%`` as 75; return anything else itself."""
    if not isinstance(value, str) or not _PERCENT.fullmatch(value.strip()):
        return value
    number = value.strip().removesuffix("%").strip()
    return float(number) if "." in number else int(number)


def _path_problem(text: str) -> str | None:
    if not text.startswith("/") or len(text) > _LONGEST_PATH:
        return ""
    return None if text.isprintable() else "it holds what cannot be seen"


def _file_problem(text: str) -> str | None:
    problem = _path_problem(text)
    return "a directory" if problem is None and text.endswith("/") else problem


def _socket_problem(text: str) -> str | None:
    problem = _file_problem(text)
    return "no .." if problem is None and ".." in text.split("/") else problem


def _read_flag(value: object) -> object:
    if not isinstance(value, bool):
        is_quoted = isinstance(value, str) and value.lower() in ("true", "false")
        raise UnfitError(_UNQUOTED if is_quoted else "")
    return value


def _quote(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _read_pattern(value: object) -> object:
    if isinstance(value, list):
        raise UnfitError("one pattern for each [[guest]]")
    return _PATTERN.read(value)


FLAG: Final = Kind(
    expected="true or false", read=_read_flag, write=lambda value: str(value).lower()
)
WORD: Final = _text(
    "1 to 64 letters, digits, ._-", lambda text: None if _WORD.fullmatch(text) else ""
)
IDENTITY: Final = _text(
    "1 to 48 letters, digits, ._-, the first of them no sign",
    lambda text: None if SAFE_ID.fullmatch(text) else "",
)
"""Names of guests that are ids as well."""
PATH: Final = _text("the absolute path of a file", _file_problem)
SOCKETS: Final = _text(
    'the absolute path of a socket, or a pattern such as "/run/vms/*.qmp"', _socket_problem
)
_PATTERN: Final = _text('a pattern of ids or names such as "db*"', unmatchable)
PATTERN: Final = replace(_PATTERN, read=_read_pattern)
"""Patterns that some guest's id can match."""
