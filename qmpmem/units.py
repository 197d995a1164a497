"""Bytes and seconds, and the sizes and times that people write.

Rules of this file:
    No other unit exists inside the package. KiB, MiB and pages are turned into
    bytes once, where they enter, and into text once, where they leave.

Theory of operation:
    A bare number is never accepted as a size. virsh reads it as KiB, QEMU's -m as
    MiB and QMP as bytes: whichever of these we chose, users of another would be wrong by a
    factor of 1024. "MB" is refused too: libvirt reads 10^6, and most people mean 2^20.

    A time is one or more numbers with units, the largest first: ``1h30m``. Both ``m`` and
    ``min`` are minutes, as in systemd.time(7). A bare number of seconds is a time where the
    caller allows it: no program that we know reads one as anything else.
"""

import re
from decimal import Decimal
from typing import Final, NewType

from qmpmem.errors import ConfigError
from qmpmem.records import Record

Bytes = NewType("Bytes", int)

KIB: Final = Bytes(1 << 10)
MIB: Final = Bytes(1 << 20)
GIB: Final = Bytes(1 << 30)
TIB: Final = Bytes(1 << 40)

PAGE: Final = Bytes(4096)
"""The unit in which the balloon counts, on every architecture (virtio 1.2, 5.5:
VIRTIO_BALLOON_PFN_SHIFT)."""

_UNITS: Final = {"K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE: Final = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,9})?)\s*(?P<unit>[A-Za-z]*|%)")
_LARGEST: Final = 1 << 62
_EXAMPLES: Final = "write a size such as 512M, 1.5GiB or 262144K"
_CHANGES: Final = f"{_EXAMPLES}, a share such as 50%, max, or a change such as +128M"

_PARTS: Final = (
    ("d", "d", Decimal(86400)),
    ("h", "h", Decimal(3600)),
    ("m", "min|m(?!s)", Decimal(60)),
    ("s", "s", Decimal(1)),
    ("ms", "ms", Decimal("0.001")),
)
"""The units of a time, the largest first: each with its name, how it is written, and its
seconds."""

_NUMBER: Final = r"\d+(?:\.\d+)?"
_TIME: Final = "".join(rf"(?:(?P<{name}>{_NUMBER})\s*(?:{unit})\s*)?" for name, unit, _ in _PARTS)
_SECONDS: Final = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_LONGEST_TEXT: Final = 400
"""Most characters of a time: the smallest float, written without an exponent, has fewer."""
_LONGEST: Final = Decimal(10 * 366 * 86400)
"""Most seconds of a time. Timers count in floats, and some kernels in 31 bits of seconds."""
TIMES: Final = "write 500ms, 90s, 5min, 1h30m or 2d"


class Absolute(Record, frozen=True):
    """An absolute size, as in ``512M``."""

    size: Bytes


class Share(Record, frozen=True):
    """A part of the guest's maximum, as in ``50%``."""

    percent: Decimal

    def __str__(self) -> str:
        return f"{self.percent}%"


class Delta(Record, frozen=True):
    """A change to the guest's present size, as in ``+128M``. ``size`` may be negative."""

    size: Bytes


Change = Absolute | Share | Delta


def parse_size(text: str) -> Bytes:
    """Read ``512M``, ``1.5GiB``, ``262144K`` as bytes.

    Raises:
        ConfigError: it is not a size, has no unit or an ambiguous one, or is too large to count.
    """
    number, unit = _split(text, _EXAMPLES)
    if unit == "%":
        raise ConfigError(f"size {text!r}: a share has no meaning here", hint=_EXAMPLES)
    return _to_bytes(text, number, unit)


def parse_change(text: str) -> Change:
    """Read what `set` takes: a size, a share of the maximum, ``max``, or a signed change.

    Raises:
        ConfigError: as parse_size, or a share is over 100 %.
    """
    stripped = text.strip()
    if stripped.lower() == "max":
        return Share(percent=Decimal(100))
    sign = stripped[:1] if stripped[:1] in ("+", "-") else ""
    number, unit = _split(stripped[len(sign) :], _CHANGES, shown=text)
    if unit == "%":
        if sign or number > 100:  # noqa: PLR2004 - a whole is 100 %
            raise ConfigError(f"size {text!r}: expected 0% to 100% of the maximum", hint=_CHANGES)
        return Share(percent=number)
    size = _to_bytes(text, number, unit)
    if sign:
        return Delta(size=Bytes(-size) if sign == "-" else size)
    return Absolute(size=size)


def write_change(change: Change) -> str:
    """Return a change as text that `parse_change` reads.

    Sizes are written in whole KiB, rounded down: of a guest whose size is in whole pages, `resolve`
    makes the same target of the text as of the change.
    """
    match change:
        case Absolute(size=size):
            return exact_size(size)
        case Share(percent=percent):
            return f"{percent:f}%"
        case Delta(size=size):
            kibs = size // KIB
            return f"{'-' if kibs < 0 else '+'}{exact_size(Bytes(abs(kibs) * KIB))}"


def resolve(change: Change, *, actual: Bytes, maximum: Bytes) -> Bytes:
    """Return the target that a change means for a guest of this size, in whole balloon pages.

    The result is not clamped: the caller refuses what is out of range, and tells the user so.
    """
    match change:
        case Absolute(size=size):
            target = int(size)
        case Share(percent=percent):
            target = int(maximum * percent / 100)
        case Delta(size=size):
            target = actual + size
    return Bytes(target - target % PAGE)


def format_size(size: Bytes) -> str:
    """Return bytes as text for people, in the largest unit that keeps the number at 1 or above."""
    if size < 0:
        return "-" + format_size(Bytes(-size))
    for name, unit in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{size} B"


def exact_size(size: Bytes) -> str:
    """Return whole KiB as text that `parse_size` reads as the same: ``512M``, ``3G``, ``100K``."""
    for letter, unit in (("T", TIB), ("G", GIB), ("M", MIB)):
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return f"{size // KIB}K"


def parse_duration(text: str, *, bare: bool = False) -> float:
    """Read ``500ms``, ``90s``, ``5m``, ``5min``, ``1h30m`` or ``2d`` as seconds.

    Args:
        text: what was written.
        bare: whether a number without a unit is a number of seconds.

    Raises:
        ConfigError: it is anything else.
    """
    word = text.strip()
    examples = f"{TIMES}, or a number of seconds" if bare else TIMES
    if not word or len(word) > _LONGEST_TEXT:
        raise ConfigError(f"time {text[:40]!r}: {examples}")
    if match := re.fullmatch(_TIME, word, re.ASCII):
        given = ((match[name], unit) for name, _, unit in _PARTS)
        total = sum((Decimal(number) * unit for number, unit in given if number), Decimal(0))
    elif bare and re.fullmatch(_SECONDS, word, re.ASCII):
        total = Decimal(word)
    else:
        raise ConfigError(f"time {text!r}: {examples}")
    if total > _LONGEST:
        raise ConfigError(f"time {text!r}: longer than ten years")
    return float(total)


def format_duration(seconds: float) -> str:
    """Return seconds as a text that `parse_duration` reads as exactly the same number.

    Args:
        seconds: from 0 to ten years.
    """
    for name, unit in (("h", 3600), ("min", 60)):
        if seconds and seconds % unit == 0:
            return f"{seconds // unit:.0f}{name}"
    return format(Decimal(repr(float(seconds))), "f").removesuffix(".0") + "s"


def _split(text: str, hint: str, *, shown: str | None = None) -> tuple[Decimal, str]:
    match = _SIZE.fullmatch(text.strip())
    if match is None or not text.isascii():
        raise ConfigError(f"size {shown or text!r}: not a size", hint=hint)
    return Decimal(match["number"]), match["unit"]


def _to_bytes(text: str, number: Decimal, unit: str) -> Bytes:
    letter = unit.upper().removesuffix("IB")
    if not unit:
        raise ConfigError(
            f"size {text!r}: a unit is missing",
            hint=f"{_EXAMPLES}; a bare number is KiB to virsh, MiB to qemu -m and bytes to QMP",
        )
    if letter not in _UNITS:
        raise ConfigError(f"size {text!r}: unit {unit!r} is not one of K, M, G, T", hint=_EXAMPLES)
    size = int(number * _UNITS[letter])
    if size > _LARGEST:
        raise ConfigError(f"size {text!r}: larger than any machine", hint=_EXAMPLES)
    return Bytes(size)
