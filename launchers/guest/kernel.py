"""Takes the kernel out of its compressed image, so that no guest has to decompress it.

Theory of operation:
    A bzImage holds the kernel as a compressed ELF file behind a header that says where (Linux:
    Documentation/arch/x86/boot.rst, payload_offset). QEMU boots the ELF file by its PVH entry
    point, which a note in it names (Xen: public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY; QEMU:
    hw/i386/x86.c, load_elfboot). An emulated processor takes half a second and more of the host's
    to decompress it, at every boot.
    Kernels are compressed with lz4 or zstd, which Python has not; apt is linked with both
    libraries, so every Debian that can build the guest has them.
    What is not understood here boots as it is.
"""

import ctypes
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

SECTOR: Final = 512
SETUP_SECTORS: Final = 0x1F1
MAGIC: Final = 0x202
PAYLOAD: Final = 0x248
"""Offset and length, in bytes, from the first sector after the setup sectors."""

LZ4_BLOCK: Final = 8 << 20
"""Bytes that a block of the legacy frame becomes at most (lz4: doc/lz4_Frame_format.md)."""

ENTRY: Final = re.compile(rb"\x04\0\0\0[\x04\x08]\0\0\0\x12\0\0\0Xen\0")
"""The note's name size, its size, its type (18) and its name; what QEMU looks for."""


def uncompressed(image: bytes) -> bytes | None:
    """Return the kernel as an ELF file that QEMU boots, or None where the image holds none.

    Args:
        image: a bzImage, as in /boot/vmlinuz-*.
    """
    if image[MAGIC : MAGIC + 4] != b"HdrS":
        return None
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    start = (image[SETUP_SECTORS] + 1) * SECTOR + offset
    payload = image[start : start + length]
    unpack = next((each for magic, each in UNPACK.items() if payload.startswith(magic)), None)
    try:
        found = unpack(payload) if unpack else b""
    except (OSError, ValueError, lzma.LZMAError, zlib.error, struct.error):
        return None
    return found if found.startswith(b"\x7fELF") and ENTRY.search(found) else None


def _ungzip(payload: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(payload)


def _unxz(payload: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(payload)


def _size(payload: bytes) -> int:
    """Read what mkpiggy reads (Linux: scripts/Makefile.lib, size_append)."""
    size: int = struct.unpack_from("<I", payload, len(payload) - 4)[0]
    if size > 1 << 30:
        raise ValueError(f"no kernel has {size} bytes")
    return size


def _unlz4(payload: bytes) -> bytes:
    decompress = ctypes.CDLL("liblz4.so.1").LZ4_decompress_safe
    left, at, parts = _size(payload), 4, list[bytes]()
    while left > 0:
        (size,) = struct.unpack_from("<I", payload, at)
        block = payload[at + 4 : at + 4 + size]
        room = ctypes.create_string_buffer(min(left, LZ4_BLOCK))
        if decompress(block, room, len(block), len(room)) != len(room):
            raise ValueError("damaged")
        parts.append(room.raw)
        left, at = left - len(room), at + 4 + size
    return b"".join(parts)


def _unzstd(payload: bytes) -> bytes:
    decompress = ctypes.CDLL("libzstd.so.1").ZSTD_decompress
    decompress.restype = ctypes.c_size_t
    frame, room = payload[:-4], ctypes.create_string_buffer(_size(payload))
    sizes = (ctypes.c_size_t(len(room)), ctypes.c_size_t(len(frame)))
    if decompress(room, sizes[0], frame, sizes[1]) != len(room):
        raise ValueError("damaged")
    return room.raw


UNPACK: Final[Mapping[bytes, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": _ungzip,
    b"\xfd7zXZ\0": _unxz,
    b"\x02!L\x18": _unlz4,
    b"(\xb5/\xfd": _unzstd,
}
"""How a kernel is compressed, by its first bytes (Linux: lib/decompress.c)."""
