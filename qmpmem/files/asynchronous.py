"""One file, read or written from inside an event loop, by aiofiles.

Rules of this file:
    For one file at a time. Many, as of /proc, are read in one sweep in one thread: each call here
    takes a thread some 400 us, a plain open takes 24.
    A caller that must go on sets itself a deadline: a file system that hangs holds its thread, not
    the loop, for as long as it hangs.

Theory of operation:
    The threads are our own. The loop's default ones read the host in each round, and asyncio.run
    waits for those at its end (asyncio.Runner.close), so neither may be held by a file.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import aiofiles

from qmpmem.files import state_files

T = TypeVar("T")

Opener = Callable[[str, int], int]

AT_ONCE: Final = 4
"""Files that can be read or written at the same time. Where so many hang, the next one waits until
its caller's deadline."""

THREADS: Final = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="files")


async def read(path: Path, limit: int, opener: Opener) -> bytes:
    """Read a file; of a larger one, `limit` bytes and no more.

    Args:
        path: the file.
        limit: bytes.
        opener: opens it, in a thread.

    Raises:
        OSError: as its opener.
    """
    async with aiofiles.open(path, "rb", opener=opener, executor=THREADS) as file:
        return await file.read(limit)


async def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a state file, as `state_files.write` does.

    Raises:
        OSError: it cannot be written.
    """
    await call(partial(state_files.write, path, content, mode))


async def call(work: Callable[[], T]) -> T:
    """Run something short that is no reading or writing of one file in one of these threads."""
    return await asyncio.get_running_loop().run_in_executor(THREADS, work)
