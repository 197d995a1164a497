"""The tiny guest's kernel out of its compressed image, and its modules without signatures."""

import ctypes
import gzip
import lzma
import struct
from collections.abc import Callable

import pytest

from launchers.guest import kernel, modules

NOTE = b"\4\0\0\0\x08\0\0\0\x12\0\0\0Xen\0"
ELF = b"\x7fELF" + bytes(range(256)) * 99 + NOTE


def image(payload: bytes) -> bytes:
    """Lay out a bzImage: the setup sectors, then the payload, then what follows it."""
    header = bytearray(3 * kernel.SECTOR)
    header[kernel.SETUP_SECTORS] = 1
    header[kernel.MAGIC : kernel.MAGIC + 4] = b"HdrS"
    struct.pack_into("<II", header, kernel.PAYLOAD, kernel.SECTOR, len(payload))
    return bytes(header) + payload + b"more"


def size(content: bytes) -> bytes:
    return struct.pack("<I", len(content))


def lz4(content: bytes) -> bytes:
    compress = ctypes.CDLL("liblz4.so.1").LZ4_compress_default
    packed = b"\x02!L\x18"
    for at in range(0, len(content), kernel.LZ4_BLOCK):
        block = content[at : at + kernel.LZ4_BLOCK]
        room = ctypes.create_string_buffer(2 * len(block) + 64)
        length = compress(block, room, len(block), len(room))
        packed += struct.pack("<I", length) + room.raw[:length]
    return packed + size(content)


def zstd(content: bytes) -> bytes:
    compress = ctypes.CDLL("libzstd.so.1").ZSTD_compress
    compress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(2 * len(content) + 64)
    sizes = (ctypes.c_size_t(len(room)), ctypes.c_size_t(len(content)))
    length = compress(room, sizes[0], content, sizes[1], 1)
    return room.raw[:length] + size(content)


def xz(content: bytes) -> bytes:
    return lzma.compress(content) + size(content)


def gz(content: bytes) -> bytes:
    """Compress without the time, which would be another in each process that collects the tests."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize("pack", [gz, xz, lz4, zstd])
def test_a_kernel_comes_out_as_it_was_however_it_is_compressed(
    pack: Callable[[bytes], bytes],
) -> None:
    assert kernel.uncompressed(image(pack(ELF))) == ELF


def test_a_kernel_of_several_blocks_comes_out_whole() -> None:
    large = ELF + bytes(2 * kernel.LZ4_BLOCK)
    assert kernel.uncompressed(image(lz4(large))) == large


@pytest.mark.parametrize("pack", [gz, xz, lz4, zstd])
@pytest.mark.parametrize(
    "content", [ELF.removesuffix(NOTE), NOTE], ids=["without a PVH entry", "no ELF file"]
)
def test_what_qemu_does_not_boot_stays_in_its_image(
    content: bytes, pack: Callable[[bytes], bytes]
) -> None:
    assert kernel.uncompressed(image(pack(content))) is None


@pytest.mark.parametrize(
    "found",
    [
        b"",
        ELF,
        image(b""),
        image(b"\x02!L\x18"),
        image(b"(\xb5/\xfd"),
        image(b"BZh91AY"),
        image(lz4(ELF)[:-4] + b"\xff\xff\xff\xff"),
        image(zstd(ELF)[:-4] + b"\xff\xff\xff\xff"),
        *(image(pack(ELF)[:200]) for pack in (gz, xz, lz4, zstd)),
        *(image(pack(ELF)[:200] + pack(ELF)[240:]) for pack in (gz, xz, lz4, zstd)),
    ],
)
def test_an_image_that_is_not_understood_boots_as_it_is(found: bytes) -> None:
    assert kernel.uncompressed(found) is None


def test_a_module_loses_its_signature_and_nothing_else() -> None:
    module = b"\x7fELF the module"
    signature = b"s" * 300
    header = bytes(8) + struct.pack(">I", len(signature))
    signed = module + signature + header + modules.SIGNATURE
    assert modules.unsigned(signed) == module
    assert modules.unsigned(module) == module
