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
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import aiofiles
import aiofiles.os

T = TypeVar("T")

Opener = Callable[[str, int], int]

AT_ONCE: Final = 4
"""Files. With so many hanging, the next waits until its caller's deadline."""

_THREADS: Final = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="files")


def open_regular(path: str, flags: int) -> int:
    """Open a file that is one: not a link, not a FIFO, whose opening would wait for its other end.

    Raises:
        OSError: as open(2), or it is not a regular file.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file", path)
    return descriptor


async def read(path: Path, limit: int, opener: Opener = open_regular) -> bytes:
    """Read a file; of a larger one, `limit` bytes and no more.

    Args:
        path: the file.
        limit: bytes.
        opener: opens it, in a thread.

    Raises:
        OSError: as its opener.
    """
    async with aiofiles.open(path, "rb", opener=opener, executor=_THREADS) as file:
        return await file.read(limit)


async def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old one or the new one, whole.

    What is in the way of the file that is written beside it, be it a link or a FIFO, is removed.

    Raises:
        OSError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")

    def make(name: str, flags: int) -> int:
        with suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108 - an opener gets text
        return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)

    try:
        async with aiofiles.open(beside, "wb", opener=make, executor=_THREADS) as file:
            await file.write(content)
        await aiofiles.os.replace(beside, path, executor=_THREADS)
    except OSError:
        with suppress(OSError):
            await aiofiles.os.unlink(beside, executor=_THREADS)
        raise


async def call(work: Callable[[], T]) -> T:
    """Have a thread of these do something short that is no reading or writing of one file."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)
