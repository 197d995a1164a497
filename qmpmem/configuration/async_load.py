"""Reading the configuration again inside an event loop; as `qmpmem.configuration.files` does."""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from qmpmem.configuration.files import (
    DROP_INS,
    LARGEST,
    MAIN,
    beginning,
    decode,
    drop_ins,
    main_file,
    name_of,
    open_checked,
    refused,
)
from qmpmem.configuration.merge import Source
from qmpmem.files import asynchronous


async def read_again(given: Path | None, environ: Mapping[str, str]) -> tuple[Source, ...]:
    """Read the main file and those of conf.d, in the order in which they count.

    Args:
        given: the path that --config names.
        environ: the environment, which may name another.
    """
    path = main_file(given, environ, MAIN)
    main = await read_file(path)
    first = await asynchronous.call(partial(beginning, main, path, given, environ))
    found = await asynchronous.call(partial(drop_ins, path.parent / DROP_INS))
    if isinstance(found, Source):
        return (*first, found)
    return (*first, *await asyncio.gather(*map(read_file, found)))


async def read_file(path: Path) -> Source:
    """Read one file."""
    try:
        content = await asynchronous.read(path, LARGEST + 1, open_checked)
    except (OSError, ValueError) as error:
        return refused(path, error)
    return decode(name_of(path), content)
