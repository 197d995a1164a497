"""A guest's record as bytes, its id, and whether its process lives.

Rules of this file:
    The format is `qmpmem.guests.rundir.GuestRecord`, without importing it: that would take 60 ms.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
LIMIT = 64 * 1024
BEYOND_16_BITS = 0x10000
ID_LIMIT = 48
NAME_LIMIT = 1024
"""Characters of a name that are kept: for people to read, while the id tells guests apart."""


class Claimed:
    """What decides whether the guest of a directory lives."""

    __slots__ = ("origin", "pid", "socket", "start_time", "uid")

    def __init__(self, text: str) -> None:
        self.pid = int(_field(text, "pid"))
        self.start_time = int(_field(text, "start_time"))
        self.socket = _field(text, "socket")
        self.origin = _field(text, "origin")
        self.uid = int(_field(text, "uid"))


def readable(text: str) -> str:
    r"""Show what is not UTF-8 as \xff, and cut what is too long to be a name."""
    return os.fsencode(text).decode(errors="backslashreplace")[:NAME_LIMIT]


def safe_id(name: str) -> str:
    """Make a directory name of any guest name, as `qmpmem.model.names.safe_id` does."""
    plain = name.replace(".", "").replace("_", "").replace("-", "")
    if name.isascii() and plain.isalnum() and name[0].isalnum() and len(name) <= ID_LIMIT:
        return name
    from launchers.kvm_words import make_word

    return make_word(name) or hashed(name)


def hashed(name: str) -> str:
    """Make a short directory name of which nothing can be read."""
    from _blake2 import blake2b  # what hashlib brings, without its 4 ms

    return "g-" + blake2b(name.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def start_time(pid: "int | str") -> "int | None":
    """Return when a process started, in clock ticks (proc(5): stat, field 22); None: it is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Tell whether this very process lives."""
    return start_time(pid) == started


def read_record(name: str, directory: int) -> "Claimed | None":
    """Read another guest's record; None: there is none that this user or root has written.

    Args:
        name: of the file.
        directory: the descriptor of the directory that it is in.

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be understood.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(descriptor).st_uid not in (0, os.geteuid()):
            return None
        text = os.read(descriptor, LIMIT).decode()
    finally:
        os.close(descriptor)
    return Claimed(text)


def encode_record(record: "Mapping[str, object]") -> str:
    """Write a record as JSON. Its values are text, numbers, booleans and None."""
    return "{" + ",".join(f"{_text(key)}:{_value(value)}" for key, value in record.items()) + "}"


def _field(text: str, key: str) -> str:
    """Take a field out of a record as we and msgspec write it, without spaces.

    json would take 10 ms to load. What looks like a key cannot be inside a text, where quotes are
    escaped.

    Raises:
        ValueError: there is no such field, or it has an escape.
    """
    _, found, rest = text.partition(f'"{key}":')
    quoted = rest.startswith('"')
    value = rest[1:].partition('"')[0] if quoted else rest.partition(",")[0].rstrip("}")
    if not found or "\\" in value:
        raise ValueError(key)
    return value


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    """Write a JSON string in ASCII (RFC 8259, 7)."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if " " <= character <= "~" and character not in '"\\':
        return character
    code = ord(character)
    if code < BEYOND_16_BITS:
        return f"\\u{code:04x}"
    high, low = divmod(code - BEYOND_16_BITS, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
