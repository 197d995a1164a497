"""Writes a cpio archive as the kernel reads it for an initramfs.

The format is "newc": 13 numbers of 8 hexadecimal digits behind a magic, then the name and the
content, each padded to 4 bytes (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).
Nothing of the building machine gets in: no owner, no time. Equal input gives equal bytes.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"070701"
TRAILER: Final = "TRAILER!!!"
LARGEST: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file, directory, link or device node; `mode` says which (see `stat`)."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(name: str, content: bytes, *, executable: bool = False) -> Entry:
    """Describe a regular file; the name is relative to the root."""
    return Entry(name=name, mode=stat.S_IFREG | (0o755 if executable else 0o644), content=content)


def directory(name: str) -> Entry:
    """Describe a directory."""
    return Entry(name=name, mode=stat.S_IFDIR | 0o755)


def symlink(name: str, target: str) -> Entry:
    """Describe a symbolic link."""
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, content=target.encode())


def character_device(name: str, major: int, minor: int) -> Entry:
    """Describe a character device node."""
    return Entry(name=name, mode=stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Write the entries in their order; a directory must come before what is in it.

    Raises:
        ValueError: a name that the kernel would misread, or a file of 4 GiB.
    """
    parts = [_member(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join(parts) + _member(0, Entry(name=TRAILER, mode=0))


def _member(number: int, entry: Entry) -> bytes:
    name = entry.name.encode()
    if not name or name.startswith(b"/") or b"\0" in name:
        raise ValueError(f"{entry.name!r}: expected a relative name")
    if len(entry.content) > LARGEST:
        raise ValueError(f"{entry.name}: too large for a cpio archive")
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        *(number, entry.mode, 0, 0, links, 0, len(entry.content)),
        *(0, 0, *entry.device, len(name) + 1, 0),
    )
    header = MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name + b"\0") + _padded(entry.content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
