"""How a row of the journal is compressed: by itself, or by what another row looked like.

Rules of this file:
    Pure. What is read may be damaged, and may claim any size.
"""

import zlib
from typing import Final

DICTIONARY: Final = 32 * 1024
"""Bytes: as far as zlib looks back."""
LARGEST: Final = 64 << 20
"""Bytes of a row; a damaged one may claim anything."""


def pack(text: bytes, dictionary: bytes = b"") -> bytes:
    """Compress a row.

    Args:
        text: the row.
        dictionary: what it is like; none: it is compressed by itself.
    """
    packing = zlib.compressobj(zdict=dictionary) if dictionary else zlib.compressobj()
    return packing.compress(text) + packing.flush()


def unpack(content: bytes, dictionary: bytes = b"") -> bytes:
    """Return the row that `pack` compressed with the same dictionary.

    Raises:
        ValueError: it is damaged, cut off, or larger than `LARGEST`.
    """
    unpacking = zlib.decompressobj(zdict=dictionary) if dictionary else zlib.decompressobj()
    try:
        text = unpacking.decompress(content, LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacking.eof:
        raise ValueError("it is cut off")
    return text
