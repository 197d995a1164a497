"""What passes over the wire: requests that QEMU can read, and what its greeting says.

Rules of this file:
    Pure. What is sent is checked as strictly as what comes: QEMU answers a request that it cannot
    parse with an error without an id, which ends the session.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from qmpmem.records import Record
from qmpmem.wire.limits import REQUEST, MalformedError

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
    """What QEMU says first (docs/interop/qmp-spec, "Server Greeting")."""

    greeting: _Qmp = msgspec.field(name="QMP")


def read_greeting(message: Mapping[str, object]) -> tuple[Number, bool]:
    """Read a greeting: the version, and whether commands may run out of band.

    Raises:
        MalformedError: not a greeting.
    """
    try:
        greeting = msgspec.convert(message, _Greeting).greeting
    except msgspec.ValidationError as error:
        raise MalformedError(f"a greeting that is not QEMU's: {error}") from error
    return greeting.version.qemu, "oob" in greeting.capabilities


def check_request(command: str, arguments: Arguments | None) -> None:
    """Refuse a request that QEMU could not read, or that is longer than any has to be.

    Arguments may come from QEMU itself (a device path), so this is no matter of our own care.

    Raises:
        MalformedError: too long, not Unicode text, or no scalar (a NaN would end the session).
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
