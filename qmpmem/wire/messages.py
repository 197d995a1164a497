"""What passes over the wire: requests that QEMU can read, and its greeting.

Rules of this file:
    Pure. What is sent is checked as strictly as what comes: QEMU answers a request that it cannot
    parse with an error that has no id, and that ends the session.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from qmpmem.errors import GuestUnreachable
from qmpmem.records import Record
from qmpmem.wire.errors import Reason, one_line
from qmpmem.wire.limits import REQUEST, MalformedError, TurnedAwayError

Arguments = Mapping[str, int | bool | str]
_SCALARS: Final[tuple[type, ...]] = (int, bool, str)


class Number(Record, frozen=True):
    """QEMU's version."""

    major: int
    minor: int
    micro: int


class _Version(Record, frozen=True):
    qemu: Number


class _Qmp(Record, frozen=True):
    version: _Version
    capabilities: list[object]


class _Greeting(Record, frozen=True):
    """What QEMU sends first (docs/interop/qmp-spec, "Server Greeting")."""

    greeting: _Qmp = msgspec.field(name="QMP")


_TURNED_AWAY: Final = "GuestUnreachable"
"""The error class of a broker's refusal, which is none of QEMU's (qapi/error.json)."""


class _Told(Record, frozen=True):
    kind: str = msgspec.field(name="class")
    text: str = msgspec.field(name="desc")
    reason: Reason


class _Refusal(Record, frozen=True):
    error: _Told


def read_greeting(message: Mapping[str, object]) -> tuple[Number, bool]:
    """Read a greeting: the version, and whether commands may run out of band.

    Raises:
        MalformedError: it is no greeting.
    """
    try:
        greeting = msgspec.convert(message, _Greeting).greeting
    except msgspec.ValidationError as error:
        raise MalformedError(f"a greeting that is not QEMU's: {error}") from error
    return greeting.version.qemu, "oob" in greeting.capabilities


def write_refusal(error: GuestUnreachable, guest: str) -> bytes:
    """Return what a broker sends instead of a greeting.

    Args:
        error: why there is no session with the guest.
        guest: its id.
    """
    text = error.message.removeprefix(f"guest {guest}: ")
    told = {"class": _TURNED_AWAY, "desc": text, "reason": error.reason}
    return msgspec.json.encode({"error": told}) + b"\r\n"


def expect_no_refusal(message: Mapping[str, object]) -> None:
    """Check that an error that came instead of a greeting is QEMU's.

    Raises:
        TurnedAwayError: a broker sent it.
    """
    try:
        told = msgspec.convert(message, _Refusal).error
    except msgspec.ValidationError:
        return
    if told.kind == _TURNED_AWAY:
        raise TurnedAwayError(one_line(told.text), told.reason)


def check_request(command: str, arguments: Arguments | None) -> None:
    """Refuse a request that QEMU could not read, or that is longer than any has to be.

    Arguments may come from QEMU itself (a device path), so our own care alone is not enough.

    Raises:
        MalformedError: it is too long, not Unicode text, or no scalar (a NaN ends the session).
    """
    size = len(command)
    for name, value in (arguments or {}).items():
        if type(value) not in _SCALARS:
            raise MalformedError(f"{command}: {name} is neither int nor bool nor str")
        text = str(value)
        size += len(name) + len(text)
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise MalformedError(f"{command}: {name} is not a text that QEMU can read")
    if size > REQUEST:
        raise MalformedError(f"{command}: a request of over {REQUEST} bytes")
