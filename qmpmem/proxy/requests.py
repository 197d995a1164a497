"""Judge one message of a client: what QEMU gets of it, or what it is answered here.

Rules of this file:
    Pure. What is forwarded was written by our own encoder: QEMU answers a text that it cannot parse
    without an id, and no client could tell that the answer is its own.
    The words of an error are QEMU's own where it has some (monitor/qmp.c, qapi/qmp-dispatch.c).
"""

import re
from collections.abc import Mapping
from typing import Final, cast

import msgspec

from qmpmem.proxy.allowed_commands import Arguments, Permit, longest_id
from qmpmem.records import Record
from qmpmem.wire import limits
from qmpmem.wire.limits import MalformedError

CAPABILITIES: Final = "qmp_capabilities"

DESCRIPTORS: Final = frozenset({"add-fd", "getfd"})
"""Commands that take a file descriptor from the client's own socket, and keep it with the monitor,
which is shared."""

_MEMBERS: Final = frozenset({"execute", "arguments", "id"})
_NO_CHARACTERS: Final = re.compile(
    "["
    "\ufdd0-\ufdef"
    + "".join(chr((plane << 16) + 0xFFFE) + chr((plane << 16) + 0xFFFF) for plane in range(17))
    + "]"
)
"""Code points that Unicode keeps free of characters, which QEMU's parser refuses
(util/unicode.c: mod_utf8_codepoint)."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Command(Record, frozen=True):
    """A command to be forwarded."""

    name: str
    text: bytes
    """What QEMU is to get, but for the id and the brace after it. Not what was parsed: a message of
    256 KiB may be 3 MiB of objects, and waits for its turn."""
    identity: bytes | None
    """The client's id, as the client wrote it; None: it gave none."""

    @property
    def size(self) -> int:
        """Count its bytes."""
        return len(self.text) + len(self.identity or b"")


class Answer(Record, frozen=True):
    """What a client is answered without asking QEMU."""

    line: bytes
    negotiates: bool = False
    """Whether the client's negotiation ends with this request."""


class _Refusal(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, text: str, kind: str = "GenericError") -> None:
        super().__init__(text)
        self.text = text
        self.kind = kind


def judge(message: bytes, *, negotiated: bool, permit: Permit) -> Command | Answer:
    """Judge one message.

    Args:
        message: as the client sent it.
        negotiated: whether the client has negotiated.
        permit: what its session may have QEMU do.
    """
    try:
        fields = limits.parse_line(message)
    except MalformedError as error:
        return refusal(f"QMP input: {error}")
    identity = _identity(message)
    most = longest_id(permit)
    if identity is not None and len(identity) > most:
        return refusal(f"QMP input: an id of over {most} bytes")
    try:
        name, arguments = _read(fields)
        if name == CAPABILITIES or not negotiated:
            _negotiate(name, arguments, negotiated=negotiated)
            return Answer(line=success(b"{}", identity), negotiates=True)
        _check(name, arguments, permit)
        return Command(name=name, text=_written(name, arguments), identity=identity)
    except _Refusal as error:
        return refusal(error.text, identity, kind=error.kind)


def encode(command: Command, identity: int) -> bytes:
    """Write a command for QEMU, with an id of our own."""
    return b'%s,"id":%d}\n' % (command.text, identity)


def success(value: bytes, identity: bytes | None) -> bytes:
    """Write an answer, with the client's own id."""
    return _line(b"return", value, identity)


def failure(value: bytes, identity: bytes | None) -> bytes:
    """Write an answer that is an error, with the client's own id."""
    return _line(b"error", value, identity)


def refusal(text: str, identity: bytes | None = None, *, kind: str = "GenericError") -> Answer:
    """Make an error of our own."""
    value = msgspec.json.encode({"class": kind, "desc": text})
    return Answer(line=failure(value, identity))


def _line(key: bytes, value: bytes, identity: bytes | None) -> bytes:
    end = b"" if identity is None else b', "id": ' + identity
    return b'{"' + key + b'": ' + value + end + b"}\r\n"


def _identity(message: bytes) -> bytes | None:
    found = _FIELDS.decode(message).get("id")
    # The client may have written it over several lines; ours has one.
    return None if found is None else bytes(found).replace(b"\n", b" ").replace(b"\r", b" ")


def _read(fields: Mapping[str, object]) -> tuple[str, Arguments]:
    if "exec-oob" in fields:
        raise _Refusal("out-of-band execution is not offered in this session: use 'execute'")
    for member in fields:
        if member not in _MEMBERS:
            raise _Refusal(f"QMP input member '{member}' is unexpected")
    if "execute" not in fields:
        raise _Refusal("QMP input lacks member 'execute'")
    name, arguments = fields["execute"], fields.get("arguments")
    if not isinstance(name, str):
        raise _Refusal("QMP input member 'execute' must be a string")
    if "arguments" in fields and not isinstance(arguments, dict):
        raise _Refusal("QMP input member 'arguments' must be an object")
    return name, cast("Arguments", arguments)


def _negotiate(name: str, arguments: Arguments, *, negotiated: bool) -> None:
    if negotiated:
        text = "Capabilities negotiation is already complete, command ignored"
        raise _Refusal(text, "CommandNotFound")
    if name != CAPABILITIES:
        text = f"Expecting capabilities negotiation with '{CAPABILITIES}'"
        raise _Refusal(text, "CommandNotFound")
    for member, value in (arguments or {}).items():
        if member != "enable" or not isinstance(value, list):
            raise _Refusal(f"Parameter '{member}' is unexpected")
        if value:
            raise _Refusal("Capability not available: this session offers none")


def _check(name: str, arguments: Arguments, permit: Permit) -> None:
    refused = permit(name, arguments)
    if refused is not None:
        raise _Refusal(refused)
    if name in DESCRIPTORS:
        raise _Refusal(f"{name}: file descriptors cannot be passed in a session that is shared")


def _written(name: str, arguments: Arguments) -> bytes:
    """Write a command for QEMU, as far as the id."""
    message: dict[str, object] = {"execute": name}
    if arguments is not None:
        message["arguments"] = arguments
    try:
        content = msgspec.json.encode(message)
        text = content.decode()
    except (OverflowError, UnicodeEncodeError) as error:
        raise _Refusal(f"QMP input: {error}") from error
    if _NO_CHARACTERS.search(text):
        raise _Refusal("QMP input: a code point that is no character")
    return content[:-1]
