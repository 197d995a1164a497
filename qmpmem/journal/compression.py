"""How a row of the journal is compressed: by itself, or with another row as its dictionary.

Rules of this file:
    Pure. What is read may be damaged, and may claim any size.
"""

import zlib
from typing import Final

DICTIONARY: Final = 32 * 1024
"""Most bytes of a dictionary: zlib looks back no further."""
LARGEST: Final = 4 << 20
"""Most bytes of a row: a damaged one may claim any size. A round of 1000 guests of which all is
known, with long names and reasons, has 2.6 MB; a minute or an hour of them has 0.16 MB."""


def pack(text: bytes, dictionary: bytes = b"") -> bytes:
    """Compress a row.

    Args:
        text: the row.
        dictionary: a text that it resembles; empty: it is compressed by itself.
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
