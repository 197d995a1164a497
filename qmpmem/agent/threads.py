"""The threads that rounds are read in: all of them started before the first round.

Theory of operation:
    A thread is a task of the kernel, and those are bounded: for a user (getrlimit(2):
    RLIMIT_NPROC), for a cgroup (pids.max; TasksMax of a unit), for the host. Python's executor
    starts one when it needs it, so a round would wait for a thread that never comes. With all of
    them started, a host on which nothing can be started any more has its rounds all the same.
"""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from qmpmem.errors import KernelError
from qmpmem.files import asynchronous

COUNT: Final = 8
"""A round reads in two at a time; guests that are looked for, costs that hang, and questions take
the others."""
_NONE: Final = "can't start new thread"
"""What Python says (CPython: Modules/_threadmodule.c)."""


def start(count: int = COUNT) -> ThreadPoolExecutor:
    """Start threads for rounds, and those that read and write single files.

    Raises:
        KernelError: the kernel has none for us.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix="rounds")
    try:
        _fill(pool, count)
        _fill(asynchronous.THREADS, asynchronous.AT_ONCE)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return pool


def _fill(pool: ThreadPoolExecutor, count: int) -> None:
    gate = threading.Event()
    try:
        with explained():
            for _ in range(count):
                pool.submit(gate.wait)  # none is idle, so each starts one
    finally:
        gate.set()


@contextmanager
def explained() -> Generator[None]:
    """Say why a thread cannot be started.

    Raises:
        KernelError: one cannot.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) != _NONE:
            raise
        raise KernelError(
            "no thread can be started: a limit on tasks is reached",
            hint="raise `ulimit -u` of this user, or pids.max of its cgroup (TasksMax of the unit)",
        ) from error
